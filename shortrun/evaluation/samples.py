"""How near draws from the prior, and from the fitted density of latents, come to test images."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from shortrun.data import Dataset
from shortrun.evaluation.assessment import Assessment
from shortrun.evaluation.quantity import FROM_FITTED, FROM_PRIOR, Measure, Quantity, unless_refused
from shortrun.learners import Learner, with_generator
from shortrun.learners.learner import Source
from shortrun.metrics.feature_matrix import feature_matrix
from shortrun.metrics.features import Features
from shortrun.metrics.figure import Figure
from shortrun.metrics.frechet import frechet_distance
from shortrun.metrics.kernel import kernel_distance
from shortrun.metrics.neighbours import neighbour_figures
from shortrun.streams import Use

MOST_NEIGHBOURS, NEIGHBOURS = 5000, 5


class Draws(NamedTuple):
    """The quantities of draws from one source."""

    source: Source
    features: Callable[[Assessment], Float64[Tensor, "n d"]]
    """Features of as many draws as the assessment asks for."""
    fid: Quantity
    kid: Quantity
    neighbours: tuple[Quantity, ...]
    """Precision, recall, density and coverage."""

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """All of them."""
        return (self.fid, self.kid, *self.neighbours)


def real_features(assessment: Assessment) -> Float64[Tensor, "n d"]:
    """Return the features of all test images."""
    assert assessment.features is not None  # asked by who calls
    test = assessment.dataset.test
    batches = assessment.batches(len(test), "features")
    return torch.cat([feature_matrix(assessment.features, test.images(rows)) for rows in batches])


def prior_features(assessment: Assessment) -> Float64[Tensor, "n d"]:
    """Return the features of draws from the prior."""
    return _features(assessment, "prior", Use.PRIOR)


def fitted_features(assessment: Assessment) -> Float64[Tensor, "n d"]:
    """Return the features of draws from the fitted density."""
    return _features(assessment, "fitted", Use.FITTED)


def _features(assessment: Assessment, source: Source, use: Use) -> Float64[Tensor, "n d"]:
    assert assessment.features is not None  # asked by who calls
    rng, rows = assessment.rng(use), []
    for part in assessment.batches(assessment.samples, f"samples, {source}"):
        rows.append(feature_matrix(assessment.features, assessment.learner.sample(len(part), rng, source)))
    return torch.cat(rows)


PRIOR = Draws(
    "prior",
    prior_features,
    Quantity("fid_prior", FROM_PRIOR, "FID, prior", 1),
    Quantity("kid_prior", FROM_PRIOR),
    (
        Quantity("precision_prior", FROM_PRIOR, "precision", 3),
        Quantity("recall_prior", FROM_PRIOR, "recall", 4),
        Quantity("density_prior", FROM_PRIOR, "density", 5),
        Quantity("coverage_prior", FROM_PRIOR, "coverage", 6),
    ),
)
FITTED = Draws(
    "fitted",
    fitted_features,
    Quantity("fid_fitted", FROM_FITTED, "FID, fitted", 2),
    Quantity("kid_fitted", FROM_FITTED),
    (
        Quantity("precision_fitted", FROM_FITTED, "precision, fitted", 7),
        Quantity("recall_fitted", FROM_FITTED),
        Quantity("density_fitted", FROM_FITTED),
        Quantity("coverage_fitted", FROM_FITTED, "coverage, fitted", 8),
    ),
)


def sample_figures(assessment: Assessment) -> list[Figure]:
    """Compare draws with all test images: from the prior, and from the density of latents where one was fitted."""
    learner = assessment.learner
    sources = [draws for draws in (PRIOR, FITTED) if draws.source in learner.sources]
    missing: list[Figure] = []
    if not learner.has_prior:
        missing += left_out(PRIOR, "the learner has no prior: its draws are those of the fitted density")
    if "fitted" not in learner.sources and (with_generator(learner) or not learner.has_prior):
        missing += left_out(FITTED, "no density was fitted to the latents of the model")
    if assessment.features is None:
        reason = "no features can be learned without labels from few, damaged or oblong images; give features"
        return missing + [figure for draws in sources for figure in left_out(draws, reason)]
    quoted = described(assessment.features, assessment.dataset)
    found: list[Figure] = []
    for draws in sources:
        there = {"drawn_from": _drawn_from(learner, draws.source), "pixels": "[-1, 1]", **quoted}
        found += [figure.under(there) for figure in _distances(assessment, draws)]
    return missing + found


def left_out(draws: Draws, reason: str) -> list[Figure]:
    """Return why there are no figures of the draws from a source."""
    return [quantity.left_out(reason) for quantity in draws.quantities]


def _drawn_from(learner: Learner, source: Source) -> str:
    if source == "prior":
        return "the prior"
    assert learner.latent_density is not None
    record = learner.latent_density.record
    return f"mixture of {record.components} ({record.covariance}) fitted to latents of {record.images} train images"


def _distances(assessment: Assessment, draws: Draws) -> list[Figure]:
    """Return the figures of draws from one source."""
    real, made = assessment.once(real_features), assessment.once(draws.features)
    sizes = {"samples": len(made), "images": len(real)}
    # the features of a set are computed once: here they pass for images of one pixel
    as_images = (nn.Flatten(), real[:, :, None, None], made[:, :, None, None])

    def fid() -> list[Figure]:
        return [draws.fid.figure(frechet_distance(*as_images), sizes)]

    def kid() -> list[Figure]:
        distance = kernel_distance(*as_images, assessment.rng(Use.SUBSETS))
        return [draws.kid.figure(distance.mean, sizes, std_of_subsets=distance.std)]

    def neighbours() -> list[Figure]:
        count = min(len(real), len(made), MOST_NEIGHBOURS)
        values = neighbour_figures(real[:count], made[:count], NEIGHBOURS)
        there = {"samples": count, "images": count, "neighbours": NEIGHBOURS}
        return [quantity.figure(value, there) for quantity, value in zip(draws.neighbours, values, strict=True)]

    found = unless_refused(fid, [draws.fid]) + unless_refused(kid, [draws.kid])
    return found + unless_refused(neighbours, draws.neighbours)


def described(features: nn.Module, dataset: Dataset) -> dict[str, Any]:
    """Return what a figure has to quote of its features."""
    name = getattr(features, "name", None)
    if isinstance(name, str):
        return {"features": name}
    if isinstance(features, Features):
        task = f"{features.task} of " if features.task else ""
        return {
            "features": f"own classifier of {task}{dataset.name}",
            "features_accuracy": features.accuracy,
            "features_train_images": len(dataset.train),
            "features_seed": features.seed,
        }
    return {"features": type(features).__name__}


MEASURES = (Measure("samples", (*PRIOR.quantities, *FITTED.quantities), sample_figures, needs_torchmetrics=True),)
