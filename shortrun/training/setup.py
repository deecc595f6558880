"""What a run starts from: the images and the learner that a configuration names."""

from torch import nn

from shortrun.config import Config, LearnerConfig
from shortrun.data import Dataset, load_dataset
from shortrun.errors import InputError
from shortrun.learners import Learner, learner_class
from shortrun.training.processes import Processes


def read_dataset(config: Config) -> Dataset:
    """Read the images that a configuration names."""
    data = config.data
    dataset = load_dataset(
        data.source,
        data_dir=data.dir,
        image_size=data.image_size,
        crop=data.crop,
        train_limit=data.train_limit,
        test_limit=data.test_limit,
        test_fraction=data.test_fraction,
        binarize=data.binarize,
    )
    return dataset if data.held_out is None else dataset.hold_out(data.held_out)


def build_learner(config: Config, dataset: Dataset, decoder: nn.Module | None, here: Processes) -> Learner:
    """Build the learner for a data set; raise InputError where the two, or the processes, do not fit."""
    images, batch_size = dataset.train, config.training.batch_size
    if config.model.likelihood == "bernoulli" and images.levels != 2:
        raise InputError(
            "model.likelihood",
            problem=f"bernoulli is for black and white pixels, {dataset.name} has grey ones",
            instead="add --data.binarize, or choose gaussian",
        )
    if len(images) < batch_size:
        raise InputError(
            "training.batch-size", f"{batch_size} for {len(images)} training images", f"write at most {len(images)}"
        )
    if batch_size % here.count:
        raise InputError(
            "training.batch-size", f"{batch_size} for {here.count} processes", f"write a multiple of {here.count}"
        )
    seed = config.training.seed
    description = LearnerConfig(
        images.shape,
        images.levels,
        decoder is not None,
        config.model,
        config.inference,
        config.learner,
        config.encoder,
        config.persistent,
        config.glow,
    )
    return learner_class(config.learner).from_description(description, decoder, seed)
