"""Figure 5 of the paper: the best step size as the model learns, by grid and by gradient, and the curves behind it.

Source: Nijkamp et al., "Learning Multi-layer Latent Variable Model via Variational Optimization of Short Run MCMC for
Approximate Inference", ECCV 2020, arXiv 1912.01909.
"""

import dataclasses
import datetime
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from PIL import Image

from shortrun.compare.contest import Turn, hold, turns
from shortrun.config import Config
from shortrun.errors import InputError, check_at_least
from shortrun.evaluation.tables import markdown
from shortrun.experiments.arguments import Experiment, check_short_run
from shortrun.figures.charts import COLOURS, log_sizes, page
from shortrun.figures.images import write_png
from shortrun.files import read_json, write_json, write_text
from shortrun.learners import ChainLearner
from shortrun.model.likelihood import Images
from shortrun.streams import Use, stream
from shortrun.training.machine import machine
from shortrun.training.order import Order
from shortrun.training.setup import read_dataset
from shortrun.training.tuning import divergence_curves
from shortrun.training.watching import Moment, Watch
from shortrun.version import __version__

ESTIMATORS = ("conditional", "marginal")
ALL = ""
"""The name of the one configuration: its seeds lie in the folder itself."""
PUBLISHED = (0.03, 0.06)
"""Between these the optima of the paper lie on its own sizes of model, read off its figure."""


@dataclass(frozen=True)
class Arguments(Experiment):
    """Measure the best step size as the model learns."""

    reduced: ClassVar[tuple[str, ...]] = ("--seeds", "1", "--images", "8", "--training.epochs", "8")

    images: int = 16
    """Test images that the curves are measured on."""

    def run(self, config: Config, out: Path) -> str:
        """Run the experiment and return its table."""
        return figure5(config, out, seeds=self.seeds, images=self.images, device=self.device)


def figure5(config: Config, out: Path, *, seeds: int = 3, images: int = 16, device: str | None = None) -> str:
    """Train for seeds 0..seeds-1 with a tuned step size and return the best step sizes on the way, in Markdown.

    After epochs 1, 2, 4, ... and the last whole one, E[log q - log p(x, z)] is measured over step sizes on the first
    test images with the weights of the moment, by the conditional estimator, the paper's, and the marginal one, and
    minimized by grid and by gradient. Writes out/seed_N (runs, each with curves/epoch_NNNN.json), out/figure5.json,
    figure5.png and figure5.md. A second call goes on where a kill has left the first.
    """
    check_at_least(1, seeds=seeds)
    check_at_least(2, images=images)
    config = dataclasses.replace(config, inference=dataclasses.replace(config.inference, step_size="tuned"))
    check_short_run(config)
    dataset = read_dataset(config)
    epochs = measured_epochs(whole_epochs(config, len(dataset.train)))
    x = dataset.test.images(slice(0, min(images, len(dataset.test))))

    def watch(turn: Turn) -> Watch:
        return _measuring(turn, x, curve_files(turn, epochs))

    def measured(turn: Turn) -> list[dict[str, Any]]:
        return [read_json(path) for path in curve_files(turn, epochs).values()]

    conditions = {
        "data": dataset.name,
        "images": images,
        "steps": config.inference.steps,
        "latents": config.model.latents,
        "sigma": config.model.sigma,
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "shortrun": __version__,
    }

    def write(found: Mapping[str, Sequence[Sequence[dict[str, Any]]]]) -> str:
        return _write(itertools.chain.from_iterable(found[ALL]), epochs, conditions, out)

    return write(hold(turns({ALL: config}, out, seeds), dataset, measured, write, watch=watch, device=device))


def whole_epochs(config: Config, images: int) -> int:
    """Return how many epochs a run ends; raise InputError where its updates are fewer than one epoch has.

    config: of the run. images: for training.
    """
    training = config.training
    if training.updates is None:
        return training.epochs
    steps = Order(images, training.batch_size, training.seed).steps_an_epoch
    if training.updates < max(1, steps):
        least = f"an epoch has {steps} updates: write at least as many"
        raise InputError("training.updates", training.updates, least)
    return training.updates // max(1, steps)


def measured_epochs(total: int) -> list[int]:
    """Return 1, 2, 4, ... and the last epoch."""
    return sorted({2**power for power in range(int(math.log2(total)) + 1)} | {total})


def curve_files(turn: Turn, epochs: Sequence[int]) -> dict[int, Path]:
    """Return where what is measured after each epoch is kept."""
    return {epoch: turn.run.path / "curves" / f"epoch_{epoch:04d}.json" for epoch in epochs}


def _measuring(turn: Turn, x: Images, kept: Mapping[int, Path]) -> Watch:
    """Return a watch that measures, after each epoch that has a file to keep it in, what is not measured yet."""

    def measure(moment: Moment) -> None:
        epoch, seed = moment.epoch, turn.seed
        learner = cast(ChainLearner, moment.learner)  # the configuration was checked
        if epoch is None or epoch not in kept or kept[epoch].is_file():
            return
        print(f"seed {seed}, epoch {epoch}: looking for the best step size", flush=True)
        # the same draws after every epoch: what moves is the model
        curves = divergence_curves(learner, x, stream(seed, Use.FIGURE5), ESTIMATORS)
        found = {
            "seed": seed,
            "epoch": epoch,
            "in_training": learner.step_size.values[0],
            "best": {
                name: {tuner: float(best.settings[0].exp()) for tuner, best in each.items()}
                for name, each in curves.minima.items()
            },
            "curves": {
                name: [point for point in curves.points(name) if math.isfinite(point[1])] for name in ESTIMATORS
            },
        }
        write_json(kept[epoch], found, indent=None)

    return measure


def _write(found: Iterable[dict[str, Any]], epochs: Sequence[int], conditions: dict[str, Any], out: Path) -> str:
    """Write the records of all seeds so far, their picture and their table, and return the table."""
    records = list(found)
    write_json(out / "figure5.json", {"records": records, **conditions}, indent=1)
    write_png(draw(records, epochs, conditions), out / "figure5.png")
    words = table(records, epochs)
    write_text(out / "figure5.md", words)
    return words


def table(records: Sequence[dict[str, Any]], epochs: Sequence[int]) -> str:
    """Return the best step sizes of all seeds after each epoch, in Markdown."""
    columns = [(name, tuner) for name in ESTIMATORS for tuner in ("grid", "gradient")]
    rows = []
    for epoch in epochs:
        here = [record for record in records if record["epoch"] == epoch]
        best = [", ".join(f"{record['best'][name][tuner]:.3f}" for record in here) for name, tuner in columns]
        rows.append([str(epoch), *best, ", ".join(f"{record['in_training']:.3f}" for record in here)])
    head = ["epoch", *(f"{name}, {tuner}" for name, tuner in columns), "in training"]
    return "\n".join(markdown(head, rows)) + "\n"


def draw(records: Sequence[dict[str, Any]], epochs: Sequence[int], conditions: dict[str, Any]) -> Image.Image:
    """Draw the best step sizes over the epochs, a line a seed, and the first seed's curves at four epochs."""
    top = 1.1 * max(s for record in records for best in record["best"].values() for s in best.values())
    shown = [epochs[round(part * (len(epochs) - 1) / 3)] for part in range(4)]
    with page(2, len(ESTIMATORS), (5.0, 3.2)) as sheet:
        for name, over_epochs, over_sizes in zip(ESTIMATORS, sheet.panels[:2], sheet.panels[2:], strict=True):
            for tuner, style, colour in (("grid", "o-", COLOURS[0]), ("gradient", "x--", COLOURS[1])):
                for seed in sorted({record["seed"] for record in records}):
                    best = [record["best"][name][tuner] for record in records if record["seed"] == seed]
                    label = tuner if seed == 0 else None
                    over_epochs.plot(epochs, best, style, color=colour, markersize=4, linewidth=1, label=label)
            over_epochs.axhspan(*PUBLISHED, color="grey", alpha=0.15, label="published, other models")
            over_epochs.set_xscale("log", base=2)
            over_epochs.set_xticks(epochs, [str(epoch) for epoch in epochs])
            over_epochs.set(ylim=(0, top), xlabel="epoch", ylabel="best step size s")
            over_epochs.set_title(f"{name}: minimum, one line a seed")
            over_epochs.legend()
            for epoch, colour in zip(dict.fromkeys(shown), COLOURS, strict=False):
                record = next(each for each in records if each["epoch"] == epoch and each["seed"] == records[0]["seed"])
                points = record["curves"][name]
                if not points:  # of a model none of whose chains was finite
                    continue
                least = min(value for _, value, _ in points)
                ceiling = least + 1.15 * (points[0][1] - least)
                near = [(s, value, error) for s, value, error in points if value <= ceiling]
                s, value, error = zip(*near, strict=True)
                over_sizes.errorbar(s, value, error, marker=".", linewidth=1, color=colour, label=f"epoch {epoch}")
            log_sizes(over_sizes)
            over_sizes.set(xlabel="step size s", ylabel="E[log q − log p(x, z)], nats")
            over_sizes.set_title(f"{name}: {conditions['images']} images, K = {conditions['steps']}, seed 0")
            over_sizes.legend()
        return sheet.picture()
