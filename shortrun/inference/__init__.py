"""q_s(z | x): short-run Langevin chains and their step sizes. Knows a log-density, never a model."""

from shortrun.inference.divergence import conditional, marginal, path
from shortrun.inference.initial import Initial
from shortrun.inference.langevin import langevin_step, no_noise, short_run
from shortrun.inference.noise import DrawnNoise
from shortrun.inference.start import Regression
from shortrun.inference.step_size import StepSize
from shortrun.inference.tuning import Space

__all__ = [
    "DrawnNoise",
    "Initial",
    "Regression",
    "Space",
    "StepSize",
    "conditional",
    "langevin_step",
    "marginal",
    "no_noise",
    "path",
    "short_run",
]
