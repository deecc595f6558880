"""What an assessment is of, the random numbers of its figures, and what is said where there is no figure."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shortrun.data import Dataset
from shortrun.errors import InputError
from shortrun.learners import LatentLearner, Learner
from shortrun.model import Gaussian
from shortrun.progress import shown
from shortrun.streams import Use, stream

Figures = dict[str, dict[str, Any]]


class Assessment(NamedTuple):
    """What is assessed, on what, and with which random numbers."""

    learner: Learner
    dataset: Dataset
    seed: int
    batch_size: int

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
            "seed": self.seed,
        }

    def density(self) -> dict[str, Any]:
        """Return what log p(x) is the logarithm of."""
        if isinstance(self.learner, LatentLearner):
            likelihood = self.learner.generator.likelihood
            if not isinstance(likelihood, Gaussian):
                return {"of": f"the probability of pixel values, {type(likelihood).__name__}"}
            return {"of": "the density of pixels in [-1, 1], Gaussian", "sigma": float(likelihood.sigma)}
        return {"of": "the density of pixels in [-1, 1] with uniform noise of one level"}


def unless_refused(measure: Callable[[], Figures], names: list[str]) -> Figures:
    """Return the figures, or for each name the reason why there are none."""
    try:
        return measure()
    except InputError as error:
        return {name: {"left_out": str(error)} for name in names}
