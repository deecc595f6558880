"""How many nats about an image its latents need for how small an error: the curve that no single sigma shows.

Source: Huang, Makhzani, Cao and Grosse, "Evaluating Lossy Compression Rates of Deep Generative Models", 2020,
arXiv 2008.06653.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.evaluation.assessment import Assessment
from shortrun.evaluation.likelihood import standard_error
from shortrun.evaluation.normalizer import Normalizer, normalizer, whitened
from shortrun.evaluation.quantity import Measure, Quantity, unless_refused
from shortrun.evaluation.reconstructions import UNIT_RANGE
from shortrun.learners import LatentLearner, frozen, with_generator
from shortrun.metrics.figure import Figure, from_json
from shortrun.metrics.rate_distortion import LEAPFROG, TEMPERATURES, RateDistortion, rate_distortion
from shortrun.model.likelihood import Images
from shortrun.streams import Use

SIGMAS = (0.5, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05)
"""Standard deviations of the noise that stand for the weight of the error, of pixels in [-1, 1]."""
GROUP = "error against rate"
RATES = tuple(Quantity(f"rate_at_{s}", GROUP, f"rate at {s}", 2 * i, unit="nats") for i, s in enumerate(SIGMAS))
ERRORS = tuple(Quantity(f"error_at_{s}", GROUP, f"error at {s}", 2 * i + 1) for i, s in enumerate(SIGMAS))


def rate_figures(
    learner: LatentLearner,
    x: Images,
    rng: torch.Generator,
    *,
    temperatures: int = TEMPERATURES,
    leapfrog: int = LEAPFROG,
    batch_size: int = 100,
) -> dict[str, Figure]:
    """Return points of the curve of error against rate, as figures `rate_at_S` and `error_at_S` for the S in SIGMAS.

        p_S(z | x) ~ p(z) exp(-|x - mean(z)|^2 / (2 S^2)),   rate = KL(p_S(z | x) || p(z)), from above

    A point has two numbers: the mean squared error of a draw from p_S(z | x), in [0, 1], and the nats that such a draw
    says about the image. Models that learned with other sigmas, other likelihoods and other learners can so be compared
    at the same rate or the same error. How a learner infers plays no part: the chains are annealed ones. Where the
    prior lacks its constant, log Z is estimated from below, and the rate is too low by as much.

    learner: ready to use.
    x: (n, c, h, w) in [-1, 1], the images.
    rng: gives the random numbers.
    temperatures: at least 1; more make the rate smaller, which is measured from above.
    leapfrog: at least 1, steps of a transition.
    batch_size: at least 1, images at a time.
    """
    constant = normalizer(learner.generator, rng, x[:1].to(learner.device))
    parts = [
        _curve(learner, part.to(learner.device), rng, temperatures, leapfrog, constant) for part in x.split(batch_size)
    ]
    rates, errors = torch.cat([part.rate for part in parts], 1), torch.cat([part.squared_error for part in parts], 1)
    acceptance = float(torch.cat([part.acceptance for part in parts]).mean())
    how = {"images": len(x), "by": "annealed chains", "temperatures": temperatures, "leapfrog": leapfrog}
    how |= constant.conditions()
    found: dict[str, Figure] = {}
    for of_rate, of_error, rate, error in zip(RATES, ERRORS, rates, errors, strict=True):
        mse = error / (4 * x[0].numel())  # pixels in [0, 1] are half as far apart as in [-1, 1]
        own = {"standard_error": constant.with_error(standard_error(rate)), "acceptance": acceptance, **constant.own()}
        found[of_rate.name] = of_rate.figure(float(rate.mean()), how, **own)
        found[of_error.name] = of_error.figure(float(mse.mean()), how | UNIT_RANGE, standard_error=standard_error(mse))
    return found


def _curve(
    learner: LatentLearner, x: Images, rng: torch.Generator, temperatures: int, leapfrog: int, constant: Normalizer
) -> RateDistortion:
    generator = learner.generator
    white = whitened(generator.prior, x, constant.log_z)

    def squared_error(u: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
        mean = generator.likelihood.mean(generator.decoder(*generator.split(white.to_latents(u))))
        return ((x - mean) ** 2).flatten(1).sum(1)

    with frozen(generator):
        return rate_distortion(
            squared_error,
            len(x),
            generator.dim,
            rng,
            SIGMAS,
            relative=white.relative,
            temperatures=temperatures,
            leapfrog=leapfrog,
            dtype=x.dtype,
            device=x.device,
        )


def rate(assessment: Assessment) -> list[Figure]:
    """Return the curve of the first test images, where it is asked for."""
    learner, n = assessment.learner, assessment.rate_images
    if n == 0:
        return []
    every = [*RATES, *ERRORS]
    if not with_generator(learner):
        return [quantity.left_out("the learner has no generator p(x, z), and so no rate") for quantity in every]

    def measured() -> list[Figure]:
        rng, x = assessment.rng(Use.RATE), assessment.dataset.test.images(slice(0, n))
        return list(rate_figures(learner, x, rng, temperatures=assessment.temperatures).values())

    return unless_refused(measured, every)


def points_of_rate(file: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Return the points of a curve, (rate, error), that an evaluation's file holds; none where it was not measured."""
    figures = from_json(file)
    pairs = [
        (figures[r.name].value, figures[e.name].value) for r, e in zip(RATES, ERRORS, strict=True) if r.name in figures
    ]
    return [(rate, error) for rate, error in pairs if rate is not None and error is not None]


MEASURES = (Measure("rate", (*RATES, *ERRORS), rate),)
