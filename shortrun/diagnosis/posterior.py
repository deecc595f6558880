"""What many draws of the latents say, layer by layer: how far two samples of posteriors are apart, and what is used."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

Draws = Float[Tensor, "n _ d"]
"""(n, restarts, d); the numbers of restarts of two samples may differ."""
ACTIVE = 0.01
"""A latent is active where its posterior mean varies by more than this over images (Burda et al. 2016)."""
SPLITS = 40


@dataclass(frozen=True)
class Distance:
    """How far the short runs of a layer end from long ones; each figure with its null, long runs against long runs."""

    mean_shift: float
    """Root mean square distance of the posterior means, in posterior standard deviations, corrected for noise."""
    mean_shift_null: float
    """What 95% of the splits of the long runs into halves stay below."""
    variance_ratio: float
    """Variance about each image's mean, short runs over long ones."""
    energy: float
    """(2 E|a - b| - E|a - a'| - E|b - b'|) / (2 E|a - b|) over short runs a and long runs b of an image: 0 to 1."""
    energy_null: float
    """What 95% of the splits stay below."""


def energy_share(distances: Float[Tensor, "n m m"], a: Int[Tensor, "i"], b: Int[Tensor, "j"]) -> float:
    """Return the energy distance of the draws a from the draws b of each image, as a share, from pairwise distances.

    Unbiased: pairs of a draw with itself are left out, so that it is 0 on average where both are of one distribution.

    Source: Szekely and Rizzo, "Energy Statistics", 2013.
    """
    between = distances[:, a][:, :, b].mean()
    within = [distances[:, c][:, :, c].sum() / (len(distances) * len(c) * (len(c) - 1)) for c in (a, b)]
    return float((2 * between - within[0] - within[1]) / (2 * between))


def mean_shift(a: Draws, b: Draws, spread: Draws) -> float:
    """Return the root mean square of mean(a) - mean(b) in the standard deviations of `spread`, without their noise.

    The square of the difference of two means of finite samples is too large by the variances of the means.
    """
    square = (a.mean(1) - b.mean(1)) ** 2 - a.var(1) / a.shape[1] - b.var(1) / b.shape[1]
    return math.sqrt(max(0.0, float((square.mean(0) / spread.var(1).mean(0)).mean())))


def compare(short: Draws, long: Draws, latents: tuple[int, ...], rng: torch.Generator) -> list[Distance]:
    """Return how far the ends of short runs are from those of long runs of the same images, layer by layer, top down.

    The null comes from the long runs alone, split into halves at random again and again: halves are smaller samples,
    which makes it a cautious one.

    short: (n, restarts, d), at least 4 of each image.
    long: (n, restarts, d), at least 4 of each image.
    latents: the sizes of the layers, top down.
    rng: draws the halves.
    """
    found = []
    s, m = short.shape[1], long.shape[1]
    splits = [torch.randperm(m, generator=rng).split(m // 2)[:2] for _ in range(SPLITS)]
    of_short, of_long = torch.arange(s), torch.arange(s, s + m)
    for a, b in zip(short.double().split(latents, 2), long.double().split(latents, 2), strict=True):
        both = torch.cat([a, b], dim=1)
        distances = torch.cdist(both, both, compute_mode="donot_use_mm_for_euclid_dist")
        null_energy = [energy_share(distances, of_long[i], of_long[j]) for i, j in splits]
        null_shift = [mean_shift(b[:, i], b[:, j], b) for i, j in splits]
        found.append(
            Distance(
                mean_shift(a, b, b),
                _high(null_shift),
                float(a.var(1).mean() / b.var(1).mean()),
                energy_share(distances, of_short, of_long),
                _high(null_energy),
            )
        )
    return found


def _high(values: list[float]) -> float:
    return float(torch.tensor(values).quantile(0.95))


@dataclass(frozen=True)
class Aggregate:
    """The inferred latents of a layer over images, less the prior's mean and in its standard deviations, one by one."""

    mean: list[float]
    """Over images, one draw each."""
    variance: list[float]
    """The same."""
    second_moment: float
    """Of the layer: 1 under the prior."""
    mean_variance: list[float]
    """The variance over images of the posterior mean, corrected for the finite number of restarts."""
    active: int
    """How many of these are above the threshold."""
    threshold: float
    """0.01, or more where so few images and restarts leave more noise than that."""


def posterior_mean_variance(draws: Draws) -> Float[Tensor, "d"]:
    """Return the variance over images of the posterior mean, without what the finite number of draws adds to it."""
    return draws.mean(1).var(0) - draws.var(1).mean(0) / draws.shape[1]


def aggregate(one_each: Float[Tensor, "m d"], many: Draws, latents: tuple[int, ...]) -> list[Aggregate]:
    """Return how the inferred latents are against the prior, layer by layer, top down, and how many are in use.

    A latent that the generator ignores has the prior for its posterior: variance 1 and a posterior mean that does not
    vary. The threshold is 0.01 or four standard errors of such a latent's estimate, (1 / restarts) sqrt(2 / (n - 1)),
    where that is more.

    one_each: (m, d), one draw for each of many images, less the prior's mean and in its standard deviations.
    many: (n, restarts, d), several draws for each of some images, the same way.
    latents: the sizes of the layers, top down.

    Source: Burda, Grosse, Salakhutdinov, "Importance Weighted Autoencoders", 2016, arXiv 1509.00519.
    """
    images, restarts = many.shape[:2]
    threshold = max(ACTIVE, 4 / restarts * math.sqrt(2 / (images - 1)))
    one_each, many = one_each.double(), many.double()
    parts = [each.split(latents) for each in (one_each.mean(0), one_each.var(0), posterior_mean_variance(many))]
    moments = (one_each**2).mean(0).split(latents)
    return [
        Aggregate(
            mean.tolist(),
            variance.tolist(),
            float(moment.mean()),
            varied.tolist(),
            int((varied > threshold).sum()),
            threshold,
        )
        for mean, variance, varied, moment in zip(*parts, moments, strict=True)
    ]
