"""All random numbers of the package: streams that follow from a seed and the name of their use, so no state is kept.

A use has a stream of its own, so that none shifts another, and a resumed run asks for the numbers of its step again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

import numpy as np
import torch


class Use(Enum):
    """What random numbers are for: the words of the key that follow the seed, and what they are followed by."""

    ORDER = (0,), "the epoch: the order of its images"
    CHAIN = (1,), "the update: start and noise of its chains"
    PICTURE = (2,), "nothing: pictures of samples and reconstructions"
    TEST = (3,), "nothing: the inference of test images, in result.json and in an assessment"
    STEP_SIZES = (3, 1), "nothing: the figures of the experiment step_sizes"
    FIGURE5 = (3, 2), "nothing: the chains of the experiment figure5"
    CURVE = (3, 3), "nothing: points of quality against time in a comparison"
    ANOMALY = (3, 8), "nothing: which images are scored in the experiment anomaly, and their chains"
    TUNE = (4,), "the update: which images a step size is tuned on, and their chains"
    FIT = (5,), "nothing: the density that is fitted to latents"
    ENCODER = (1,), "nothing: the initial weights of an encoder"
    STARTS = (1606, 8571, 0, 0), "nothing: where the chains of training images start"
    PRIOR = (1509, 1), "nothing: draws from the prior, for distances between sets of images"
    FITTED = (1509, 2), "nothing: the same from the fitted density"
    SUBSETS = (1509, 3), "nothing: subsets of the kernel distance"
    ANNEALING = (1509, 4), "nothing: annealed importance sampling"
    IMPORTANCE = (1509, 5), "nothing: importance weights"
    GAP = (1509, 6), "nothing: simulated images and their annealing"
    PROBE = (1509, 7), "nothing: latents of train images for the linear probe"
    FACTORS = (1509, 8), "nothing: scores of disentanglement"
    DRAW = (1509, 9), "nothing: reconstructions from a draw and from a point"
    RATE = (1509, 10), "nothing: the curve of error against rate"
    ENERGY = (1509, 40), "nothing: the initial weights of an energy prior"
    MISSING = (1812, 2633), "nothing: which pixels of training images are hidden"
    COMPLETION = (1812, 2634), "nothing: completions of incomplete images, and which of their pixels are hidden"

    @property
    def key(self) -> tuple[int, ...]:
        """The words that follow the seed."""
        return self.value[0]


def seed_of(seed: int, use: Use, *more: int) -> int:
    """Return the seed of a use's stream, from 0 to 2^64 - 1; more: the update or the epoch, where the use has one.

    Source of the mixing: numpy's `SeedSequence`. It takes missing words for zeros, so ENCODER has the numbers of CHAIN
    at update 0. Figures have been published with both, and they do not meet: the first draws weights, the second
    latents. A test holds all other streams apart.
    """
    return int(np.random.SeedSequence((seed, *use.key, *more)).generate_state(1, np.uint64)[0])


def stream(seed: int, use: Use, *more: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return the generator of a use on a device; seed: of the run; more: as in `seed_of`.

    >>> from shortrun.streams import Use, stream
    >>> rng = stream(0, Use.CHAIN, 812)
    """
    return torch.Generator(device).manual_seed(seed_of(seed, use, *more))


@contextmanager
def initial_weights(seed: int) -> Iterator[None]:
    """Draw the initial weights of modules that are made in the block from a seed.

    torch initializes modules from its global state alone: that state is put back as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
