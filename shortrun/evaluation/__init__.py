"""How good a learned model is."""

from shortrun.evaluation.annealing import Annealed, annealed_importance
from shortrun.evaluation.diagnosis import diagnose
from shortrun.evaluation.features import Features, own_features
from shortrun.evaluation.frechet import frechet_distance
from shortrun.evaluation.likelihood import annealing_gap, log_likelihood_figures
from shortrun.evaluation.reconstruction import reconstruction_figures
from shortrun.evaluation.summary import summary
from shortrun.evaluation.verdict import conclusion, verdict

__all__ = [
    "Annealed",
    "Features",
    "annealed_importance",
    "annealing_gap",
    "conclusion",
    "diagnose",
    "frechet_distance",
    "log_likelihood_figures",
    "own_features",
    "reconstruction_figures",
    "summary",
    "verdict",
]
