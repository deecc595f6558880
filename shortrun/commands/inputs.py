"""What the commands that use a learned model have in common: their arguments, the model, the images.

Imports no torch at the top: the arguments are read, and --help answered, before it is needed.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, cast

import tyro

from shortrun.errors import InputError, check_at_least, renaming

if TYPE_CHECKING:
    import torch

    from shortrun.data import Dataset, ImageSet
    from shortrun.learners import ChainLearner, Learner

Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]

TASKS = {"x": "images", "noise": "no_noise"}
"""Arguments of the uses of a model in `shortrun.tasks`, and of the commands."""


@dataclass(frozen=True)
class ModelArguments:
    """What every use of a model takes."""

    run: Run
    """Folder of a run that shortrun train made, or of a saved model; or pretrained:digits, which is brought along."""
    out: Path | None = None
    """Folder to write to; one under RUN where not given."""
    seed: int = 0
    """Of all random numbers: the same seed and batch size give the same output on the same machine."""
    device: str | None = None
    """cpu or cuda; the best there is where not given."""
    batch_size: int = 100
    """Images at a time; fewer take less memory. Each batch draws its own random numbers, so they change with this."""


@dataclass(frozen=True)
class ImageArguments(ModelArguments):
    """What every use of a model on images takes."""

    images: Path | None = None
    """Your own images: a file, a folder, or .npz, .npy, .mat or idx; test images of the run's data where not given."""
    fit: Flag = False
    """Crop, resize and convert your own images to the model's shape."""
    pixel_range: Literal["unit", "signed"] | None = None
    """What floats of your own images mean: unit, [0, 1], or signed, [-1, 1]; as in the run's data where not given."""
    n: int | None = None
    """The first so many of the images."""
    steps: int | None = None
    """K, the Langevin steps; the run's own where not given."""
    no_noise: Flag = False
    """Plain gradient ascent instead of Langevin dynamics."""

    @property
    def noise(self) -> bool | None:
        """False for no noise, None for what the run was trained with."""
        return False if self.no_noise else None


class Given(NamedTuple):
    """The images that a command works on."""

    x: "torch.Tensor"
    """(n, c, h, w) in [-1, 1]."""
    labels: "torch.Tensor | None"
    """(n,), where the images have any."""
    name: str
    """What one of them is called in captions and messages."""
    classes: tuple[str, ...] = ()
    """The names of the classes, by label, where they have any."""
    mask: "torch.Tensor | None" = None
    """(n, 1, h, w), 1 = observed, of training images that are incomplete."""


def read_model(arguments: ModelArguments) -> "Learner":
    """Load the model onto its device; raise InputError where there is none, or for counts out of range."""
    check_at_least(1, batch_size=arguments.batch_size)
    check_at_least(0, seed=arguments.seed)
    if isinstance(arguments, ImageArguments):
        check_at_least(1, n=arguments.n, steps=arguments.steps)
        if arguments.fit and arguments.images is None:
            raise InputError("fit", problem="only for images of your own", instead="add --images PATH")
        if arguments.pixel_range is not None and arguments.images is None:
            raise InputError("pixel_range", problem="only for images of your own", instead="add --images PATH")

    from shortrun.training.processes import choose_device
    from shortrun.training.run_folder import load

    device = choose_device(arguments.device)
    return load(arguments.run).to(device).eval()


def read_short_run(arguments: ModelArguments) -> "ChainLearner":
    """Load a model as `read_model` does; raise InputError where its learner declares no short runs."""
    learner = read_model(arguments)
    if not learner.short_runs:
        kind = "another learner" if learner.description is None else learner.description.learner
        raise InputError(
            "run", problem=f"{arguments.run} is a model of {kind}", instead="this command is for those of short_run"
        )
    return cast("ChainLearner", learner)


def random_numbers(seed: int) -> "torch.Generator":
    """Return the generator of a seed, on the CPU whatever the device, so that the draws do not depend on it."""
    import torch

    return torch.Generator().manual_seed(seed)


def read_given(learner: "Learner", arguments: ImageArguments, default: int | None = None, split: str = "test") -> Given:
    """Read the user's own images, or those that the run was trained on or tested with.

    default: how many where --n is not given; None, and images of the user's own: all of them. Raises InputError for
    images that cannot be read or have another shape than the model's, and where there are fewer than asked for.
    """
    if arguments.images is not None:
        x = read_own(learner, arguments)
        return Given(x[: how_many(arguments.n, len(x), None, "image")], None, "image")
    dataset = read_run_dataset(learner, arguments.run, "images", "add --images PATH")
    images, name = _split(dataset, split)
    chosen = images.take(how_many(arguments.n, len(images), default, f"{name} image"))
    return Given(chosen.images(), chosen.labels, f"{name} image", dataset.classes, chosen.observed())


def how_many(asked: int | None, there: int, default: int | None, name: str) -> int:
    """Return how many images to take; raise InputError where fewer are there than asked for."""
    if asked is not None and asked > there:
        words = f"there is 1 {name}" if there == 1 else f"there are {there} {name}s"
        raise InputError("n", asked, f"{words}: write 1 to {there}")
    return asked or min(default or there, there)


def read_own(
    learner: "Learner", arguments: ImageArguments, shape: tuple[int, int, int] | None = None
) -> "torch.Tensor":
    """Read the user's own images in the model's shape; for a model of black and white pixels they are made so.

    shape: another that they have, of images that are no more what the model is of: their pixels stay as they are.

    Floats mean what they meant in the run's data, where nothing is said and none of them is negative. A line on stderr
    says so.
    """
    import torch

    from shortrun.data import read_image_set
    from shortrun.data.image_set import taken_for

    description, path = learner.description, arguments.images
    assert description is not None  # what is loaded from a folder has one
    assert path is not None
    usual = description.pixel_range or "unit"
    with renaming({"path": "images"}):
        found = read_image_set(path, shape or description.image_shape, arguments.fit, arguments.pixel_range, usual)
    x = found.images()
    if (
        arguments.pixel_range is None
        and found.pixel_range is not None
        and (found.pixel_range == "unit" or x.min() >= 0)
    ):
        whose = "" if description.pixel_range is None else ", as in the run's data"
        print(taken_for(path, found.pixel_range, whose, "--pixel-range"), file=sys.stderr)
    return torch.where(x > 0, 1.0, -1.0) if description.levels == 2 and shape is None else x


def read_split(learner: "Learner", run: Path, split: str) -> tuple["ImageSet", str]:
    """Read the train or the test images of a run's own data set, and say which they are.

    Those that were held out stand in for the test images. Raises InputError where the data set is not known.
    """
    return _split(read_run_dataset(learner, run, "images", "add --images PATH"), split)


def _split(dataset: "Dataset", split: str) -> tuple["ImageSet", str]:
    return (dataset.train, "train") if split == "train" else (dataset.test, dataset.split)


def read_run_dataset(learner: "Learner", run: Path, argument: str, instead: str) -> "Dataset":
    """Read the data set that a run was trained on.

    argument, instead: of the InputError that it raises where the data set is not known, or is another.
    """
    from shortrun.training.origin import check_origin
    from shortrun.training.run_folder import RunFolder, open_run
    from shortrun.training.setup import read_dataset

    if not RunFolder(run).config.is_file():
        raise InputError(argument, problem=f"{run} does not say which data it was trained on", instead=instead)
    folder, config = open_run(run)
    dataset = read_dataset(config)
    assert learner.description is not None  # what is loaded from a folder has one
    if dataset.test.shape != tuple(learner.description.image_shape):
        # the images were given in Python, and the configuration names others
        problem = f"{run} was not trained on {dataset.name}, which its config.toml names"
        raise InputError(argument, problem=problem, instead=instead)
    with renaming({"data.source": argument}):
        check_origin(folder, dataset)
    return dataset
