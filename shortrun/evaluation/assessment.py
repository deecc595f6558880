"""What an assessment is of, how much of it is measured, and the random numbers of its figures."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

from shortrun.data import Dataset, ImageSet
from shortrun.learners import Learner
from shortrun.progress import shown
from shortrun.streams import Use, stream

Found = TypeVar("Found")


def hidden_while_learning(train: ImageSet) -> dict[str, float]:
    """Return what figures of a model quote that learned from incomplete images: the share of pixels it never saw."""
    return {} if train.masks is None else {"hidden_while_learning": round(train.hidden_share, 4)}


@dataclass(frozen=True)
class Assessment:
    """What is assessed, on what, and with which random numbers; the counts are those of `assess`."""

    learner: Learner
    dataset: Dataset
    seed: int
    features: nn.Module | None
    """What sets of images are compared by; None where there are none."""
    factors: Int[Tensor, "n f"] | None
    """Known factors of the test images that are reconstructed."""
    samples: int
    likelihood_images: int
    temperatures: int
    importance_samples: int
    test_images: int
    gap_images: int
    rate_images: int
    batch_size: int
    _found: dict[Callable[["Assessment"], Any], Any] = field(default_factory=dict, init=False, repr=False)

    def once(self, find: Callable[["Assessment"], Found]) -> Found:
        """Return what a function finds of this assessment; it is called once, however many measures stand on it."""
        if find not in self._found:
            self._found[find] = find(self)
        return self._found[find]

    def rng(self, use: Use) -> torch.Generator:
        """Return the random numbers of one figure: they follow from the seed, whatever else is measured."""
        return stream(self.seed, use)

    def batches(self, count: int, words: str) -> Iterable[Tensor]:
        """Return the row numbers of batches, with progress on a terminal."""
        return shown(torch.arange(count).split(self.batch_size), words)

    def conditions(self) -> dict[str, Any]:
        """Return what holds for every figure."""
        learner = self.learner
        name = type(learner).__name__ if learner.description is None else learner.description.learner
        return {
            "data": self.dataset.name,
            "split": self.dataset.split,
            "learner": name,
            **learner.conditions(),
            **hidden_while_learning(self.dataset.train),
            "seed": self.seed,
        }
