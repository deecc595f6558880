"""shortrun train and what it says to bad input: one line, exit code 2, nothing left behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shortrun.cli import main
from shortrun.config import recipe_names
from shortrun.registry import LEARNERS

DATA = Path(os.environ.get("SHORTRUN_DATA", Path(__file__).parents[3] / "shared" / "data"))


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must be refused and return its one line."""
    assert main(words) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1, line
    assert line.startswith("shortrun: error: ")
    return line


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["digit"], ["recipe", "'digit'", "did you mean 'digits'"]),
        (["nowhere.toml"], ["recipe", "nowhere.toml", "does not exist"]),
        (["--training.epochs", "3"], ["recipe", "shortrun train digits"]),
        (["digits", "--training.epochs", "0"], ["--training.epochs: got 0;", "from 1 to 1,000,000,000"]),
        (["digits", "--inference.step-size", "-0.1"], ["--inference.step-size: got -0.1;", "positive"]),
        (["digits", "--inference.step-size", "0.1", "0.2"], ["--inference.step-size: got 2 values for 3 layers"]),
        (["digits", "--model.latents", "4", "0"], ["--model.latents: got 0;"]),
        (["digits", "--training.batch-size", "5000"], ["--training.batch-size: got 5000 ", "1437"]),
        (["digits", "--model.likelihood", "bernoulli"], ["--model.likelihood: bernoulli", "set data.binarize"]),
        (["digits", "--device", "gpu"], ["--device: got 'gpu'", "cpu or cuda"]),
        (["digits", "--data.source", "digitz"], ["--data.source: got 'digitz'", "did you mean 'digits'"]),
        (["mnist", "--data-dir", "not/there"], ["--data-dir: ", "not/there is no folder"]),
        (["celeba64"], ["--data-dir: ", "celeba"]),
        (
            ["digits", "--training.sigma-schedule", "0.5", "0.3", "0.1", "0.2"],
            ["--training.sigma-schedule: got shares", "rising order"],
        ),
        (["--resume", "not/a/run"], ["not/a/run", "not a folder"]),
        (["digits", "--resume", "x"], ["--resume", "drop 'digits'"]),
    ],
)
def test_bad_input_is_one_clear_line(
    words: list[str],
    parts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    line = refused(["train", *words], capsys)
    for part in parts:
        assert part in line
    assert not list(tmp_path.iterdir()), "something was left behind"


@pytest.mark.parametrize(
    ("recipe", "parts"),
    [
        ("[training]\nepoch = 3\n", ["training.epoch", "did you mean 'epochs'"]),
        ("[trainings]\nepochs = 3\n", ["trainings", "did you mean 'training'"]),
        ('[training]\nepochs = "3"\n', ["training.epochs", "'3'", "a whole number"]),
        ("[training]\nepochs = 2.5\n", ["training.epochs", "2.5", "a whole number"]),
        ("[inference]\nnoise = 1\n", ["inference.noise", "true or false"]),
        ('[model]\nblocks = "dence"\n', ["model.blocks", "'dence'", "dense"]),
        ("[model]\nlatents = [4, 'a']\n", ["model.latents", "whole number"]),
        ("model = 3\n", ["model", "3"]),
        ("[model\n", ["is not TOML"]),
    ],
)
def test_a_bad_recipe_is_one_clear_line(
    recipe: str, parts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(recipe)
    line = refused(["train", str(path), "--out", str(tmp_path / "run")], capsys)
    for part in parts:
        assert part in line
    assert not (tmp_path / "run").exists()


def test_wrong_options_exit_with_2_and_no_traceback(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "shortrun", "train", "digits", "--training.epoch", "3"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "--training.epochs" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    line = refused(["train", "digits", "--out", str(tmp_path)], capsys)
    assert "--out" in line
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_damaged_checkpoint_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    words = ["--training.epochs=1", "--training.batch-size=200", "--inference.steps=1", "--model.width=8"]
    assert main(["train", "digits", *words, "--out", str(out)]) == 0
    capsys.readouterr()
    (out / "result.json").unlink()
    state = out / "checkpoint" / "training.safetensors"
    state.write_bytes(state.read_bytes()[:200])
    line = refused(["train", "--resume", str(out)], capsys)
    assert "training.safetensors" in line


def test_help_is_fast_and_does_not_import_torch() -> None:
    code = "import sys, shortrun.cli; shortrun.cli.main(['--help']); sys.exit('torch' in sys.modules)"
    best = min(_seconds([sys.executable, "-c", code]) for _ in range(3))
    assert best < 0.5
    code = "import sys, shortrun.cli; shortrun.cli.main(['train']); sys.exit('torch' in sys.modules)"
    _seconds([sys.executable, "-c", code])


def _seconds(words: list[str]) -> float:
    started = time.monotonic()
    subprocess.run(words, check=True, capture_output=True)
    return time.monotonic() - started


def test_progress_is_plain_lines_where_there_is_no_terminal(tmp_path: Path) -> None:
    words = ["--training.epochs=2", "--training.batch-size=200", "--inference.steps=2", "--model.width=8"]
    done = subprocess.run(
        [sys.executable, "-m", "shortrun", "train", "digits", *words, "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "step 14/14" in done.stdout
    assert "images/s" in done.stdout
    assert "left" in done.stdout


@pytest.mark.data
@pytest.mark.parametrize("recipe", [name for name in recipe_names() if name != "celeba64"])
def test_every_recipe_takes_three_steps_on_real_images(recipe: str, tmp_path: Path) -> None:
    if not DATA.is_dir():
        pytest.skip(f"no image sets at {DATA}; SHORTRUN_DATA names another folder")
    where = [] if recipe in ("digits", "coloured_digits") else ["--data-dir", str(DATA)]
    words = ["--data.train-limit=12", "--data.test-limit=4", "--training.batch-size=4", "--training.epochs=1"]
    words += ["--inference.steps=2", "--training.picture-epochs=1"]
    assert main(["train", recipe, *where, *words, "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "result.json").is_file()
    assert (tmp_path / "run" / "figures" / "epoch_0001.png").is_file()


def test_each_learner_is_explained_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["--learner", "help"], ["--learner=help"]):
        assert main(["train", "digits", *words]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == list(LEARNERS)
        assert all(line.endswith(".") and len(line) < 160 for line in lines)
    assert not (tmp_path / "runs").exists()
