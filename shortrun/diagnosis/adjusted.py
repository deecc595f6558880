"""Long Metropolis-adjusted chains, which short runs are compared with: where they end is a draw from the posterior.

Source of the adapted step: Andrieu and Thoms, "A Tutorial on Adaptive MCMC", 2008 (a Robbins-Monro search for the
acceptance).
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.diagnosis.chains import ChainSettings, Images
from shortrun.inference import DrawnNoise
from shortrun.inference.diagnostics import BEST_ACCEPTANCE, adjusted_step, evaluate
from shortrun.learners import frozen

KEPT = 125
"""Draws kept of the second half of a long chain: more would tell no more, so slowly do the latents move."""


class LongRun(NamedTuple):
    """Metropolis-adjusted chains of 10 K steps."""

    ends: Float[Tensor, "n restarts d"]
    """Where they end."""
    kept: Float[Tensor, "n restarts draws d"]
    """Draws of the second half, of the first so many images."""
    log_joint: Float[Tensor, "n restarts draws"]
    """log p(x, z) at these draws."""
    scale: Float[Tensor, "n"]
    """What multiplies the learner's last step size so that the best share of proposals is accepted, image by image."""
    acceptance: float
    """The mean acceptance in the second half."""
    energy: float
    """The mean of -log p(x, z) over the second half and all images."""
    every: int
    """Steps between two draws that are kept."""


class Course(NamedTuple):
    """What happens at which of the adjusted steps, counted from the end of the short run."""

    length: int
    """How many there are."""
    search: int
    """The step size is searched for before this one."""
    half: int
    """The second half of the 10 K steps begins with this one."""
    every: int
    """Steps between two draws that are kept."""
    saved: frozenset[int]
    """The steps whose draws are kept."""

    @classmethod
    def of(cls, chain: ChainSettings) -> "Course":
        """Return the course of chains whose first K steps are done."""
        length, half = chain.length - chain.steps, chain.length // 2 - chain.steps
        every = max(1, chain.length // 2 // KEPT)
        saved = frozenset(range(length - 1, half - 1, -every)[:KEPT])
        return cls(length, max(1, chain.length // 5), half, every, saved)


class _Batch(NamedTuple):
    """The chains of one batch: ends, kept, log_joint and scale as in LongRun."""

    ends: Float[Tensor, "n restarts d"]
    kept: Float[Tensor, "m restarts draws d"]
    log_joint: Float[Tensor, "m restarts draws"]
    scale: Float[Tensor, "n"]
    passed: Float[Tensor, "k 2"]
    """Mean acceptance and mean energy at each step of the second half."""


@torch.no_grad()
def long_run(
    chain: ChainSettings, x: Images, start: Float[Tensor, "n restarts d"], rng: torch.Generator, keep: int
) -> LongRun:
    """Go on from the ends of short runs, (n, restarts, d), with adjusted steps until 10 K steps are done.

    Adjusted, because an unadjusted chain with the learner's steps has the same bias as the short run and would not
    show it; and with a step of its own for each image, since the learner's may be too long to be accepted at all.
    The step is searched for in the first fifth of the way and then fixed, so that what is kept samples p(z | x).
    keep: of how many images, the first so many, the draws of the second half are kept.
    """
    course, per_batch = Course.of(chain), max(1, chain.batch_size // start.shape[1])
    parts = list(zip(x.split(per_batch), start.split(per_batch), strict=True))
    found: list[_Batch] = []
    with frozen(chain.learner.generator):
        for number, (images, begin) in enumerate(parts):
            words = f"adjusted chains of 10 K steps, batch {number + 1} of {len(parts)}"
            kept = max(0, min(keep - number * per_batch, len(images)))
            found.append(_adjusted_batch(chain, course, images, begin, rng, kept, words))
    ends, draws, log_joint, scale = (torch.cat(part) for part in list(zip(*found, strict=True))[:4])
    passed = torch.cat([batch.passed * len(batch.ends) / len(x) for batch in found])
    acceptance, energy = (passed.sum(0) / (len(passed) / len(parts))).tolist()
    return LongRun(ends, draws, log_joint, scale, acceptance, energy, course.every)


def _adjusted_batch(
    chain: ChainSettings,
    course: Course,
    x: Images,
    start: Float[Tensor, "n restarts d"],
    rng: torch.Generator,
    keep: int,
    words: str,
) -> _Batch:
    """Run the chains of one batch of images; keep: of how many of them the draws are kept."""
    device, (n, restarts, d) = chain.learner.device, start.shape
    log_density = chain.log_joint(x.to(device).repeat_interleave(restarts, 0))
    here, last = evaluate(log_density, start.flatten(0, 1).to(device)), chain.step_sizes()[-1]
    draws, log_scale = DrawnNoise(rng, course.length, (n * restarts, d), device=device), here.z.new_zeros(n)
    kept, heights, passed = [], [], []
    for k in chain.shown(range(course.length), words):
        uniform = torch.rand(n * restarts, generator=rng, device=rng.device).to(here.z)
        s = last * log_scale.exp().repeat_interleave(restarts)[:, None]
        here, acceptance = adjusted_step(log_density, here, s, draws.draw(), uniform)
        if k < course.search:
            of_images = acceptance.unflatten(0, (n, restarts)).mean(1)
            log_scale = log_scale + 2 * (of_images - BEST_ACCEPTANCE) / math.sqrt(k + 1)
        elif k >= course.half:
            passed.append(torch.stack([acceptance.mean(), -here.log_density.mean()]).double().cpu())
        if k in course.saved:
            kept.append(here.z.unflatten(0, (n, restarts))[:keep].cpu())
            heights.append(here.log_density.unflatten(0, (n, restarts))[:keep].cpu())
    ends, scale = here.z.unflatten(0, (n, restarts)).cpu(), log_scale.exp().cpu()
    return _Batch(ends, torch.stack(kept, dim=2), torch.stack(heights, dim=2), scale, torch.stack(passed))
