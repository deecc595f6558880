"""q(z_0), where chains start: what estimators of their divergence have to know of it."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.normals import Flat, PerImage, diagonal_components, mixture


class Initial(NamedTuple):
    """A mixture of m normals, times a weight of each image's start.

        q(z_0) = exp(tilt) sum_c w_c N(z_0; mu_c, diag sigma_c^2)

    tilt is 0 where the start is a draw of the mixture. Where it is one of N draws, taken in proportion to weights W_j,
    tilt = log W(z_0) - log mean_j W_j, log N at most. That density is not normalized, but it serves: with it the mean
    of log q - log p(x, z) is a divergence of start and candidates jointly, an upper bound of the one of the start
    alone, at most log N above it. It does not depend on the step sizes.

    Source: Cremer, Morris, Duvenaud, "Reinterpreting Importance-Weighted Autoencoders", 2017, arXiv 1704.02916.
    """

    log_weights: Float[Tensor, "m"]
    means: Float[Tensor, "m d"]
    scales: Float[Tensor, "m d"]
    tilt: Float[Tensor, "#n"]

    @classmethod
    def normal(cls, like: Flat) -> "Initial":
        """Return N(0, I) of as many latents, float64."""
        zeros = torch.zeros(1, like.shape[1], dtype=torch.float64, device=like.device)
        return cls(zeros[:, 0], zeros, zeros + 1, zeros[:, 0])

    def components(self, z: Flat) -> Float[Tensor, "n m"]:
        """Return log w_c + log N(z; mu_c, diag sigma_c^2) of each component, float64."""
        return diagonal_components(z.double(), self.log_weights, self.means, self.scales)

    def log_prob(self, z: Flat) -> PerImage:
        """Return log q(z_0), tilt and all, float64."""
        return mixture(self.components(z)) + self.tilt
