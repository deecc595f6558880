"""Annealed importance sampling with Hamiltonian Monte Carlo: bounds of log p(x) from both sides. Knows callables only.

Sources: Neal, "Annealed Importance Sampling", 2001, arXiv physics/9803008. Wu, Burda, Salakhutdinov and Grosse, "On the
Quantitative Analysis of Decoder-Based Generative Models", 2017, arXiv 1611.04273.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from shortrun.errors import InputError, check_at_least
from shortrun.progress import shown

LogLikelihood = Callable[[Float[Tensor, "rows d"]], Float[Tensor, "rows"]]

TEMPERATURES, CHAINS, LEAPFROG = 1000, 1, 10

SHARPNESS = 4.0
WANTED_ACCEPTANCE, GAIN, JITTER = 0.65, 0.2, 0.2


class Annealed(NamedTuple):
    """What annealed importance sampling says of each image."""

    log_p: Float64[Tensor, "n"]
    """Forward: the log of an unbiased estimate of p(x), so below log p(x) on average. Reverse: above on average."""
    log_weights: Float64[Tensor, "chains n"]
    """The log-weight of each chain; forward ones lie about half their variance below log p(x), reverse ones above."""
    acceptance: Float64[Tensor, "n"]
    """The mean acceptance probability of the transitions."""


class _Place(NamedTuple):
    """Where chains stand, with log p(x | z) and its gradient, so that no point is evaluated twice."""

    z: Tensor
    value: Tensor
    slope: Tensor


Move = Callable[[_Place, float, Tensor], tuple[_Place, Tensor]]
"""(place, beta, step size) -> where a transition that keeps the density at beta leads, and its acceptance."""


def inverse_temperatures(count: int) -> Float64[Tensor, "_"]:
    """Return beta_0 = 0 < ... < beta_T = 1, (T + 1,), by a sigmoid: dense at both ends, as in Wu et al.

        beta_t = (sigmoid(a (2 t / T - 1)) - sigmoid(-a)) / (sigmoid(a) - sigmoid(-a)),   a = 4

    count: T, at least 1.
    """
    curve = torch.sigmoid(SHARPNESS * torch.linspace(-1, 1, count + 1, dtype=torch.float64))
    return (curve - curve[0]) / (curve[-1] - curve[0])


@torch.no_grad()
def annealed_importance(
    log_likelihood: LogLikelihood,
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

    move: Move = partial(_transition, log_likelihood, leapfrog, rng)
    # A quarter of the orbit in the prior: the next point is then independent of the last in every direction that the
    # image does not determine, and more would be wasted.
    longest = math.pi / 2 / leapfrog
    table = _tuned_steps(move, _evaluate(log_likelihood, draw()), max(temperatures // 5, 50), chains, longest)
    start = draw() if posterior is None else posterior.to(device, dtype).repeat(chains, 1)
    place = _evaluate(log_likelihood, start)
    if not torch.isfinite(place.value).all():
        raise InputError(
            "log_likelihood", problem="not finite at the start of a chain", instead="the model or an image is not"
        )
    log_weights, acceptance = _annealed(move, place, table, temperatures, posterior is None)
    log_weights = log_weights.view(chains, n_images)
    sign = 1 if posterior is None else -1
    log_p = sign * (torch.logsumexp(sign * log_weights, 0) - math.log(chains))
    return Annealed(log_p, log_weights, acceptance.view(chains, n_images).mean(0))


def _annealed(
    move: Move, place: _Place, table: Float64[Tensor, "_ n"], temperatures: int, forward: bool
) -> tuple[Float64[Tensor, "rows"], Float64[Tensor, "rows"]]:
    """Return the log-weight of each chain from one end of the temperatures to the other, and its mean acceptance.

    forward: from beta = 0 to 1, else from 1 to 0; table: of step sizes, for `_at`.
    """
    rows, copies = len(place.z), len(place.z) // table.shape[1]
    beta = inverse_temperatures(temperatures)
    width = (beta[1:] - beta[:-1]).tolist()
    log_w, accepted = torch.zeros(rows, dtype=torch.float64), torch.zeros(rows, dtype=torch.float64)
    # at the end of a forward chain, beta = 1, and of a reverse one, beta = 0, no transition is needed any more
    order = range(temperatures) if forward else range(temperatures - 1, -1, -1)
    for turn, t in enumerate(shown(order, "annealing", "temperature")):
        log_w += width[t] * place.value.double().cpu()
        if turn < temperatures - 1:
            between = t + 1 if forward else t
            step = _at(table, between / temperatures).repeat(copies, 1).to(place.z)
            place, chance = move(place, float(beta[between]), step)
            accepted += chance.double().cpu()
    return log_w, accepted / max(temperatures - 1, 1)


def _evaluate(log_likelihood: LogLikelihood, z: Tensor) -> _Place:
    with torch.enable_grad():
        at = z.detach().requires_grad_()
        value = log_likelihood(at)
        slope = torch.autograd.grad(value.sum(), at)[0]
    return _Place(z, value.detach(), slope)


def _transition(
    log_likelihood: LogLikelihood, leapfrog: int, rng: torch.Generator, place: _Place, beta: float, step: Tensor
) -> tuple[_Place, Tensor]:
    """Move by Hamiltonian Monte Carlo on beta log p(x | z) + log N(z; 0, I); return the acceptance probability too.

    The step, (rows, 1), is multiplied by a draw around 1 for each row: no orbit can then return to where it began.
    """

    def uniform() -> Tensor:
        return torch.rand(len(step), generator=rng, device=rng.device, dtype=step.dtype).to(step.device)

    step = step * (1 + JITTER * (2 * uniform() - 1))[:, None]
    momentum = torch.randn(place.z.shape, generator=rng, device=rng.device, dtype=step.dtype).to(step.device)
    moved, moving = place, momentum + 0.5 * step * (beta * place.slope - place.z)
    for k in range(leapfrog):
        moved = _evaluate(log_likelihood, moved.z + step * moving)
        # two half kicks in one, but for the last
        kick = step if k < leapfrog - 1 else 0.5 * step
        moving = moving + kick * (beta * moved.slope - moved.z)
    gain = beta * (moved.value - place.value) - 0.5 * (moved.z**2 - place.z**2 + moving**2 - momentum**2).sum(1)
    chance = gain.clamp(max=0).exp().nan_to_num(nan=0.0)
    accept = uniform() < chance
    rows = accept[:, None]
    return _Place(
        torch.where(rows, moved.z, place.z),
        torch.where(accept, moved.value, place.value),
        torch.where(rows, moved.slope, place.slope),
    ), chance


def _tuned_steps(move: Move, place: _Place, temperatures: int, chains: int, longest: float) -> Float64[Tensor, "_ n"]:
    """Return a step size for each temperature of a shorter pass and each image, which gave the wanted acceptance."""
    most = math.log(longest)
    log_step = torch.full((len(place.z) // chains,), most, dtype=torch.float64)
    table = []
    for beta in inverse_temperatures(temperatures).tolist():
        table.append(log_step.exp())
        step = table[-1].repeat(chains)[:, None].to(place.z)
        place, chance = move(place, beta, step)
        error = chance.double().cpu().view(chains, -1).mean(0) - WANTED_ACCEPTANCE
        log_step = (log_step + GAIN * error).clamp(max=most)
    return torch.stack(table)


def _at(table: Float64[Tensor, "_ n"], height: float) -> Float64[Tensor, "n 1"]:
    """Return the row of a table at a height from 0 to 1, between two rows by interpolation."""
    position = height * (len(table) - 1)
    low = min(int(position), len(table) - 2)
    return torch.lerp(table[low], table[low + 1], position - low)[:, None]
