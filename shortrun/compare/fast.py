"""What a fast comparison measures: so little that it takes no longer than a training of more than a few seconds."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from shortrun.config import Config
from shortrun.data import Dataset
from shortrun.evaluation.measures import MEASURES
from shortrun.files import read_json, write_json
from shortrun.learners import learner_class
from shortrun.learners.persistent import FRESH_STEPS
from shortrun.metrics.figure import Figure

PARTS = ("reconstruction", "samples", "likelihood")
"""Of what an assessment can measure; the likelihood of no images, which says why it is not there."""
LIMIT = 500
"""Test images, and training images to whose latents a density is fitted, at most."""
SHARE, INFERENCES = 0.2, 3
"""Of the work of training that reconstructions may take, and draws too; and how often each test image is inferred."""
REASON = "left out by --fast"
FILE = "fast.json"
"""In the folder of a comparison: how much is measured of each model."""


class Amounts(NamedTuple):
    """How much is measured."""

    test_images: int
    samples: int


LEAST, MOST = Amounts(50, 500), Amounts(LIMIT, 5000)


def limited(config: Config, there: int) -> Config:
    """Return a configuration with few test images, and few latents to fit a density to when the training is done.

    config: of a learner.
    there: test images without the limit; those that are held out of the training images stay as many.
    """
    data, training = config.data, config.training
    if there > LIMIT and data.held_out is None:
        data = dataclasses.replace(data, test_limit=LIMIT)
    training = dataclasses.replace(training, fit_images=min(training.fit_images, LIMIT))
    return dataclasses.replace(config, data=data, training=training)


def amounts(configs: Mapping[str, Config], updates: Mapping[str, int], test_images: int) -> Amounts:
    """Return how much can be measured of each model in a part of the time that the quickest training takes.

    The work is counted in passes through the generator with their way back: a step of a chain is one, what an encoder
    needs is one, and so is a draw with its features.

    configs: by name.
    updates: that each learns for.
    test_images: how many there are.

    >>> config = Config(learner="vae")
    >>> amounts({"vae": config}, {"vae": 15}, 400)
    Amounts(test_images=200, samples=600)
    """
    least = [LIMIT, MOST.samples]
    for name, config in configs.items():
        steps = config.inference.steps if learner_class(config.learner).has_chain else 1
        work = SHARE * updates[name] * config.training.batch_size * (steps + 1)
        least = [min(least[0], int(work / (INFERENCES * fresh_steps(config)))), min(least[1], int(work))]
    return Amounts(min(test_images, max(LEAST.test_images, least[0])), max(LEAST.samples, least[1]))


def fresh_steps(config: Config) -> int:
    """Return the steps that a trained model takes for an image; 1 for a learner without chains.

    config: of the learner.
    """
    kind, inference = learner_class(config.learner), config.inference
    if not kind.has_chain:
        return 1
    if kind.short_runs:
        return inference.test_steps or inference.steps
    return config.persistent.fresh_steps or inference.test_steps or FRESH_STEPS


def kept_amounts(out: Path, found: Amounts) -> Amounts:
    """Return the amounts of a comparison: those that it began with, or what was found now.

    out: its folder.
    found: now.
    """
    if not (out / FILE).is_file():
        write_json(out / FILE, found._asdict())
    return Amounts(**read_json(out / FILE))


def left_out(dataset: Dataset) -> list[Figure]:
    """Return why there is no figure of what else would be measured on images.

    dataset: of the comparison.
    """
    away = {"probe"} if dataset.labelled else set()
    away |= {"factors"} if dataset.test.factors else set()
    return [each.left_out(REASON) for measure in MEASURES if measure.part in away for each in measure.quantities]
