"""One update of a learner, and what it changes."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from shortrun.config import TrainingConfig
from shortrun.learners import Learner
from shortrun.learners.learner import Rows, Statistics
from shortrun.model.likelihood import Images, Mask
from shortrun.training.average import MovingAverage
from shortrun.training.position import Position
from shortrun.training.precision import autocast
from shortrun.training.processes import Processes


@dataclass
class State:
    """What training changes, and what a checkpoint holds."""

    learner: Learner
    parallel: nn.Module
    """The learner, its gradients averaged over the processes where there are several."""
    average: MovingAverage
    optimizer: torch.optim.Optimizer
    position: Position

    @classmethod
    def start(cls, learner: Learner, settings: TrainingConfig, here: Processes) -> "State":
        """Return the state before the first update, with the learner on the processes' device."""
        learner.to(here.device)
        average = MovingAverage(learner, settings.ema_decay)
        optimizer = torch.optim.Adam(learner.parameters(), settings.learning_rate, fused=True)
        return cls(learner, here.wrap(learner), average, optimizer, Position())

    @property
    def averaged(self) -> Learner:
        """The learner with the moving average of the weights."""
        self.average.copy_buffers(self.learner)
        return cast(Learner, self.average.module)


def update(
    state: State,
    x: Images,
    rows: Rows,
    rng: torch.Generator,
    settings: TrainingConfig,
    here: Processes,
    mask: Mask | None = None,
) -> Statistics:
    """Move the weights down the gradient of the loss of a batch, and their average after them.

    An update whose gradient is not finite is left out and counted.

    x: (n, c, h, w) in [-1, 1], this process's part of the batch; rows: (n,), which training images these are; rng: the
    stream of the update, the same in all processes; mask: (n, 1, h, w), 1 = observed, None where all pixels are.
    Returns the loss, the norm of its gradient before clipping and the learner's own statistics.
    """
    with autocast(settings.precision, here.device):
        loss, statistics = state.parallel(x, rng, (here.rank, here.count), rows, mask)
    state.optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(state.learner.parameters(), settings.clip_norm)
    if torch.isfinite(norm):
        state.optimizer.step()
        state.average.update_parameters(state.learner)
    else:
        state.position.skipped += 1
    state.position.step += 1
    return {"loss": loss.detach(), "grad_norm": norm, **statistics}
