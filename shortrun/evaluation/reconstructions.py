"""How well a learner rebuilds images it has not seen, and whether its latents stay with the prior."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from shortrun.data import ImageSet
from shortrun.errors import installed
from shortrun.evaluation.assessment import Assessment
from shortrun.evaluation.quantity import RECONSTRUCTIONS, Measure, Quantity, unless_refused
from shortrun.learners import Learner
from shortrun.learners.learner import Inferred
from shortrun.metrics import pixels
from shortrun.metrics.figure import Figure
from shortrun.pixels import difference
from shortrun.streams import Use

Codes = Float[Tensor, "n d"]

MSE = Quantity("mse", RECONSTRUCTIONS)
PSNR = Quantity("psnr", RECONSTRUCTIONS, "PSNR", 3, unit="dB, mean over images")
SSIM = Quantity("ssim", RECONSTRUCTIONS, "SSIM", 4)
SECOND_MOMENT = Quantity("second_moment", RECONSTRUCTIONS, "second moment", 8)
PRIOR_FIT = Quantity(
    "prior_fit",
    RECONSTRUCTIONS,
    "prior fit",
    9,
    note="prior_fit: latents in units of the normals of the prior that they are of, 1 where they follow it",
    absent="the prior is no mixture of normals, and the second moment says it",
)
FAILED = Quantity("failed_test_chains", RECONSTRUCTIONS)
MSE_DRAW = Quantity("mse_draw", RECONSTRUCTIONS, "MSE of a draw", 1)
MSE_POINT = Quantity("mse_point", RECONSTRUCTIONS, "MSE of a point", 2)
HIDDEN = Quantity(
    "mse_hidden",
    RECONSTRUCTIONS,
    note="mse_hidden: one completion of the pixels of training images that were hidden while the model learned",
)
UNIT_RANGE = {"pixels": "[0, 1]"}
"""What errors are measured in."""


@torch.no_grad()
def reconstruction_figures(
    learner: Learner, x: Float[Tensor, "n c h w"], rng: torch.Generator, batch_size: int = 500
) -> dict[str, Figure]:
    """Return mean squared error, second moment of the latents and failed chains, of one inference for each image.

    `mse` is over all pixels in [0, 1]. `second_moment` is the mean square of the inferred latents per dimension, 1 for
    latents that follow N(0, I), and of each layer, top down. Where the prior is another, `prior_fit` is what is 1 for
    latents that follow it, of all and of each layer: see `Learner.prior_fit`. `failed_test_chains` counts images whose
    chain stayed non-finite, which are in `mse` with a draw from the prior.

    learner: ready to use.
    x: (n, c, h, w) in [-1, 1], the images.
    rng: gives the random numbers.
    batch_size: at least 1, images at a time.
    """
    error, spread, failed = 0.0, torch.zeros((), dtype=torch.float64), 0
    for part, inferred, rebuilt in _rebuilt(learner, x.split(batch_size), rng):
        # of a model that has learned nothing but NaN too, which the metric `pixels.mse` refuses
        error += float((difference(rebuilt, part).double() ** 2).sum())
        spread = spread + _spread(learner, inferred.z)
        failed += int(inferred.failed.sum())
    found = [MSE.figure(error / x.numel(), UNIT_RANGE), *_of_latents(spread / len(x), learner, {})]
    return {figure.name: figure for figure in [*found, FAILED.figure(failed, {})]}


@torch.no_grad()
def hidden_figure(
    learner: Learner, incomplete: ImageSet, whole: ImageSet, rng: torch.Generator, batch_size: int = 500
) -> Figure:
    """Return the mean squared error of one completion of the hidden pixels of images that a model learned from.

    learner: ready to use.
    incomplete: the images, with masks.
    whole: the same with what the hidden pixels hold, which learning never saw.
    rng: gives the random numbers.
    batch_size: at least 1, images at a time.
    """
    error, count = 0.0, 0
    for rows in torch.arange(len(incomplete)).split(batch_size):
        x, mask = incomplete.images(rows).to(learner.device), incomplete.observed(rows)
        assert mask is not None
        made = learner.decode(learner.infer(x, rng, mask=mask.to(learner.device)).z).cpu()
        hidden = (mask <= 0.5).expand_as(made)
        error += float((difference(made, whole.images(rows))[hidden].double() ** 2).sum())
        count += int(hidden.sum())
    return HIDDEN.figure(error / max(count, 1), {"split": "train", "images": len(incomplete), **UNIT_RANGE})


class Reconstructed(NamedTuple):
    """What one inference of each test image gave."""

    codes: Codes
    """The layers of latents as the generator has them, side by side."""
    errors: dict[str, Float64[Tensor, "n"]]
    """What is measured of each image, by name."""
    spread: Float64[Tensor, "more"]
    """The mean square of each of the inferred latents; behind them, with another prior than N(0, I), how they fit."""
    failed: int
    """Chains that stayed non-finite."""


def reconstructed(assessment: Assessment) -> Reconstructed:
    """Infer the test images once and say how near their reconstructions come."""
    learner, test, n = assessment.learner, assessment.dataset.test, assessment.test_images
    measures = {"mse": pixels.mse, "psnr": pixels.psnr}
    if min(test.shape[1:]) >= 3 and installed("torchmetrics"):  # parts that stand on the codes alone do without
        measures["ssim"] = pixels.ssim
    errors: dict[str, list[Tensor]] = {name: [] for name in measures}
    codes, failed, spread = [], 0, torch.zeros((), dtype=torch.float64)
    batches = (test.images(rows) for rows in assessment.batches(n, "reconstructing"))
    for x, inferred, rebuilt in _rebuilt(learner, batches, assessment.rng(Use.TEST)):
        for name, measure in measures.items():
            errors[name].append(measure(x.cpu(), rebuilt.cpu()))
        codes.append(torch.cat(learner.layers(inferred.z), 1).float().cpu())
        spread = spread + _spread(learner, inferred.z)
        failed += int(inferred.failed.sum())
    joined = {name: torch.cat(parts) for name, parts in errors.items()}
    return Reconstructed(torch.cat(codes), joined, spread / n, failed)


def reconstruction(assessment: Assessment) -> Iterable[Figure]:
    """Return what one inference of each test image gives: errors, second moment of the latents, failed chains."""
    found, there = assessment.once(reconstructed), {"images": assessment.test_images}
    means = {name: float(values.mean()) for name, values in found.errors.items()}
    yield MSE.figure(means["mse"], {**there, **UNIT_RANGE})
    if math.isfinite(means["psnr"]):
        yield PSNR.figure(means["psnr"], {**there, **UNIT_RANGE})
    else:
        yield PSNR.left_out("some images are rebuilt exactly: their ratio is infinite")
    if "ssim" in means:
        smallest = min(assessment.dataset.test.shape[1:])
        window = min(pixels.WINDOW, smallest - (smallest + 1) % 2)
        yield SSIM.figure(means["ssim"], {**there, **UNIT_RANGE, "window": window})
    else:
        yield SSIM.left_out("a window needs images of at least 3x3 pixels")
    yield from _of_latents(found.spread, assessment.learner, there)
    yield FAILED.figure(found.failed, there)


def draw_and_point(assessment: Assessment) -> Iterable[Figure]:
    """Return the error from a draw of the latents and from one best point: learners are compared like with like.

    A draw has the spread of the posterior in it, a point has not: a draw is the end of a chain with noise, or one from
    an encoder's Gaussian; a point is the end of the same chain without noise, from a draw of the prior, or the
    Gaussian's mean. Whichever of the two a learner takes unless told otherwise, `mse` is the error of. What a learner
    does not do, to draw where its encoder is deterministic for example, is left out with the reason that it gives.
    """
    learner, n = assessment.learner, assessment.test_images
    for quantity, noise, words in ((MSE_DRAW, True, "a draw"), (MSE_POINT, False, "a point")):

        def measured(quantity: Quantity = quantity, noise: bool = noise, words: str = words) -> Iterator[Figure]:
            rng, errors = assessment.rng(Use.DRAW), []
            for rows in assessment.batches(n, f"reconstructing from {words}"):
                x = assessment.dataset.test.images(rows)
                rebuilt = learner.reconstruct(x.to(learner.device), rng, noise=noise).cpu()
                errors.append(pixels.mse(x, rebuilt))
            conditions = {"images": n, **UNIT_RANGE, "inference": learner.describe_inference(noise=noise)}
            yield quantity.figure(float(torch.cat(errors).mean()), conditions)

        yield from unless_refused(measured, [quantity])


def _rebuilt(
    learner: Learner, batches: Iterable[Tensor], rng: torch.Generator
) -> Iterator[tuple[Tensor, Inferred, Tensor]]:
    """Give images, what was inferred of them, and their reconstructions, batch by batch, on the learner's device."""
    for x in batches:
        x = x.to(learner.device)
        inferred = learner.infer(x, rng)
        yield x, inferred, learner.decode(inferred.z)


def _spread(learner: Learner, z: Codes) -> Float64[Tensor, "more"]:
    """Return sums over images: the square of each latent and, with another prior than N(0, I), how latents fit it."""
    square, fit = (z.double() ** 2).sum(0), learner.prior_fit(z)
    return (square if fit is None else torch.cat([square, fit.double().sum(0)])).cpu()


def _of_latents(spread: Float64[Tensor, "more"], learner: Learner, conditions: dict[str, int]) -> Iterator[Figure]:
    square, fit = spread[: learner.dim], spread[learner.dim :].tolist()
    layers = [float(layer.mean()) for layer in square.split(learner.latents)]
    yield SECOND_MOMENT.figure(float(square.mean()), conditions, layers=layers)
    if fit:
        yield PRIOR_FIT.figure(fit[0], conditions, layers=fit[1:])


MEASURES = (
    Measure(
        "reconstruction",
        (MSE, PSNR, SSIM, SECOND_MOMENT, PRIOR_FIT, FAILED),
        reconstruction,
        needs_torchmetrics=True,
    ),
    Measure("reconstruction", (MSE_DRAW, MSE_POINT), draw_and_point, needs_torchmetrics=True),
)
