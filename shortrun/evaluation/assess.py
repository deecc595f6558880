"""Everything that is said of a learned model on test images, each number with what it was measured under."""

from collections.abc import Collection
from importlib.util import find_spec

from jaxtyping import Int
from torch import Tensor, nn

from shortrun.data import Dataset
from shortrun.errors import InputError, did_you_mean
from shortrun.evaluation.assessment import Assessment, Figures
from shortrun.evaluation.classifier import own_features
from shortrun.evaluation.importance import SAMPLES as IMPORTANCE_SAMPLES
from shortrun.evaluation.parts import (
    factor_figures,
    likelihood,
    probe,
    reconstruction,
    sample_figures,
    simulated_gap,
)
from shortrun.evaluation.point import draw_and_point
from shortrun.learners import Learner
from shortrun.metrics.feature_matrix import feature_matrix

PARTS = ("reconstruction", "probe", "factors", "samples", "likelihood")
SAMPLES, LIKELIHOOD_IMAGES, TEMPERATURES = 10_000, 48, 500
BATCH_SIZE = 500


def assess(
    learner: Learner,
    dataset: Dataset,
    features: nn.Module | None = None,
    seed: int = 0,
    *,
    samples: int = SAMPLES,
    likelihood_images: int = LIKELIHOOD_IMAGES,
    temperatures: int = TEMPERATURES,
    importance_samples: int = IMPORTANCE_SAMPLES,
    test_images: int | None = None,
    gap_images: int = 0,
    factors: Int[Tensor, "n f"] | None = None,
    parts: Collection[str] = PARTS,
    batch_size: int = BATCH_SIZE,
) -> Figures:
    """Return figures of a learned model by name, each {"value": ..., conditions ...} in plain numbers and words.

    What cannot be measured is {"left_out": the reason}. learner: ready to use, as `load` returns it. dataset: its test
    images are measured on; latents of train images are used for the probe. features: what sets of images are compared
    by, (n, c, h, w) -> (n, d); a classifier trained on the data set where not given. seed: of all random numbers; each
    figure has its own, so that it does not depend on which others are asked for. test_images: the first so many are
    reconstructed, all where not given. factors: known factors of those, (n, f), whole numbers. batch_size: images at a
    time. parts: which to measure, of

        reconstruction: mse, psnr, ssim, second_moment, failed_test_chains, of one inference of each test image, and
            mse_draw and mse_point, with noise and without
        probe: probe, the accuracy of `linear_probe` from latents of at most 5000 train images, on test images
        factors: mig, sap, dci_disentanglement, dci_completeness, dci_informativeness, factor_vae, given `factors`
        samples: fid_prior, kid_prior, precision_prior, recall_prior, density_prior, coverage_prior of `samples` draws
            against all test images, and the same with _fitted where a density of the latents was fitted
        likelihood: nats and bits_per_dim by annealed importance sampling with so many `temperatures`, importance_nats
            by the learner's own proposal and `importance_samples` draws, both of the first `likelihood_images` test
            images (0 for none), and annealing_gap of `gap_images` simulated ones; of a flow the exact density

    reconstruction and samples need the extra shortrun[metrics]. Raises InputError without it, for counts out of range,
    unknown parts, factors of another number than the images, and features that do not take the images.
    """
    for name, count, least in (
        ("seed", seed, 0),
        ("samples", samples, 2),
        ("likelihood_images", likelihood_images, 0),
        ("temperatures", temperatures, 1),
        ("importance_samples", importance_samples, 1),
        ("gap_images", gap_images, 0),
        ("batch_size", batch_size, 1),
    ):
        if count < least:
            raise InputError(name, count, f"write a whole number of at least {least}")
    for part in parts:
        if part not in PARTS:
            raise InputError("parts", f"{part!r}", str(did_you_mean(part, PARTS)))
    n = len(dataset.test) if test_images is None else test_images
    if not 1 <= n <= len(dataset.test):
        raise InputError("test_images", n, f"write 1 to {len(dataset.test)}")
    if factors is not None and len(factors) != n:
        raise InputError("factors", f"{len(factors)} rows for {n} test images", "write one for each image")
    if {"reconstruction", "samples"} & set(parts):
        require_metrics()
    if "samples" in parts:
        if features is None and dataset.labelled:
            features = own_features(dataset).to(learner.device)
        if features is not None:
            feature_matrix(features, dataset.test.images(slice(0, 2)))  # what does not fit fails before any work
    subject = Assessment(learner, dataset, seed, batch_size)
    figures: Figures = {}
    factors = factors if "factors" in parts else None
    if factors is not None or {"reconstruction", "probe"} & set(parts):
        codes, found = reconstruction(subject, n)
        figures |= {**found, **draw_and_point(subject, n)} if "reconstruction" in parts else {}
        figures |= probe(subject, codes) if "probe" in parts else {}
        figures |= factor_figures(subject, codes, factors) if factors is not None else {}
    if "samples" in parts:
        figures |= sample_figures(subject, features, samples)
    if "likelihood" in parts:
        figures |= likelihood(subject, min(likelihood_images, len(dataset.test)), temperatures, importance_samples)
        figures |= simulated_gap(subject, gap_images, temperatures) if gap_images else {}
    shared = subject.conditions()
    return {name: entry if "left_out" in entry else {**entry, **shared} for name, entry in figures.items()}


def require_metrics() -> None:
    """Raise InputError where the library of the metrics is not installed."""
    if find_spec("torchmetrics") is None:
        raise InputError(
            "torchmetrics",
            problem="is not installed, and some figures need it",
            instead="pip install 'shortrun[metrics]'",
        )
