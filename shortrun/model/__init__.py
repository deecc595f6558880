"""p(x, z): the top-down generator, its decoders and its likelihoods."""

from shortrun.model.decoders import conv_decoder, dense_decoder
from shortrun.model.likelihood import Bernoulli, DiscretizedLogistic, Gaussian, Likelihood
from shortrun.model.top_down import TopDown

__all__ = [
    "Bernoulli",
    "DiscretizedLogistic",
    "Gaussian",
    "Likelihood",
    "TopDown",
    "conv_decoder",
    "dense_decoder",
]
