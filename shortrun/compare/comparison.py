"""Train and evaluate several learners, for several seeds, each with the same budget; what is finished is kept."""

import dataclasses
import itertools
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shortrun.compare import curve
from shortrun.compare.budget import Budget, updates_a_second
from shortrun.compare.contest import RECORD, Turn, hold, recorded, run_of, turns
from shortrun.compare.fast import MOST, amounts, kept_amounts, left_out, limited
from shortrun.compare.fast import PARTS as FAST_PARTS
from shortrun.compare.pictures import draw_curves, draw_images, draw_rates
from shortrun.compare.table import write_table
from shortrun.config import Config
from shortrun.data import Dataset
from shortrun.errors import InputError, check_at_least, require_package
from shortrun.evaluation.assess import assess
from shortrun.evaluation.measures import PARTS
from shortrun.evaluation.rate import points_of_rate
from shortrun.evaluation.rotations import features_for
from shortrun.figures.images import write_png
from shortrun.files import read_json, write_json
from shortrun.learners import checked_for_learner, learner_class
from shortrun.mapping import from_mapping, to_mapping
from shortrun.metrics.figure import to_json
from shortrun.training import load
from shortrun.training.machine import machine
from shortrun.training.processes import Processes, choose_device
from shortrun.training.setup import build_learner, read_dataset, with_truth
from shortrun.training.watching import Watch


def compare(
    configs: Mapping[str, Config],
    out: Path,
    *,
    budget: Budget,
    seeds: int = 3,
    samples: int = 10_000,
    likelihood_images: int = 48,
    rate_images: int = 0,
    points: int = 6,
    fast: bool = False,
    device: str | None = None,
    features: nn.Module | None = None,
) -> str:
    """Return the table of a comparison in Markdown: a model is trained and evaluated for each configuration and seed.

    Seconds are turned into updates once, by the rate at which each learns here alone, so that a run can be repeated.
    Writes out/NAME/seed_N (run folders, each with evaluation.json and curve.json), out/rates.json, table.md, table.csv,
    images.png, curves.png and rate.png, the tables after every run. Called again it goes on where it was stopped.
    Called with others it adds them, and tables and pictures have all that the folder holds.

    configs: what to compare, by name, all of the same data.
    out: the folder of the comparison.
    budget: of each training.
    seeds: at least 1, models of each, with seeds 0, 1, ...
    samples: at least 2, draws that are compared with the test images; see `assess`.
    likelihood_images: test images that log p(x) is estimated of; 0 for none.
    rate_images: test images that error is measured on against rate, see `rate_figures`; 0 for none.
    points: of the curves of quality against time, doubling up to the end; 0 for none.
    fast: whether to spend no longer on measuring than on training: reconstructions and distances alone, of 50 to 500
        test images and 500 to 5000 draws, by the work of the trainings. The four counts before are then not looked at.
    device: cpu or cuda; the best there is where not given.
    features: to compare images by; a classifier trained on the data set where not given, see `features_for`.

    Raises InputError for what cannot be compared, and where `out` holds another comparison.
    """
    check_at_least(0, likelihood_images=likelihood_images, rate_images=rate_images, points=points)
    check_at_least(1, seeds=seeds)
    check_at_least(2, samples=samples)
    require_package("torchmetrics", "metrics")
    check_same_data(configs)
    configs = {name: checked_for_learner(config) for name, config in configs.items()}
    place = choose_device(device)
    dataset = read_dataset(next(iter(configs.values())))
    if fast:
        configs = {name: limited(config, len(dataset.test)) for name, config in configs.items()}
        dataset = read_dataset(next(iter(configs.values())))
        samples, likelihood_images, rate_images, points = MOST.samples, 0, 0, 0
    check_built(configs, dataset, place)
    measures = {
        "samples": samples,
        "likelihood_images": likelihood_images,
        "rate_images": rate_images,
        "points": points,
        "fast": int(fast),
    }
    names = remember(out, configs, budget, measures)
    rates = measured_rates(configs, out, dataset, device) if budget.unit == "s" else dict.fromkeys(configs, 0.0)
    first = next(iter(configs.values()))
    features = features_on(place, with_truth(first, dataset) or dataset, features)
    parts, test_images = PARTS, len(dataset.test)
    if fast:
        updates = {
            name: budget.updates(rates[name], len(dataset.train) // config.training.batch_size)
            for name, config in configs.items()
        }
        test_images, samples = kept_amounts(out, amounts(configs, updates, len(dataset.test)))
        parts = FAST_PARTS

    def watch(turn: Turn) -> Watch:
        return curve.noting(turn, dataset, features, curve.points_of(turn.config.training.updates or 1, points))

    def measure(turn: Turn) -> dict[str, Any]:
        model = load(turn.run.path).to(place)
        began = time.monotonic(), time.process_time()
        found = assess(
            model,
            dataset,
            features,
            turn.seed,
            samples=samples,
            likelihood_images=likelihood_images,
            rate_images=rate_images,
            test_images=test_images,
            parts=parts,
        )
        took = {"seconds": time.monotonic() - began[0], "cpu_seconds": time.process_time() - began[1]}
        figures = [*found.values(), *(left_out(dataset) if fast else [])]
        trained = read_json(turn.run.result)["training"]
        return {**to_json(figures), "training": trained, "evaluation": took}

    def write(_: object = None) -> str:
        return write_table(kept_of(out, names, RECORD), out, budget)

    entrants = with_budget(configs, out, seeds, budget, rates, len(dataset.train))
    hold(entrants, dataset, recorded(measure), write, watch=watch, device=device)
    write_pictures(out, names, dataset, points)
    return f"{write()}{times_of(kept_of(out, names, RECORD))}\n" if fast else write()


def with_budget(
    configs: Mapping[str, Config], out: Path, seeds: int, budget: Budget, rates: Mapping[str, float], images: int
) -> Iterator[Turn]:
    """Give all models of the comparison, each with the updates that the budget buys it."""
    for place, turn in enumerate(turns(configs, out, seeds), start=1):
        training = turn.config.training
        updates = budget.updates(rates[turn.name], images // training.batch_size)
        training = dataclasses.replace(training, updates=updates, picture_epochs=10**9)
        said = f"{place} of {seeds * len(configs)}: {turn.name}, seed {turn.seed}, {updates} updates"
        yield turn._replace(config=dataclasses.replace(turn.config, training=training), said=said)


def times_of(records: Mapping[str, list[Any]]) -> str:
    """Return in a line how long training and measuring took, a model on average."""
    runs = [run for of_name in records.values() for run in of_name if "evaluation" in run]
    trained, measured = (sum(run[part]["seconds"] for run in runs) / len(runs) for part in ("training", "evaluation"))
    return f"a model took {trained:.1f} s to train and {measured:.1f} s to measure"


def features_on(place: torch.device, dataset: Dataset, features: nn.Module | None) -> nn.Module | None:
    """Return what images are compared by: what is given, or a classifier of the data set's labels or of rotations."""
    if features is None:
        features = features_for(dataset)
    return None if features is None else features.to(place)


def write_pictures(out: Path, names: Iterable[str], dataset: Dataset, points: int) -> None:
    """Draw what finished models make and, where it was measured, their quality on the way and their error at rates."""
    curves = kept_of(out, names, curve.FILE if points else RECORD)
    first = {name: load(run_of(out, name, 0).path) for name in curves}
    write_png(draw_images(first, dataset.test), out / "images.png")
    if points:
        write_png(draw_curves(curves), out / "curves.png")
    rates = {name: [points_of_rate(one) for one in runs] for name, runs in kept_of(out, names, RECORD).items()}
    if any(points for runs in rates.values() for points in runs):
        write_png(draw_rates(rates), out / "rate.png")


def kept_of(out: Path, names: Iterable[str], file: str) -> dict[str, list[Any]]:
    """Return what a file of each finished model holds, for each name seed by seed; names without one are left out."""
    found: dict[str, list[Any]] = {}
    for name in names:
        for seed in itertools.count():
            run = run_of(out, name, seed)
            if not (run.path / RECORD).is_file():
                break
            found.setdefault(name, []).append(read_json(run.path / file))
    return found


def check_same_data(configs: Mapping[str, Config]) -> None:
    """Raise InputError for configurations of unlike data."""
    first, *others = configs.items()
    for name, config in others:
        if config.data != first[1].data:
            raise InputError(
                "configs",
                problem=f"{name} has other images than {first[0]}",
                instead="compare models of the same data",
            )


def check_built(configs: Mapping[str, Config], dataset: Dataset, place: torch.device) -> None:
    """Raise InputError, before anything is trained, for a configuration whose learner cannot be built."""
    for config in configs.values():
        build_learner(config, learner_class(config.learner), dataset, None, Processes(0, 1, place))


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
        there = read_json(path)
        if there["budget"] != wanted["budget"]:
            raise InputError(
                "out", problem=f"{out} holds a comparison at {there['budget']}", instead="write another folder"
            )
        for name, count in measures.items():
            before = there["measures"].get(name, 0)  # a comparison of an older version lacks what is newer
            if before != count:
                setting = f"{name} = {before}"
                raise InputError(
                    "out", problem=f"{out} holds a comparison with {setting}", instead="write that, or another folder"
                )
        there["configs"] = {name: with_new_keys(config) for name, config in there["configs"].items()}
        data = to_mapping(next(iter(configs.values())).data)
        if any(config["data"] != data for config in there["configs"].values()):
            raise InputError("out", problem=f"{out} holds a comparison on other images", instead="write another folder")
        for name in there["configs"].keys() & wanted["configs"].keys():
            if there["configs"][name] != wanted["configs"][name]:
                raise InputError(
                    "out",
                    problem=f"{out} holds a comparison with other settings of {name}",
                    instead="write another folder",
                )
        # learners may be added to a comparison, and it may be called for some of them
        wanted["configs"] = {**there["configs"], **wanted["configs"]}
    elif out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError("out", problem=f"{out} is not empty and holds no comparison", instead="write a new folder")
    write_json(path, wanted)
    return list(wanted["configs"])


def with_new_keys(config: dict[str, Any]) -> dict[str, Any]:
    """Return recorded settings with the defaults of those that an older version did not have, so that it goes on.

    config: as the folder of a comparison has them; what cannot be read is returned as it is, and so differs.
    """
    try:
        return to_mapping(from_mapping(Config, config, ""))
    except InputError:
        return config


def measured_rates(configs: Mapping[str, Config], out: Path, dataset: Dataset, device: str | None) -> dict[str, float]:
    """Return updates a second of each, measured one after the other, or those that were measured before."""
    path = out / "rates.json"
    known = read_json(path)["updates_a_second"] if path.is_file() else {}
    for name, config in configs.items():
        if name not in known:
            known[name] = updates_a_second(config, dataset, device)
            print(f"{name}: {known[name]:.3g} updates a second", flush=True)
            write_json(path, {"updates_a_second": known, "machine": machine()})
    return known
