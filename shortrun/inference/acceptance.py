"""The step size at which a Metropolis-adjusted chain accepts as often as users of MCMC aim at."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.inference.diagnostics import BEST_ACCEPTANCE, adjusted_step, evaluate
from shortrun.inference.langevin import ChainNoise, LogDensity, StepSizes, short_run
from shortrun.inference.tuning import LONGEST, SHORTEST, Settings, Tuned

HALVINGS = 14
"""Of the interval from 0.001 to 10 in which a step size is searched for."""

Rates = Callable[[Settings], Float[Tensor, "n"]]


def acceptance_rates(
    log_density: LogDensity,
    z: Float[Tensor, "n d"],
    step_size: StepSizes,
    noise: ChainNoise,
    adjusted: Float[Tensor, "m n d"],
    uniforms: Float[Tensor, "m n"],
) -> Float[Tensor, "n"]:
    """Return how often each image's Metropolis-adjusted chain accepts where a short run ends, (n,) in [0, 1].

    A short run of K steps from z is followed by m adjusted steps of the same size, the last one's where it decays. The
    result is the mean of the m acceptance probabilities, and 0 where the run diverged.

    log_density: (n, d) -> (n,), one value for each row from that row alone.
    z: (n, d), where the chains start.
    step_size: as in `short_run`.
    noise: of the K steps, as in `short_run`.
    adjusted: (m, n, d), standard normal, the noise of the adjusted steps.
    uniforms: (m, n) in [0, 1), by which they are accepted.
    """
    end = short_run(log_density, z, step_size, noise)
    last = step_size[-1] if isinstance(step_size, Tensor) and step_size.ndim == 3 else step_size
    point, total = evaluate(log_density, end), torch.zeros_like(z[:, 0])
    for eps, uniform in zip(adjusted, uniforms, strict=True):
        point, accepted = adjusted_step(log_density, point, last, eps, uniform)
        total += torch.nan_to_num(accepted)
    return torch.where(torch.isfinite(end).all(1), total / len(adjusted), 0.0)


def acceptance(rates: Rates, start: Settings, target: float = BEST_ACCEPTANCE) -> Tuned:
    """Return the step sizes whose mean acceptance over the images is the target, by bisection of their logarithm.

    All settings move together by the same factor, so that the first lies between 0.001 and 10. `value` and `start` of
    the result are distances of the mean acceptance from the target.

    rates: settings -> (n,), how often each image's chain accepts.
    start: the settings to start from.
    target: in (0, 1), the mean acceptance that is looked for.
    halvings: at least 1, of the interval.

    Source: Roberts, Rosenthal, "Optimal Scaling of Discrete Approximations to Langevin Diffusions", 1998.
    """
    start = start.double()
    low, high = (torch.tensor(edge).double().log() - start[0] for edge in (SHORTEST, LONGEST))
    best, at_start = start, rates(start)
    best_rates = at_start
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        now = rates(start + middle)
        if abs(now.mean() - target) < abs(best_rates.mean() - target):
            best, best_rates = start + middle, now
        low, high = (middle, high) if now.mean() > target else (low, middle)
    error = float(best_rates.std() / len(best_rates) ** 0.5)
    far, near = (abs(float(r.mean()) - target) for r in (at_start, best_rates))
    return Tuned(best, near, error, far, HALVINGS + 1)


def acceptance_move(rates: Rates, start: Settings, width: float = 0.3, target: float = BEST_ACCEPTANCE) -> Settings:
    """Return settings moved by at most `width`: up where the chains accept more often than the target, else down.

    rates: settings -> (n,), how often each image's chain accepts.
    start: the settings to start from.
    width: the longest move, of the logarithm.
    target: in (0, 1), the mean acceptance that is aimed at.
    """
    return start.double() + min(max(float(rates(start).mean()) - target, -width), width)
