"""Values that change as training goes on: a schedule is a list of pairs."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch

from shortrun.config import Config
from shortrun.learners import ChainLearner, Learner, with_generator


def interpolate(pairs: Sequence[tuple[float, float]], progress: float) -> float:
    """Return the value of a schedule at a share of the training done.

    pairs: (share, value) in rising order of share; linear in between, constant outside; progress: in [0, 1].
    """
    shares, values = zip(*pairs, strict=True)
    return float(np.interp(progress, shares, values))


def follow_schedules(learner: Learner, optimizer: torch.optim.Optimizer, config: Config, progress: float) -> None:
    """Set learning rate, sigma and step size to their values at a share of the training done.

    A schedule that is there is one that the learner takes: the configuration was checked.
    """
    settings = config.training
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * interpolate(settings.learning_rate_schedule or ((0, 1),), progress)
    if settings.sigma_schedule and with_generator(learner):
        learner.generator.likelihood.set_sigma(interpolate(settings.sigma_schedule, progress))
    if settings.kl_schedule:
        learner.kl_weight = interpolate(settings.kl_schedule, progress)
    if settings.step_size_schedule:
        cast(ChainLearner, learner).step_size.scale_from(
            config.inference.first_step_size(len(config.model.latents)),
            interpolate(settings.step_size_schedule, progress),
        )


def current_settings(learner: Learner, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return what the schedules, or learning, have made of the settings by now."""
    values = {"learning_rate": optimizer.param_groups[0]["lr"], **learner.settings()}
    return {**values, **learner.generator.likelihood.values()} if with_generator(learner) else values
