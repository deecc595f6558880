"""log p(x) of a learned model, and how far off its estimate may be.

Source: Wu, Burda, Salakhutdinov and Grosse, "On the Quantitative Analysis of Decoder-Based Generative Models", 2017,
arXiv 1611.04273.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.errors import InputError, check_at_least
from shortrun.evaluation.normalizer import Normalizer, normalizer, whitened
from shortrun.evaluation.quantity import LOG_P, Quantity
from shortrun.learners import LatentLearner, frozen
from shortrun.metrics.annealing import CHAINS, LEAPFROG, TEMPERATURES, Annealed, annealed_importance
from shortrun.metrics.figure import Figure
from shortrun.model import TopDown
from shortrun.model.likelihood import Images

NATS = Quantity("nats", LOG_P, "log p(x), nats", 5)
BITS_PER_DIM = Quantity("bits_per_dim", LOG_P, "bits/dim", 7)
GAP = Quantity(
    "annealing_gap",
    LOG_P,
    note="log p(x) of the simulated images lies between lower and upper, on average",
)


def log_likelihood_figures(
    learner: LatentLearner,
    x: Images,
    rng: torch.Generator,
    *,
    temperatures: int = TEMPERATURES,
    chains: int = CHAINS,
    leapfrog: int = LEAPFROG,
    batch_size: int = 100,
) -> dict[str, Figure]:
    """Return the mean of log p(x) over images by forward annealed importance sampling, as figures.

    `nats`: the mean, a lower bound on average. Its standard error is of that mean as one of a population of images
    (None for one image), not of the annealing; its `acceptance` is that of the transitions. `bits_per_dim`: by
    `bits_per_dim`; left out where the pixels are no whole numbers or the learner was put together by hand. What the
    annealing leaves out is measured by `annealing_gap` on simulated images. Where the prior lacks its constant, log Z
    is estimated and taken off, and its error is in the standard error. It is estimated from below, so that the mean is
    no bound then.

    learner: ready to use.
    x: (n, c, h, w) in [-1, 1], the images.
    rng: gives the random numbers.
    temperatures: at least 1, one transition each.
    chains: at least 1, of each image.
    leapfrog: at least 1, steps of a transition.
    batch_size: at least 1, images at a time.

    Raises InputError for no images, for counts below 1, and where log p(x | z) is not finite.
    """
    if not len(x):
        raise InputError("x", "no images", "give at least one, (n, c, h, w)")
    constant = normalizer(learner.generator, rng, x[:1].to(learner.device))
    parts = [
        _anneal(learner, part.to(learner.device), rng, temperatures, chains, leapfrog, constant)
        for part in x.split(batch_size)
    ]
    log_p = torch.cat([part.log_p for part in parts])
    levels = learner.levels
    nats, acceptance = float(log_p.mean()), float(torch.cat([part.acceptance for part in parts]).mean())
    how = {"images": len(x), "by": "annealed importance sampling", "temperatures": temperatures}
    how |= {"chains": chains, "leapfrog": leapfrog, **learner.density_conditions(), **constant.conditions()}
    own = {"standard_error": constant.with_error(standard_error(log_p)), "acceptance": acceptance, **constant.own()}
    return {
        "nats": NATS.figure(nats, how, **own),
        "bits_per_dim": bits_figure(bits_per_dim(learner.generator, nats, x[0].numel(), levels), how),
    }


def annealing_gap(
    learner: LatentLearner,
    n: int,
    rng: torch.Generator,
    *,
    temperatures: int = TEMPERATURES,
    chains: int = CHAINS,
    leapfrog: int = LEAPFROG,
) -> Figure:
    """Return how far apart the bounds of log p(x) lie on images that the model itself made, in nats.

    The value is upper - lower, which is 0 on average only for an exact estimate. Its own are `lower` and `upper`, the
    means of the forward and the reverse estimate, and its standard error (None for n = 1). It says what
    `log_likelihood_figures` is worth for real images as far as their posteriors are like those of simulated ones (Wu et
    al., section 3).

    learner: ready to use.
    n: at least 1, how many images.
    rng: gives the random numbers.
    temperatures: at least 1, one transition each.
    chains: at least 1, of each image.
    leapfrog: at least 1, steps of a transition.

    Raises InputError where no exact draws of the prior are known: the latents that made an image are then no sample of
    its posterior, and the upper bound is none.
    """
    if not learner.generator.prior.exact:
        raise InputError(
            "model.prior",
            problem="no exact draws of the prior are known, which an upper bound takes",
            instead="leave the gap out, or take a model whose prior is normal or mixture",
        )
    x, z = simulate(learner.generator, n, rng, learner.device)
    constant = Normalizer()
    lower = _anneal(learner, x, rng, temperatures, chains, leapfrog, constant).log_p
    upper = _anneal(learner, x, rng, temperatures, chains, leapfrog, constant, posterior=z).log_p
    gap = upper - lower
    how = {"images": n, "temperatures": temperatures, "images_are": "simulated by the model"}
    bounds = {"lower": float(lower.mean()), "upper": float(upper.mean())}
    return GAP.figure(float(gap.mean()), how, standard_error=standard_error(gap), **bounds)


def standard_error(values: Float[Tensor, "n"]) -> float | None:
    """Return the standard error of the mean of values as a sample of a population; None for one value."""
    return float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else None


def bits_figure(value: float | None, conditions: dict[str, Any], quantity: Quantity = BITS_PER_DIM) -> Figure:
    """Return bits per dimension as a figure of a quantity; None is left out."""
    if value is None:
        return quantity.left_out("the pixels are floats, or the learner was put together by hand: there are no levels")
    return quantity.figure(value, conditions)


def bits_per_dim(generator: TopDown, nats: float, dims: int, levels: int | None) -> float | None:
    """Return -log2 P(x) / dims for whole-number pixels; None where levels is None.

    Where the likelihood is a density, as the Gaussian is, log p is one on the [-1, 1] scale, whose values lie
    w = 2 / (levels - 1) apart. P(x) is then taken as p(x) w^dims, the density times the volume of the bin around x.
    This is good where sigma is not small against w. With a learned sigma below w / 2 or so, a density can stand on the
    grid like a comb, and the figure means nothing: give images with uniform noise of width w added, for which it is an
    upper bound. The other likelihoods are probabilities of the values themselves and need no w.

    generator: whose likelihood log p is of.
    nats: log p(x), a mean over images.
    dims: c h w, numbers of an image.
    levels: values that a pixel can take; None where pixels are floats.
    """
    if levels is None:
        return None
    width = 2 / (levels - 1) if generator.likelihood.is_density else 1.0
    return -(nats / dims + math.log(width)) / math.log(2)


@torch.no_grad()
def simulate(
    generator: TopDown, n: int, rng: torch.Generator, device: torch.device | str = "cpu"
) -> tuple[Images, Float[Tensor, "n d"]]:
    """Return draws x ~ p(x | z) and z ~ p(z): z is then an exact sample of the posterior of x.

    x has the noise of the likelihood, unlike `Learner.sample`, which gives its mean.

    generator: p(x, z).
    n: at least 1, how many; fewer raise InputError.
    rng: gives the random numbers.
    device: where the draws are put.
    """
    check_at_least(1, n=n)
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
    constant: Normalizer,
    posterior: Float[Tensor, "n d"] | None = None,
) -> Annealed:
    """Estimate log p(x) of the images of one batch.

    The annealing is of E_{u ~ N(0, I)}, in the coordinates of `whitened`: the prior's density relative to that normal
    enters as a factor, which is 1 for N(0, I) itself.
    """
    repeated, generator = x.repeat(chains, 1, 1, 1), learner.generator
    white = whitened(generator.prior, x, constant.log_z)

    def relative(u: Float[Tensor, "rows d"]) -> Float[Tensor, "rows"]:
        log_likelihood = generator.log_likelihood(repeated, white.to_latents(u))
        return log_likelihood if white.relative is None else log_likelihood + white.relative(u)

    if posterior is not None:
        posterior = white.from_latents(posterior.to(x))
    with frozen(generator):
        return annealed_importance(
            relative,
            generator.dim,
            len(x),
            rng,
            temperatures=temperatures,
            chains=chains,
            leapfrog=leapfrog,
            posterior=posterior,
            dtype=x.dtype,
            device=learner.device,
        )
