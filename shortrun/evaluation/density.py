"""log p(x) of the first test images: the exact density where a learner has one, else estimates from below."""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from shortrun.evaluation.assessment import Assessment
from shortrun.evaluation.importance import IMPORTANCE_NATS, importance_figures
from shortrun.evaluation.likelihood import (
    BITS_PER_DIM,
    GAP,
    NATS,
    annealing_gap,
    bits_figure,
    log_likelihood_figures,
    standard_error,
)
from shortrun.evaluation.quantity import LOG_P, Measure, Quantity, unless_refused
from shortrun.learners import Learner, with_generator
from shortrun.metrics.figure import Figure
from shortrun.model.likelihood import Images
from shortrun.streams import Use

NOTE = (
    "nats_with_noise and bits_per_dim_with_noise are a flow's: the mean of log p(x + u) over uniform u of the width of "
    "a level, and not log p(x) at x itself, which generators have: not to be ranked against that"
)
OF_FLOWS, AT_X = "only a flow has it", "a flow has the density of noisy images, log p(x + u), in its place"
"""Why there is no figure of the one kind or the other."""
NATS_WITH_NOISE = Quantity("nats_with_noise", LOG_P, "log p(x + u), nats", 8, note=NOTE, absent=OF_FLOWS)
BITS_WITH_NOISE = Quantity("bits_per_dim_with_noise", LOG_P, "bits/dim of x + u", 9, note=NOTE, absent=OF_FLOWS)
NOISE_DRAWS = 16
"""Draws of the noise of an exact density, for each image."""


def log_p(assessment: Assessment) -> list[Figure]:
    """Return log p(x) of the first test images; of a learner with a density of noisy images, that, by its own names."""
    learner, n = assessment.learner, assessment.likelihood_images
    if n == 0:
        asked = (NATS_WITH_NOISE, BITS_WITH_NOISE) if learner.has_density else (NATS, BITS_PER_DIM, IMPORTANCE_NATS)
        return [quantity.left_out("likelihood_images = 0") for quantity in asked]
    x = assessment.dataset.test.images(slice(0, n))
    if learner.has_density:
        others = [quantity.left_out(AT_X) for quantity in (NATS, BITS_PER_DIM, IMPORTANCE_NATS)]
        return [*exact(learner, x, assessment.rng(Use.ANNEALING)), *others]
    if not with_generator(learner):
        reason = "the learner has no generator p(x, z), and so no likelihood"
        return [quantity.left_out(reason) for quantity in (NATS, BITS_PER_DIM, IMPORTANCE_NATS)]

    def annealed() -> list[Figure]:
        rng, temperatures = assessment.rng(Use.ANNEALING), assessment.temperatures
        return list(log_likelihood_figures(learner, x, rng, temperatures=temperatures).values())

    def weighted() -> list[Figure]:
        rng, samples = assessment.rng(Use.IMPORTANCE), assessment.importance_samples
        return list(importance_figures(learner, x, rng, samples=samples).values())

    return unless_refused(annealed, [NATS, BITS_PER_DIM]) + unless_refused(weighted, [IMPORTANCE_NATS])


def exact(learner: Learner, x: Images, rng: torch.Generator) -> list[Figure]:
    """Return the mean of the learner's own density, over images x and draws of the noise u of one level.

    The figures of generators with a density are of the density at x instead, so that these have names of their own.
    """
    each = noisy_density(learner, x, rng)
    nats = float(each.mean())
    bits = -(nats / x[0].numel() + math.log(learner.bin_width)) / math.log(2) if learner.levels else None
    how = {"images": len(x), "by": "the exact density", "noise_draws": NOISE_DRAWS, **learner.density_conditions()}
    return [
        NATS_WITH_NOISE.figure(nats, how, standard_error=standard_error(each)),
        bits_figure(bits, how, BITS_WITH_NOISE),
    ]


@torch.no_grad()
def noisy_density(learner: Learner, x: Images, rng: torch.Generator) -> Float64[Tensor, "n"]:
    """Return E_u log p(x + u) of each image, over 16 draws of the noise u of one level.

    It is at most log E_u p(x + u), the logarithm of the probability of x over the bin's volume.

    learner: one that declares `has_density`.
    x: (n, c, h, w) in [-1, 1], the images.
    rng: gives the random numbers.
    """
    total = torch.zeros(len(x), dtype=torch.float64)
    for _ in range(NOISE_DRAWS):
        noise = learner.bin_width * (torch.rand(x.shape, generator=rng) - 0.5)
        total += torch.cat(
            [learner.log_prob(part.to(learner.device)).double().cpu() for part in (x + noise).split(500)]
        )
    return total / NOISE_DRAWS


def bounds_of_simulated(assessment: Assessment) -> list[Figure]:
    """Return how far the bounds of log p(x) lie apart on images of the model itself: log p(x) lies between."""
    learner, n = assessment.learner, assessment.gap_images
    if n == 0:
        return []
    if not with_generator(learner):
        return [GAP.left_out("the learner has no annealing")]

    def gap() -> list[Figure]:
        return [annealing_gap(learner, n, assessment.rng(Use.GAP), temperatures=assessment.temperatures)]

    return unless_refused(gap, [GAP])


MEASURES = (
    Measure("likelihood", (NATS, BITS_PER_DIM, IMPORTANCE_NATS, NATS_WITH_NOISE, BITS_WITH_NOISE), log_p),
    Measure("likelihood", (GAP,), bounds_of_simulated),
)
