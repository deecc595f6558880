"""Train and evaluate several learners, for several seeds, each with the same budget; what is finished is kept."""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shortrun.compare.budget import Budget, updates_a_second
from shortrun.compare.pictures import draw_curves, draw_images
from shortrun.compare.table import write_table
from shortrun.config import Config
from shortrun.data import Dataset
from shortrun.errors import InputError
from shortrun.evaluation import own_features
from shortrun.evaluation.assess import assess, require_metrics
from shortrun.figures.images import write_png
from shortrun.files import write_json
from shortrun.learners import LatentLearner
from shortrun.mapping import to_mapping
from shortrun.metrics import frechet_distance, mse
from shortrun.streams import Use, stream
from shortrun.training import load, resume, train
from shortrun.training.loop import build_learner, read_dataset
from shortrun.training.processes import Processes, choose_device
from shortrun.training.run_folder import RunFolder
from shortrun.training.tracking import machine
from shortrun.training.watching import Moment

CURVE_IMAGES, CURVE_SAMPLES = 1000, 2000
"""Test images and draws from the prior of a point of the curves."""


def compare(
    configs: Mapping[str, Config],
    out: Path,
    *,
    budget: Budget,
    seeds: int = 3,
    samples: int = 10_000,
    likelihood_images: int = 48,
    points: int = 6,
    device: str | None = None,
    features: nn.Module | None = None,
) -> str:
    """Train and evaluate a model for each configuration and seed, and return the table in Markdown.

    configs: what to compare, by name, all of the same data. budget: of each training. seeds: models of each, seeds
    0, 1, ... samples, likelihood_images: see `assess`. points: of the curves of quality against time, doubling up to
    the end; 0 for none. features: to compare images by; a classifier trained on the data set where not given, and no
    distances where that has no labels.

    Seconds are turned into updates once, by the rate at which each learns here alone, so that a run can be repeated.
    Writes out/NAME/seed_N (run folders, each with evaluation.json and curve.json), out/rates.json, table.md, table.csv,
    images.png and curves.png, the tables after every run. Called again it goes on where it was stopped; called with
    others it adds them, and tables and pictures have all that the folder holds. Raises InputError for what cannot be
    compared, and where `out` holds another comparison.
    """
    checked(configs, seeds, samples, likelihood_images, points)
    place = choose_device(device)
    dataset = read_dataset(next(iter(configs.values())))
    for config in configs.values():  # what cannot be built is refused before anything is trained
        build_learner(config, dataset, None, Processes(0, 1, place))
    measures = {"samples": samples, "likelihood_images": likelihood_images, "points": points}
    names = remember(out, configs, budget, measures)
    steps_an_epoch = {name: len(dataset.train) // config.training.batch_size for name, config in configs.items()}
    rates = measured_rates(configs, out, dataset, device) if budget.unit == "s" else dict.fromkeys(configs, 0.0)
    if features is None and dataset.labelled:
        features = own_features(dataset)
    features = None if features is None else features.to(place)
    for seed in range(seeds):
        for name, config in configs.items():
            updates = budget.updates(rates[name], steps_an_epoch[name])
            training = dataclasses.replace(config.training, seed=seed, updates=updates, picture_epochs=10**9)
            run = RunFolder(out / name / f"seed_{seed}")
            kept = run.path / "evaluation.json"
            if not kept.is_file():
                turn = f"{seed * len(configs) + list(configs).index(name) + 1} of {seeds * len(configs)}"
                print(f"{turn}: {name}, seed {seed}, {updates} updates", flush=True)
                learn(dataclasses.replace(config, training=training), run, dataset, features, points, device)
                figures = assess(
                    load(run.path).to(place),
                    dataset,
                    features,
                    seed,
                    samples=samples,
                    likelihood_images=likelihood_images,
                )
                trained = json.loads(run.result.read_text(encoding="utf-8"))["training"]
                write_json(kept, {**figures, "training": trained})
                write_table(kept_of(out, names, "evaluation.json"), out, budget)
    evaluations = kept_of(out, names, "evaluation.json")
    write_png(
        draw_images({name: load(out / name / "seed_0") for name in evaluations}, dataset.test), out / "images.png"
    )
    if points:
        write_png(draw_curves(kept_of(out, evaluations, "curve.json")), out / "curves.png")
    return write_table(evaluations, out, budget)


def kept_of(out: Path, names: Iterable[str], file: str) -> dict[str, list[Any]]:
    """Return what a file of each finished model holds, for each name seed by seed; names without one are left out."""
    found: dict[str, list[Any]] = {}
    for name in names:
        for seed in itertools.count():
            folder = out / name / f"seed_{seed}"
            if not (folder / "evaluation.json").is_file():
                break
            found.setdefault(name, []).append(json.loads((folder / file).read_text(encoding="utf-8")))
    return found


def checked(configs: Mapping[str, Config], seeds: int, samples: int, likelihood_images: int, points: int) -> None:
    """Raise InputError for counts out of range and for configurations of unlike data."""
    for option, count, least in (
        ("--seeds", seeds, 1),
        ("--samples", samples, 2),
        ("--likelihood-images", likelihood_images, 0),
        ("--points", points, 0),
    ):
        if count < least:
            raise InputError(option, count, f"write a whole number of at least {least}")
    require_metrics()
    first, *others = configs.items()
    for name, config in others:
        if config.data != first[1].data:
            raise InputError(
                "--learners",
                problem=f"{name} has other images than {first[0]}",
                instead="compare models of the same data",
            )


def remember(out: Path, configs: Mapping[str, Config], budget: Budget, measures: Mapping[str, int]) -> list[str]:
    """Write what is compared, and how, into the folder and return the names of all that it has been called for.

    Raises InputError where another comparison is there.
    """
    wanted: dict[str, Any] = {
        "budget": str(budget),
        "measures": dict(measures),
        "configs": {name: to_mapping(config) for name, config in configs.items()},
    }
    path = out / "comparison.json"
    if path.is_file():
        there = json.loads(path.read_text(encoding="utf-8"))
        if there["budget"] != wanted["budget"]:
            raise InputError(
                "--out", problem=f"{out} holds a comparison at {there['budget']}", instead="write another folder"
            )
        for name, count in measures.items():
            if there["measures"][name] != count:
                option = f"--{name.replace('_', '-')} {there['measures'][name]}"
                raise InputError(
                    "--out", problem=f"{out} holds a comparison with {option}", instead="write that, or another folder"
                )
        data = to_mapping(next(iter(configs.values())).data)
        if any(config["data"] != data for config in there["configs"].values()):
            raise InputError(
                "--out", problem=f"{out} holds a comparison on other images", instead="write another folder"
            )
        for name in there["configs"].keys() & wanted["configs"].keys():
            if there["configs"][name] != wanted["configs"][name]:
                raise InputError(
                    "--out",
                    problem=f"{out} holds a comparison with other settings of {name}",
                    instead="write another folder",
                )
        # learners may be added to a comparison, and it may be called for some of them
        wanted["configs"] = {**there["configs"], **wanted["configs"]}
    elif out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError("--out", problem=f"{out} is not empty and holds no comparison", instead="write a new folder")
    write_json(path, wanted)
    return list(wanted["configs"])


def measured_rates(configs: Mapping[str, Config], out: Path, dataset: Dataset, device: str | None) -> dict[str, float]:
    """Return updates a second of each, measured one after the other, or those that were measured before."""
    path = out / "rates.json"
    known = json.loads(path.read_text(encoding="utf-8"))["updates_a_second"] if path.is_file() else {}
    for name, config in configs.items():
        if name not in known:
            known[name] = updates_a_second(config, dataset, device)
            print(f"{name}: {known[name]:.3g} updates a second", flush=True)
            write_json(path, {"updates_a_second": known, "machine": machine()})
    return known


def learn(
    config: Config, run: RunFolder, dataset: Dataset, features: nn.Module | None, points: int, device: str | None
) -> None:
    """Train, or go on, and note the quality at some points on the way in curve.json."""
    path = run.path / "curve.json"
    total = config.training.updates or 1
    chosen = {max(1, round(total / 2**k)) for k in range(points)}
    curve = {one["step"]: one for one in json.loads(path.read_text(encoding="utf-8"))} if path.is_file() else {}

    def watch(moment: Moment) -> None:
        if moment.step not in chosen:
            return
        seed, average = config.training.seed, moment.average
        average.eval()
        rng = stream(seed, Use.CURVE)
        x = dataset.test.images(slice(0, min(CURVE_IMAGES, len(dataset.test))))
        # a draw of each, so that a chain's end is not set against an encoder's mean; a flow has no posterior
        noise = {"noise": True} if isinstance(average, LatentLearner) else {}
        rebuilt = [average.reconstruct(part.to(average.device), rng, **noise).cpu() for part in x.split(500)]
        point = {"step": moment.step, "seconds": moment.seconds, "mse": float(mse(x, torch.cat(rebuilt)).mean())}
        if features is not None:
            drawn = torch.cat([average.sample(500, rng).cpu() for _ in range(CURVE_SAMPLES // 500)])
            point["fid_prior"] = frechet_distance(features, x, drawn)
        curve[moment.step] = point
        write_json(path, [curve[step] for step in sorted(curve)])

    if run.config.is_file():
        resume(run.path, device=device, dataset=dataset, watch=watch)
    else:
        train(config, run.path, device=device, dataset=dataset, watch=watch)
