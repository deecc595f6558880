"""Latents of a regression and a mixture that both follow them: they fit the prior, and their scale stands still."""

import os
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from shortrun.config import InferenceConfig, ModelConfig
from shortrun.data import load_dataset
from shortrun.learners import ShortRun
from shortrun.model import Mixture
from shortrun.model.mixture import WAIT

DATA = Path(os.environ.get("SHORTRUN_DATA", Path(__file__).parents[3] / "shared" / "data"))


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Scale(NamedTuple):
    """Of the latents of training images, after so many fits of the prior."""

    fits: int
    fit: float
    """E[(z - mu_c)^T Sigma_c^-1 (z - mu_c)] / d, c ~ p(c | z): 1 where they are draws of the prior."""
    second_moment: float
    """E |z|^2 / d."""


@torch.no_grad()
def scale_of(learner: ShortRun, x: Tensor) -> Scale:
    prior, numbers = learner.generator.prior, rng(1)
    z = learner.infer(x, numbers).z
    c = prior.draw_component(z, lambda: torch.rand(len(z), generator=numbers))
    _, means, _, inverse = prior.parts()
    white = (inverse[c] @ (z - means[c])[..., None])[..., 0]
    assert isinstance(prior, Mixture)
    return Scale(int(prior.fits), float(white.square().mean()), float(z.square().mean()))


def scales_of(learner: ShortRun, x: Tensor, epochs: int, batch: int = 100) -> list[Scale]:
    """Return the scale after each epoch."""
    optimizer, scales = torch.optim.Adam(learner.parameters(), 2e-3), []
    for epoch in range(epochs):
        for rows in torch.randperm(len(x), generator=rng(epoch)).split(batch):
            loss, _ = learner.loss(x[rows], rng(int(rows[0]) + len(x) * epoch))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learner.parameters(), 100.0)
            optimizer.step()
        scales.append(scale_of(learner, x[:500]))
    return scales


SETS = {
    # images, model, steps, step size
    "digits": (1437, ModelConfig(latents=(8, 16, 16), width=128, sigma=0.2, components=20), 8, 0.15),
    "mnist": (2000, ModelConfig(latents=(16, 32, 64), width=256, sigma=0.15, components=20), 4, 0.08),
    "svhn": (
        1000,
        ModelConfig(latents=(16, 32, 64), blocks="conv", width=16, sigma=0.15, components=20),
        4,
        0.05,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "digits" else pytest.mark.data) for name in SETS]
)
def test_over_fifty_epochs_latents_fit_the_prior_and_do_not_grow(name: str) -> None:
    images, model, steps, step_size = SETS[name]
    if name != "digits" and not DATA.is_dir():
        pytest.skip(f"no image sets at {DATA}; SHORTRUN_DATA names another folder")
    x = load_dataset(name, data_dir=DATA, train_limit=images).train.images()
    model = ModelConfig(**{**vars(model), "prior": "mixture"})
    inference = InferenceConfig(steps=steps, step_size=step_size, start="regression")
    learner = ShortRun.build((int(x.shape[1]), int(x.shape[2]), int(x.shape[3])), model, inference)
    scales = scales_of(learner, x, epochs=50)
    # the first fits are of few latents a component; digits, MNIST and SVHN then come to 1.01, 1.00 and 1.00
    settled = [scale for scale in scales if scale.fits >= WAIT + 5]
    assert len(settled) >= 20
    assert all(0.8 < fit < 1.3 for _, fit, _ in settled), scales
    early, late = (sum(scale.second_moment for scale in part) / 10 for part in (settled[:10], settled[-10:]))
    assert late < 1.1 * early, scales
