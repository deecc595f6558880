"""Multi-layer latent variable models of images without an encoder: inference by short-run Langevin MCMC.

The names below are imported when they are first used, so that `import shortrun` does not wait for PyTorch.
"""

import importlib
from typing import TYPE_CHECKING

from shortrun.errors import InputError
from shortrun.version import __version__

if TYPE_CHECKING:
    from shortrun.config import (
        Config,
        DataConfig,
        EncoderConfig,
        EnergyConfig,
        GlowConfig,
        InferenceConfig,
        LearnerConfig,
        ModelConfig,
        PersistentConfig,
        TrainingConfig,
        TuningConfig,
        load_config,
    )
    from shortrun.data import Dataset, ImageSet, load_dataset, read_images, read_mask
    from shortrun.densities import Start, draw
    from shortrun.estimator import ShortRunEstimator
    from shortrun.evaluation import anomaly_scores, assess
    from shortrun.front import diagnose, tune
    from shortrun.inference import no_noise, short_run
    from shortrun.learners import (
        ChainLearner,
        EncoderLearner,
        LadderVae,
        LatentLearner,
        Learner,
        Persistent,
        Rae,
        ShortRun,
        Vae,
        Vlae,
    )
    from shortrun.metrics.figure import Figure
    from shortrun.model import (
        Bernoulli,
        DiscretizedLogistic,
        Gaussian,
        Likelihood,
        Prior,
        TopDown,
        conv_decoder,
        dense_decoder,
    )
    from shortrun.tasks import encode, export, inpaint, interpolate, reconstruct, restore, sample, traverse
    from shortrun.training import info, load, resume, train

_HOMES = {
    "shortrun.config": (
        "Config",
        "DataConfig",
        "EncoderConfig",
        "EnergyConfig",
        "GlowConfig",
        "InferenceConfig",
        "LearnerConfig",
        "ModelConfig",
        "PersistentConfig",
        "TrainingConfig",
        "TuningConfig",
        "load_config",
    ),
    "shortrun.data": ("Dataset", "ImageSet", "load_dataset", "read_images", "read_mask"),
    "shortrun.densities": ("Start", "draw"),
    "shortrun.estimator": ("ShortRunEstimator",),
    "shortrun.evaluation": ("anomaly_scores", "assess"),
    "shortrun.front": ("diagnose", "tune"),
    "shortrun.inference": ("no_noise", "short_run"),
    "shortrun.learners": (
        "ChainLearner",
        "EncoderLearner",
        "LadderVae",
        "LatentLearner",
        "Learner",
        "Persistent",
        "Rae",
        "ShortRun",
        "Vae",
        "Vlae",
    ),
    "shortrun.metrics.figure": ("Figure",),
    "shortrun.model": (
        "Bernoulli",
        "DiscretizedLogistic",
        "Gaussian",
        "Likelihood",
        "Prior",
        "TopDown",
        "conv_decoder",
        "dense_decoder",
    ),
    "shortrun.tasks": ("encode", "export", "inpaint", "interpolate", "reconstruct", "restore", "sample", "traverse"),
    "shortrun.training": ("info", "load", "resume", "train"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Bernoulli",
    "ChainLearner",
    "Config",
    "DataConfig",
    "Dataset",
    "DiscretizedLogistic",
    "EncoderConfig",
    "EncoderLearner",
    "EnergyConfig",
    "Figure",
    "Gaussian",
    "GlowConfig",
    "ImageSet",
    "InferenceConfig",
    "InputError",
    "LadderVae",
    "LatentLearner",
    "Learner",
    "LearnerConfig",
    "Likelihood",
    "ModelConfig",
    "Persistent",
    "PersistentConfig",
    "Prior",
    "Rae",
    "ShortRun",
    "ShortRunEstimator",
    "Start",
    "TopDown",
    "TrainingConfig",
    "TuningConfig",
    "Vae",
    "Vlae",
    "__version__",
    "anomaly_scores",
    "assess",
    "conv_decoder",
    "dense_decoder",
    "diagnose",
    "draw",
    "encode",
    "export",
    "info",
    "inpaint",
    "interpolate",
    "load",
    "load_config",
    "load_dataset",
    "no_noise",
    "read_images",
    "read_mask",
    "reconstruct",
    "restore",
    "resume",
    "sample",
    "short_run",
    "train",
    "traverse",
    "tune",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'shortrun' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
