"""A chain step by step with what its linearization needs: the score and the Hessian of the log-density on the way.

    z_{k+1} = z_k + (s_k^2 / 2) g_k + s_k noise_k,   dz_{k+1}/dz_k = A_k = I + diag(s_k^2 / 2) H_k

with g_k and H_k the gradient and the Hessian of the log-density at z_k. Derivatives are `torch.func`'s, so that a chain
composes with autograd and with forward-mode differentiation; a log-density that calls `torch.autograd.grad` itself
cannot be used here.
"""

from collections.abc import Callable, Iterator
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.inference.langevin import ChainNoise, LogDensity, StepSizes, langevin_update
from shortrun.normals import Flat

ROWS = 512
"""Rows of latents that go through the generator at once in a Hessian: convolutions at thousands fill the memory."""


def pulled_score(log_density: LogDensity, z: Flat) -> tuple[Flat, Callable[[Flat], Flat]]:
    """Return d/dz log_density(z), (n, d), and the function v -> H v, both (n, d), H the Hessian of each row."""

    def score(at: Tensor) -> Tensor:
        return torch.func.grad(lambda latents: log_density(latents).sum())(at)

    # H is symmetric: the pull-back, which costs one backward pass, is the product
    value, pull = torch.func.vjp(score, z)[:2]
    return value, lambda v: pull(v)[0]


class Linearized:
    """A point of a chain: z, score, and products with the Hessian there, each (n, d)."""

    def __init__(self, log_density: LogDensity, z: Flat) -> None:
        self.log_density, self.z = log_density, z
        self.score, self.product = pulled_score(log_density, z)

    @cached_property
    def hessian(self) -> Float[Tensor, "n d d"]:
        """The Hessian of each row, from d products with it."""
        n, d = self.z.shape
        basis = torch.eye(d, dtype=self.z.dtype, device=self.z.device)[:, None, :].expand(d, n, d)
        return torch.func.vmap(self.product, chunk_size=max(1, ROWS // max(n, 1)))(basis).transpose(0, 1)


class Step(Linearized):
    """One step of a chain: where it starts, its step sizes, (n or 1, d), and its noise, (n, d)."""

    def __init__(self, log_density: LogDensity, z: Flat, step_size: Float[Tensor, "#n #d"], noise: Flat | None) -> None:
        super().__init__(log_density, z)
        self.step_size = step_size.expand(-1, z.shape[1])
        self.noise = torch.zeros_like(z) if noise is None else noise

    @property
    def end(self) -> Flat:
        """Where the step arrives."""
        return langevin_update(self.z, self.score, self.step_size, self.noise)

    @cached_property
    def jacobian(self) -> Float[Tensor, "n d d"]:
        """A = I + diag(s^2 / 2) H in float64: an overshooting chain multiplies many of them."""
        scaled = 0.5 * self.step_size.double()[..., None] ** 2 * self.hessian.double()
        return torch.eye(self.z.shape[1], dtype=torch.float64, device=self.z.device) + scaled


def steps_of(log_density: LogDensity, z: Flat, step_size: StepSizes, noise: ChainNoise) -> Iterator[Step]:
    """Walk the chain that `short_run` runs, from z with the same step sizes and noise, and yield its K steps."""
    sizes = torch.as_tensor(step_size, dtype=z.dtype, device=z.device)
    # what does not broadcast to (K, n, d) fails here, before any work is done
    schedule = sizes.expand(len(noise), *z.shape)
    for s, eps in zip(schedule, noise, strict=True):
        step = Step(log_density, z, s, eps)
        yield step
        z = step.end
