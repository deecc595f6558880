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
    learner: Learner, n: int, rng: torch.Generator, batch_size: int = BATCH_SIZE, source: Source = "prior"
) -> Float[Tensor, "n c h w"]:
    """Draw n images x = E[x | z], z from the prior, as (n, c, h, w) in [-1, 1], on the CPU.

    source: fitted draws z from the density that was fitted to the latents of training images. The numbers are drawn
    batch by batch, so they depend on `batch_size` too. Raises InputError for n < 1, and where there is no such density.
    """
    check_at_least(1, n=n, batch_size=batch_size)
    sizes = [min(batch_size, n - first) for first in range(0, n, batch_size)]
    return torch.cat([learner.sample(size, rng, source).cpu() for size in shown(sizes, "sampling")])
