"""The generator that a description names, the same one whichever learner learns it."""

from torch import nn

from shortrun.config import LearnerConfig, ModelConfig
from shortrun.errors import InputError
from shortrun.model import (
    Bernoulli,
    DiscretizedLogistic,
    Gaussian,
    Likelihood,
    Mixture,
    TopDown,
    conv_decoder,
    dense_decoder,
)
from shortrun.streams import initial_weights


def build_generator(description: LearnerConfig, decoder: nn.Module | None = None, seed: int = 0) -> TopDown:
    """Return p(x, z) with new weights; decoder: the user's own module in place of the built-in blocks."""
    model, shape = description.model, description.image_shape
    likelihood = build_likelihood(model, shape[0], description.levels)
    if decoder is None:
        make = {"dense": dense_decoder, "conv": conv_decoder}[model.blocks]
        with initial_weights(seed):
            decoder = make(
                shape,
                model.latents,
                parameterization=model.parameterization,
                width=model.width,
                depth=model.depth,
                skip=model.skip,
                activation=nn.Identity() if isinstance(likelihood, Bernoulli) else nn.Tanh(),
            )
    prior = None
    if model.prior == "mixture":
        prior = Mixture(sum(model.latents), model.components, seed, unit=description.inference.tuned)
    return TopDown(decoder, likelihood, model.latents, prior)


def build_likelihood(model: ModelConfig, channels: int, levels: int | None) -> Likelihood:
    """Return the likelihood that a configuration names; levels: values that a pixel can take."""
    if model.likelihood == "bernoulli":
        return Bernoulli()
    if model.likelihood == "logistic":
        if levels is None:
            raise InputError(
                "model.likelihood",
                problem="logistic needs images of whole numbers, these are floats",
                instead="use gaussian",
            )
        return DiscretizedLogistic(channels, levels)
    return Gaussian(model.sigma, model.learn_sigma)
