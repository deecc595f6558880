"""The parts of an assessment: each measures some figures of a model and says what they were measured under."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from shortrun.data import Dataset
from shortrun.errors import InputError
from shortrun.evaluation.assessment import Assessment, Figures, unless_refused
from shortrun.evaluation.importance import importance_figures
from shortrun.evaluation.likelihood import annealing_gap, log_likelihood_figures
from shortrun.learners import LatentLearner, Learner
from shortrun.learners.glow import Glow
from shortrun.learners.learner import Source
from shortrun.metrics import pixels
from shortrun.metrics.annealing import CHAINS, LEAPFROG
from shortrun.metrics.disentanglement import (
    DCI,
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
from shortrun.metrics.probes import linear_probe, linear_probes
from shortrun.progress import shown
from shortrun.streams import Use

Codes = Float[Tensor, "n d"]

MOST_NEIGHBOURS, NEIGHBOURS = 5000, 5
PROBE_IMAGES = 5000
NOISE_DRAWS = 16
"""Draws of the noise of an exact density, for each image."""


def reconstruction(subject: Assessment, n: int) -> tuple[Codes, Figures]:
    """Infer the first n test images once; return their codes, (n, d), and what the reconstructions are like.

    The codes are the layers of latents as the generator has them, side by side.
    """
    learner, rng = subject.learner, subject.rng(Use.TEST)
    measures = {"mse": pixels.mse, "psnr": pixels.psnr, "ssim": pixels.ssim}
    values: dict[str, list[Tensor]] = {name: [] for name in measures}
    codes, failed, square = [], 0, torch.zeros(learner.dim, dtype=torch.float64)
    smallest = min(subject.dataset.test.shape[1:])
    for rows in subject.batches(n, "reconstructing"):
        x = subject.dataset.test.images(rows)
        inferred = learner.infer(x.to(learner.device), rng)
        rebuilt = learner.decode(inferred.z).cpu()
        for name, measure in measures.items():
            if name != "ssim" or smallest >= 3:
                values[name].append(measure(x, rebuilt))
        codes.append(torch.cat(learner.layers(inferred.z), 1).float().cpu())
        square += inferred.z.double().square().sum(0).cpu()
        failed += int(inferred.failed.sum())
    there = {"images": n, "pixels": "[0, 1]"}
    means = {name: float(torch.cat(parts).mean()) for name, parts in values.items() if parts}
    found: Figures = {"mse": {"value": means["mse"], **there}}
    if math.isfinite(means["psnr"]):
        found["psnr"] = {"value": means["psnr"], **there, "unit": "dB, mean over images"}
    else:
        found["psnr"] = {"left_out": "some images are rebuilt exactly: their ratio is infinite"}
    if "ssim" in means:
        window = min(pixels.WINDOW, smallest - (smallest + 1) % 2)
        found["ssim"] = {"value": means["ssim"], **there, "window": window}
    else:
        found["ssim"] = {"left_out": "a window needs images of at least 3x3 pixels"}
    square /= n
    layers = [float(layer.mean()) for layer in square.split(learner.latents)]
    found["second_moment"] = {"value": float(square.mean()), "layers": layers, "images": n}
    found["failed_test_chains"] = {"value": failed, "images": n}
    return torch.cat(codes), found


def sample_figures(subject: Assessment, features: nn.Module | None, samples: int) -> Figures:
    """Compare draws with all test images: from the prior, and from the density of latents where one was fitted."""
    sources: dict[Source, Use] = {"prior": Use.PRIOR}
    if subject.learner.latent_density is not None:
        sources["fitted"] = Use.FITTED
    names = ("fid", "kid", "precision", "recall", "density", "coverage")
    if features is None:
        reason = "the data set has no labels of two classes or more to learn features from; give features"
        return {f"{name}_{source}": {"left_out": reason} for source in sources for name in names}
    test = subject.dataset.test
    real = torch.cat([feature_matrix(features, test.images(rows)) for rows in subject.batches(len(test), "features")])
    found: Figures = {}
    for source, use in sources.items():
        rng, rows = subject.rng(use), []
        for part in subject.batches(samples, f"samples, {source}"):
            rows.append(feature_matrix(features, subject.learner.sample(len(part), rng, source)))
        found |= {f"{name}_{source}": entry for name, entry in _distances(subject, real, torch.cat(rows)).items()}
    there = {"pixels": "[-1, 1]", **described(features, subject.dataset)}
    for name, entry in found.items():
        if "left_out" not in entry:
            entry |= {"drawn_from": "the prior" if name.endswith("prior") else _fitted(subject.learner), **there}
    return found


def _fitted(learner: Learner) -> str:
    assert learner.latent_density is not None
    record = learner.latent_density.record
    return f"mixture of {record.components} ({record.covariance}) fitted to latents of {record.images} train images"


def _distances(subject: Assessment, real: Tensor, made: Tensor) -> Figures:
    """Return the figures of two matrices of features."""
    sizes = {"samples": len(made), "images": len(real)}
    # the features of a set are computed once: here they pass for images of one pixel
    as_images = (nn.Flatten(), real[:, :, None, None], made[:, :, None, None])
    found: Figures = {}

    def fid() -> Figures:
        return {"fid": {"value": frechet_distance(*as_images), **sizes}}

    def kid() -> Figures:
        distance = kernel_distance(*as_images, subject.rng(Use.SUBSETS))
        return {"kid": {"value": distance.mean, "std_of_subsets": distance.std, **sizes}}

    found |= unless_refused(fid, ["fid"]) | unless_refused(kid, ["kid"])
    count = min(len(real), len(made), MOST_NEIGHBOURS)

    def neighbours() -> Figures:
        figures = neighbour_figures(real[:count], made[:count], NEIGHBOURS)
        there = {"samples": count, "images": count, "neighbours": NEIGHBOURS}
        return {name: {"value": value, **there} for name, value in figures._asdict().items()}

    return found | unless_refused(neighbours, ["precision", "recall", "density", "coverage"])


def described(features: nn.Module, dataset: Dataset) -> dict[str, Any]:
    """Return what a figure has to quote of its features."""
    name = getattr(features, "name", None)
    if isinstance(name, str):
        return {"features": name}
    if isinstance(features, Features):
        return {
            "features": f"own classifier of {dataset.name}",
            "features_accuracy": features.accuracy,
            "features_train_images": len(dataset.train),
            "features_seed": features.seed,
        }
    return {"features": type(features).__name__}


def likelihood(subject: Assessment, n: int, temperatures: int, samples: int) -> Figures:
    """Estimate log p(x) of the first n test images; of a flow it is exact but for the noise."""
    if n == 0:
        return {}
    learner, x = subject.learner, subject.dataset.test.images(slice(0, n))
    there = subject.density()
    if isinstance(learner, Glow):
        return _exact(learner, x, subject.rng(Use.ANNEALING), there)
    if not isinstance(learner, LatentLearner):
        return {"nats": {"left_out": "the learner has no generator"}}

    def annealed() -> Figures:
        figures = log_likelihood_figures(learner, x, subject.rng(Use.ANNEALING), temperatures=temperatures)
        how = {"images": n, "by": "annealed importance sampling", "temperatures": temperatures}
        how |= {"chains": CHAINS, "leapfrog": LEAPFROG, **there}
        nats = {"standard_error": figures["nats_standard_error"], "acceptance": figures["acceptance"]}
        return {"nats": {"value": figures["nats"], **nats, **how}, "bits_per_dim": _bits(figures["bits_per_dim"], how)}

    def weighted() -> Figures:
        figures = importance_figures(learner, x, subject.rng(Use.IMPORTANCE), samples=samples)
        kept = {name: figures[name] for name in ("effective_samples", "samples", "proposal", "images")}
        entry = {"value": figures["nats"], "standard_error": figures["nats_standard_error"], **kept, **there}
        return {"importance_nats": entry}

    return unless_refused(annealed, ["nats", "bits_per_dim"]) | unless_refused(weighted, ["importance_nats"])


@torch.no_grad()
def _exact(learner: Glow, x: Tensor, rng: torch.Generator, there: dict[str, Any]) -> Figures:
    total = torch.zeros(len(x), dtype=torch.float64)
    for _ in range(NOISE_DRAWS):
        noise = learner.bin_width * (torch.rand(x.shape, generator=rng) - 0.5)
        total += torch.cat(
            [learner.log_prob(part.to(learner.device)).double().cpu() for part in (x + noise).split(500)]
        )
    log_p = total / NOISE_DRAWS
    nats, n = float(log_p.mean()), len(x)
    bits = -(nats / x[0].numel() + math.log(learner.bin_width)) / math.log(2) if learner.levels else None
    how = {"images": n, "by": "the exact density", "noise_draws": NOISE_DRAWS, **there}
    error = float(log_p.std()) / math.sqrt(n) if n > 1 else None
    return {"nats": {"value": nats, "standard_error": error, **how}, "bits_per_dim": _bits(bits, how)}


def _bits(value: float | None, how: dict[str, Any]) -> dict[str, Any]:
    if value is None:
        return {"left_out": "the pixels are floats, or the learner was put together by hand: there are no levels"}
    return {"value": value, **how}


def simulated_gap(subject: Assessment, n: int, temperatures: int) -> Figures:
    """Return how far the bounds of log p(x) lie apart on images of the model itself: log p(x) lies between."""
    learner = subject.learner
    if not isinstance(learner, LatentLearner):
        return {"annealing_gap": {"left_out": "the learner has no annealing"}}

    def gap() -> Figures:
        figures = annealing_gap(learner, n, subject.rng(Use.GAP), temperatures=temperatures)
        entry = {"value": figures["gap"], "standard_error": figures["gap_standard_error"]}
        entry |= {name: figures[name] for name in ("lower", "upper", "images")}
        return {"annealing_gap": {**entry, "temperatures": temperatures, "images_are": "simulated by the model"}}

    return unless_refused(gap, ["annealing_gap"])


def probe(subject: Assessment, codes: Codes) -> Figures:
    """Return how well a linear classifier reads the labels of test images off their codes, all and layer by layer."""
    learner, (train, test) = subject.learner, (subject.dataset.train, subject.dataset.test.take(len(codes)))
    labels, test_labels = train.labels, test.labels
    if labels is None or test_labels is None:
        return {"probe": {"left_out": "the data set has no labels"}}
    count, rng, rows = min(PROBE_IMAGES, len(train)), subject.rng(Use.PROBE), []
    for batch in subject.batches(count, "latents of train images"):
        z = learner.infer(train.images(batch).to(learner.device), rng).z
        rows.append(torch.cat(learner.layers(z), 1).float().cpu())
    given = (torch.cat(rows), labels[:count], codes, test_labels)

    def measured() -> Figures:
        entry = {"value": linear_probe(*given), "layers": linear_probes(*given, learner.latents)}
        return {"probe": {**entry, "train_images": count, "images": len(codes)}}

    return unless_refused(measured, ["probe"])


def factor_figures(subject: Assessment, codes: Codes, factors: Int[Tensor, "m f"]) -> Figures:
    """Return how far single dimensions of the codes stand for single factors, of all codes and layer by layer."""
    scores: dict[tuple[str, ...], Callable[[Tensor], tuple[float, ...]]] = {
        ("mig",): lambda z: (mutual_information_gap(z, factors),),
        ("sap",): lambda z: (attribute_predictability(z, factors),),
        tuple(f"dci_{name}" for name in DCI._fields): lambda z: dci(z, factors, subject.rng(Use.FACTORS)),
        ("factor_vae",): lambda z: (factor_vae_score(z, factors, subject.rng(Use.FACTORS)),),
    }
    there = {"images": len(codes), "factors": factors.shape[1]}
    layers = codes.split(subject.learner.latents, dim=1)
    found: Figures = {}
    for names, score in shown(scores.items(), "factors", "score"):

        def of_layer(z: Tensor, score: Callable = score, names: tuple[str, ...] = names) -> tuple[float | None, ...]:
            try:
                return score(z)
            except InputError:  # of one dimension for example: there is no second best
                return (None,) * len(names)

        def measured(score: Callable = score, names: tuple[str, ...] = names) -> Figures:
            whole, parts = score(codes), [of_layer(layer) for layer in layers]
            return {
                name: {"value": whole[i], "layers": [part[i] for part in parts], **there}
                for i, name in enumerate(names)
            }

        found |= unless_refused(measured, list(names))
    return found
