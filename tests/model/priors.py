"""Mixtures that the tests of priors share."""

import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from shortrun.model import Mixture
from shortrun.normals import inverses


def rng(seed: int = 0) -> torch.Generator:
    """Return a generator."""
    return torch.Generator().manual_seed(seed)


def mixture_of(log_weights: Tensor, means: Tensor, roots: Tensor) -> Mixture:
    """Return a mixture of these normals, in the precision of the means."""
    prior = Mixture(means.shape[1], len(means)).to(means.dtype)
    parts = {"log_weights": log_weights, "means": means, "roots": roots, "inverse": inverses(roots)}
    prior.load_state_dict(prior.state_dict() | parts)
    return prior


def drawn_mixture(components: int = 4, dim: int = 3, seed: int = 1, apart: float = 1.5) -> Mixture:
    """Return a mixture as learning may leave it, float64."""
    numbers = rng(seed)
    roots = 0.4 * torch.randn(components, dim, dim, generator=numbers, dtype=torch.float64).tril(-1)
    roots += torch.diag_embed(0.3 + torch.rand(components, dim, generator=numbers, dtype=torch.float64))
    means = apart * torch.randn(components, dim, generator=numbers, dtype=torch.float64)
    weights = torch.randn(components, generator=numbers, dtype=torch.float64)
    return mixture_of(torch.log_softmax(weights, 0), means, roots)


def as_torch(prior: Mixture) -> MixtureSameFamily:
    """Return the same mixture of torch.distributions."""
    log_weights, means, roots, _ = prior.parts()
    return MixtureSameFamily(Categorical(logits=log_weights), MultivariateNormal(means, scale_tril=roots))
