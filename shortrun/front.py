"""The public functions that take a learner or a log density: what comes first says which of the two is meant."""

from collections.abc import Sequence
from typing import Any, overload

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun import densities, diagnosis, training
from shortrun.densities import DensityDiagnosis, DensityTuning, Start
from shortrun.diagnosis.measure import Diagnosis
from shortrun.inference.langevin import LogDensity
from shortrun.inference.tuning import Tuned
from shortrun.learners import ChainLearner, Learner
from shortrun.progress import Shown


def _of_learner(arguments: tuple[Any, ...], settings: dict[str, Any]) -> bool:
    return "learner" in settings or isinstance(next(iter(arguments), None), Learner)


@overload
def tune(
    learner: ChainLearner,
    x: Float[Tensor, "n c h w"],
    rng: torch.Generator,
    *,
    estimator: str = "marginal",
    tuner: str = "grid",
    over: str = "one",
    steps: int | None = None,
) -> Tuned: ...
@overload
def tune(
    log_density: LogDensity,
    start: Start,
    rng: torch.Generator,
    *,
    steps: int = 25,
    chains: int = 64,
    estimators: Sequence[str] | None = None,
    step_sizes: Sequence[float] | None = None,
    tuner: str = "grid",
    draws: int = 1000,
    draws_by: str | None = None,
    shown: Shown = ...,
) -> DensityTuning: ...
def tune(*arguments: Any, **settings: Any) -> Tuned | DensityTuning:
    """Return the best step sizes of short runs: of a learner's chains on images, or of chains on a log density.

        tune(learner, x, rng, ...)              see shortrun.training.tune
        tune(log_density, start, rng, ...)      see shortrun.densities.tune

    arguments: a learner, or a function (n, d) -> (n,); then as the one of the two takes them.
    settings: as the one of the two takes them.

    >>> import torch
    >>> from shortrun import Start
    >>> rng = torch.Generator().manual_seed(0)
    >>> found = tune(lambda z: -(z**2).sum(1) / 2, Start.standard(1), rng, steps=2, chains=4, estimators=["path"])
    >>> found.draws.z.shape
    torch.Size([1000, 1])
    """
    return (training if _of_learner(arguments, settings) else densities).tune(*arguments, **settings)


@overload
def diagnose(
    learner: ChainLearner,
    x: Float[Tensor, "n c h w"],
    rng: torch.Generator,
    *,
    more: Float[Tensor, "m c h w"] | None = None,
    steps: int | None = None,
    noise: bool | None = None,
    batch_size: int = 500,
    split: str = "test",
    seed: int | None = None,
    shown: Shown = ...,
) -> Diagnosis: ...
@overload
def diagnose(
    log_density: LogDensity,
    start: Start,
    rng: torch.Generator,
    step_size: float,
    *,
    steps: int = 25,
    draws: int = 1000,
    chains: int = 32,
    long_steps: int = 5000,
) -> DensityDiagnosis: ...
def diagnose(*arguments: Any, **settings: Any) -> Diagnosis | DensityDiagnosis:
    """Return how good short runs are: those of a learner on images, or those on a log density.

        diagnose(learner, x, rng, ...)                        see shortrun.diagnosis.diagnose
        diagnose(log_density, start, rng, step_size, ...)     see shortrun.densities.diagnose

    arguments: a learner, or a function (n, d) -> (n,); then as the one of the two takes them.
    settings: as the one of the two takes them.

    >>> import torch
    >>> from shortrun import Start
    >>> rng = torch.Generator().manual_seed(0)
    >>> found = diagnose(lambda z: -(z**2).sum(1) / 2, Start.standard(1), rng, 0.5, long_steps=100)
    >>> found.draws.share_diverged
    0.0
    """
    return (diagnosis if _of_learner(arguments, settings) else densities).diagnose(*arguments, **settings)
