"""What a class of learners declares of itself, and the settings that only this class can judge."""

import dataclasses
from abc import abstractmethod
from inspect import signature
from typing import Any, ClassVar, Literal, TypeVar

from torch import nn

from shortrun.config import Config, LearnerConfig, ModelConfig, TrainingConfig, checked_settings, checked_table
from shortrun.errors import InputError
from shortrun.mapping import from_mapping, to_mapping
from shortrun.model import Likelihood, Prior
from shortrun.registry import LEARNERS, LIKELIHOODS, PRIORS, find, name_of

Settings = TypeVar("Settings", Config, LearnerConfig)
Kind = TypeVar("Kind")


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


class Declared:
    """What the rest of the package has to know of a class of learners, before there is a learner."""

    has_generator: ClassVar[bool] = False
    """Whether it has a `generator` p(x, z) of a few latents, so that densities can be fitted to them and annealed."""
    has_prior: ClassVar[bool] = True
    """Whether new images can be drawn from a prior; without one they all come from the density fitted to latents."""
    has_chain: ClassVar[bool] = False
    """Whether it infers by Langevin steps: step sizes, their schedule and candidates are for it."""
    short_runs: ClassVar[bool] = False
    """Whether each inference is a chain of `steps` steps from the prior: what is tuned while learning, and measured by
    `tune` and `diagnose`."""
    has_encoder: ClassVar[bool] = False
    """Whether it draws from q(z|x) in closed form, by `propose`: training.kl_schedule is for it."""
    learns_masked: ClassVar[bool] = False
    """Whether it learns from incomplete images: `loss` then takes `mask`, (n, 1, h, w), 1 = observed."""
    has_density: ClassVar[bool] = False
    """Whether `log_prob` gives log p(x) exactly."""
    parameterization: ClassVar[Literal["ladder", "conditional"] | None] = None
    """The one parameterization of the generator that it is defined for; None: any."""
    Settings: ClassVar[type | None] = None
    """A dataclass of settings that only this learner has, the table `own` of a configuration."""
    progress: ClassVar[tuple[str, ...]] = ("mse", "second_moment", "prior_fit")
    """The statistics that are shown while training goes on, those of them that `loss` returns."""

    @classmethod
    @abstractmethod
    def from_description(cls, description: LearnerConfig, decoder: nn.Module | None = None, seed: int = 0) -> Any:
        """Return the learner that a description is of, with new weights.

        description: what `save_pretrained` writes, checked.
        decoder: the user's own module, where description.own_decoder says that there is one; else None.
        seed: 0 or more, of the initial weights.
        """

    @classmethod
    def check(cls, settings: Config | LearnerConfig) -> None:
        """Raise InputError for settings that are not for the learner; a subclass that refuses more calls this first.

        settings: of a run, or of a saved model.
        """
        check_declared(cls, settings)

    @classmethod
    def own_settings(cls, settings: Config | LearnerConfig) -> Any:
        """Return the settings that only this learner has, as its `Settings`.

        settings: of a run, or of a saved model.
        """
        assert cls.Settings is not None
        return checked_table(from_mapping(cls.Settings, settings.own, "own"), "own")

    @classmethod
    def describe_model(cls, settings: Config | LearnerConfig) -> str:
        """Return in a line what model settings are of.

        settings: of a run, or of a saved model.
        """
        return name_of(LEARNERS, cls)

    @classmethod
    def describe_settings(
        cls, settings: Config | LearnerConfig, found: tuple[tuple[float, ...], float] | None = None
    ) -> str:
        """Return in a line how latents are inferred by settings.

        settings: of a run, or of a saved model.
        found: the step sizes and the decay that training led to; None where it led to none.
        """
        return "exact" if cls.has_density else name_of(LEARNERS, cls)

    @classmethod
    def fixed(cls, settings: Config | LearnerConfig) -> tuple[str, ...]:
        """Return how the names of tensors begin that are saved with the weights but are not learned.

        settings: of a run, or of a saved model.
        """
        return ()


def declared_class(name: str) -> type[Declared]:
    """Return the class of a learner by its name, or by module:Name; raise InputError where it is no learner."""
    found = find(LEARNERS, name, "learner")
    if not (isinstance(found, type) and issubclass(found, Declared)):
        raise InputError("learner", repr(name), "write the name of a subclass of shortrun.Learner")
    return found


def checked_for_learner(settings: Settings, kind: type[Declared] | None = None) -> Settings:
    """Return settings as `shortrun.config.checked_settings` does, after the checks of their learner too.

    settings: of a run, or of a saved model.
    kind: the learner's class, where it cannot be imported by its name.

    Raises InputError for the first value that cannot be used.
    """
    settings = checked_settings(settings)
    kind = kind or declared_class(settings.learner)
    if settings.own and kind.Settings is None:
        raise InputError("own", ", ".join(settings.own), f"{settings.learner} has no settings of its own: leave it out")
    kind.check(settings)
    return dataclasses.replace(settings, own={} if kind.Settings is None else to_mapping(kind.own_settings(settings)))


def check_learns_masked(kind: type[Declared], argument: str) -> None:
    """Raise InputError for a learner that does not learn from incomplete images.

    kind: the class; one below a class that does may have a `loss` of its own that takes no mask.
    argument: the setting that asks for it.
    """
    if not (kind.learns_masked and "mask" in signature(getattr(kind, "loss")).parameters):  # noqa: B009
        raise InputError(
            argument,
            problem=f"{name_of(LEARNERS, kind)} does not learn from incomplete images",
            instead="choose short_run, persistent, vae, ladder_vae or vlae",
        )


def check_declared(kind: type[Declared], settings: Config | LearnerConfig) -> None:
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
    if not kind.has_chain and training.compile == "always":
        raise InputError("training.compile", problem=f"{name} takes no Langevin steps", instead="write auto or never")
    if not kind.has_encoder and training.kl_schedule:
        raise InputError(
            "training.kl_schedule",
            problem=f"{name} has no encoder q(z|x)",
            instead="drop it, or choose a learner that has one, vae for example",
        )
    if isinstance(settings, Config) and settings.data.incomplete:
        check_learns_masked(kind, "data.masks" if settings.data.missing is None else "data.missing")
    if settings.encoder.missing is not None and not (kind.has_encoder and kind.learns_masked):
        raise InputError(
            "encoder.missing",
            problem=f"{name} has no encoder that learns from incomplete images",
            instead="drop it, or choose a learner that has one, vae for example",
        )
    if settings.encoder.draws > 1 and not kind.has_encoder:
        raise InputError(
            "encoder.draws",
            problem=f"{name} has no encoder q(z|x) to draw from",
            instead="drop it, or choose a learner that has one, vae for example",
        )
    if not prior.allows_acceptance and inference.tuned and inference.tuning.tuner == "acceptance":
        raise InputError(
            "inference.tuning.tuner",
            problem=f"by acceptance the steps and the prior {model.prior}, which is learned, drive each other up",
            instead="write grid or gradient, a number for inference.step_size, or model.prior = normal",
        )
