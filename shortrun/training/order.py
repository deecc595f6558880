"""Which training images each update sees."""

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from shortrun.streams import Use, stream
from shortrun.training.processes import Processes


@dataclass(frozen=True)
class Order:
    """Every image once an epoch, in an order that follows from the seed and the epoch alone.

    The images left over where the batch size does not divide their number are left out of that epoch.
    """

    images: int
    batch_size: int
    seed: int

    @property
    def steps_an_epoch(self) -> int:
        """The number of updates in an epoch."""
        return self.images // self.batch_size

    def rows(self, step: int, here: Processes) -> Int64[Tensor, "n"]:
        """Return this process's part of the batch of an update, counted from 0: the numbers of its images."""
        epoch, batch = divmod(step, self.steps_an_epoch)
        share = self.batch_size // here.count
        first = batch * self.batch_size + here.rank * share
        return epoch_order(self.images, self.seed, epoch)[first : first + share]

    def epoch(self, updates: int) -> int:
        """Return the epoch, counted from 1, in which the last of so many updates was done."""
        return -(-updates // self.steps_an_epoch)

    def ends_epoch(self, updates: int) -> bool:
        """Return whether the last of so many updates was the last of its epoch."""
        return updates % self.steps_an_epoch == 0

    def next_picture(self, updates: int, epochs: int) -> int:
        """Return after how many updates, more than there were, an epoch ends that a multiple of some epochs ends with.

        updates: that were done.
        epochs: from one picture to the next.
        """
        every = epochs * self.steps_an_epoch
        return (updates // every + 1) * every


@functools.lru_cache(maxsize=1)
def epoch_order(images: int, seed: int, epoch: int) -> Int64[Tensor, "n"]:
    """Return the order of the images in an epoch; it is drawn once, not again at each update."""
    return torch.randperm(images, generator=stream(seed, Use.ORDER, epoch))
