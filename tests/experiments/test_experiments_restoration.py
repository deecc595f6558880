"""Inverse problems: the experiment as a user calls it, and the methods without a model against closed forms."""

import json
from pathlib import Path

import pytest
import torch

from shortrun.cli import main
from shortrun.experiments.classical import Degradation, LinearEstimate, enlarged, total_variation, unlearned, wiener
from shortrun.experiments.inpainting import inside
from shortrun.experiments.restoration import TASKS, Case, by_linear_estimate
from shortrun.metrics.pixels import mse

TINY = [
    *("--small", "--budget", "1epochs", "--samples", "40", "--training.fit-images", "100", "--data.test-limit", "30"),
    *("--data.train-limit", "300", "--model.width", "16", "--model.latents", "3", "4", "--images", "6", "--draws", "2"),
    *("--training.precision", "float32", "--training.batch-size", "50"),
]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_it_measures_all_methods_on_all_tasks_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torchmetrics")
    pytest.importorskip("skimage")
    monkeypatch.setenv("SHORTRUN_CACHE", str(tmp_path / "cache"))
    words = ["experiment", "restoration", "digits", *TINY, "--out", str(tmp_path / "out")]
    assert main(words) == 0
    found = json.loads((tmp_path / "out" / "restoration.json").read_text())["found"]
    for task in TASKS:
        made = {each["method"]: each for each in found if each["task"] == task}
        assert {"short_run", "vae, Langevin on its decoder", "linear estimate"} <= made.keys()
        assert any("total variation" in name for name in made)
        for name, each in made.items():
            assert each["psnr"] > 0
            assert (each["inside_90"] is not None) == (name in {"short_run", "linear estimate"} or "vae" in name)
    assert (tmp_path / "out" / "restoration.png").stat().st_size > 3000
    table = (tmp_path / "out" / "restoration.md").read_text()
    capsys.readouterr()
    (tmp_path / "out" / "records" / "unlearned.json").unlink()
    assert main(words) == 0
    assert "seed 0: " not in capsys.readouterr().out, "what is kept is not measured again"
    assert (tmp_path / "out" / "restoration.md").read_text() == table


@pytest.mark.parametrize("name", TASKS)
def test_the_linear_estimate_is_calibrated_where_pixels_are_gaussian(name: str) -> None:
    root = torch.randn(64, 64, generator=rng(1)) / 64
    x = (torch.randn(6000, 64, generator=rng(2)) @ root.T).reshape(-1, 1, 8, 8)
    made_by = TASKS[name]
    case = Case(x[:1000], made_by.applied(x[:1000], rng(3)), made_by, 2)
    restored = by_linear_estimate(LinearEstimate(x[1000:]), case)
    assert restored.below is not None
    assert inside(restored.below.flatten(), 50) == pytest.approx(0.5, abs=0.02)
    assert inside(restored.below.flatten(), 90) == pytest.approx(0.9, abs=0.02)
    assert float(mse(restored.mean, case.x).mean()) < float(mse(enlarged(case.y, (8, 8)), case.x).mean())


def test_wiener_undoes_a_blur_and_total_variation_takes_noise_away() -> None:
    pytest.importorskip("skimage")
    x = torch.zeros(1, 1, 16, 16) - 0.5
    x[..., 4:11, 5:12] = 0.5
    blurred = Degradation(1.0, 1, 0.002)
    y = blurred.applied(x, rng())
    assert float(mse(wiener(y, 1.0, 1e-4), x).mean()) < 0.4 * float(mse(y, x).mean())
    noisy = Degradation(None, 1, 0.3).applied(x, rng())
    assert float(mse(total_variation(noisy, 0.2), x).mean()) < 0.3 * float(mse(noisy.clamp(-1, 1), x).mean())


def test_weights_are_chosen_on_the_train_images() -> None:
    pytest.importorskip("skimage")
    made_by, flat = Degradation(None, 1, 0.4), torch.zeros(3, 1, 8, 8)
    busy = torch.rand(3, 1, 8, 8, generator=rng()).round() * 2 - 1
    y = made_by.applied(flat, rng(5))
    on_flat, on_busy = (unlearned(made_by, train)["total variation"](y) for train in (flat, busy))
    assert float(on_flat.std()) < float(on_busy.std())
