"""Which class a configuration's learner is, and the settings that only this class can judge."""

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar

from shortrun.config import Config, LearnerConfig, ModelConfig, TrainingConfig, checked_settings, checked_table
from shortrun.errors import InputError
from shortrun.mapping import from_mapping, to_mapping
from shortrun.model import Likelihood, Prior
from shortrun.registry import LEARNERS, LIKELIHOODS, PRIORS, find, name_of

if TYPE_CHECKING:
    from shortrun.learners.learner import Learner

Settings = TypeVar("Settings", Config, LearnerConfig)
Kind = TypeVar("Kind")


def learner_class(name: str) -> "type[Learner]":
    """Return the class of a learner.

    name: of the registry, or module:Name.

    Raises InputError where it is no learner.

    >>> learner_class("vae").__name__
    'Vae'
    """
    kind = find(LEARNERS, name, "learner")
    if not hasattr(kind, "from_description"):
        raise InputError("learner", repr(name), "write the name of a subclass of shortrun.Learner")
    return kind


def likelihood_class(model: ModelConfig) -> type[Likelihood]:
    """Return the class of likelihood that a configuration names; raise InputError where it names something else."""
    found = find(LIKELIHOODS, model.likelihood, "model.likelihood")
    return _below(Likelihood, found, "model.likelihood", model.likelihood)


def prior_class(model: ModelConfig) -> type[Prior]:
    """Return the class of prior that a configuration names; raise InputError where it names something else."""
    return _below(Prior, find(PRIORS, model.prior, "model.prior"), "model.prior", model.prior)


def _below(kind: type[Kind], found: object, argument: str, word: str) -> type[Kind]:
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise InputError(argument, repr(word), f"write the name of a subclass of shortrun.model.{kind.__name__}")
    return found


def checked_for_learner(settings: Settings, kind: "type[Learner] | None" = None) -> Settings:
    """Return settings as `shortrun.config.checked_settings` does, after the checks of their learner too.

    settings: of a run, or of a saved model.
    kind: the learner's class, where it cannot be imported by its name.

    Raises InputError for the first value that cannot be used.
    """
    settings = checked_settings(settings)
    kind = kind or learner_class(settings.learner)
    if settings.own and kind.Settings is None:
        raise InputError("own", ", ".join(settings.own), f"{settings.learner} has no settings of its own: leave it out")
    kind.check(settings)
    return dataclasses.replace(settings, own={} if kind.Settings is None else to_mapping(own_settings(kind, settings)))


def own_settings(kind: "type[Learner]", settings: Config | LearnerConfig) -> Any:
    """Return the settings that only a learner has, as the dataclass that its class declares for them."""
    assert kind.Settings is not None
    return checked_table(from_mapping(kind.Settings, settings.own, "own"), "own")


def check_declared(kind: "type[Learner]", settings: Config | LearnerConfig) -> None:
    """Raise InputError for the first setting that is not for a learner, by what its class declares of itself."""
    name = name_of(LEARNERS, kind)
    model, inference = settings.model, settings.inference
    training = settings.training if isinstance(settings, Config) else TrainingConfig()
    likelihood, prior = likelihood_class(model), prior_class(model)
    with_sigma = model.learn_sigma or training.sigma_schedule
    if not kind.has_generator and (with_sigma or not prior.standard):
        raise InputError(
            "learner",
            problem=f"{name} has neither sigma nor a prior to learn",
            instead="drop model.learn_sigma, training.sigma_schedule and model.prior",
        )
    if with_sigma and not likelihood.has_sigma:
        raise InputError(
            "model.likelihood",
            f"{model.likelihood!r}, which has no sigma",
            "drop model.learn_sigma and training.sigma_schedule, or choose gaussian",
        )
    if kind.parameterization not in (None, model.parameterization):
        raise InputError(
            "model.parameterization",
            f"{model.parameterization!r}, but {name} is for {kind.parameterization}",
            f"set model.parameterization to {kind.parameterization}",
        )
    if not kind.short_runs and inference.tuned:
        raise InputError(
            "inference.step_size",
            problem=f"only learners of short runs tune it while learning, not {name}",
            instead="write a number",
        )
    if not kind.has_chain and training.step_size_schedule:
        raise InputError("training.step_size_schedule", problem=f"{name} takes no Langevin steps", instead="drop it")
    if not kind.has_chain and inference.candidates > 1:
        raise InputError("inference.candidates", problem=f"{name} starts no chains", instead="drop it")
    if not kind.has_encoder and training.kl_schedule:
        raise InputError(
            "training.kl_schedule",
            problem=f"{name} has no encoder",
            instead="drop it, or choose a learner that has one, vae for example",
        )
    if not prior.allows_acceptance and inference.tuned and inference.tuning.tuner == "acceptance":
        raise InputError(
            "inference.tuning.tuner",
            problem=f"by acceptance the steps and the prior {model.prior}, which is learned, drive each other up",
            instead="write grid or gradient, a number for inference.step_size, or model.prior = normal",
        )
    if not prior.standard and not kind.has_chain:
        raise InputError(
            "model.prior", problem=f"{name} has the divergence from N(0, I) in closed form", instead="write normal"
        )
