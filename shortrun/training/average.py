"""The moving average of the weights, which is the model that a run leaves behind."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class MovingAverage(AveragedModel):
    """A module with the moving average of another's weights.

    What is not learned by gradient, its buffers, is copied when the average is looked at, not at every update: sums of
    several megabytes may be among it.

    module: whose weights are averaged.
    decay: of the average; see `moving_average`.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__(module)
        self.update = moving_average(decay)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move the average towards the weights.

        model: as it is after an update.
        """
        weights = [each.detach() for each in model.parameters()]
        average = [each.detach() for each in self.module.parameters()]
        if self.n_averaged == 0:
            for old, new in zip(average, weights, strict=True):
                old.copy_(new)
        else:
            self.update(average, weights, self.n_averaged)
        self.n_averaged += 1

    @torch.no_grad()
    def copy_buffers(self, model: nn.Module) -> None:
        """Take over what is not averaged.

        model: as it is after an update.
        """
        for old, new in zip(self.module.buffers(), model.buffers(), strict=True):
            old.copy_(new)


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
