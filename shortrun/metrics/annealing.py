"""Annealed importance sampling with Hamiltonian Monte Carlo: bounds of log p(x) from both sides. Knows callables only.

Sources: Neal, "Annealed Importance Sampling", 2001, arXiv physics/9803008. Wu, Burda, Salakhutdinov and Grosse, "On the
Quantitative Analysis of Decoder-Based Generative Models", 2017, arXiv 1611.04273.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from shortrun.errors import InputError, check_at_least
from shortrun.metrics.hamiltonian import Function, Hamiltonian, Place, Powers, Steps, inverse_temperatures, shorter
from shortrun.progress import shown

TEMPERATURES, CHAINS, LEAPFROG = 1000, 1, 10


class Annealed(NamedTuple):
    """What annealed importance sampling says of each image."""

    log_p: Float64[Tensor, "n"]
    """Forward: the log of an unbiased estimate of p(x), so below log p(x) on average. Reverse: above on average."""
    log_weights: Float64[Tensor, "chains n"]
    """The log-weight of each chain; forward ones lie about half their variance below log p(x), reverse ones above."""
    acceptance: Float64[Tensor, "n"]
    """The mean acceptance probability of the transitions."""


@torch.no_grad()
def annealed_importance(
    log_likelihood: Function,
    dim: int,
    n_images: int,
    rng: torch.Generator,
    *,
    temperatures: int = TEMPERATURES,
    chains: int = CHAINS,
    leapfrog: int = LEAPFROG,
    posterior: Float[Tensor, "n d"] | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Annealed:
    """Return estimates of log p(x) = log E_{z ~ N(0, I)} p(x | z) for each of n images.

        p_t(z) ~ N(z; 0, I) p(x | z)^beta_t,   log w = sum_t (beta_t - beta_{t-1}) log p(x | z_{t-1}),
        log_p = log mean_chains w,   z_0 ~ N(0, I), z_t from z_{t-1} by a transition that keeps p_t

    Where `posterior` is given, the same chain goes from there back to the prior: then log_p = -log mean_chains 1/w.
    E w = p(x) and E 1/w = 1/p(x) exactly, so by Jensen's inequality the first is a lower and the second an upper bound
    of log p(x) on average.

    The step size of each image and temperature comes from a preliminary pass of T/5 temperatures (at least 50) that
    aims at an acceptance of 0.65. It is then fixed, so that the transitions keep p_t and the bounds hold exactly,
    unlike with a step that follows the chain's own past. A proposal that is not finite is rejected. The cost is 1.2 T
    leapfrog gradients of chains n rows.

    log_likelihood: (chains n, d) -> (chains n,), log p(x | z) row by row, differentiable; the images take turns: row
        i n + j is chain i of image j.
    dim: d, the number of latents.
    n_images: n.
    rng: gives the random numbers.
    temperatures: T, at least 1, one transition each.
    chains: at least 1, of each image.
    leapfrog: at least 1, steps of a transition, Hamiltonian Monte Carlo with a new momentum.
    posterior: (n, d), an exact sample of p(z | x) for each image, known for simulated images only; None for the lower
        bound.
    dtype: of z; weights are summed in float64.
    device: of z.

    Raises InputError where a count is below 1, `posterior` has another shape, or a log-likelihood at a chain's start is
    not finite.

    >>> def log_likelihood(z):  # x = 0 under N(z, 1), so that p(x) = N(0; 0, 2)
    ...     return -(z**2).sum(1) / 2 - 0.5 * math.log(2 * math.pi)
    >>> rng = torch.Generator().manual_seed(0)
    >>> found = annealed_importance(log_likelihood, 1, 1, rng, temperatures=20, chains=200)
    >>> abs(found.log_p.item() + 0.5 * math.log(4 * math.pi)) < 0.1
    True
    """
    check_at_least(1, temperatures=temperatures, chains=chains, leapfrog=leapfrog, dim=dim)
    if posterior is not None and posterior.shape != (n_images, dim):
        raise InputError("posterior", list(posterior.shape), f"give one row for each image, {[n_images, dim]}")
    size = (chains * n_images, dim)

    def draw() -> Tensor:
        return torch.randn(size, generator=rng, device=rng.device, dtype=dtype).to(device)

    moves = Hamiltonian(log_likelihood, leapfrog, rng)
    steps = moves.tuned(draw(), [Powers(b) for b in inverse_temperatures(shorter(temperatures)).tolist()], chains)
    start = draw() if posterior is None else posterior.to(device, dtype).repeat(chains, 1)
    place = moves.at(start)
    if not torch.isfinite(place.value).all():
        raise InputError(
            "log_likelihood", problem="not finite at the start of a chain", instead="the model or an image is not"
        )
    log_weights, acceptance = _annealed(moves, place, steps, temperatures, posterior is None)
    log_weights = log_weights.view(chains, n_images)
    sign = 1 if posterior is None else -1
    log_p = sign * (torch.logsumexp(sign * log_weights, 0) - math.log(chains))
    return Annealed(log_p, log_weights, acceptance.view(chains, n_images).mean(0))


def _annealed(
    moves: Hamiltonian, place: Place, steps: Steps, temperatures: int, forward: bool
) -> tuple[Float64[Tensor, "rows"], Float64[Tensor, "rows"]]:
    """Return the log-weight of each chain from one end of the temperatures to the other, and its mean acceptance.

    forward: from beta = 0 to 1, else from 1 to 0.
    """
    rows = len(place.z)
    beta = inverse_temperatures(temperatures)
    width = (beta[1:] - beta[:-1]).tolist()
    log_w, accepted = torch.zeros(rows, dtype=torch.float64), torch.zeros(rows, dtype=torch.float64)
    # at the end of a forward chain, beta = 1, and of a reverse one, beta = 0, no transition is needed any more
    order = range(temperatures) if forward else range(temperatures - 1, -1, -1)
    for turn, t in enumerate(shown(order, "annealing", "temperature")):
        log_w += width[t] * place.value.double().cpu()
        if turn < temperatures - 1:
            between = t + 1 if forward else t
            place, chance = moves.move(
                place, Powers(float(beta[between])), steps.at(between / temperatures).to(place.z)
            )
            accepted += chance.double().cpu()
    return log_w, accepted / max(temperatures - 1, 1)
