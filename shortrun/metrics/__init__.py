"""Measures of images, samples and latents: tensors in, numbers out. Knows no learner and no data set."""

from shortrun.metrics.annealing import Annealed, annealed_importance
from shortrun.metrics.disentanglement import (
    attribute_predictability,
    dci,
    factor_vae_score,
    mutual_information_gap,
)
from shortrun.metrics.feature_matrix import feature_matrix
from shortrun.metrics.features import Features
from shortrun.metrics.frechet import frechet_distance
from shortrun.metrics.kernel import kernel_distance
from shortrun.metrics.neighbours import neighbour_figures
from shortrun.metrics.pixels import mse, psnr, ssim
from shortrun.metrics.probes import linear_probe, linear_probes
from shortrun.metrics.rate_distortion import RateDistortion, rate_distortion
from shortrun.metrics.torchscript import torchscript_features

__all__ = [
    "Annealed",
    "Features",
    "RateDistortion",
    "annealed_importance",
    "attribute_predictability",
    "dci",
    "factor_vae_score",
    "feature_matrix",
    "frechet_distance",
    "kernel_distance",
    "linear_probe",
    "linear_probes",
    "mse",
    "mutual_information_gap",
    "neighbour_figures",
    "psnr",
    "rate_distortion",
    "ssim",
    "torchscript_features",
]
