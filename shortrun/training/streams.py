"""Random numbers that follow from a key alone, so that a run has no state of them to save."""

import numpy as np
import torch

# What the numbers of a run are for: each use has a stream of its own, so that none shifts another.
ORDER, CHAIN, PICTURE, TEST, TUNE, FIT = range(6)


def stream(device: torch.device | str, *key: int) -> torch.Generator:
    """Return a generator on a device whose numbers follow from a key such as (seed, use, step)."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(seed)
