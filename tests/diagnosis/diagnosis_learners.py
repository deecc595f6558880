"""Learners with a linear generator, whose posterior is known, for the tests of the diagnosis."""

import dataclasses
import functools
from typing import Any

import torch
from mixtures import mixture_of
from torch import Tensor, nn

from shortrun.diagnosis import diagnose
from shortrun.diagnosis.measure import Diagnosis
from shortrun.learners import ShortRun
from shortrun.model import Gaussian, TopDown

LATENTS, PIXELS, SIGMA = (2, 3), 8, 0.8


class Linear(nn.Module):
    """x = W z; `ignored` latents have columns of zeros."""

    def __init__(self, ignored: tuple[int, ...] = ()) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(3)
        weight = 0.7 * torch.randn(PIXELS, sum(LATENTS), generator=rng)
        weight[:, list(ignored)] = 0
        self.weight = nn.Parameter(weight)

    def forward(self, *z: Tensor) -> Tensor:
        return (torch.cat(z, dim=1) @ self.weight.T)[:, None, None, :]


def linear_learner(steps: int, step_size: float, ignored: tuple[int, ...] = (), noise: bool = True) -> ShortRun:
    """Return a learner whose chain samples its posterior where the steps are many and small."""
    return ShortRun(TopDown(Linear(ignored), Gaussian(SIGMA), LATENTS), steps, step_size, noise=noise)


def posterior(learner: ShortRun, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the posterior means of images, (n, d), and the covariance, (d, d), in float64."""
    w = learner.generator.decoder.weight.detach().double()  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    covariance = torch.linalg.inv(torch.eye(w.shape[1]).double() + w.T @ w / SIGMA**2)
    return x.double().flatten(1) @ w @ covariance / SIGMA**2, covariance


def mixed_learner(steps: int, step_size: float, candidates: int = 1) -> ShortRun:
    """Return a learner with three components far apart and narrower than N(0, I) for its prior."""
    means = torch.tensor([[6.0] * 5, [-2.0] * 5, [4.0, -4.0, 4.0, -4.0, 4.0]])
    log_weights = torch.tensor([0.0, 0.7, 0.3]).log_softmax(0)
    roots = 0.6 * torch.eye(5).repeat(3, 1, 1)
    roots[:, 1, 0] = 0.2
    generator = TopDown(Linear(), Gaussian(SIGMA), LATENTS, mixture_of(log_weights, means, roots))
    return ShortRun(generator, steps, step_size, candidates=candidates)


def images(learner: ShortRun, n: int, seed: int = 0) -> Tensor:
    """Draw images from the model."""
    rng = torch.Generator().manual_seed(seed)
    z = learner.generator.prior.sample(n, rng)
    with torch.no_grad():
        return learner.generator.likelihood.sample(learner.generator.decoder(*learner.generator.split(z)), rng)


def measured(steps: int, step_size: float, ignored: tuple[int, ...] = (), n: int = 32, **options: Any) -> Diagnosis:
    """Return the diagnosis of a linear learner on images drawn from it."""
    learner = linear_learner(steps, step_size, ignored)
    x = images(learner, 16 * n)
    return diagnose(learner, x[:n], torch.Generator().manual_seed(0), more=x, batch_size=4096, seed=0, **options)


@functools.cache
def good_diagnosis() -> Diagnosis:
    """Return the diagnosis of a chain that is long enough for its steps to be small."""
    return measured(60, 0.35)


def changed(d: Any, **parts: Any) -> Any:
    """Return a dataclass with parts replaced: a value, or a dictionary of parts of the part, or of each of a list."""
    made = {}
    for name, value in parts.items():
        old = getattr(d, name)
        if isinstance(value, dict):
            made[name] = [changed(each, **value) for each in old] if isinstance(old, list) else changed(old, **value)
        else:
            made[name] = value
    return dataclasses.replace(d, **made)
