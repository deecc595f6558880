"""New images."""

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.errors import check_at_least
from shortrun.learners import Learner
from shortrun.learners.learner import Source
from shortrun.progress import shown
from shortrun.tasks.batches import BATCH_SIZE


def sample(
    learner: Learner, n: int, rng: torch.Generator, batch_size: int = BATCH_SIZE, source: Source | None = None
) -> Float[Tensor, "n c h w"]:
    """Return new images x = decode(z), (n, c, h, w) in [-1, 1], on the CPU.

    The numbers are drawn batch by batch, so they depend on `batch_size` too.

    learner: ready to use, as `load` returns it.
    n: at least 1, how many.
    rng: gives the random numbers.
    batch_size: at least 1, images at a time.
    source: prior, or fitted for the density that was fitted to the latents of training images; None for the prior, or
        the fitted density where the learner has no prior.

    Raises InputError for counts below 1, and where there is no such source.

    >>> from shortrun import ModelConfig, ShortRun
    >>> learner = ShortRun.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8))
    >>> sample(learner, 6, torch.Generator().manual_seed(0)).shape
    torch.Size([6, 1, 4, 4])
    """
    check_at_least(1, n=n, batch_size=batch_size)
    sizes = [min(batch_size, n - first) for first in range(0, n, batch_size)]
    return torch.cat([learner.sample(size, rng, source).cpu() for size in shown(sizes, "sampling")])
