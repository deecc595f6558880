"""Long Metropolis-adjusted Langevin chains whose step is searched for on the way and then held.

Source of the adapted step: Andrieu and Thoms, "A Tutorial on Adaptive MCMC", 2008 (a Robbins-Monro search for the
acceptance).
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.inference.diagnostics import BEST_ACCEPTANCE, adjusted_step, evaluate
from shortrun.inference.langevin import LogDensity, StepSizes
from shortrun.inference.noise import DrawnNoise

KEPT = 125
"""Draws kept of the last part of a long chain: more would tell no more, so slowly does it move."""


class Course(NamedTuple):
    """What happens at which of the adjusted steps."""

    length: int
    """How many there are."""
    search: int
    """The step size is searched for before this one."""
    kept_from: int
    """Draws are kept from this one on."""

    @property
    def every(self) -> int:
        """Steps between two draws that are kept."""
        return max(1, (self.length - self.kept_from) // KEPT)

    @property
    def saved(self) -> frozenset[int]:
        """The steps whose draws are kept."""
        return frozenset(range(self.length - 1, self.kept_from - 1, -self.every)[:KEPT])


class AdjustedChains(NamedTuple):
    """What adjusted chains passed, several of each of n targets."""

    ends: Float[Tensor, "n restarts d"]
    """Where they end."""
    kept: Float[Tensor, "m restarts draws d"]
    """The draws that were kept, of the first m targets."""
    log_density: Float[Tensor, "m restarts draws"]
    """The log density at these draws."""
    scale: Float[Tensor, "n"]
    """What multiplies the step size so that the best share of proposals is accepted, target by target."""
    passed: Float[Tensor, "k 2"]
    """Mean acceptance and mean of -log density over all chains at each step that draws are kept from."""


@torch.no_grad()
def adjusted_chains(
    log_density: LogDensity,
    start: Float[Tensor, "n restarts d"],
    step_size: StepSizes,
    course: Course,
    rng: torch.Generator,
    *,
    steps: Iterable[int] | None = None,
    keep: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> AdjustedChains:
    """Return what Metropolis-adjusted chains pass, several of each target, which share a step size.

    log_density: (n * restarts, d) -> (n * restarts,), the chains of a target one after the other.
    start: (n, restarts, d), where they start, on the device that they run on.
    step_size: a positive number, or a tensor that broadcasts to (1, d), that the search starts from.
    course: how long they are, and what happens when.
    rng: gives the random numbers.
    steps: the numbers of the steps, 0 to length - 1, shown as they pass for example; None for a plain range.
    keep: of how many targets, the first so many, draws are kept; None for all.
    dtype: of the noise.
    """
    n, restarts, d = start.shape
    here = evaluate(log_density, start.flatten(0, 1))
    noise = DrawnNoise(rng, course.length, (n * restarts, d), device=here.z.device, dtype=dtype)
    log_scale, saved, kept, heights, passed = here.z.new_zeros(n), course.saved, [], [], []
    for k in range(course.length) if steps is None else steps:
        uniform = noise.uniform().to(here.z)
        s = step_size * log_scale.exp().repeat_interleave(restarts)[:, None]
        here, acceptance = adjusted_step(log_density, here, s, noise.draw(), uniform)
        if k < course.search:
            of_targets = acceptance.unflatten(0, (n, restarts)).mean(1)
            log_scale = log_scale + 2 * (of_targets - BEST_ACCEPTANCE) / math.sqrt(k + 1)
        elif k >= course.kept_from:
            passed.append(torch.stack([acceptance.mean(), -here.log_density.mean()]).double().cpu())
        if k in saved:
            kept.append(here.z.unflatten(0, (n, restarts))[:keep].cpu())
            heights.append(here.log_density.unflatten(0, (n, restarts))[:keep].cpu())
    ends, scale = here.z.unflatten(0, (n, restarts)).cpu(), log_scale.exp().cpu()
    return AdjustedChains(ends, torch.stack(kept, dim=2), torch.stack(heights, dim=2), scale, torch.stack(passed))
