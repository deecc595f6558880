"""The generator that a description names, the same one whichever learner learns it."""

import torch
from torch import nn

from shortrun.config import LearnerConfig
from shortrun.inference import Regression
from shortrun.learners.declared import likelihood_class, prior_class
from shortrun.learners.own_modules import check_module, made, ready
from shortrun.model import TopDown
from shortrun.registry import DECODERS


def build_generator(description: LearnerConfig, decoder: nn.Module | None = None, seed: int = 0) -> TopDown:
    """Return p(x, z) with new weights.

    A decoder that is named is called with image_shape, latents and the keywords of `conv_decoder`.

    description: of the learner.
    decoder: the user's own module in place of the one that the description names; None for that.
    seed: 0 or more, of the weights.

    Raises InputError where what makes the decoder raises, or gives no module.
    """
    model, shape = description.model, description.image_shape
    likelihood = likelihood_class(model).from_settings(model, shape[0], description.levels)
    if decoder is None:
        arguments = {
            "image_shape": shape,
            "latents": model.latents,
            "parameterization": model.parameterization,
            "width": model.width,
            "depth": model.depth,
            "skip": model.skip,
            "activation": likelihood.activation(),
        }
        module = made(DECODERS, model.blocks, "model.blocks", arguments, seed)
    else:
        check_module(decoder, "decoder", "it")
        module = decoder
    if decoder is not None or model.blocks not in DECODERS:
        layers = [torch.zeros(2, size) for size in model.latents]
        module = ready(module, "model.blocks" if decoder is None else "decoder", layers, seed)
    prior = prior_class(model).from_settings(model, sum(model.latents), seed, description.inference.tuned)
    return TopDown(module, likelihood, model.latents, prior)


def build_start(description: LearnerConfig, generator: TopDown) -> Regression | None:
    """Return the regression that chains start from, before it learns; None where they start from the prior.

    description: of the learner.
    generator: whose latents are regressed on images.
    """
    if description.inference.start == "prior":
        return None
    return Regression(description.image_shape, generator.dim)
