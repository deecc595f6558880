"""A Langevin step that is compiled: fewer and larger operations for the same numbers, up to their rounding."""

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.inference.langevin import LogDensity, StepSizes, langevin_step, langevin_update


def _step(
    log_density: LogDensity, z: Float[Tensor, "n d"], step_size: StepSizes, noise: Float[Tensor, "n d"]
) -> Float[Tensor, "n d"]:
    """Return what `langevin_step` returns; torch.func.grad puts value and gradient into one graph."""
    return langevin_update(z, torch.func.grad(lambda at: log_density(at).sum())(z), step_size, noise)


class CompiledStep:
    """A Langevin step that is compiled on its first call, for chains of one size.

    Chains of another size, and those that are differentiated, take the step that is not compiled: each size would be
    compiled anew.

    size: (n, d).

    Source: Ansel et al., "PyTorch 2: Faster Machine Learning Through Dynamic Python Bytecode Transformation and Graph
    Compilation", ASPLOS 2024.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.compiled = torch.compile(_step, dynamic=False)

    def __call__(
        self, log_density: LogDensity, z: Float[Tensor, "n d"], step_size: StepSizes, noise: Float[Tensor, "n d"]
    ) -> Float[Tensor, "n d"]:
        """Return z + (s^2 / 2) d/dz log_density(z) + s noise, (n, d); the arguments are those of `langevin_step`."""
        fits = z.shape == self.size and not torch.is_grad_enabled()
        return (self.compiled if fits else langevin_step)(log_density, z, step_size, noise)
