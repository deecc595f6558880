"""The prior as annealed chains see it: coordinates in which it is nearly N(0, I), and its constant where it lacks one.

Source of the annealing: Neal, "Annealed Importance Sampling", 2001, arXiv physics/9803008.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shortrun.learners import frozen
from shortrun.metrics.annealing import annealed_importance
from shortrun.model import TopDown
from shortrun.model.prior import Prior
from shortrun.normals import Flat, PerImage, standard_normal

CHAINS, TEMPERATURES, LEAPFROG = 256, 200, 5
"""Of the annealing that finds log Z."""


class Normalizer(NamedTuple):
    """log Z, which `Prior.log_prob` of a prior that is not exact is too large by; 0 without error for the others."""

    log_z: float = 0.0
    error: float = 0.0
    """Standard error of log Z, as far as the weights of the chains show it."""
    effective: float = math.nan
    """Effective number of the chains: near 1 one of them decides, and log Z is too low."""

    @property
    def estimated(self) -> bool:
        """Whether log Z had to be estimated."""
        return not math.isnan(self.effective)

    def own(self) -> dict[str, Any]:
        """Return the numbers that a figure has to quote which stands on it; none where the prior is exact."""
        numbers = {"log_z": self.log_z, "log_z_error": self.error, "log_z_effective_chains": self.effective}
        return numbers if self.estimated else {}

    def conditions(self) -> dict[str, Any]:
        """Return in words what such a figure is worth; nothing where the prior is exact."""
        words = "annealed, too low on average: log p(x) is too high, a rate too low by that"
        return {"log_z_is": words} if self.estimated else {}

    def with_error(self, standard_error: float | None) -> float | None:
        """Return a standard error together with that of log Z, which all images have alike."""
        return None if standard_error is None else math.hypot(standard_error, self.error)


def normalizer(generator: TopDown, rng: torch.Generator, like: Tensor, chains: int = CHAINS) -> Normalizer:
    """Return an estimate of log Z = log E_{z ~ N(0, I)} exp(-f(z)) by annealed importance sampling.

    The logarithm of an unbiased estimate of Z: below log Z on average, and so log p(x) is above what it would be. The
    standard error is by the spread of the weights. It is too small where few chains decide, as `effective` shows.

    generator: whose prior it is of.
    rng: gives the random numbers; none are drawn for an exact prior.
    like: gives precision and device.
    chains: at least 2.
    """
    if generator.prior.exact:
        return Normalizer()
    relative = whitened(generator.prior, like).relative
    assert relative is not None  # N(0, I) is exact
    with frozen(generator):
        found = annealed_importance(
            relative,
            generator.dim,
            1,
            rng,
            temperatures=TEMPERATURES,
            chains=chains,
            leapfrog=LEAPFROG,
            dtype=like.dtype,
            device=like.device,
        )
    shares = torch.softmax(found.log_weights[:, 0], 0)
    effective = float(1 / shares.square().sum())
    # by the delta method, the spread of weights relative to their mean
    return Normalizer(float(found.log_p[0]), math.sqrt(max(1 / effective - 1 / chains, 0.0)), effective)


class White(NamedTuple):
    """Coordinates u of latents, z = m + L u with the mean and the covariance L L^T of the prior."""

    to_latents: Callable[[Flat], Flat]
    from_latents: Callable[[Flat], Flat]
    relative: Callable[[Flat], PerImage] | None
    """log p(u) - log N(u; 0, I), the prior's density against the normal one; None where it is N(0, I)."""


def whitened(prior: Prior, like: Tensor, log_z: float = 0.0) -> White:
    """Return the coordinates in which the prior has mean 0 and covariance I; for N(0, I) they are the latents.

    prior: of the generator.
    like: gives precision and device.
    log_z: what the prior's `log_prob` is too large by.
    """
    if prior.standard:
        return White(lambda u: u, lambda z: z, None)
    mean, root = (part.to(like) for part in prior.whole())

    def to_latents(u: Flat) -> Flat:
        return mean + u @ root.T

    def from_latents(z: Flat) -> Flat:
        return torch.linalg.solve_triangular(root, (z - mean).T, upper=False).T

    def relative(u: Flat) -> PerImage:
        return prior.log_prob(to_latents(u)) - log_z - (standard_normal(u) - root.diagonal().log().sum())

    return White(to_latents, from_latents, relative)
