"""Which way of choosing the step size learns the best model: fixed ones against each estimator and tuner.

Every variant trains one model for each seed from the same recipe and is measured on the test images: error of the
reconstruction, Frechet distance of draws from the prior on features of our own, log p(x) by annealed importance
sampling, time. What is finished is kept: a second call goes on where a kill has left the first.
"""

import csv
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from shortrun.config import Config
from shortrun.data import Dataset
from shortrun.errors import InputError, at_least_one, did_you_mean
from shortrun.evaluation import log_likelihood_figures, own_features
from shortrun.experiments.checks import check_short_run
from shortrun.files import replacing, write_json, write_text
from shortrun.learners import ShortRun
from shortrun.metrics import Features, frechet_distance
from shortrun.streams import Use, stream
from shortrun.training import load, resume, train
from shortrun.training.loop import read_dataset
from shortrun.training.run_folder import RunFolder

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
            raise InputError("--variants", f"{variant!r}", str(did_you_mean(variant, VARIANTS)))
    at_least_one(**{"--seeds": seeds, "--likelihood-images": likelihood_images})
    check_short_run(config)
    dataset = read_dataset(config)
    features = own_features(dataset)
    results: dict[str, list[dict[str, float]]] = {}
    words = ""
    for seed in range(seeds):
        for variant in variants:
            changed = VARIANTS[variant](config)
            changed = dataclasses.replace(changed, training=dataclasses.replace(config.training, seed=seed))
            print(f"{variant}, seed {seed}", flush=True)
            figures = _measured(changed, out / variant / f"seed_{seed}", dataset, features, likelihood_images, device)
            results.setdefault(variant, []).append(figures)
            words = _write_table(results, out)
    return words


def _measured(
    config: Config, folder: Path, dataset: Dataset, features: Features, likelihood_images: int, device: str | None
) -> dict[str, float]:
    """Train or go on, evaluate, and keep the figures beside the run."""
    kept = folder / "evaluation.json"
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    run = RunFolder(folder)
    if run.config.is_file():
        resume(folder, device=device)
    else:
        train(config, folder, device=device)
    result = json.loads(run.result.read_text(encoding="utf-8"))
    learner = load(folder)
    assert isinstance(learner, ShortRun)  # the configuration was checked
    rng = stream(config.training.seed, Use.STEP_SIZES)
    x = dataset.test.images(slice(0, min(likelihood_images, len(dataset.test))))
    samples = torch.cat([learner.sample(1000, rng) for _ in range(SAMPLES // 1000)])
    figures = {
        "mse": result["mse"]["value"],
        "fid": frechet_distance(features, dataset.test.images(), samples),
        "nats": log_likelihood_figures(learner, x, rng, temperatures=TEMPERATURES)["nats"],
        "second_moment": result["second_moment"]["value"],
        "step_size": mean(learner.step_size.values),
        "step_decay": learner.step_size.decay,
        "tuning_share": result["training"]["tuning_seconds"] / result["training"]["seconds"],
        "seconds": result["training"]["cpu_seconds"],
    }
    write_json(kept, figures)
    return figures


def _write_table(results: dict[str, list[dict[str, float]]], out: Path) -> str:
    """Write means and standard deviations over the seeds, as Markdown, and every run's figures, as CSV."""
    lines = [f"| variant | seeds | {' | '.join(FIGURES.values())} |", "| --- " * (len(FIGURES) + 2) + "|"]
    for variant, runs in results.items():
        cells = [_spread([run[name] for run in runs]) for name in FIGURES]
        lines.append(f"| {variant} | {len(runs)} | {' | '.join(cells)} |")
    words = "\n".join(lines) + "\n"
    write_text(out / "table.md", words)
    with replacing(out / "table.csv") as path, path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["variant", "seed", *FIGURES])
        for variant, runs in results.items():
            writer.writerows([variant, seed, *(run[name] for name in FIGURES)] for seed, run in enumerate(runs))
    return words


def _spread(values: list[float]) -> str:
    """Say mean and standard deviation in four significant digits of the mean."""
    return f"{mean(values):.4g}" + (f" ± {stdev(values):.2g}" if len(values) > 1 else "")
