"""How many nats about an image latents need for how small an error: a curve of a model. Knows callables only.

Source: Huang, Makhzani, Cao and Grosse, "Evaluating Lossy Compression Rates of Deep Generative Models", 2020,
arXiv 2008.06653.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from shortrun.errors import InputError, check_at_least
from shortrun.metrics.hamiltonian import Function, Hamiltonian, Powers, shorter
from shortrun.progress import shown

TEMPERATURES, LEAPFROG = 500, 10
TO_FIRST = 0.25
"""Share of the temperatures up to the first sigma: of .25, .3 and .5 it left out least on linear models."""


class RateDistortion(NamedTuple):
    """Points of the curve of each image."""

    rate: Float64[Tensor, "points n"]
    """Nats; the mean over draws is an upper bound of the divergence of p_s(z | x) from p(z)."""
    squared_error: Float64[Tensor, "points n"]
    """|x - decoded(z)|^2 of the draw z ~ p_s(z | x), nearly."""
    acceptance: Float64[Tensor, "n"]
    """The mean acceptance probability of the transitions."""


@torch.no_grad()
def rate_distortion(
    squared_error: Function,
    n: int,
    dim: int,
    rng: torch.Generator,
    sigmas: Sequence[float],
    *,
    relative: Function | None = None,
    temperatures: int = TEMPERATURES,
    leapfrog: int = LEAPFROG,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> RateDistortion:
    """Return rate and squared error of n images, from few nats to many, by one annealed chain an image.

        p_s(z | x) ~ p(z) exp(-|x - decoded(z)|^2 / (2 s^2)),   s = sigma_1 > sigma_2 > ...,
        rate = -|x - decoded(z)|^2 / (2 s^2) - log w

    The chain starts at N(0, I). On its way to sigma_1 error and prior come in, each image in the normal of a mixture
    that suits it; from there sigma falls. log w is the log-weight of annealed importance sampling on the way. On
    average the rate is the divergence of the chain from a reversed one that starts at a draw of p(z), so not below that
    of z from p(z): with the error it is a rate that the model does reach. More temperatures make it smaller. The curve
    is one of generator and prior alone: how a learner infers plays no part.

    squared_error: (n, d) -> (n,), image by image, differentiable.
    n: images.
    dim: d, the number of latents.
    rng: gives the random numbers.
    sigmas: positive, falling; the standard deviations s.
    relative: log p(z) - log N(z; 0, I), differentiable; 0 where not given.
    temperatures: at least 1, of the chain; a quarter of them leads to sigma_1.
    leapfrog: at least 1, steps of a transition.
    dtype: of z; weights are summed in float64.
    device: of z.

    Raises InputError for counts below 1, and for sigmas that are not positive and falling.

    >>> def squared_error(z):  # x = 0 is decoded from z itself, so p_s(z | x) is normal with variance s^2 / (1 + s^2)
    ...     return (z**2).sum(1)
    >>> rng = torch.Generator().manual_seed(0)
    >>> found = rate_distortion(squared_error, 500, 1, rng, [1.0], temperatures=50)
    >>> exact = 0.0966  # (log 2 - 1 / 2) / 2
    >>> abs(found.rate.mean().item() - exact) < 0.05, abs(found.squared_error.mean().item() - 0.5) < 0.1
    (True, True)
    """
    check_at_least(1, n=n, dim=dim, temperatures=temperatures, leapfrog=leapfrog)
    if not sigmas or min(sigmas) <= 0 or any(low >= high for high, low in pairwise(sigmas)):
        raise InputError("sigmas", list(sigmas), "write positive numbers, each smaller than the one before")

    def draw() -> Float[Tensor, "n d"]:
        return torch.randn((n, dim), generator=rng, device=rng.device, dtype=dtype).to(device)

    moves = Hamiltonian(lambda z: -squared_error(z) / 2, leapfrog, rng, relative)
    steps = moves.tuned(draw(), [point.powers for point in _path(sigmas, shorter(temperatures))], chains=1)
    path, place = _path(sigmas, temperatures), moves.at(draw())
    log_w, accepted = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    rate, error = [], []
    for turn in shown(range(1, len(path)), "annealing", "temperature"):
        before, (powers, marked) = path[turn - 1].powers, path[turn]
        log_w += (powers.b - before.b) * place.value.double().cpu()
        log_w += (powers.a - before.a) * place.relative.double().cpu()
        place, chance = moves.move(place, powers, steps.at(turn / (len(path) - 1)).to(place.z))
        accepted += chance.double().cpu()
        if marked:
            value = place.value.double().cpu()
            rate.append(powers.b * value - log_w)
            error.append(-2 * value)
    return RateDistortion(torch.stack(rate), torch.stack(error), accepted / (len(path) - 1))


class _Point(NamedTuple):
    powers: Powers
    marked: bool = False
    """Whether it stands at one of the sigmas."""


def _path(sigmas: Sequence[float], temperatures: int) -> list[_Point]:
    """Return the points from N(0, I) by way of every sigma: the prior is whole from the first sigma on.

    Towards the first one b rises as the third power, slowly where p(z) is still wide; then sigma falls geometrically.
    """
    first, total = 1 / sigmas[0] ** 2, math.log(sigmas[0] / sigmas[-1])
    count = max(1, round(temperatures * (TO_FIRST if total else 1)))
    shares = [(turn / count) ** 3 for turn in range(count)]
    found = [_Point(Powers(first * share, share)) for share in shares] + [_Point(Powers(first), True)]
    for high, low in pairwise(sigmas):
        count = max(1, round(temperatures * (1 - TO_FIRST) * math.log(high / low) / total))
        between = [high * (low / high) ** (turn / count) for turn in range(1, count)]
        found += [_Point(Powers(1 / sigma**2)) for sigma in between] + [_Point(Powers(1 / low**2), True)]
    return found
