"""Which way of choosing the step size learns the best model: fixed ones against each estimator and tuner.

Every variant trains one model for each seed from the same recipe and is measured on the test images: error of the
reconstruction, Frechet distance of draws from the prior on features of our own, log p(x) by annealed importance
sampling, time. What is finished is kept: a second call goes on where a kill has left the first.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, cast

import torch

from shortrun.compare.contest import Turn, hold, recorded, turns
from shortrun.config import Config
from shortrun.data import Dataset
from shortrun.errors import InputError, check_at_least, did_you_mean
from shortrun.evaluation import log_likelihood_figures, own_features
from shortrun.evaluation.tables import markdown, with_error, write_csv
from shortrun.experiments.arguments import Experiment, check_short_run
from shortrun.files import read_json, write_text
from shortrun.learners import ChainLearner, checked_for_learner
from shortrun.metrics import Features, frechet_distance
from shortrun.metrics.figure import Figure, from_json
from shortrun.streams import Use, stream
from shortrun.training import load
from shortrun.training.setup import read_dataset, with_truth

SAMPLES, TEMPERATURES = 10_000, 500
"""Prior samples of the Frechet distance; temperatures of the annealing."""
FIGURES = {
    "mse": "test MSE",
    "fid": "FID of prior samples",
    "nats": "log p(x), nats",
    "second_moment": "second moment",
    "step_size": "last s_0",
    "step_decay": "last r",
    "tuning_share": "tuning / training",
    "seconds": "training, CPU s",
}
"""The columns of the table."""


@dataclass(frozen=True)
class Arguments(Experiment):
    """Compare the models that fixed and tuned step sizes learn."""

    variants: tuple[str, ...] = ()
    """fixed_0.05, marginal_grid, ...: those to compare; all where not given."""
    likelihood_images: int = 48
    """Test images that log p(x) is estimated of."""

    def run(self, config: Config, out: Path) -> str:
        """Run the experiment and return its table."""
        return step_sizes(
            config,
            out,
            variants=self.variants or tuple(VARIANTS),
            seeds=self.seeds,
            likelihood_images=self.likelihood_images,
            device=self.device,
        )


def _fixed(step_size: float) -> Callable[[Config], Config]:
    return lambda config: _inference(config, step_size=step_size)


def _tuned(estimator: str, tuner: str, over: str = "one", **changes: Any) -> Callable[[Config], Config]:
    def change(config: Config) -> Config:
        # steps that fall start longer; what they fall to is tuned from one half
        falling = {"start": 0.2} if over == "schedule" else {}
        tuning = dataclasses.replace(config.inference.tuning, estimator=estimator, tuner=tuner, over=over, **falling)
        decay = {"step_decay": 0.5} if over == "schedule" else {}
        return _inference(config, step_size="tuned", tuning=tuning, **decay, **changes)

    return change


def _inference(config: Config, **changes: Any) -> Config:
    return dataclasses.replace(config, inference=dataclasses.replace(config.inference, **changes))


VARIANTS: dict[str, Callable[[Config], Config]] = {
    "fixed_0.05": _fixed(0.05),
    "fixed_0.1": _fixed(0.1),
    "fixed_0.2": _fixed(0.2),
    "marginal_grid": _tuned("marginal", "grid"),
    "marginal_gradient": _tuned("marginal", "gradient"),
    "conditional_grid": _tuned("conditional", "grid"),
    "conditional_gradient": _tuned("conditional", "gradient"),
    "path_grid": _tuned("path", "grid"),
    "path_gradient": _tuned("path", "gradient"),
    "acceptance": _tuned("marginal", "acceptance"),
    "marginal_layers": _tuned("marginal", "grid", over="layers"),
    "marginal_schedule": _tuned("marginal", "grid", over="schedule"),
    "marginal_schedule_K15": _tuned("marginal", "grid", over="schedule", steps=15),
    "marginal_K15": _tuned("marginal", "grid", steps=15),
}
"""What each variant makes of the recipe's inference; names that end in K15 take 15 steps in place of the recipe's."""


def step_sizes(
    config: Config,
    out: Path,
    *,
    variants: Sequence[str] = tuple(VARIANTS),
    seeds: int = 3,
    likelihood_images: int = 48,
    device: str | None = None,
) -> str:
    """Train and measure the variants for seeds 0..seeds-1 and return the table in Markdown.

    likelihood_images: test images that log p(x) is estimated of.
    Writes out/VARIANT/seed_N (runs, each with evaluation.json), out/table.md and out/table.csv after every run. Raises
    InputError for a variant that is none.
    """
    for variant in variants:
        if variant not in VARIANTS:
            raise InputError("variants", repr(variant), did_you_mean(variant, VARIANTS))
    check_at_least(1, seeds=seeds, likelihood_images=likelihood_images)
    check_short_run(config)
    # before the first is trained: acceptance for example is not for every prior
    configs = {variant: checked_for_learner(VARIANTS[variant](config)) for variant in variants}
    dataset = read_dataset(config)
    features = own_features(with_truth(config, dataset) or dataset)

    def measure(turn: Turn) -> dict[str, float]:
        return _measured(turn, dataset, features, likelihood_images)

    def write(records: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
        return _write_table(records, out)

    models = (turn._replace(said=f"{turn.name}, seed {turn.seed}") for turn in turns(configs, out, seeds))
    return write(hold(models, dataset, recorded(measure), write, device=device))


def _measured(turn: Turn, dataset: Dataset, features: Features, likelihood_images: int) -> dict[str, float]:
    """Return the figures of a finished run, by name."""
    learner = cast(ChainLearner, load(turn.run.path))  # the configuration was checked
    result = read_json(turn.run.result)
    trained, reached = result["training"], from_json(result)
    rng = stream(turn.seed, Use.STEP_SIZES)
    x = dataset.test.images(slice(0, min(likelihood_images, len(dataset.test))))
    samples = torch.cat([learner.sample(1000, rng) for _ in range(SAMPLES // 1000)])
    return {
        "mse": _number(reached["mse"]),
        "fid": frechet_distance(features, dataset.test.images(), samples),
        "nats": _number(log_likelihood_figures(learner, x, rng, temperatures=TEMPERATURES)["nats"]),
        "second_moment": _number(reached["second_moment"]),
        "step_size": mean(learner.step_size.values),
        "step_decay": learner.step_size.decay,
        "tuning_share": trained["tuning_seconds"] / trained["seconds"],
        "seconds": trained["cpu_seconds"],
    }


def _write_table(records: Mapping[str, Sequence[Mapping[str, float]]], out: Path) -> str:
    """Write means and standard deviations over the seeds, as Markdown, and every run's figures, as CSV."""
    head = ["variant", "seeds", *FIGURES.values()]
    cells = [
        [variant, str(len(runs)), *(_spread([run[name] for run in runs]) for name in FIGURES)]
        for variant, runs in records.items()
    ]
    words = "\n".join(markdown(head, cells)) + "\n"
    write_text(out / "table.md", words)
    rows = [
        [variant, seed, *(run[name] for name in FIGURES)]
        for variant, runs in records.items()
        for seed, run in enumerate(runs)
    ]
    write_csv(["variant", "seed", *FIGURES], rows, out / "table.csv")
    return words


def _spread(values: Sequence[float]) -> str:
    """Say mean and standard deviation over the seeds."""
    return with_error(mean(values), stdev(values) if len(values) > 1 else None)


def _number(figure: Figure) -> float:
    assert figure.value is not None  # these are never left out
    return figure.value
