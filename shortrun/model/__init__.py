"""p(x, z): the top-down generator, its decoders, its likelihoods and its priors; densities of inferred latents."""

from shortrun.model.bernoulli import Bernoulli
from shortrun.model.decoders import conv_decoder, dense_decoder
from shortrun.model.discretized_logistic import DiscretizedLogistic
from shortrun.model.energy import Energy
from shortrun.model.gaussian import Gaussian
from shortrun.model.latent_density import GaussianMixture
from shortrun.model.likelihood import Likelihood
from shortrun.model.mixture import Mixture
from shortrun.model.prior import Normal, Prior
from shortrun.model.top_down import TopDown

__all__ = [
    "Bernoulli",
    "DiscretizedLogistic",
    "Energy",
    "Gaussian",
    "GaussianMixture",
    "Likelihood",
    "Mixture",
    "Normal",
    "Prior",
    "TopDown",
    "conv_decoder",
    "dense_decoder",
]
