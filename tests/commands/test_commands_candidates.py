import json
from collections.abc import Callable
from pathlib import Path

import pytest

from shortrun.cli import main

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny finished run whose chains start from candidates."""
    run = tmp_path_factory.mktemp("runs") / "chosen"
    tiny = [
        *("--training.epochs", "2", "--training.picture-epochs", "9", "--training.fit-images", "0"),
        *("--model.latents", "4", "5", "--model.width", "32", "--inference.steps", "3", "--data.test-limit", "60"),
    ]
    assert main(["train", "digits", "--out", str(run), "--inference.candidates", "16", *tiny]) == 0
    return run


def test_figures_and_pictures_say_the_candidates(call: Call, chosen: Path, tmp_path: Path) -> None:
    code, out, _ = call("reconstruct", chosen, "--n", 4, "--out", tmp_path)
    assert code == 0
    assert "3 steps, with noise, from 16 candidates of the prior" in out
    code, out, _ = call("info", chosen)
    assert code == 0
    assert "candidates 16" in out


def test_a_run_with_candidates_is_diagnosed(call: Call, chosen: Path, tmp_path: Path) -> None:
    code, out, err = call("diagnose", chosen, "--n", 8, "--out", tmp_path)
    assert code == 0, err
    assert "with noise, from 16 candidates, Gaussian sigma" in out
    assert json.loads((tmp_path / "diagnosis.json").read_text())["conditions"]["candidates"] == 16


def test_the_estimators_of_chains_from_the_standard_normal_refuse_candidates(call: Call, chosen: Path) -> None:
    code, _, err = call("tune", chosen)
    assert code == 2
    assert f"{chosen}: starts its chains from 16 candidates" in err
    assert err.count("\n") == 1
