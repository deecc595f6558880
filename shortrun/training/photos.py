"""Settings for a folder of images, from what its files are: `shortrun train FOLDER` needs no recipe."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from shortrun.config import RECIPES, Config, is_folder, read_recipe
from shortrun.data.folders import Survey, survey
from shortrun.data.selection import Selection
from shortrun.errors import renaming

RECIPE = RECIPES / "of_folders" / "photos.toml"
PICTURES = 12
"""Times that samples are drawn while a model learns."""
FULL = (64, 32)
"""Pixels of a side that larger images are learned at: the first that they have. Smaller images stay as they are."""


class Generator(NamedTuple):
    """The generator for images of a size."""

    latents: tuple[int, ...]
    blocks: str
    width: int


GENERATORS = {
    64: Generator((32, 64, 128), "conv", 96),
    32: Generator((32, 32, 64), "conv", 64),
    16: Generator((8, 16, 32), "conv", 64),
    1: Generator((8, 16, 32), "dense", 256),
}
"""By the pixels of a side, from which on each is taken."""


def read_settings(recipe: str, learner: str | None = None, image_size: int | None = None) -> Config:
    """Return the configuration of a recipe, or the one that suits a folder of images, before it is checked.

    recipe: the name of a recipe, or the path of a TOML file or of a folder of images.
    learner: in place of the recipe's own; None keeps that.
    image_size: pixels of a side that the images of a folder are resized to; None to choose.

    Raises InputError as `read_recipe` does, and for a folder without images.
    """
    return settings_of(recipe, learner, image_size) if is_folder(recipe) else read_recipe(recipe, learner)


def settings_of(folder: str | Path, learner: str | None = None, image_size: int | None = None) -> Config:
    """Return the configuration that suits a folder of images.

    Images of at least 64 pixels a side are learned at 64, of at least 32 at 32, and smaller ones as they are. A set
    that is smaller than a batch is one batch.

    folder: of the images; its sub-folders are classes, or train and test.
    learner: a learner's name, or module:Name, in place of short_run; None keeps that.
    image_size: pixels of a side, in place of what is chosen.

    Raises InputError where there are no images, or too few for a test set.
    """
    folder, config = Path(folder).expanduser().resolve(), read_recipe(str(RECIPE), learner)
    with renaming({"path": "recipe"}):
        found = survey(folder, Selection(test_fraction=config.data.test_fraction))
    side = image_size or side_of(found)
    generator = next(one for least, one in GENERATORS.items() if side >= least)
    training = config.training
    batch = min(training.batch_size, found.train)
    epochs = (training.updates or 1) // (found.train // batch)
    return replace(
        config,
        data=replace(config.data, source=str(folder), image_size=side),
        model=replace(config.model, **generator._asdict()),
        training=replace(training, batch_size=batch, picture_epochs=max(1, epochs // PICTURES)),
    )


def side_of(found: Survey) -> int:
    """Return the pixels of a side that images of a folder are learned at."""
    shorter = min(found.width, found.height)
    return next((side for side in FULL if shorter >= side), shorter)


def choice(config: Config) -> str:
    """Return in two lines what was chosen for a folder of images, and how to choose otherwise.

    config: as `settings_of` returned it, with the user's own values in place.
    """
    found = survey(Path(config.data.source).expanduser(), Selection(test_fraction=config.data.test_fraction))
    kind = "grey" if found.grey else "in colour"
    side, model, training = config.data.image_size, config.model, config.training
    latents = " ".join(map(str, model.latents))
    updates = f"{training.updates:,} updates" if training.updates else f"{training.epochs:,} epochs"
    return (
        f"{config.data.source}: {found.train:,} images to learn from, mostly {found.width}x{found.height}, {kind}\n"
        f"taken as {side}x{side} (--data.image-size), latents {latents} (--model.latents), {model.blocks} blocks of "
        f"width {model.width} (--model.width), batches of {training.batch_size} (--training.batch-size), "
        f"{updates} (--training.updates)"
    )
