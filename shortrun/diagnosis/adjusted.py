"""Long Metropolis-adjusted chains, which short runs are compared with: where they end is a draw from the posterior."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.diagnosis.chains import ChainSettings, Images
from shortrun.inference.adjusted import AdjustedChains, Course, adjusted_chains
from shortrun.learners import frozen


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


def course_of(chain: ChainSettings) -> Course:
    """Return the course of chains of 10 K steps whose first K steps are done: what is kept is of the second half."""
    return Course(chain.length - chain.steps, max(1, chain.length // 5), chain.length // 2 - chain.steps)


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
    course, per_batch = course_of(chain), max(1, chain.batch_size // start.shape[1])
    parts = list(zip(x.split(per_batch), start.split(per_batch), strict=True))
    found: list[AdjustedChains] = []
    with frozen(chain.learner.generator):
        for number, (images, begin) in enumerate(parts):
            words = f"adjusted chains of 10 K steps, batch {number + 1} of {len(parts)}"
            repeated = images.to(chain.learner.device).repeat_interleave(start.shape[1], 0)
            found.append(
                adjusted_chains(
                    chain.log_joint(repeated),
                    begin.to(chain.learner.device),
                    chain.step_sizes()[-1],
                    course,
                    rng,
                    steps=chain.shown(range(course.length), words),
                    keep=max(0, min(keep - number * per_batch, len(images))),
                )
            )
    ends, draws, log_joint, scale = (torch.cat(part) for part in list(zip(*found, strict=True))[:4])
    passed = torch.cat([batch.passed * len(batch.ends) / len(x) for batch in found])
    acceptance, energy = (passed.sum(0) / (len(passed) / len(parts))).tolist()
    return LongRun(ends, draws, log_joint, scale, acceptance, energy, course.every)
