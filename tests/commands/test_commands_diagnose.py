import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def own_images(tmp_path: Path) -> Path:
    """A file of nine images of the model's shape, of noise."""
    path = tmp_path / "own.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (9, 8, 8), dtype=np.uint8))
    return path


def test_a_run_is_diagnosed_and_it_can_be_repeated(call: Call, run: Path) -> None:
    code, out, err = call("diagnose", run, "--n", 8)
    assert (code, err) == (0, "")
    folder = run / "diagnose"
    assert sorted(path.name for path in folder.iterdir()) == ["diagnosis.json", "diagnosis.png"]
    for name in ("diagnosis.png", "diagnosis.json"):
        assert f"wrote {folder / name}" in out
    with Image.open(folder / "diagnosis.png") as picture:
        assert picture.mode == "RGB"
        assert picture.info["made_by"] == "shortrun diagnose"
        assert json.loads(picture.info["arguments"])["n"] == 8
    first = (folder / "diagnosis.json").read_text()
    found = json.loads(first)
    assert found["made_by"] == "shortrun diagnose"
    conditions = found["conditions"]
    expected = {"split": "test", "images": 8, "aggregate_images": 60, "steps": 3, "long_steps": 30, "seed": 0}
    assert {name: conditions[name] for name in expected} == expected
    assert conditions["step_size"] == pytest.approx([0.15, 0.15])
    assert {"noise", "sigma", "latents", "date", "shortrun", "device"} <= conditions.keys()
    assert len(found["distances"]) == len(found["aggregates"]) == 2
    assert [one["name"] for one in found["mixing"]] == ["layer 2 (top)", "layer 1", "log p(x, z)"]
    # what is said is what is written
    mse = found["trace"]["mse"][found["trace"]["k"].index(3)]
    assert f"{mse:.5f}" in out
    assert "8 test images, K = 3, step size 0.15, with noise" in out
    wrong = [one for one in found["findings"] if not one["well"]]
    assert f"verdict: {len(wrong)} of {len(found['findings'])} findings" in out
    assert all(one["words"] in out and one["change"] in out for one in wrong)
    assert any(one["subject"] == "length" for one in wrong)  # three steps are too few
    assert "measuring: short runs" in out
    assert "left out" not in out
    # again, over what it wrote itself
    assert call("diagnose", run, "--n", 8)[0] == 0
    assert (folder / "diagnosis.json").read_text() == first


def test_other_chains_are_tried_on_the_same_model(call: Call, trained: Path, tmp_path: Path) -> None:
    chain = ("--steps", 5, "--step-size", 0.2, 0.1, "--step-decay", 0.5, "--seed", 3)
    code, out, _ = call("diagnose", trained, "--n", 8, *chain, "--out", tmp_path / "a")
    assert code == 0
    assert "K = 5, step size 0.2, 0.1 falling to 0.1, 0.05, with noise, Gaussian sigma 0.2, seed 3" in out
    conditions = json.loads((tmp_path / "a" / "diagnosis.json").read_text())["conditions"]
    assert conditions["last_step_size"] == pytest.approx([0.1, 0.05])
    code, out, _ = call("diagnose", trained, "--n", 8, "--no-noise", "--out", tmp_path / "b")
    assert code == 0
    assert "without noise" in out
    assert "Metropolis acceptance" not in out


def test_own_images(call: Call, trained: Path, own_images: Path, tmp_path: Path) -> None:
    code, out, _ = call("diagnose", trained, "--images", own_images, "--out", tmp_path / "a")
    assert code == 0
    assert "9 own images" in out
    assert "inferred latents of 9 images" in out


def test_without_arviz_stats_all_the_rest_is_done(
    call: Call, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "arviz_stats.base.array", None)
    monkeypatch.setitem(sys.modules, "arviz_stats", None)
    code, out, _ = call("diagnose", trained, "--n", 8, "--out", tmp_path)
    assert code == 0
    assert out.count("effective sample sizes and R-hat left out: pip install 'shortrun[diagnose]'") == 1
    assert json.loads((tmp_path / "diagnosis.json").read_text())["mixing"] is None
    assert (tmp_path / "diagnosis.png").is_file()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--n", 7], "--n: got 7; write a whole number of at least 8"),
        (["--n", 61], "--n: got 61; there are 60 test images"),
        (["--seed", -1], "--seed: got -1"),
        (["--batch-size", 0], "--batch-size: got 0"),
        (["--steps", 0], "--steps: got 0"),
        (["--step-size", 0.1, 0.2, 0.3], "--step-size: got 3 values for 2 layers"),
        (["--step-size", -0.1], "--step-size: got [-0.1]"),
        (["--step-decay", 0.0], "--step-decay: got 0.0"),
        (["--fit"], "--fit"),
        (["--device", "abacus"], "--device: got 'abacus'"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(call: Call, run: Path, words: list[object], expected: str) -> None:
    code, out, err = call("diagnose", run, *words)
    assert (code, out) == (2, "")
    assert expected in err
    assert err.startswith("shortrun: error: ")
    assert err.count("\n") == 1
    assert not (run / "diagnose").exists()


def test_too_few_own_images_and_no_run_are_refused(call: Call, run: Path, own: Path, tmp_path: Path) -> None:
    code, out, err = call("diagnose", run, "--images", own)
    assert (code, out) == (2, "")
    assert "--images: there are 3; give at least 8 images" in err
    code, _, err = call("diagnose", tmp_path / "nowhere")
    assert code == 2
    assert "nowhere" in err


@pytest.mark.parametrize("name", ["diagnosis.png", "diagnosis.json"])
def test_files_of_other_making_are_left_alone(call: Call, run: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text('{"made_by": "hand"}')
    code, said, err = call("diagnose", run, "--n", 8, "--out", out)
    assert (code, said) == (2, "")
    assert f"--out: {out / name} is there and not from shortrun diagnose" in err
    assert [path.name for path in out.iterdir()] == [name]


def test_help_comes_without_waiting_for_torch() -> None:
    program = (
        "import sys; from shortrun.cli import main\n"
        "try: main(['diagnose', '--help'])\n"
        "except SystemExit as done: assert not done.code\n"
        "assert not {'torch', 'numpy', 'matplotlib', 'arviz_stats'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for words in ("shortrun diagnose", "--step-decay", "verdict"):
        assert words in done.stdout
