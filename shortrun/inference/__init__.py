"""q_s(z | x): short-run Langevin chains. Knows a log-density, never a model."""

from shortrun.inference.langevin import langevin_step, no_noise, short_run
from shortrun.inference.noise import DrawnNoise
from shortrun.inference.step_size import StepSize

__all__ = ["DrawnNoise", "StepSize", "langevin_step", "no_noise", "short_run"]
