"""Short runs on a log density of the user's own: draws, the best step size, and whether they are good."""

from shortrun.densities.diagnosis import diagnose
from shortrun.densities.draws import Draws, draw
from shortrun.densities.start import Start
from shortrun.densities.tuning import DensityTuning, tune
from shortrun.densities.verdict import DensityDiagnosis, Reference

__all__ = ["DensityDiagnosis", "DensityTuning", "Draws", "Reference", "Start", "diagnose", "draw", "tune"]
