"""What is wrong with the words of a command line is one line, and --help at any place is the help of that command."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from shortrun.cli import COMMANDS, main
from shortrun.commands.compare import Compare
from shortrun.commands.entrants import entrants
from shortrun.commands.parsing import parse
from shortrun.commands.train import Train
from shortrun.config import read_recipe
from shortrun.errors import InputError
from shortrun.experiments import EXPERIMENTS

Call = Callable[..., tuple[int, str, str]]
LONG = "a" * 5000


def read(*words: str) -> Train:
    return parse(Train, words, "shortrun train digits", Train(**vars(read_recipe("digits"))))


def test_a_whole_number_may_be_written_as_a_float() -> None:
    found = read("--training.epochs", "1e3", "--model.latents", "4", "1.6e1", "--training.updates=2e2", "--seed=7.0")
    assert found.training.epochs == 1000
    assert found.model.latents == (4, 16)
    assert (found.training.updates, found.training.seed) == (200, 7)


def test_what_tyro_takes_is_taken() -> None:
    words = ["--inference.step-size", "tuned", "--inference.no-noise", "--training.batch_size", "50", "--out=a b"]
    found = read(*words, "--training.updates", "None", "--training.kl-schedule", "0", ".5", "1", "1e-3")
    assert (found.inference.step_size, found.inference.noise, found.training.batch_size) == ("tuned", False, 50)
    assert (found.out, found.training.updates) == (Path("a b"), None)
    assert found.training.kl_schedule == ((0.0, 0.5), (1.0, 1e-3))
    assert read("--inference.step-size", "0.1", "-2e-1").inference.step_size == (0.1, -0.2)
    assert read("--training.kl-schedule").training.kl_schedule == ()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--training.epochs", "2.5"], "--training.epochs: got '2.5'; write a whole number"),
        (["--training.epochs", "1e400"], "--training.epochs: got '1e400'; write a whole number"),
        (["--training.epochs", "many"], "--training.epochs: got 'many'; write a whole number"),
        (["--training.epoch", "3"], "--training.epoch: no such option; did you mean --training.epochs?"),
        (
            ["--nonsense-that-is-nowhere"],
            "--nonsense-that-is-nowhere: no such option; see shortrun train digits --help",
        ),
        (["-e", "3"], "-e: no such option; see shortrun train digits --help"),
        (["--training.epochs"], "--training.epochs: has no value; write a whole number after it"),
        (["--training.epochs", "--seed", "1"], "--training.epochs: has no value; write a whole number after it"),
        (["--training.epochs", "3", "4"], "'4': belongs to no option; see shortrun train digits --help"),
        (["again"], "'again': belongs to no option; see shortrun train digits --help"),
        (["--training.precision", "foat32"], "--training.precision: got 'foat32'; did you mean 'float32'?"),
        (["--model.latents", "4", "x"], "--model.latents: got 'x'; write whole numbers"),
        (["--model.sigma", "wide"], "--model.sigma: got 'wide'; write a number"),
        (["--inference.noise=yes"], "--inference.noise: got 'yes'; write --inference.noise alone"),
        (
            ["--training.kl-schedule", "0", "1", "1"],
            "--training.kl-schedule: got '0 1 1'; write pairs of numbers, 0 1 1 0.1 for example",
        ),
        (["--learner"], "--learner: has no value; write text after it"),
    ],
)
def test_wrong_words_are_one_line(call: Call, tmp_path: Path, words: list[str], line: str) -> None:
    code, out, err = call("train", "digits", "--out", tmp_path / "run", *words)
    assert (code, out) == (2, "")
    assert err == f"shortrun: error: {line}\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["sample"], "RUN: is missing; shortrun sample RUN"),
        (["inpaint", "run", "--mask"], "--mask: has no value; write text after it"),
        (["tune", "run", "--tuners", "gird"], "--tuners: got 'gird'; did you mean 'grid'?"),
        (["train", "--resume"], "--resume: has no value; write a path after it"),
        (
            ["train", "--resume", "run", "--training.epochs", "5"],
            "--training.epochs: cannot change beside --resume; drop it, or train anew",
        ),
        (["train", "--resume", "run", "digits"], "'digits': belongs to no option; see shortrun train --help"),
        (
            ["compare", "digits", "--learners", "short_run,inference.stepz=4"],
            "--learners: got 'inference.stepz=4'; did you mean inference.steps?",
        ),
        (
            ["compare", "digits", "--learners", "vae,training.epochs=4.5"],
            "--training.epochs: got '4.5'; write a whole number",
        ),
        (["experiment", "figure5", "digits", "--images", "few"], "--images: got 'few'; write a whole number"),
    ],
)
def test_wrong_words_of_other_commands_are_one_line(call: Call, words: list[str], line: str) -> None:
    assert call(*words) == (2, "", f"shortrun: error: {line}\n")


def test_settings_of_an_entrant_may_have_any_spelling() -> None:
    config = entrants(Compare, "compare", "digits", ["vae,training.learning-rate=2e-3,training.epochs=1e1"], [])
    (only,) = config.values()
    assert (only.training.learning_rate, only.training.epochs) == (2e-3, 10)


@pytest.mark.parametrize(
    "words",
    [
        [LONG],
        ["train", LONG],
        ["train", f"{LONG}.toml"],
        ["train", "digits", "--data.source", LONG],
        ["train", "digits", "--training.epochs", LONG],
        ["train", "digits", "--training.epochs", "9" * 5000],
        ["train", "digits", "--model.likelihood", LONG],
        ["train", "digits", f"--{LONG}", "3"],
        ["train", "digits", "--training.precision", "a b " * 1250],
        ["compare", "digits", "--learners", f"vae,{LONG}=3"],
        ["sample", LONG],
    ],
)
def test_a_long_value_is_not_said_whole(call: Call, words: list[str]) -> None:
    code, _, err = call(*words)
    assert (code, err.count("\n")) == (2, 1)
    assert len(err) < 400


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (r"C:\data\x.npz", r"--data.source: C:\data\x.npz does not exist; "),
        ("images.tar.gz", "images.tar.gz is an archive; unpack it, and write the folder or file in it"),
    ],
)
def test_sources_that_cannot_be_read(call: Call, tmp_path: Path, name: str, words: str) -> None:
    if "tar" in name:
        (tmp_path / name).write_bytes(b"\x1f\x8b")
        name = str(tmp_path / name)
    code, _, err = call("train", "digits", "--data.source", name)
    assert (code, err.count("\n")) == (2, 1)
    assert words in err


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "before", [[], ["digits"], ["digits", "--seed", "1"], ["digits", "--nonsense"], ["digits", "--out"]]
)
def test_help_at_any_place(command: str, before: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = ["figure5", *before] if command == "experiment" else before
    for asked in (["--help"], ["-h", "more"]):
        try:
            code = main([command, *before, *asked])
        except SystemExit as end:
            code = end.code
        assert not code
        said = capsys.readouterr()
        assert f"usage: shortrun {command}" in said.out
        assert not said.err


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_help_of_an_experiment_lists_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["experiment", name, "--help"])
    assert "--seeds" in capsys.readouterr().out


def test_what_slips_through_is_still_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shortrun.commands.parsing.checked", lambda kind, words, prog: list(words))
    with pytest.raises(InputError) as caught:
        read("--training.epoch", "3")
    assert "\n" not in str(caught.value)
    assert "--training.epoch" in str(caught.value)


def test_figure5_of_a_recipe_with_updates(call: Call, tmp_path: Path) -> None:
    small = ["--data.train-limit", 200, "--data.test-limit", 40, "--model.width", 8, "--model.latents", 2]
    small += ["--inference.steps", 2, "--training.fit-images", 0, "--seeds", 1, "--images", 2]
    words = ["experiment", "figure5", "digits", *small, "--out", tmp_path / "out"]
    code, _, err = call(*words, "--training.updates", 1)
    assert (code, err) == (
        2,
        "shortrun: error: --training.updates: got 1; an epoch has 2 updates: write at least as many\n",
    )
    assert not list(tmp_path.iterdir())
    assert call(*words, "--training.updates", 3)[0] == 0
    found = json.loads((tmp_path / "out" / "figure5.json").read_text())
    assert [record["epoch"] for record in found["records"]] == [1]
