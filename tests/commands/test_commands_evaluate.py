"""shortrun evaluate, as a user calls it."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from shortrun.commands.outputs import MADE_BY

Call = Callable[..., tuple[int, str, str]]
FAST = ("--samples", 70, "--likelihood-images", 3, "--temperatures", 4, "--importance-samples", 5)

# PyTorch wants other formats in new code; it still reads this one, which is how networks for figures are passed on
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.:DeprecationWarning")


@pytest.fixture(autouse=True)
def _small_features(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("SHORTRUN_CACHE", str(tmp_path_factory.getbasetemp() / "evaluate_cache"))
    monkeypatch.setattr("shortrun.evaluation.classifier.MOST_STEPS", 10)


def network(path: Path) -> Path:
    """A TorchScript network that takes 6x6 pixels of 3 channels."""
    torch.jit.save(torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(108, 4).requires_grad_(False))), str(path))
    return path


def test_a_run_is_measured(call: Call, run: Path) -> None:
    words = ("evaluate", run, *FAST, "--seed", 0, "--gap", 2)
    code, out, err = call(*words)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "60 test images, 70 samples, log p(x) of 3 images"
    path = run / "evaluate" / "evaluation.json"
    assert out.endswith(f"wrote {path}\n")
    found = json.loads(path.read_text())
    assert found.pop(MADE_BY) == "shortrun evaluate"
    assert found.pop("arguments")["samples"] == 70
    trained = json.loads((run / "result.json").read_text())
    # the same seed, the same chains
    assert found["mse"]["value"] == pytest.approx(trained["mse"]["value"], rel=1e-6)
    assert found["second_moment"]["value"] == pytest.approx(trained["second_moment"]["value"], rel=1e-6)
    assert found["fid_prior"]["samples"] == 70
    assert found["fid_prior"]["features"] == "own classifier of digits"
    assert found["nats"]["temperatures"] == 4
    assert found["nats"]["images"] == found["importance_nats"]["images"] == 3
    assert found["importance_nats"]["samples"] == 5
    assert found["annealing_gap"]["images"] == 2
    assert 0 <= found["probe"]["value"] <= 1
    for name, entry in found.items():
        assert {"data", "split", "steps", "noise", "learner", "seed", "images"} <= set(entry)
        assert f"  {name} " in out
        value = entry["value"]
        assert (f" {value:.4g}" if isinstance(value, float) else f" {value}") in out
    assert out.count("steps 3") == out.count("learner short_run") == 1
    assert out.count("features own") == out.count("\ndraws from")
    assert "lies between lower and upper" in out
    again = call(*words)
    assert again[1] == out


def test_parts_can_be_made_smaller(call: Call, run: Path, tmp_path: Path) -> None:
    factors = np.stack([np.arange(60) % 2, np.arange(60) // 5 % 2], 1)
    np.savez(tmp_path / "factors.npz", factors=factors)
    out = tmp_path / "out"
    small = ("--n", 40, "--samples", 30, "--likelihood-images", 0, "--batch-size", 7, "--out", out)
    own = ("--features", network(tmp_path / "net.pt"), "--features-range", "[0,1]", "--features-size", 6)
    code, said, _ = call("evaluate", run, *small, *own, "--features-channels", 3, "--factors", tmp_path / "factors.npz")
    assert code == 0
    found = json.loads((out / "evaluation.json").read_text())
    assert found["mse"]["images"] == found["mig"]["images"] == 40
    assert found["fid_prior"]["images"] == 60
    assert found["fid_prior"]["features"].startswith("net.pt, range [0,1], size 6, channels 3, sha256")
    assert found["nats"]["left_out"] == "likelihood_images = 0"
    assert re.search(r"  nats +left out: likelihood_images = 0\n", said)
    assert len(found["mig"]["layers"]) == 2
    assert "  factor_vae" in said
    assert "left out: " in said
    assert not (run / "evaluate").exists()


def refusal(call: Call, run: Path, *words: object) -> str:
    """Expect one line, code 2, and nothing written; return the line."""
    before = sorted(run.parent.rglob("*"))
    code, out, err = call("evaluate", run, *words)
    assert (code, out) == (2, "")
    assert err.startswith("shortrun: error: ")
    assert err.count("\n") == 1
    assert sorted(run.parent.rglob("*")) == before
    return err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--n", 0), "--n: got 0"),
        (("--n", 61), "--n: got 61; there are 60 test images"),
        (("--samples", 1), "--samples: got 1; write a whole number of at least 2"),
        (("--likelihood-images", -1), "--likelihood-images: got -1"),
        (("--temperatures", 0), "--temperatures: got 0"),
        (("--importance-samples", 0), "--importance-samples: got 0"),
        (("--gap", -1), "--gap: got -1"),
        (("--batch-size", 0), "--batch-size: got 0"),
        (("--seed", -1), "--seed: got -1"),
        (("--features-range", "[0,1]"), "--features-range: got '[0,1]'; it is for a network of yours"),
        (("--features-size", 9), "--features-size: got 9; it is for a network of yours"),
        (("--features-channels", 3), "--features-channels: got 3; it is for a network of yours"),
        (("--features", "none.pt"), "--features: cannot read none.pt"),
        (("--features", "NET", "--features-range", "[0;1]"), "--features-range: got '[0;1]'"),
        (("--features", "NET", "--features-size", 0), "--features-size: got 0"),
        (("--features", "NET", "--features-channels", 0), "--features-channels: got 0"),
        (("--features", "NET"), "--features: net.pt"),
        (("--factors", "none.npz"), "--factors: cannot read none.npz"),
        (("--factors", "OTHER"), "--factors: cannot read"),
        (("--factors", "NET"), "--factors: cannot read"),
        (("--factors", "FEW"), "--factors: got int64 of [59, 2]; write whole numbers, one row for each of the 60"),
        (("--factors", "FLOATS"), "--factors: got float64 of [60, 2]"),
        (("--factors", "FLAT"), "--factors: got int64 of [60]"),
    ],
)
def test_what_cannot_be_used_is_refused(
    call: Call, run: Path, tmp_path: Path, words: tuple[object, ...], expected: str
) -> None:
    network(tmp_path / "net.pt")
    np.savez(tmp_path / "other.npz", latents=np.zeros((60, 2), int))
    np.savez(tmp_path / "few.npz", factors=np.zeros((59, 2), np.int64))
    np.savez(tmp_path / "floats.npz", factors=np.zeros((60, 2)))
    np.savez(tmp_path / "flat.npz", factors=np.zeros(60, np.int64))
    files = {"NET": "net.pt", **{name.upper(): f"{name}.npz" for name in ("other", "few", "floats", "flat")}}
    given = [tmp_path / files[word] if isinstance(word, str) and word in files else word for word in words]
    assert expected in refusal(call, run, *given)


def test_runs_that_cannot_be_used_are_refused(
    call: Call, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "nowhere" in refusal(call, tmp_path / "nowhere")
    assert "does not say which data it was trained on" in refusal(call, run / "checkpoint")
    out = tmp_path / "out"
    out.mkdir()
    (out / "evaluation.json").write_text("{}")
    assert "not from shortrun evaluate" in refusal(call, run, "--out", out)
    text = (run / "config.toml").read_text()
    np.savez(tmp_path / "nine.npz", train_x=np.zeros((99, 9, 9), np.uint8), test_x=np.zeros((99, 9, 9), np.uint8))
    (run / "config.toml").write_text(text.replace('"digits"', f'"{tmp_path / "nine.npz"}"'))
    assert "was not trained on nine" in refusal(call, run)
    (run / "config.toml").write_text(text)
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    assert "pip install 'shortrun[metrics]'" in refusal(call, run)


def test_images_that_were_held_out_are_called_so(call: Call, run: Path) -> None:
    settings = run / "config.toml"
    text = settings.read_text()
    settings.write_text(text.replace("[data]\n", "[data]\nheld_out = 70\n"))
    (run / "origin.json").unlink()  # it says that the run began without, and the images would be refused
    code, out, _ = call("evaluate", run, "--samples", 20, "--likelihood-images", 0, "--out", run / "measured")
    assert code == 0
    assert out.startswith("70 held-out train images, 20 samples")
    found = json.loads((run / "measured" / "evaluation.json").read_text())
    assert '"split": "held-out train"' in json.dumps(found)
    assert '"split": "test"' not in json.dumps(found)
    code, out, _ = call("reconstruct", run, "--n", 5)
    assert code == 0
    assert "held-out train images" in out
    code, _, err = call("diagnose", run, "--n", 71)
    assert code == 2
    assert "there are 70 held-out train images" in err
