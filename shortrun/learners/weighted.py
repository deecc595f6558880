"""Several draws from q(z|x) for each image, by their importance weights."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.inference import DrawnNoise
from shortrun.model.encoders import Moments
from shortrun.model.likelihood import Images, Mask, PerImage
from shortrun.normals import Flat

Weigh = Callable[[Flat], tuple[Flat, PerImage]]
"""Takes standard normal noise, (n, d), and returns draws of the latents, (n, d), with their log-weights, (n,)."""


def for_each_draw(parts: Sequence[Moments], count: int) -> list[Moments]:
    """Return the moments of n images for `count` draws of each, (count n, d): all images, and all of them again.

    parts: (n, d_l) each.
    count: at least 1.
    """
    return [Moments(*(moment.repeat(count, 1) for moment in part)) for part in parts]


def images_for_each_draw(
    x: Images, mask: Mask | None, count: int
) -> tuple[Float[Tensor, "mn c h w"], Float[Tensor, "_ _ h w"] | None]:
    """Return n images and their masks once for each draw, in the order of `for_each_draw`.

    x: (n, c, h, w).
    mask: (n or 1, 1 or c, h, w); None where all pixels are observed.
    count: at least 1.
    """
    if mask is not None and len(mask) > 1:
        mask = mask.repeat(count, 1, 1, 1)
    return x.repeat(count, 1, 1, 1), mask


def importance_weighted(log_w: Float[Tensor, "m n"]) -> PerImage:
    """Return the bound of log p(x) that m draws give for each image, (n,).

        log (1/m) sum_j w_j,   w_j = p(x, z_j) / q(z_j|x),   z_j ~ q(z|x)

    It is the evidence lower bound for m = 1, and rises with m on average. Of incomplete images x is what is observed.

    log_w: (m, n), log w of each draw.

    Source: Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", 2016, arXiv 1509.00519; Mattei and
    Frellsen, "MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets", ICML 2019, arXiv 1812.02633.

    >>> importance_weighted(torch.tensor([[2.0, 1.0], [2.0, 3.0]]).log()).exp()
    tensor([2., 2.])
    """
    return torch.logsumexp(log_w, 0) - math.log(len(log_w))


@torch.no_grad()
def resampled(weigh: Weigh, noise: DrawnNoise) -> Flat:
    """Return one of m draws for each image, taken with probability w_j / sum w, (n, d).

    The draws pass one by one, so that many of them take no memory: the j-th takes the place of the one that is kept
    with probability w_j / (w_1 + .. + w_j). A draw whose weight is no number is never taken, but for the first.

    weigh: makes a draw and its log-weight out of noise.
    noise: of m draws.

    Source: Rubin, "Using the SIR algorithm to simulate posterior distributions", Bayesian Statistics 3, 1988; for
    incomplete images, Mattei and Frellsen, section 4, arXiv 1812.02633.
    """
    z, total = weigh(noise.draw())
    total = sound(total)
    for _ in range(1, len(noise)):
        other, log_w = weigh(noise.draw())
        log_w = sound(log_w)
        total = torch.logaddexp(total, log_w)
        taken = noise.uniform().to(total) < torch.exp(log_w - total)  # where both are -inf this is no number: kept
        z = torch.where(taken[:, None], other, z)
    return z


def sound(log_w: PerImage) -> PerImage:
    """Return log-weights with those that are no number as -inf, (n,), in float64."""
    return log_w.double().nan_to_num(nan=-math.inf, posinf=-math.inf)
