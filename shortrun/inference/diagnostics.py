"""How well a chain samples its density: Metropolis acceptance, adjusted steps, effective sizes and R-hat.

Sources: Roberts and Tweedie, "Exponential Convergence of Langevin Distributions and Their Discrete Approximations",
1996 (MALA, the adjusted Langevin algorithm); Roberts and Rosenthal, "Optimal Scaling of Discrete Approximations to
Langevin Diffusions", 1998 (its best acceptance, 0.574).
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.inference.langevin import LogDensity, StepSizes, langevin_update

BEST_ACCEPTANCE = 0.574
"""Of an adjusted Langevin chain in many dimensions: the step that mixes fastest is accepted this often."""


class Point(NamedTuple):
    """Rows of latents with what a Langevin step needs to know of the density there."""

    z: Float[Tensor, "n d"]
    log_density: Float[Tensor, "n"]
    score: Float[Tensor, "n d"]
    """d/dz log_density(z)."""


def evaluate(log_density: LogDensity, z: Float[Tensor, "n d"]) -> Point:
    """Return z, detached, with log_density and its gradient there: one forward and one backward pass.

    log_density: (n, d) -> (n,), one value for each row from that row alone.
    z: (n, d).
    """
    with torch.enable_grad():
        at = z.detach().requires_grad_()
        value = log_density(at)
        (score,) = torch.autograd.grad(value.sum(), at)
    return Point(at.detach(), value.detach(), score)


def log_ratio(here: Point, there: Point, step_size: StepSizes) -> Float[Tensor, "n"]:
    """Return the log of the Metropolis ratio of a Langevin step between two points already evaluated, (n,).

        log p(z') - log p(z) + log q(z | z') - log q(z' | z),   q(. | z) = N(z + (s^2 / 2) d/dz log p(z), s^2)

    A Metropolis step accepts with probability min(1, exp(ratio)). A proposal with a non-finite density gives -inf.

    here: z, where the step starts.
    there: z', where it leads.
    step_size: s, with which the proposal was drawn, a number or a tensor that broadcasts to (n, d).
    """
    # The normalization of q is the same both ways, since s does not depend on where the step starts.
    onward = (there.z - here.z - 0.5 * step_size**2 * here.score) / step_size
    back = (here.z - there.z - 0.5 * step_size**2 * there.score) / step_size
    ratio = there.log_density - here.log_density + 0.5 * (onward**2 - back**2).sum(1)
    return torch.where(torch.isfinite(ratio) | (ratio == torch.inf), ratio, torch.full_like(ratio, -torch.inf))


def adjusted_step(
    log_density: LogDensity,
    here: Point,
    step_size: StepSizes,
    noise: Float[Tensor, "n d"],
    uniform: Float[Tensor, "n"],
) -> tuple[Point, Float[Tensor, "n"]]:
    """Return where a Metropolis-adjusted Langevin step ends, evaluated, and each row's acceptance probability, (n,).

        z' = z + (s^2 / 2) d/dz log_density(z) + s noise   where uniform < min(1, exp(log_ratio)), else z

    Each row is accepted or rejected by itself, and the density is kept. A proposal with a non-finite density is
    rejected.

    log_density: (n, d) -> (n,), one value for each row from that row alone.
    here: where the step starts, evaluated, so that a chain evaluates the density once a step.
    step_size: s, a number or a tensor that broadcasts to (n, d), one for each image or each layer for example.
    noise: (n, d), standard normal.
    uniform: (n,) in [0, 1).

    >>> def log_density(z):
    ...     return -(z**2).sum(1) / 2
    >>> here = evaluate(log_density, torch.ones(4, 2))
    >>> there, acceptance = adjusted_step(log_density, here, 0.1, torch.zeros(4, 2), torch.zeros(4))
    >>> there.z.shape, bool((acceptance > 0.99).all())
    (torch.Size([4, 2]), True)

    Source: Roberts and Tweedie, "Exponential Convergence of Langevin Distributions and Their Discrete Approximations",
    1996.
    """
    there = evaluate(log_density, langevin_update(here.z, here.score, step_size, noise))
    acceptance = log_ratio(here, there, step_size).clamp(max=0).exp()
    moved = uniform < acceptance
    rows = moved[:, None]
    point = Point(
        torch.where(rows, there.z, here.z),
        torch.where(moved, there.log_density, here.log_density),
        torch.where(rows, there.score, here.score),
    )
    return point, acceptance


def effective_sizes(draws: Float[np.ndarray, "chains draws *slots"]) -> Float[np.ndarray, "*slots"]:
    """Return the bulk effective sample size of all chains together, for each slot by itself.

    draws: (chains, draws, ...), at least 4 draws.

    Raises ModuleNotFoundError where arviz-stats is not installed.

    Source: Vehtari et al., "Rank-normalization, folding, and localization", 2021, arXiv 1903.08008.
    """
    from arviz_stats.base.array import array_stats

    return np.asarray(array_stats.ess(draws.astype(np.float64), chain_axis=0, draw_axis=1))


def split_rhat(draws: Float[np.ndarray, "chains draws *slots"]) -> Float[np.ndarray, "*slots"]:
    """Return the rank-normalized split R-hat for each slot: 1 where all halves of all chains agree.

    draws: (chains, draws, ...), at least 2 chains of 4 draws.

    Raises ModuleNotFoundError where arviz-stats is not installed.

    Source: Vehtari et al., "Rank-normalization, folding, and localization", 2021, arXiv 1903.08008.
    """
    from arviz_stats.base.array import array_stats

    with np.errstate(divide="ignore", invalid="ignore"):  # chains that never moved: inf or nan, which says so
        return np.asarray(array_stats.rhat(draws.astype(np.float64), chain_axis=0, draw_axis=1))
