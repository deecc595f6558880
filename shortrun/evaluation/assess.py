"""Everything that is said of a learned model on test images, each number with what it was measured under."""

import dataclasses
from collections.abc import Collection

from jaxtyping import Int
from torch import Tensor, nn

from shortrun.data import Dataset
from shortrun.errors import InputError, check_at_least, did_you_mean, require_package
from shortrun.evaluation.assessment import Assessment
from shortrun.evaluation.importance import SAMPLES as IMPORTANCE_SAMPLES
from shortrun.evaluation.measures import MEASURES, PARTS
from shortrun.evaluation.rotations import features_for
from shortrun.learners import Learner
from shortrun.metrics.feature_matrix import feature_matrix
from shortrun.metrics.figure import Figure

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
    rate_images: int = 0,
    factors: Int[Tensor, "n f"] | None = None,
    parts: Collection[str] = PARTS,
    batch_size: int = BATCH_SIZE,
) -> dict[str, Figure]:
    """Return figures of a learned model by name; what cannot be measured is left out with its reason.

    learner: ready to use, as `load` returns it.
    dataset: its test images are measured on; latents of train images are used for the probe.
    features: what sets of images are compared by, (n, c, h, w) -> (n, d); a classifier trained on the data set where
        not given.
    seed: 0 or more, of all random numbers; no figure depends on which others are asked for.
    samples: at least 2, draws that are compared with all test images.
    likelihood_images: the first so many test images that log p(x) is estimated of; 0 for none.
    temperatures: at least 1, of annealed importance sampling.
    importance_samples: at least 1, draws of importance sampling for each image.
    test_images: the first so many are reconstructed; all where not given.
    gap_images: simulated images that log p(x) is bounded of from both sides; 0 for none.
    rate_images: the first so many test images that the curve of error against rate is measured on; 0 for none.
    factors: (n, f), whole numbers, known factors of the images that are reconstructed; those of the data set where it
        has them and none are given.
    parts: which to measure, of
        reconstruction: mse, psnr, ssim, second_moment, failed_test_chains, with another prior than N(0, I) prior_fit,
            and mse_draw and mse_point, with noise and without
        probe: probe, the accuracy of `linear_probe` from latents of at most 5000 train images, on test images
        factors: mig, sap, dci_disentanglement, dci_completeness, dci_informativeness, factor_vae, where factors are
            known
        samples: fid_prior, kid_prior, precision_prior, recall_prior, density_prior, coverage_prior, and the same with
            _fitted where a density of the latents was fitted
        likelihood: nats and bits_per_dim by annealed importance sampling, importance_nats by the learner's own
            proposal, and annealing_gap; of a flow nats_with_noise and bits_per_dim_with_noise, its exact density
        rate: rate_at_S and error_at_S for sigmas S from 0.5 to 0.05; see `rate_figures`
    batch_size: at least 1, images at a time.

    The parts reconstruction and samples need the extra shortrun[metrics].

    Raises InputError without it, for counts out of range, unknown parts, factors of another number than the images, and
    features that do not take the images.

    >>> from shortrun import ModelConfig, ShortRun, load_dataset
    >>> learner = ShortRun.build((1, 8, 8), ModelConfig(latents=(2, 3), width=8))
    >>> digits = load_dataset("digits", train_limit=100, test_limit=20)
    >>> found = assess(learner, digits, parts=["likelihood"], likelihood_images=4, temperatures=5, importance_samples=5)
    >>> found["nats"].conditions["temperatures"], found["nats"].value < 0
    (5, True)
    """
    n = len(dataset.test) if test_images is None else test_images
    table = dataset.test.factor_table()
    if factors is None and table is not None:
        factors = table[:n]
    assessment = Assessment(
        learner,
        dataset,
        seed,
        features,
        factors,
        samples=samples,
        likelihood_images=min(likelihood_images, len(dataset.test)),
        temperatures=temperatures,
        importance_samples=importance_samples,
        test_images=n,
        gap_images=gap_images,
        rate_images=min(rate_images, len(dataset.test)),
        batch_size=batch_size,
    )
    check_asked(assessment, parts)
    measures = [measure for measure in MEASURES if measure.part in parts]
    if any(measure.needs_torchmetrics for measure in measures):
        require_package("torchmetrics", "metrics")
    if "samples" in parts:
        assessment = with_features(assessment)
    shared = assessment.conditions()
    return {figure.name: figure.under(shared) for measure in measures for figure in measure.find(assessment)}


def check_asked(assessment: Assessment, parts: Collection[str]) -> None:
    """Raise InputError for counts out of range, unknown parts, and factors of another number than the images.

    assessment: with the counts of `assess`.
    parts: which are asked for.
    """
    check_at_least(
        0,
        seed=assessment.seed,
        likelihood_images=assessment.likelihood_images,
        gap_images=assessment.gap_images,
        rate_images=assessment.rate_images,
    )
    check_at_least(
        1,
        temperatures=assessment.temperatures,
        importance_samples=assessment.importance_samples,
        batch_size=assessment.batch_size,
    )
    check_at_least(2, samples=assessment.samples)
    for part in parts:
        if part not in PARTS:
            raise InputError("parts", repr(part), did_you_mean(part, PARTS))
    n, factors = assessment.test_images, assessment.factors
    if not 1 <= n <= len(assessment.dataset.test):
        raise InputError("test_images", n, f"write 1 to {len(assessment.dataset.test)}")
    if factors is not None and len(factors) != n:
        raise InputError("factors", f"{len(factors)} rows for {n} test images", "write one for each image")


def with_features(assessment: Assessment) -> Assessment:
    """Return the assessment with what images are compared by; raise InputError where it does not take them."""
    features, dataset = assessment.features, assessment.dataset
    if features is None and (found := features_for(dataset)) is not None:
        features = found.to(assessment.learner.device)
    if features is not None:
        feature_matrix(features, dataset.test.images(slice(0, 2)))  # what does not fit fails before any work
    return dataclasses.replace(assessment, features=features)
