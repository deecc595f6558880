"""shortrun evaluate: how good is the model?"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from shortrun.commands.inputs import ModelArguments, check_at_least, how_many, read_model
from shortrun.commands.outputs import choose_folder, write_numbers
from shortrun.errors import InputError, renaming

if TYPE_CHECKING:
    import torch
    from torch import nn

    from shortrun.data import Dataset
    from shortrun.learners import Learner

COMMAND = "shortrun evaluate"
NUMBERS = "evaluation.json"
SECTIONS = {
    "reconstructions": ("mse", "mse_draw", "mse_point", "psnr", "ssim", "second_moment", "failed_test_chains"),
    "latents": ("probe", "mig", "sap", "dci", "factor_vae"),
    "draws from the prior": (),
    "draws from the fitted density": (),
    "log p(x)": ("nats", "bits_per_dim", "importance_nats", "annealing_gap"),
}
"""Titles and how the names of their figures begin; those of draws end with what was drawn from."""
TORCHSCRIPT = {
    "path": "features",
    "input_range": "features_range",
    "size": "features_size",
    "channels": "features_channels",
}
"""Arguments of `torchscript_features` and of the command."""


@dataclass(frozen=True)
class Evaluate(ModelArguments):
    """Measure a learned model on its test images.

    Reconstructions: MSE, PSNR, SSIM, second moment of the latents. New images against test images: FID, KID, precision,
    recall, density, coverage, by features of a small classifier of the same data set or by a network of your own. log
    p(x): by annealed importance sampling and by importance weights, in nats and bits/dim. Latents: a linear probe for
    the labels; with --factors how single latents stand for single factors. Writes evaluation.json, where each number
    has its conditions, and prints a table. Needs shortrun[metrics].
    """

    batch_size: int = 500
    """Images at a time; fewer take less memory."""
    n: int | None = None
    """The first so many test images are reconstructed; all where not given."""
    samples: int = 10_000
    """New images that are compared with the test images."""
    features: str = "own"
    """own: a classifier trained on the data set; or the path of a TorchScript network, which is run: only trust yours.
    """
    features_range: str | None = None
    """Pixels that the network takes: [-1,1], [0,1] or [0,255]; [-1,1] where not given."""
    features_size: int | None = None
    """Side of the images that the network takes; they are resized to it."""
    features_channels: int | None = None
    """Channels that the network takes; grey images are repeated."""
    likelihood_images: int = 48
    """The first so many test images that log p(x) is estimated of; 0 for none."""
    temperatures: int = 500
    """Of the annealing; time goes with it, and what it leaves out of log p(x) shrinks."""
    importance_samples: int = 1000
    """Draws for each image of the bound by importance weights."""
    gap: int = 0
    """Simulated images, of which log p(x) is bounded from above too: it lies between the two bounds."""
    factors: Path | None = None
    """.npz with an array factors, (n, f), whole numbers: known factors of the test images, in their order."""


ARGUMENTS = (Evaluate,)


def main(words: list[str]) -> int:
    """Parse, measure, print, write."""
    arguments = tyro.cli(Evaluate, args=words, prog=COMMAND)
    for name, value, least in (
        ("n", arguments.n, 1),
        ("samples", arguments.samples, 2),
        ("likelihood_images", arguments.likelihood_images, 0),
        ("temperatures", arguments.temperatures, 1),
        ("importance_samples", arguments.importance_samples, 1),
        ("gap", arguments.gap, 0),
    ):
        check_at_least(name, value, least)
    learner = read_model(arguments)
    folder = choose_folder(arguments, COMMAND, "evaluate", [NUMBERS])
    dataset = read_images(learner, arguments.run)
    n = how_many(arguments.n, len(dataset.test), None, f"{dataset.split} image")
    factors = read_factors(arguments.factors, len(dataset.test), n)
    features = read_features(arguments, dataset)

    from shortrun.evaluation.assess import assess, require_metrics

    require_metrics()
    there = f"{n} {dataset.split} images"
    print(f"{there}, {arguments.samples} samples, log p(x) of {arguments.likelihood_images} images", flush=True)
    with renaming({"test_images": "n", "gap_images": "gap"}):
        figures = assess(
            learner,
            dataset,
            features,
            arguments.seed,
            samples=arguments.samples,
            likelihood_images=arguments.likelihood_images,
            temperatures=arguments.temperatures,
            importance_samples=arguments.importance_samples,
            test_images=n,
            gap_images=arguments.gap,
            factors=factors,
            batch_size=arguments.batch_size,
        )
    print("\n".join(table(figures)))
    write_numbers(folder, COMMAND, arguments, {}, figures, NUMBERS)
    return 0


def read_images(learner: "Learner", run: Path) -> "Dataset":
    """Read the data set that a run was trained on; raise InputError where it is not known or is another."""
    from shortrun.training.run_folder import open_run
    from shortrun.training.setup import read_dataset

    if not (run / "config.toml").is_file():
        raise InputError(
            "run",
            problem=f"{run} does not say which data it was trained on",
            instead="write the folder of a run of train",
        )
    dataset = read_dataset(open_run(run)[1])
    if learner.description is None or dataset.test.shape != tuple(learner.description.image_shape):
        # the images were given in Python, and the configuration names others
        raise InputError(
            "run",
            problem=f"{run} was not trained on {dataset.name}, which its config.toml names",
            instead="call shortrun.assess with its data",
        )
    return dataset


def read_factors(path: Path | None, there: int, n: int) -> "torch.Tensor | None":
    """Read the factors of the first n of the test images."""
    if path is None:
        return None

    import zipfile

    import numpy as np
    import torch

    try:
        with np.load(path) as file:  # without allow_pickle: nothing in it is run
            factors = file["factors"]
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        cause = " ".join(str(error).split())[:200]
        raise InputError(
            "factors", problem=f"cannot read {path} ({cause})", instead="write an .npz with an array factors"
        ) from None
    if factors.ndim != 2 or len(factors) != there or not np.issubdtype(factors.dtype, np.integer):
        got = f"{factors.dtype} of {list(factors.shape)}"
        raise InputError("factors", got, f"write whole numbers, one row for each of the {there} test images")
    return torch.from_numpy(factors[:n].astype(np.int64))


def read_features(arguments: Evaluate, dataset: "Dataset") -> "nn.Module | None":
    """Read the user's network, or return None for the features of a classifier of the data set."""
    given = {
        "input_range": arguments.features_range,
        "size": arguments.features_size,
        "channels": arguments.features_channels,
    }
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if arguments.features == "own":
        for name, value in options.items():
            got = value if isinstance(value, int) else f"{value!r}"
            raise InputError(TORCHSCRIPT[name], got, "it is for a network of yours: add --features PATH")
        return None

    from shortrun.metrics.feature_matrix import feature_matrix
    from shortrun.metrics.torchscript import torchscript_features

    with renaming(TORCHSCRIPT):
        features = torchscript_features(arguments.features, **options)
        feature_matrix(features, dataset.test.images(slice(0, 2)))
    return features


def table(figures: dict[str, dict[str, Any]]) -> list[str]:
    """Return the figures in sections, with what holds for a section, and for all of them, said once."""
    measured = {name: entry for name, entry in figures.items() if "value" in entry}
    everywhere = shared(list(measured.values()))
    width = max((len(name) for name in figures), default=0)
    lines: list[str] = []
    for title in SECTIONS:
        there = {name: entry for name, entry in figures.items() if section(name) == title}
        if not there:
            continue
        of_all = without(shared([entry for entry in there.values() if "value" in entry]), everywhere)
        lines.append(f"{title}{': ' if of_all else ''}{listed(of_all)}")
        for name, entry in there.items():
            if "value" not in entry:
                lines.append(f"  {name:<{width}}  left out: {entry['left_out']}")
                continue
            own = without(entry, everywhere | of_all | {"standard_error": None})
            error = entry.get("standard_error")
            value = number(entry["value"]) + ("" if error is None else f" ± {error:.2g}")
            lines.append(f"  {name:<{width}}  {value}{f'  ({listed(own)})' if own else ''}")
    if "annealing_gap" in measured:
        lines.append("log p(x) of the simulated images lies between lower and upper, on average")
    return [*lines, f"all: {listed(everywhere)}"]


def section(name: str) -> str:
    """Return the title under which a figure stands."""
    for ending, title in (("_prior", "draws from the prior"), ("_fitted", "draws from the fitted density")):
        if name.endswith(ending):
            return title
    return next((title for title, names in SECTIONS.items() if name.startswith(names)), "reconstructions")


def shared(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the conditions that all entries have alike; of a single one those are its own."""
    if len(entries) < 2:
        return {}
    return {key: value for key, value in entries[0].items() if all(entry.get(key) == value for entry in entries[1:])}


def without(entry: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Return the conditions of an entry that are not known yet."""
    return {key: value for key, value in entry.items() if key != "value" and key not in known}


def listed(values: dict[str, Any]) -> str:
    """Say conditions in one line."""
    return ", ".join(f"{key.replace('_', ' ')} {number(value)}" for key, value in values.items())


def number(value: Any) -> str:
    """Say a number with four digits, a list by its members, top down."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return " ".join(map(number, value))
    return "-" if value is None else str(value)
