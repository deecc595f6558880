"""What a run is made of, read from recipes and checked. Imports no torch."""

from shortrun.config.checks import check_tuning, validate
from shortrun.config.recipes import RECIPES, absolute, load_config, recipe_names
from shortrun.config.settings import (
    DENSE,
    Config,
    DataConfig,
    EncoderConfig,
    GlowConfig,
    InferenceConfig,
    LearnerConfig,
    LearnerName,
    ModelConfig,
    PersistentConfig,
    Schedule,
    TrainingConfig,
    TuningConfig,
)

__all__ = [
    "DENSE",
    "RECIPES",
    "Config",
    "DataConfig",
    "EncoderConfig",
    "GlowConfig",
    "InferenceConfig",
    "LearnerConfig",
    "LearnerName",
    "ModelConfig",
    "PersistentConfig",
    "Schedule",
    "TrainingConfig",
    "TuningConfig",
    "absolute",
    "check_tuning",
    "load_config",
    "recipe_names",
    "validate",
]
