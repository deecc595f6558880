"""Which images of a source are for training and which for testing."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from shortrun.errors import InputError


@dataclass(frozen=True)
class Selection:
    """How many images to keep, and how to split a source that has no split of its own.

    Raises InputError for a fraction outside (0, 1) or a limit below 1.
    """

    train_limit: int | None = None
    test_limit: int | None = None
    test_fraction: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.test_fraction < 1:
            raise InputError(
                "test_fraction", self.test_fraction, "give a number above 0 and below 1, such as 0.2 for a fifth"
            )
        for argument, limit in (("train_limit", self.train_limit), ("test_limit", self.test_limit)):
            if limit is not None and limit < 1:
                raise InputError(argument, limit, "give 1 or more, or leave it out to take all images")

    def counts(self, n_train: int, n_test: int) -> tuple[int, int]:
        """Return how many of n_train and n_test images are kept; raises InputError where a limit exceeds them."""
        for argument, limit, n in (
            ("train_limit", self.train_limit, n_train),
            ("test_limit", self.test_limit, n_test),
        ):
            if limit is not None and limit > n:
                raise InputError(argument, limit, f"there are only {n} images: give at most {n}, or leave it out")
        return self.train_limit or n_train, self.test_limit or n_test

    def split(self, n: int, name: str) -> tuple[Int64[Tensor, "k"], Int64[Tensor, "m"]]:
        """Return the positions of the train and the test images among n, by a permutation that the seed fixes.

        The test part is test_fraction of n, rounded up; the limits hold. name: what the images
        are of, for the InputError that it raises where a part would be empty.
        """
        n_test = math.ceil(n * self.test_fraction - 1e-9)  # 1e-9: 0.1 * 30 must not round up to 4
        if n_test < 1 or n - n_test < 1:
            raise InputError(
                "test_fraction",
                f"{self.test_fraction} of {n} image(s), which {name} has",
                "give at least 2 images, or a fraction that leaves one on each side",
            )
        order = torch.from_numpy(np.random.default_rng(self.seed).permutation(n))
        test, train = order[:n_test], order[n_test:]
        keep_train, keep_test = self.counts(len(train), len(test))
        return train[:keep_train], test[:keep_test]
