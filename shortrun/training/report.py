"""What a run leaves behind besides its weights: pictures on the way and at the end, and the test figures."""

import datetime
import json
from typing import Any

from PIL import Image

from shortrun.config import Config
from shortrun.data import Dataset, ImageSet
from shortrun.evaluation import reconstruction_figures
from shortrun.figures import captioned_rows, grid, write_png
from shortrun.files import replacing
from shortrun.learners import Learner
from shortrun.training.checkpoint import Position
from shortrun.training.run_folder import RunFolder
from shortrun.training.streams import PICTURE, TEST, stream
from shortrun.training.tracking import Metrics, machine
from shortrun.version import __version__

COLUMNS = 12


def reconstruction_rows(learner: Learner, test: ImageSet, seed: int, pairs: int) -> Image.Image:
    """Draw test images and their reconstructions, in pairs of rows."""
    columns = min(COLUMNS, len(test))
    x = test.images(slice(0, columns * pairs)).to(learner.device)
    rebuilt = learner.reconstruct(x, stream(learner.device, seed, PICTURE))
    rows = []
    for given, made in zip(x.split(columns), rebuilt.split(columns), strict=True):
        rows += [("test image", given), ("reconstruction", made)]
    return captioned_rows(rows)


def draw_progress(learner: Learner, test: ImageSet, run: RunFolder, epoch: int, seed: int, metrics: Metrics) -> None:
    """Draw reconstructions and samples as they are after an epoch: figures/epoch_0010.png, and TensorBoard."""
    columns = min(COLUMNS, len(test))
    x = test.images(slice(0, columns)).to(learner.device)
    rng = stream(learner.device, seed, PICTURE)
    rebuilt, samples = learner.reconstruct(x, rng), learner.sample(3 * columns, rng)
    rows = [("test image", x), ("reconstruction", rebuilt), *(("sample", row) for row in samples.split(columns))]
    picture = captioned_rows(rows)
    write_png(picture, run.figures / f"epoch_{epoch:04d}.png")
    metrics.picture(picture, "reconstructions_and_samples", epoch)


def write_report(learner: Learner, dataset: Dataset, config: Config, run: RunFolder, position: Position) -> None:
    """Write figures/samples.png, figures/reconstructions.png and, last of all, result.json."""
    seed = config.training.seed
    samples = learner.sample(COLUMNS * 8, stream(learner.device, seed, PICTURE))
    write_png(grid(samples, COLUMNS), run.figures / "samples.png")
    write_png(reconstruction_rows(learner, dataset.test, seed, pairs=4), run.figures / "reconstructions.png")
    measured = reconstruction_figures(learner, dataset.test.images(), stream(learner.device, seed, TEST))
    conditions = {
        "split": "test",
        "images": len(dataset.test),
        "learner": config.learner,
        **learner.conditions(),
        "weights": "moving average",
        "precision": "float32",
        "seed": seed,
    }
    result: dict[str, Any] = {
        "mse": {"value": measured["mse"], "pixels": "[0, 1]", **conditions},
        "second_moment": {"value": measured["second_moment"], "layers": measured["second_moment_layers"], **conditions},
        "failed_test_chains": {"value": measured["failed"], **conditions},
        "training": {
            "seconds": round(position.seconds, 1),
            "cpu_seconds": round(position.cpu_seconds, 1),
            "epochs": config.training.epochs,
            "images": len(dataset.train),
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
    with replacing(run.result) as path:
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
