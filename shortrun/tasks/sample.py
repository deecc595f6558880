"""New images."""

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.learners import Learner
from shortrun.tasks.batches import BATCH_SIZE, check_count, shown


def sample(learner: Learner, n: int, rng: torch.Generator, batch_size: int = BATCH_SIZE) -> Float[Tensor, "n c h w"]:
    """Draw n images x = E[x | z], z ~ N(0, I), as (n, c, h, w) in [-1, 1], on the CPU.

    The numbers are drawn batch by batch, so they depend on `batch_size` too. Raises InputError for n < 1.
    """
    check_count("n", n)
    check_count("batch_size", batch_size)
    sizes = [min(batch_size, n - first) for first in range(0, n, batch_size)]
    return torch.cat([learner.sample(size, rng).cpu() for size in shown(sizes, "sampling")])
