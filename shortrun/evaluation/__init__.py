"""How good a learned model is."""

from shortrun.evaluation.annealing import Annealed, annealed_importance
from shortrun.evaluation.assess import assess
from shortrun.evaluation.diagnosis import diagnose
from shortrun.evaluation.disentanglement import (
    attribute_predictability,
    dci,
    factor_vae_score,
    mutual_information_gap,
)
from shortrun.evaluation.feature_matrix import feature_matrix
from shortrun.evaluation.features import Features, own_features
from shortrun.evaluation.frechet import frechet_distance
from shortrun.evaluation.importance import importance_bound, importance_figures
from shortrun.evaluation.kernel import kernel_distance
from shortrun.evaluation.likelihood import annealing_gap, log_likelihood_figures
from shortrun.evaluation.neighbours import neighbour_figures
from shortrun.evaluation.pixels import mse, psnr, ssim
from shortrun.evaluation.probes import linear_probe, linear_probes
from shortrun.evaluation.reconstruction import reconstruction_figures
from shortrun.evaluation.summary import summary
from shortrun.evaluation.torchscript import torchscript_features
from shortrun.evaluation.verdict import conclusion, verdict

__all__ = [
    "Annealed",
    "Features",
    "annealed_importance",
    "annealing_gap",
    "assess",
    "attribute_predictability",
    "conclusion",
    "dci",
    "diagnose",
    "factor_vae_score",
    "feature_matrix",
    "frechet_distance",
    "importance_bound",
    "importance_figures",
    "kernel_distance",
    "linear_probe",
    "linear_probes",
    "log_likelihood_figures",
    "mse",
    "mutual_information_gap",
    "neighbour_figures",
    "own_features",
    "psnr",
    "reconstruction_figures",
    "ssim",
    "summary",
    "torchscript_features",
    "verdict",
]
