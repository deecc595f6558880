"""A whole run, and what a saved model needs to be rebuilt: the tables of settings together. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

import tyro

from shortrun.config.ranges import Named, at_least, between
from shortrun.config.settings import (
    DataConfig,
    EncoderConfig,
    GlowConfig,
    InferenceConfig,
    ModelConfig,
    PersistentConfig,
    TrainingConfig,
)
from shortrun.errors import InputError
from shortrun.mapping import to_mapping
from shortrun.registry import LEARNERS, listed

LearnerName = Annotated[
    str,
    Named(LEARNERS),
    tyro.conf.arg(help=f"How latents are inferred and the model learned: {listed(LEARNERS)}."),
]


@dataclass(frozen=True)
class Config:
    """A whole run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    learner: LearnerName = "short_run"
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    persistent: PersistentConfig = field(default_factory=PersistentConfig)
    glow: GlowConfig = field(default_factory=GlowConfig)
    own: Annotated[Mapping[str, Any], tyro.conf.Suppress] = field(default_factory=dict)
    """Settings that only this learner has, where it declares any: `--own.NAME VALUE`."""

    def check(self) -> None:
        """Raise InputError where settings of several tables contradict one another, whatever the learner."""
        self.inference.check_layers(self.model.latents)
        if self.inference.tuned and self.training.step_size_schedule:
            raise InputError(
                "training.step_size_schedule", problem="the step size is tuned", instead="write one or the other"
            )
        if self.model.learn_sigma and self.training.sigma_schedule:
            raise InputError(
                "training.sigma_schedule",
                problem="sigma is learned (model.learn_sigma)",
                instead="write one or the other",
            )

    def alone(self) -> "Config":
        """Return the configuration without what a command's arguments add to it."""
        values = {item.name: getattr(self, item.name) for item in fields(Config)}
        return Config(**{**values, "own": self.own if isinstance(self.own, Mapping) else to_mapping(self.own)})


@dataclass(frozen=True)
class LearnerConfig:
    """What a saved model needs to be rebuilt: the config.json beside its weights."""

    image_shape: Annotated[tuple[int, int, int], between(1, 65_536)]
    """Channels, height, width."""
    levels: Annotated[int, at_least(2)] | None = None
    """Values that a pixel can take, which the discretized logistic likelihood counts; none where pixels are floats."""
    own_decoder: bool = False
    """The decoder is the user's own module and has to be given when the model is loaded."""
    model: ModelConfig = field(default_factory=ModelConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    learner: LearnerName = "short_run"
    """Which class of learner it is."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    persistent: PersistentConfig = field(default_factory=PersistentConfig)
    glow: GlowConfig = field(default_factory=GlowConfig)
    own: Mapping[str, Any] = field(default_factory=dict)
    """Settings that only this learner has."""
    pixel_range: Literal["unit", "signed"] | None = None
    """What floats of the files that it learned from meant, [0, 1] or [-1, 1]; none where pixels had levels."""

    def check(self) -> None:
        """Raise InputError where the step sizes do not fit the layers."""
        self.inference.check_layers(self.model.latents)
