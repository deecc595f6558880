"""shortrun evaluate: how good is the model?"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortrun.commands.inputs import ModelArguments, how_many, read_model, read_run_dataset
from shortrun.commands.outputs import choose_folder, write_numbers
from shortrun.commands.parsing import parse
from shortrun.errors import InputError, check_at_least, in_one_line, renaming, require_package

if TYPE_CHECKING:
    import torch
    from torch import nn

    from shortrun.data import Dataset

COMMAND = "shortrun evaluate"
NUMBERS = "evaluation.json"
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
    p(x): by annealed importance sampling and by importance weights, in nats and bits/dim. With --rate-images the curve
    of error against rate. Latents: a linear probe for the labels; where factors are known how single latents stand for
    single factors. Writes evaluation.json, where each number has its conditions, and prints a table. Needs
    shortrun[metrics].
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
    rate_images: int = 0
    """The first so many test images that error is measured on against the nats that latents say of an image, for noise
    of standard deviation 0.5 to 0.05; 0 for none."""
    factors: Path | None = None
    """.npz with an array factors, (n, f), whole numbers: known factors of the test images, in their order; those of
    coloured_digits where not given."""


ARGUMENTS = (Evaluate,)


def main(words: list[str]) -> int:
    """Parse, measure, print, write."""
    arguments = parse(Evaluate, words, COMMAND)
    check_at_least(
        0,
        likelihood_images=arguments.likelihood_images,
        gap=arguments.gap,
        rate_images=arguments.rate_images,
    )
    check_at_least(
        1, n=arguments.n, temperatures=arguments.temperatures, importance_samples=arguments.importance_samples
    )
    check_at_least(2, samples=arguments.samples)
    learner = read_model(arguments)
    folder = choose_folder(arguments, COMMAND, "evaluate", [NUMBERS])
    dataset = read_run_dataset(learner, arguments.run, "run", "call shortrun.assess with its data")
    n = how_many(arguments.n, len(dataset.test), None, f"{dataset.split} image")
    factors = read_factors(arguments.factors, len(dataset.test), n)
    features = read_features(arguments, dataset)
    if features is None and dataset.labelled and dataset.train.masks is not None:
        features = own_features_of(arguments.run, dataset).to(learner.device)

    from shortrun.evaluation.assess import assess
    from shortrun.evaluation.tables import sections
    from shortrun.metrics.figure import to_json

    require_package("torchmetrics", "metrics")
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
            rate_images=arguments.rate_images,
            factors=factors,
            batch_size=arguments.batch_size,
        )
    print("\n".join(sections(figures)))
    write_numbers(folder, COMMAND, arguments, {}, to_json(figures.values()), NUMBERS)
    return 0


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
        problem = f"cannot read {path} ({in_one_line(error)})"
        raise InputError("factors", problem=problem, instead="write an .npz with an array factors") from None
    if factors.ndim != 2 or len(factors) != there or not np.issubdtype(factors.dtype, np.integer):
        got = f"{factors.dtype} of {list(factors.shape)}"
        raise InputError("factors", got, f"write whole numbers, one row for each of the {there} test images")
    return torch.from_numpy(factors[:n].astype(np.int64))


def own_features_of(run: Path, dataset: "Dataset") -> "nn.Module":
    """Return the features of a run whose training images are incomplete: those of whole images, where they are known.

    Distances of models that learned at other shares of hidden pixels, or at none, can then be compared.
    """
    from shortrun.evaluation import own_features
    from shortrun.training.run_folder import open_run
    from shortrun.training.setup import with_truth

    return own_features(with_truth(open_run(run)[1], dataset) or dataset)


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
            raise InputError(TORCHSCRIPT[name], repr(value), "it is for a network of yours: add --features PATH")
        return None

    from shortrun.metrics.feature_matrix import feature_matrix
    from shortrun.metrics.torchscript import torchscript_features

    with renaming(TORCHSCRIPT):
        features = torchscript_features(arguments.features, **options)
        feature_matrix(features, dataset.test.images(slice(0, 2)))
    return features
