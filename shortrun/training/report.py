"""What a run leaves behind besides its weights: pictures on the way and at the end, and the test figures."""

import datetime
import sys
from dataclasses import asdict, replace
from typing import Any

import torch
from PIL import Image

from shortrun.config import Config, DataConfig
from shortrun.data import Dataset, ImageSet
from shortrun.errors import in_one_line
from shortrun.evaluation.assessment import hidden_while_learning
from shortrun.evaluation.reconstructions import hidden_figure, reconstruction_figures
from shortrun.figures.images import captioned_rows, grid, write_png
from shortrun.files import write_json
from shortrun.learners import Learner, with_generator
from shortrun.learners.latent_density import LEAST, fit_latent_density, write_density
from shortrun.learners.learner import Source
from shortrun.metrics.figure import Figure, to_json
from shortrun.progress import is_quiet
from shortrun.streams import Use, stream
from shortrun.training.divergence import learned_nothing
from shortrun.training.machine import machine
from shortrun.training.position import Position
from shortrun.training.run_folder import RunFolder
from shortrun.training.setup import with_truth
from shortrun.training.tracking import Metrics
from shortrun.version import __version__

COLUMNS = 12
HIDDEN_IMAGES = 500
"""Training images, at most, whose hidden pixels are completed for their error."""
SAMPLES: dict[Source, str] = {"prior": "samples.png", "fitted": "samples_fitted.png"}
"""Pictures of draws, by what they are from."""


def reconstruction_rows(learner: Learner, test: ImageSet, seed: int, pairs: int) -> Image.Image:
    """Draw test images and their reconstructions, in pairs of rows."""
    columns = min(COLUMNS, len(test))
    x = test.images(slice(0, columns * pairs)).to(learner.device)
    rebuilt = learner.reconstruct(x, stream(seed, Use.PICTURE))
    rows = []
    for given, made in zip(x.split(columns), rebuilt.split(columns), strict=True):
        rows += [("test image", given), ("reconstruction", made)]
    return captioned_rows(rows)


def draw_progress(learner: Learner, test: ImageSet, run: RunFolder, epoch: int, seed: int, metrics: Metrics) -> None:
    """Draw reconstructions and samples as they are after an epoch: figures/epoch_0010.png, and TensorBoard."""
    columns = min(COLUMNS, len(test))
    x = test.images(slice(0, columns)).to(learner.device)
    rng = stream(seed, Use.PICTURE)
    rows = [("test image", x), ("reconstruction", learner.reconstruct(x, rng))]
    if learner.sources:  # without a prior there are none before a density is fitted, at the end
        rows += [("sample", row) for row in learner.sample(3 * columns, rng).split(columns)]
    picture = captioned_rows(rows)
    write_png(picture, run.figures / f"epoch_{epoch:04d}.png")
    metrics.picture(picture, "reconstructions_and_samples", epoch)


def fit_density(learner: Learner, train: ImageSet, config: Config, run: RunFolder) -> str | None:
    """Fit a density to the latents of training images, give it to the learner, and write it beside the model.

    There is none for a learner with a prior and no generator, whose latents are as many as the pixels, for fewer than
    10 images, or where the configuration says so. Returns why there is none where it could not be fitted.
    """
    learner.latent_density = None
    try:
        _fit_density(learner, train, config)
    except (ValueError, torch.linalg.LinAlgError) as error:  # pyright: ignore[reportPrivateImportUsage]
        # latents that are not finite, or all alike: the run is finished without
        problem = in_one_line(error)
    else:
        problem = None
    write_density(learner.latent_density, run.checkpoint)
    return problem


def _fit_density(learner: Learner, train: ImageSet, config: Config) -> None:
    count = min(config.training.fit_images, len(train))
    generator = learner.generator if with_generator(learner) else None
    # a prior without its constant has no nats to compare with
    log_prior = generator.log_prior if generator is not None and generator.prior.exact else None
    if (generator is not None or not learner.has_prior) and count >= LEAST:
        rng = stream(config.training.seed, Use.FIT, device=learner.device)
        # the images of a data set may be in the order of their labels
        rows = torch.randperm(len(train), generator=rng, device=rng.device)[:count].cpu()
        parts = [_posterior(learner, train, part, rng) for part in rows.split(500)]
        learner.latent_density = fit_latent_density(torch.cat(parts), rng, log_prior=log_prior)


def _posterior(learner: Learner, train: ImageSet, rows: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    x, mask = train.images(rows).to(learner.device), train.observed(rows)
    if mask is None:  # a learner that does not learn from incomplete images need not know the word
        return learner.draw_posterior(x, rng)
    return learner.draw_posterior(x, rng, mask.to(learner.device))


def test_figures(learner: Learner, dataset: Dataset, config: Config) -> list[Figure]:
    """Return the figures of all test images, what every learner has and what this one adds, with their conditions."""
    x, seed = dataset.test.images(), config.training.seed
    measured = reconstruction_figures(learner, x, stream(seed, Use.TEST))
    measured |= learner.test_figures(x, stream(seed, Use.TEST))
    conditions = {
        "split": dataset.split,
        "images": len(x),
        "learner": config.learner,
        **learner.conditions(),
        **hidden_while_learning(dataset.train),
        "weights": "moving average",
        "precision": "float32",
        "seed": seed,
    }
    figures = [figure.under(conditions) for figure in measured.values()]
    if dataset.train.masks is not None and (whole := with_truth(config, dataset)) is not None:
        incomplete, rng = dataset.train.take(min(HIDDEN_IMAGES, len(dataset.train))), stream(seed, Use.COMPLETION)
        hidden = hidden_figure(learner, incomplete, whole.train.take(len(incomplete)), rng)
        figures.append(replace(hidden, conditions={**conditions, **hidden.conditions}))
    return figures


def missing_words(data: DataConfig, train: ImageSet) -> str:
    """Return which pixels of training images were hidden while a model learned, in words."""
    if data.missing and train.masks is not None:
        return f"{data.missing_shape or 'pixels'} drawn with seed {data.missing_seed or 0}"
    return "masks that were given" if data.masks is None else f"masks of {data.masks}"


def write_report(learner: Learner, dataset: Dataset, config: Config, run: RunFolder, position: Position) -> None:
    """Write the fitted density of the latents, the pictures of samples and reconstructions and, last, result.json.

    The pictures are figures/samples.png from the prior, figures/samples_fitted.png from the fitted density, with the
    same random numbers, and figures/reconstructions.png.
    """
    seed = config.training.seed
    why_none = fit_density(learner, dataset.train, config, run)
    for source in learner.sources:
        samples = learner.sample(COLUMNS * 8, stream(seed, Use.PICTURE), source)
        write_png(grid(samples, COLUMNS), run.figures / SAMPLES[source])
    write_png(reconstruction_rows(learner, dataset.test, seed, pairs=4), run.figures / "reconstructions.png")
    missing: dict[str, Any] = hidden_while_learning(dataset.train)
    if missing:
        missing["hidden"] = missing_words(config.data, dataset.train)
    figures = to_json(test_figures(learner, dataset, config))
    if (warning := learned_nothing(figures["mse"]["value"], dataset.test)) and not is_quiet():
        print(f"warning: {warning}", file=sys.stderr)
    result: dict[str, Any] = {
        **figures,
        "latent_density": None if learner.latent_density is None else asdict(learner.latent_density.record),
        **({} if why_none is None else {"latent_density_left_out": why_none}),
        **({"warning": warning} if warning else {}),
        "training": {
            "seconds": round(position.seconds, 1),
            "cpu_seconds": round(position.cpu_seconds, 1),
            "epochs": config.training.epochs,
            "images": len(dataset.train),
            **missing,
            "updates": position.step,
            "retried_chains": position.retried,
            "failed_chains": position.failed,
            "skipped_updates": position.skipped,
            "tunings": position.tunings,
            "tuning_seconds": round(position.tuning_seconds, 1),
            "parameters": sum(parameter.numel() for parameter in learner.parameters()),
        },
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "shortrun": __version__,
    }
    write_json(run.result, result)
