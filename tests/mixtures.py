"""Mixture priors with normals that a test chooses."""

from torch import Tensor

from shortrun.model import Mixture
from shortrun.normals import inverses


def mixture_of(log_weights: Tensor, means: Tensor, roots: Tensor) -> Mixture:
    """Return the prior of these normals, in the precision of the means; roots: of the covariances, lower triangular."""
    prior = Mixture(means.shape[1], len(means)).to(means.dtype)
    chosen = {"log_weights": log_weights, "means": means, "roots": roots, "inverse": inverses(roots)}
    prior.load_state_dict({**prior.state_dict(), **chosen})
    return prior
