"""q(z_0), where chains start: what estimators of their divergence have to know of it."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from shortrun.normals import Flat, PerImage, log_heights


class Initial(NamedTuple):
    """The normal that each image's chain starts from, times a weight of its start.

        q(z_0) = exp(tilt) N(z_0; mean, L L^T)

    tilt is 0 where the start is a draw of the normal. From a mixture the normal is that of the component c which is
    drawn with the start and held, and tilt = log w_c: then q is the density of z_0 and c jointly, and so is p(x, z, c).
    Where c is drawn after the start, tilt = log p(c | z_0). Where the start is one of N draws, taken in proportion to
    weights W_j, log W(z_0) - log mean_j W_j is added, log N at most. With candidates that density is not normalized,
    but it serves: with it the mean of log q - log p(x, z) is a divergence of start and candidates jointly, an upper
    bound of the one of the start alone, at most log N above it. It does not depend on the step sizes.

    Source: Cremer, Morris, Duvenaud, "Reinterpreting Importance-Weighted Autoencoders", 2017, arXiv 1704.02916.
    """

    means: Float[Tensor, "#n d"]
    roots: Float[Tensor, "m d d"]
    """Lower triangular, L, of the m covariances that occur."""
    which: Int64[Tensor, "#n"]
    """For each image the root that it has."""
    tilt: Float[Tensor, "#n"]

    @classmethod
    def normal(cls, like: Flat) -> "Initial":
        """Return N(0, I) of as many latents, float64."""
        zeros = torch.zeros(1, like.shape[1], dtype=torch.float64, device=like.device)
        which = torch.zeros(1, dtype=torch.long, device=like.device)
        return cls(zeros, torch.eye(like.shape[1]).to(zeros)[None], which, zeros[:, 0])

    @property
    def standard(self) -> bool:
        """Whether it is N(0, I), tilted or not."""
        identity = torch.eye(self.means.shape[1]).to(self.roots)
        return not self.means.any() and torch.equal(self.roots, identity.expand_as(self.roots))

    def whitened(self, z: Flat) -> Flat:
        """Return L^-1 (z - mean) of each image, float64: standard normal where z is a draw of the normal."""
        away = (z - self.means).double()
        return torch.linalg.solve_triangular(self.each_root(), away[..., None], upper=False)[..., 0]

    def each_root(self) -> Float[Tensor, "#n d d"]:
        """Return L of each image, float64."""
        return self.roots.double()[self.which]

    def log_prob(self, z: Flat) -> PerImage:
        """Return log q(z_0), tilt and all, float64."""
        heights = log_heights(self.roots.double())[self.which]
        return heights - 0.5 * (self.whitened(z) ** 2).sum(1) + self.tilt
