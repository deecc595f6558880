"""Whether a learner fits into memory, known before any of it is allocated."""

from math import prod

import torch

from shortrun.config import LearnerConfig
from shortrun.errors import InputError
from shortrun.learners.declared import Declared
from shortrun.memory import check_fits

BYTES = 4  # of a weight
SURE = 2**28
"""Bytes up to which the rough bound is believed."""


def check_size(kind: type[Declared], description: LearnerConfig) -> None:
    """Raise InputError where the weights of a learner would take more than a share of the machine's memory.

    kind: the learner's class. description: what it is built from, checked.

    The learner is built on PyTorch's device `meta`, where tensors have a shape and no memory. That costs a second in a
    new process, so that settings of usual sizes are let through without it.
    """
    if description.own_decoder or _at_most(description) < SURE:
        return
    try:
        with torch.device("meta"):
            learner = kind.from_description(description)
    except (NotImplementedError, RuntimeError, InputError):
        # it asks a tensor for numbers while it is built, as Glow does and a learner or decoder of the user's own may;
        # what is wrong with it anywhere is said when it is built with memory
        return
    size = sum(each.numel() * each.element_size() for each in (*learner.parameters(), *learner.buffers()))
    check_fits(size, "model", "its weights", "write smaller model.width, model.depth or model.latents")


def _at_most(description: LearnerConfig) -> int:
    """Return more bytes than the weights of most learners with such settings take, by their largest layers."""
    model, encoder = description.model, description.encoder
    width, depth = max(model.width, encoder.width or 0), max(model.depth, encoder.depth)
    pixels, latents = prod(description.image_shape), sum(model.latents)
    blocks = 9 * width**2 * depth * (len(model.latents) + 2)
    ends = (width + latents) * (pixels + latents) + 2 * model.components * latents**2
    return BYTES * 2 * (blocks + ends)
