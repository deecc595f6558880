import json
from collections.abc import Callable
from pathlib import Path

import pytest

from shortrun.cli import main

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def chosen(plain: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny finished run whose chains start from candidates."""
    run = tmp_path_factory.mktemp("runs") / "chosen"
    tiny = [
        *("--training.epochs", "2", "--training.picture-epochs", "9", "--training.fit-images", "0"),
        *("--model.latents", "4", "5", "--model.width", "32", "--inference.steps", "3", "--data.test-limit", "60"),
    ]
    assert main(["train", plain, "--out", str(run), "--inference.candidates", "16", *tiny]) == 0
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


def test_a_run_with_candidates_is_tuned(call: Call, chosen: Path, tmp_path: Path) -> None:
    """With steps of no length the estimators agree: on the importance-weighted bound of the candidates."""
    words = ["--n", 6, "--step-sizes", "1e-6", "0.1", "0.2", "--tuners", "grid", "--out", tmp_path]
    code, out, err = call("tune", chosen, *words)
    assert code == 0, err
    assert "minimum by grid" in out
    curves = json.loads((tmp_path / "step_size.json").read_text())["curves"]
    least = {name: curve[0] for name, curve in curves.items()}
    assert all(point["step_size"] == pytest.approx(1e-6) for point in least.values())
    for name in ("marginal", "path"):
        assert least[name]["value"] == pytest.approx(least["conditional"]["value"], abs=0.5)


def test_a_mixture_tuned_by_acceptance_is_refused(call: Call, tmp_path: Path) -> None:
    words = ["--model.prior", "mixture", "--inference.step-size", "tuned", "--inference.tuning.tuner", "acceptance"]
    code, _, err = call("train", "digits", *words, "--out", tmp_path / "run")
    assert code == 2
    assert "--inference.tuning.tuner: by acceptance the steps and the prior mixture, which is learned, drive" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()
