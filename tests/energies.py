"""Energy priors whose density a test knows: f linear, which moves N(0, I), or quadratic, which narrows it."""

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.model import Energy


def linear_energy(slope: Tensor, constant: float = 0.0, steps: int = 40, step_size: float = 0.4) -> Energy:
    """Return the prior with f(z) = slope^T z + constant: p(z) = N(z; -slope, I), log Z = |slope|^2 / 2 - constant."""
    prior = Energy(len(slope), depth=1, steps=steps, step_size=step_size).to(slope.dtype)
    prior.weights = torch.cat([slope, slope.new_tensor([constant])])
    prior.taken = torch.ones_like(prior.taken)
    return prior


class QuadraticEnergy(Energy):
    """The prior with f(z) = z^T (P - I) z / 2: p(z) = N(z; 0, P^-1), log Z = -log det P / 2."""

    precision: Tensor

    @classmethod
    def of(cls, precision: Tensor, steps: int = 40, step_size: float = 0.4) -> "QuadraticEnergy":
        """Return the prior of a precision P, in its own precision."""
        prior = cls(len(precision), depth=1, steps=steps, step_size=step_size).to(precision.dtype)
        prior.register_buffer("precision", precision)
        prior.taken = torch.ones_like(prior.taken)
        return prior

    def energy(self, z: Float[Tensor, "n d"], weights: Float[Tensor, "p"] | None = None) -> Float[Tensor, "n"]:
        """Return f(z)."""
        return 0.5 * ((z @ (self.precision - torch.eye(self.dim).to(z))) * z).sum(1)
