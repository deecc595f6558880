"""What a run is made of, read from recipes and checked. Imports no torch."""

from shortrun.config.checks import checked_settings, checked_table
from shortrun.config.recipes import RECIPES, absolute, as_published, is_folder, load_config, read_recipe, recipe_names
from shortrun.config.settings import (
    DENSE,
    DataConfig,
    EncoderConfig,
    EnergyConfig,
    GlowConfig,
    InferenceConfig,
    ModelConfig,
    PersistentConfig,
    Schedule,
    TrainingConfig,
    TuningConfig,
)
from shortrun.config.whole import Config, LearnerConfig

__all__ = [
    "DENSE",
    "RECIPES",
    "Config",
    "DataConfig",
    "EncoderConfig",
    "EnergyConfig",
    "GlowConfig",
    "InferenceConfig",
    "LearnerConfig",
    "ModelConfig",
    "PersistentConfig",
    "Schedule",
    "TrainingConfig",
    "TuningConfig",
    "absolute",
    "as_published",
    "checked_settings",
    "checked_table",
    "is_folder",
    "load_config",
    "read_recipe",
    "recipe_names",
]
