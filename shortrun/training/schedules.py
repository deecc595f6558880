"""Values that change as training goes on: a schedule is a list of pairs."""

from collections.abc import Sequence

import numpy as np
import torch

from shortrun.config import Config
from shortrun.learners import ChainLearner, LatentLearner, Learner
from shortrun.model import Gaussian


def interpolate(pairs: Sequence[tuple[float, float]], progress: float) -> float:
    """Return the value of a schedule at a share of the training done.

    pairs: (share, value) in rising order of share; linear in between, constant outside; progress: in [0, 1].
    """
    shares, values = zip(*pairs, strict=True)
    return float(np.interp(progress, shares, values))


def follow_schedules(learner: Learner, optimizer: torch.optim.Optimizer, config: Config, progress: float) -> None:
    """Set learning rate, sigma and step size to their values at a share of the training done."""
    settings = config.training
    likelihood = learner.generator.likelihood if isinstance(learner, LatentLearner) else None
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * interpolate(settings.learning_rate_schedule or ((0, 1),), progress)
    if settings.sigma_schedule and isinstance(likelihood, Gaussian):
        likelihood.set_sigma(interpolate(settings.sigma_schedule, progress))
    if settings.kl_schedule:
        learner.kl_weight = interpolate(settings.kl_schedule, progress)
    if settings.step_size_schedule:
        assert isinstance(learner, ChainLearner)  # no other takes steps
        learner.step_size.scale_from(
            config.inference.first_step_size(len(config.model.latents)),
            interpolate(settings.step_size_schedule, progress),
        )


def current_settings(learner: Learner, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return what the schedules, or learning, have made of the settings by now."""
    values = {"learning_rate": optimizer.param_groups[0]["lr"], **learner.settings()}
    if isinstance(learner, LatentLearner) and isinstance(learner.generator.likelihood, Gaussian):
        values["sigma"] = learner.generator.likelihood.sigma.item()
    return values
