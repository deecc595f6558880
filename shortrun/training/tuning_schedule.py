"""When the step size is tuned while the model learns, and on what."""

import time

import torch

from shortrun.config import DENSE, Config
from shortrun.data import ImageSet
from shortrun.inference.products import LARGE
from shortrun.learners import ChainLearner
from shortrun.learners.declared import prior_class
from shortrun.streams import Use, stream
from shortrun.training.position import Position
from shortrun.training.precision import autocast
from shortrun.training.processes import Processes
from shortrun.training.tuning import move_step_size

STOCHASTIC_PRODUCTS = 27
LARGE_PRODUCTS = 45
"""Products with the Hessian that a stochastic estimator takes at a step, about: the first below LARGE latents, the
second from there.
"""


def tuning_steps(config: Config, dim: int, total: int) -> frozenset[int]:
    """Return the updates before which the step size is tuned, by the share of the work that tuning may take.

    Counted, not timed, so that a run can be repeated: an update differentiates the density K times at each of its
    images; an evaluation of an estimator with Hessians takes K d products at each of its own, each at one and a half
    times the price of a derivative (measured: docs/notes/estimators.md). At least one, so that short runs may exceed
    the share. More of them early, at shares (j / J)^2 of the training: the best step size changes fast at first.
    """
    tuning = config.inference.tuning
    settings = {"one": 1, "layers": len(config.model.latents), "schedule": 2, "both": len(config.model.latents) + 1}
    evaluations = {"grid": 1 + 2 * settings[tuning.over], "gradient": 4 * settings[tuning.over], "acceptance": 2}
    # a derivative by forward mode costs three to four evaluations; acceptance runs its chain on for as many adjusted
    # steps; path has no Hessian, but a chain of few images costs as much time as an update's
    plain = prior_class(config.model).standard and config.inference.start == "prior"
    products = dim if dim <= DENSE or not plain else STOCHASTIC_PRODUCTS if dim < LARGE else LARGE_PRODUCTS
    if tuning.tuner == "acceptance" or tuning.estimator == "path":
        products = 0
    once = evaluations[tuning.tuner] * max(1.5 * products * tuning.images, 1.5 * config.training.batch_size)
    count = min(max(1, int(tuning.share * total * config.training.batch_size / once)), total, 100)
    return frozenset(int(total * (j / (count + 1)) ** 2) for j in range(1, count + 1))


def tune_step_size(learner: ChainLearner, train: ImageSet, config: Config, position: Position, here: Processes) -> None:
    """Tune on a few training images, the same in all processes, and count the seconds it takes."""
    started = time.monotonic()
    tuning = config.inference.tuning
    rng = stream(config.training.seed, Use.TUNE, position.step, device=here.device)
    choose = stream(config.training.seed, Use.TUNE, position.step)
    rows = torch.randperm(len(train), generator=choose)[: tuning.images]
    with autocast(config.training.precision, here.device):
        move_step_size(learner, train.images(rows).to(here.device), rng, tuning, train.observed(rows))
    position.tunings += 1
    position.tuning_seconds += time.monotonic() - started
