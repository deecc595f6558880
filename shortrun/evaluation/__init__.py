"""What is measured of one learned model, and the record of it."""

from shortrun.evaluation.anomaly import anomaly_scores
from shortrun.evaluation.assess import assess
from shortrun.evaluation.classifier import own_features
from shortrun.evaluation.importance import importance_bound, importance_figures
from shortrun.evaluation.likelihood import annealing_gap, log_likelihood_figures
from shortrun.evaluation.rate import rate_figures
from shortrun.metrics.figure import Figure

__all__ = [
    "Figure",
    "annealing_gap",
    "anomaly_scores",
    "assess",
    "importance_bound",
    "importance_figures",
    "log_likelihood_figures",
    "own_features",
    "rate_figures",
]
