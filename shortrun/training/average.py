"""The moving average of the weights, which is the model that a run leaves behind."""

from typing import Any

from torch import Tensor


def moving_average(decay: float) -> Any:
    """Return the update average <- average + (1 - d) (weights - average), d rising to `decay` from 0.1.

    Early weights are forgotten fast: d = min(decay, (1 + t) / (10 + t)) after t updates.
    """

    def update(average: list[Tensor], weights: list[Tensor], updates: Tensor | int) -> None:
        t = int(updates)
        share = 1 - min(decay, (1 + t) / (10 + t))
        for old, new in zip(average, weights, strict=True):
            old.lerp_(new, share)

    return update
