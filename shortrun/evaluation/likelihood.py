"""log p(x) of a learned model, and how far off its estimate may be.

Source: Wu, Burda, Salakhutdinov and Grosse, "On the Quantitative Analysis of Decoder-Based Generative Models", 2017,
arXiv 1611.04273.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.errors import InputError, at_least_one
from shortrun.learners import LatentLearner, frozen
from shortrun.metrics.annealing import CHAINS, LEAPFROG, TEMPERATURES, Annealed, annealed_importance
from shortrun.model import Gaussian, TopDown
from shortrun.model.likelihood import Images


def log_likelihood_figures(
    learner: LatentLearner,
    x: Images,
    rng: torch.Generator,
    *,
    temperatures: int = TEMPERATURES,
    chains: int = CHAINS,
    leapfrog: int = LEAPFROG,
    batch_size: int = 100,
) -> dict[str, Any]:
    """Return the mean of log p(x) over images, (n, c, h, w) in [-1, 1], by forward annealed importance sampling.

    `nats`: the mean, a lower bound on average; `nats_standard_error`: of that mean as one of a population of images
    (None for one image), not of the annealing. `acceptance`: of its transitions. `bits_per_dim`: by `bits_per_dim`;
    None where the pixels are no whole numbers or the learner was put together by hand. What the annealing leaves out
    is measured by `annealing_gap` on simulated images. Raises InputError for no images, for counts below 1, and where
    log p(x | z) is not finite.
    """
    if not len(x):
        raise InputError("x", "no images", "give at least one, (n, c, h, w)")
    parts = [
        _anneal(learner, part.to(learner.device), rng, temperatures, chains, leapfrog) for part in x.split(batch_size)
    ]
    log_p = torch.cat([part.log_p for part in parts])
    levels = None if learner.description is None else learner.description.levels
    nats = float(log_p.mean())
    return {
        "nats": nats,
        "nats_standard_error": float(log_p.std()) / math.sqrt(len(x)) if len(x) > 1 else None,
        "bits_per_dim": bits_per_dim(learner.generator, nats, x[0].numel(), levels),
        "acceptance": float(torch.cat([part.acceptance for part in parts]).mean()),
        "images": len(x),
    }


def annealing_gap(
    learner: LatentLearner,
    n: int,
    rng: torch.Generator,
    *,
    temperatures: int = TEMPERATURES,
    chains: int = CHAINS,
    leapfrog: int = LEAPFROG,
) -> dict[str, Any]:
    """Return how far apart the bounds of log p(x) lie on n images that the model itself made.

    `lower` and `upper`: the means of the forward and the reverse estimate in nats; `gap`: upper - lower, which is 0
    on average only for an exact estimate; `gap_standard_error` (None for n = 1). It says what `log_likelihood_figures`
    is worth for real images as far as their posteriors are like those of simulated ones (Wu et al., section 3).
    """
    x, z = simulate(learner.generator, n, rng, learner.device)
    lower = _anneal(learner, x, rng, temperatures, chains, leapfrog).log_p
    upper = _anneal(learner, x, rng, temperatures, chains, leapfrog, posterior=z).log_p
    gap = upper - lower
    return {
        "lower": float(lower.mean()),
        "upper": float(upper.mean()),
        "gap": float(gap.mean()),
        "gap_standard_error": float(gap.std()) / math.sqrt(n) if n > 1 else None,
        "images": n,
    }


def bits_per_dim(generator: TopDown, nats: float, dims: int, levels: int | None) -> float | None:
    """Return -log2 P(x) / dims for pixels of `levels` values, given log p(x) in nats; None where levels is None.

    For a Gaussian likelihood log p is a density on the [-1, 1] scale, where values lie w = 2 / (levels - 1) apart:
    P(x) is taken as p(x) w^dims, the density times the volume of the bin around x. This is good where sigma is not
    small against w; with a learned sigma below w / 2 or so, a density can stand on the grid like a comb, and the figure
    means nothing: give images with uniform noise of width w added, for which it is an upper bound. The other
    likelihoods are probabilities of the values themselves and need no w.
    """
    if levels is None:
        return None
    width = 2 / (levels - 1) if isinstance(generator.likelihood, Gaussian) else 1.0
    return -(nats / dims + math.log(width)) / math.log(2)


@torch.no_grad()
def simulate(
    generator: TopDown, n: int, rng: torch.Generator, device: torch.device | str = "cpu"
) -> tuple[Images, Float[Tensor, "n d"]]:
    """Draw z ~ p(z) and x ~ p(x | z), n of each: z is then an exact sample of the posterior of x.

    x has the noise of the likelihood, unlike `Learner.sample`, which gives its mean. Raises InputError for n below 1.
    """
    at_least_one(n=n)
    dtype = next((weight.dtype for weight in generator.parameters()), torch.float32)
    z = generator.prior.sample(n, rng, dtype, device)
    return generator.likelihood.sample(generator.decoder(*generator.split(z)), rng), z


def _anneal(
    learner: LatentLearner,
    x: Images,
    rng: torch.Generator,
    temperatures: int,
    chains: int,
    leapfrog: int,
    posterior: Float[Tensor, "n d"] | None = None,
) -> Annealed:
    """Estimate log p(x) of the images of one batch."""
    repeated = x.repeat(chains, 1, 1, 1)
    with frozen(learner.generator):
        return annealed_importance(
            # the annealing is of E_{N(0, I)}: a prior of another kind enters as its density relative to N(0, I)
            lambda z: learner.generator.log_likelihood(repeated, z) + learner.generator.prior.over_normal(z),
            learner.generator.dim,
            len(x),
            rng,
            temperatures=temperatures,
            chains=chains,
            leapfrog=leapfrog,
            posterior=posterior,
            dtype=x.dtype,
            device=learner.device,
        )
