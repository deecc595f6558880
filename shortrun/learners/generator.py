"""The generator that a description names, the same one whichever learner learns it."""

from torch import nn

from shortrun.config import LearnerConfig
from shortrun.inference import Regression
from shortrun.learners.declared import likelihood_class, prior_class
from shortrun.model import TopDown
from shortrun.registry import DECODERS, find
from shortrun.streams import initial_weights


def build_generator(description: LearnerConfig, decoder: nn.Module | None = None, seed: int = 0) -> TopDown:
    """Return p(x, z) with new weights.

    A decoder that is named is called with image_shape, latents and the keywords of `conv_decoder`.

    description: of the learner.
    decoder: the user's own module in place of the one that the description names; None for that.
    seed: 0 or more, of the weights.
    """
    model, shape = description.model, description.image_shape
    likelihood = likelihood_class(model).from_settings(model, shape[0], description.levels)
    module = decoder
    if module is None:
        make = find(DECODERS, model.blocks, "model.blocks")
        with initial_weights(seed):
            module = make(
                shape,
                model.latents,
                parameterization=model.parameterization,
                width=model.width,
                depth=model.depth,
                skip=model.skip,
                activation=likelihood.activation(),
            )
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
