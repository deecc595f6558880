"""What a run starts from: the images and the learner that a configuration names."""

import dataclasses
from pathlib import Path

from torch import nn

from shortrun.config import Config, DataConfig, LearnerConfig
from shortrun.data import Dataset, load_dataset
from shortrun.data.framing import Framing
from shortrun.data.missing import hide_at_random, hide_by_masks
from shortrun.errors import InputError, renaming
from shortrun.learners import Learner, with_encoder, with_generator
from shortrun.learners.declared import check_learns_masked
from shortrun.learners.own_checks import check_own_modules
from shortrun.learners.size import check_size
from shortrun.training.precision import autocast
from shortrun.training.processes import Processes


def read_dataset(config: Config) -> Dataset:
    """Read the images that a configuration names."""
    data = config.data
    settings = {item.name: f"data.{item.name}" for item in dataclasses.fields(DataConfig)}
    with renaming({**settings, "data_dir": "data.dir", "n": "data.held_out"}):
        dataset = load_dataset(
            data.source,
            data_dir=data.dir,
            image_size=data.image_size,
            crop=data.crop,
            train_limit=data.train_limit,
            test_limit=data.test_limit,
            test_fraction=data.test_fraction,
            leave_out=data.leave_out or (),
            binarize=data.binarize,
            pixel_range=data.pixel_range,
        )
        dataset = dataset if data.held_out is None else dataset.hold_out(data.held_out)
        # last, so that images that were held out are whole
        if data.missing:
            return hide_at_random(dataset, data.missing, data.missing_shape or "pixels", data.missing_seed or 0)
        if data.masks is None:
            return dataset
    framing = Framing(data.crop, None if data.image_size is None else (data.image_size, data.image_size))
    with renaming({"masks": "data.masks", "path": "data.masks"}):
        photos = Path(data.source).expanduser()
        return hide_by_masks(dataset, data.masks, framing, photos if photos.is_dir() else None)


def with_truth(config: Config, dataset: Dataset) -> Dataset | None:
    """Return a data set with what its train images have at hidden pixels; None where nobody knows it.

    It is for what is measured, never for what is learned: figures that are compared over shares of hidden pixels stand
    on one classifier, and completions have a truth. It is known where a configuration hides pixels at random, and
    unknown of images with masks of the user's own, and of images that were given in Python.

    config: of the run.
    dataset: that it learns from.
    """
    if dataset.train.masks is None:
        return dataset
    if not config.data.missing:
        return None
    data = dataclasses.replace(config.data, missing=None, missing_shape=None, missing_seed=None)
    whole = read_dataset(dataclasses.replace(config, data=data))
    if (len(whole.train), whole.train.shape) != (len(dataset.train), dataset.train.shape):
        return None
    hidden = dataclasses.replace(whole.train, masks=dataset.train.masks)
    return whole if hidden.digest() == dataset.train.digest() else None


def build_learner(
    config: Config, kind: type[Learner], dataset: Dataset, decoder: nn.Module | None, here: Processes
) -> Learner:
    """Build the learner for a data set; raise InputError where the two, the processes, or own modules, do not fit.

    kind: the class of the configuration's learner. decoder: the user's own module, where there is one.
    """
    images, batch_size, encoder = dataset.train, config.training.batch_size, config.encoder
    if images.masks is not None:
        check_learns_masked(kind, "learner")
        encoder = dataclasses.replace(encoder, missing=encoder.missing or ("mean" if kind.has_encoder else None))
    if len(images) < batch_size:
        raise InputError(
            "training.batch_size", f"{batch_size} for {len(images)} training images", f"write at most {len(images)}"
        )
    if batch_size % here.count:
        raise InputError(
            "training.batch_size", f"{batch_size} for {here.count} processes", f"write a multiple of {here.count}"
        )
    description = LearnerConfig(
        images.shape,
        images.levels,
        decoder is not None,
        config.model,
        config.inference,
        config.learner,
        encoder,
        config.persistent,
        config.glow,
        config.own,
        # floats that were given in Python lie in [-1, 1]
        images.pixel_range or ("signed" if images.levels is None else None),
    )
    check_size(kind, description)
    learner = kind.from_description(description, decoder, config.training.seed)
    check_own_modules(
        learner,
        description,
        autocast(config.training.precision, here.device),
        here.device,
        lambda: kind.from_description(description, decoder, config.training.seed + 1),
    )
    if with_generator(learner):
        learner.generator.likelihood.check_images(images.levels, dataset.name)
    if with_encoder(learner) and learner.missing == "mean":
        learner.filling.copy_(images.mean_image())
    return learner
