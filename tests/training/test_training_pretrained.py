"""The model that the package brings along: it is what it says, and nothing is written beside it."""

import hashlib
import json
import time
from pathlib import Path

import pytest
import torch

import shortrun
from shortrun.cli import main
from shortrun.data import load_dataset
from shortrun.errors import InputError
from shortrun.training.run_folder import PRETRAINED, RunFolder

NAME = "pretrained:digits"


def digest() -> str:
    files = sorted(path for path in PRETRAINED.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(str(path).encode() + path.read_bytes() for path in files)).hexdigest()


def test_its_error_is_what_its_card_says() -> None:
    learner = shortrun.load(NAME)
    x = load_dataset("digits").test.images()
    rebuilt = shortrun.reconstruct(learner, x, torch.Generator().manual_seed(0)).images
    error = float(((rebuilt - x) / 2).square().mean())
    said = json.loads(RunFolder(Path(NAME)).result.read_text())["mse"]["value"]
    assert error == pytest.approx(said, rel=0.05)
    assert f"{said:.5f}" in (PRETRAINED / "digits" / "README.md").read_text()
    assert said < 0.0035


def test_it_is_small_and_holds_no_state_of_training() -> None:
    files = {path.relative_to(PRETRAINED / "digits").as_posix(): path for path in (PRETRAINED / "digits").rglob("*.*")}
    assert sum(path.stat().st_size for path in files.values()) < 1_000_000
    assert "checkpoint/training.safetensors" not in files
    assert all("/" not in path.read_text().split("source = ")[1].splitlines()[0] for path in [files["config.toml"]])


def test_commands_take_it_by_name_and_write_under_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before, since = digest(), time.process_time()
    assert main(["sample", NAME, "--n", "16"]) == 0
    assert time.process_time() - since < 5, "it is to be there at once"
    assert (tmp_path / "runs" / "pretrained_digits" / "samples" / "samples.png").is_file()
    assert main(["inpaint", NAME, "--mask", "box", "--n", "2", "--completions", "2"]) == 0
    assert (tmp_path / "runs" / "pretrained_digits" / "inpainting" / "inpainting.png").is_file()
    capsys.readouterr()
    assert main(["info", NAME]) == 0
    assert "reconstruction error" in capsys.readouterr().out
    assert main(["train", "--resume", NAME]) == 0, "it is finished"
    assert digest() == before


def test_another_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="did you mean 'digits'"):
        shortrun.load("pretrained:digit")
    assert main(["sample", "pretrained:cats"]) == 2
    assert capsys.readouterr().err == "shortrun: error: RUN: got 'pretrained:cats'; choose one of digits\n"
