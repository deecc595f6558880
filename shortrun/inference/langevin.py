"""Short-run Langevin dynamics: a deterministic map of the start and the noise.

Source: Nijkamp et al., ECCV 2020, arXiv 1912.01909; in the notation of its code, where s^2 / 2 is the paper's step.
"""

from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

LogDensity = Callable[[Float[Tensor, "n d"]], Float[Tensor, "n"]]
StepSizes = float | Float[Tensor, "..."]


@runtime_checkable
class ChainNoise(Protocol):
    """K matrices (n, d) in turn: a tensor (K, n, d), or anything with a length that can be iterated once."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Tensor]: ...


def no_noise(steps: int, z: Float[Tensor, "n d"]) -> Float[Tensor, "k n d"]:
    """Return zeros (K, n, d) that take no memory: with them the chain is plain gradient ascent."""
    return z.new_zeros(()).expand(steps, *z.shape)


def score(log_density: LogDensity, z: Float[Tensor, "n d"], create_graph: bool) -> Float[Tensor, "n d"]:
    """Return d/dz log_density(z), (n, d); rows are apart because log_density treats samples apart."""
    with torch.enable_grad():
        at = z if create_graph and z.requires_grad else z.detach().requires_grad_()
        return torch.autograd.grad(log_density(at).sum(), at, create_graph=create_graph)[0]


def langevin_update(
    z: Float[Tensor, "n d"], score: Float[Tensor, "n d"], step_size: StepSizes, noise: Float[Tensor, "n d"]
) -> Float[Tensor, "n d"]:
    """Return z + (s^2 / 2) score + s noise, with s a number or a tensor that broadcasts to (n, d)."""
    return z + 0.5 * step_size**2 * score + step_size * noise


def langevin_step(
    log_density: LogDensity, z: Float[Tensor, "n d"], step_size: StepSizes, noise: Float[Tensor, "n d"]
) -> Float[Tensor, "n d"]:
    """Return z + (s^2 / 2) d/dz log_density(z) + s noise, with s a number or a tensor that broadcasts to (n, d)."""
    differentiable = torch.is_grad_enabled() and any(
        isinstance(part, Tensor) and part.requires_grad for part in (z, step_size, noise)
    )
    return langevin_update(z, score(log_density, z, differentiable), step_size, noise)


def short_run(
    log_density: LogDensity, z: Float[Tensor, "n d"], step_size: StepSizes, noise: ChainNoise
) -> Float[Tensor, "n d"]:
    """Run K = len(noise) Langevin steps from z and return where they end.

        z_{k+1} = z_k + (s_k^2 / 2) d/dz log_density(z_k) + s_k noise_k,   k = 0..K-1

    log_density: (n, d) -> (n,), one value for each row from that row alone. step_size: a positive number, or a tensor
    that broadcasts to (K, n, d) by the usual rules: (d,) for a step of each latent, (K, 1, 1) for a step of each k,
    (n, 1) for a step of each image. noise: standard normal (K, n, d), or an object that draws each (n, d) when it is
    its turn; `no_noise` for gradient ascent.

    Only z is differentiated. Memory does not grow with K, unless z, step_size or the noise require gradients: then
    the whole chain is one differentiable map.
    """
    steps = len(noise)
    if isinstance(step_size, Tensor) and step_size.ndim == 3:
        schedule = step_size.expand(steps, -1, -1)
    else:
        schedule = [step_size] * steps
    for s, eps in zip(schedule, noise, strict=True):
        z = langevin_step(log_density, z, s, eps)
    return z
