"""Short-run Langevin dynamics: a deterministic map of the start and the noise.

Source: Nijkamp et al., ECCV 2020, arXiv 1912.01909; in the notation of its code, where s^2 / 2 is the paper's step.
"""

from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.errors import InputError

LogDensity = Callable[[Float[Tensor, "n d"]], Float[Tensor, "n"]]
StepSizes = float | Float[Tensor, "..."]
Step = Callable[[LogDensity, Float[Tensor, "n d"], StepSizes, Float[Tensor, "n d"]], Float[Tensor, "n d"]]
"""Takes what `langevin_step` takes, and returns what it returns."""


@runtime_checkable
class ChainNoise(Protocol):
    """K matrices (n, d) in turn: a tensor (K, n, d), or anything with a length that can be iterated once."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Tensor]: ...


def no_noise(steps: int, z: Float[Tensor, "n d"]) -> Float[Tensor, "k n d"]:
    """Return zeros (K, n, d) that take no memory: with them the chain is plain gradient ascent.

    steps: K, at least 1.
    z: (n, d), where the chains start.

    >>> no_noise(3, torch.zeros(2, 5)).shape
    torch.Size([3, 2, 5])
    """
    return z.new_zeros(()).expand(steps, *z.shape)


def score(log_density: LogDensity, z: Float[Tensor, "n d"], create_graph: bool) -> Float[Tensor, "n d"]:
    """Return d/dz log_density(z), (n, d); rows are apart because log_density treats samples apart.

    log_density: (n, d) -> (n,), one value for each row from that row alone.
    z: (n, d).
    create_graph: whether the result is to be differentiated again.
    """
    with torch.enable_grad():
        at = z if create_graph and z.requires_grad else z.detach().requires_grad_()
        heights = log_density(at)
        if heights.shape != at.shape[:1]:
            raise InputError(
                "log_density", f"values of shape {tuple(heights.shape)}", f"return one for each row, ({len(at)},)"
            )
        height = heights.sum()
        # the way back has the precision of the way there; under autocast, products of float32 parts would lose theirs
        with torch.autocast(z.device.type, enabled=False):
            return torch.autograd.grad(height, at, create_graph=create_graph)[0]


def langevin_update(
    z: Float[Tensor, "n d"], score: Float[Tensor, "n d"], step_size: StepSizes, noise: Float[Tensor, "n d"]
) -> Float[Tensor, "n d"]:
    """Return z + (s^2 / 2) score + s noise, (n, d).

    z: (n, d), where the step starts.
    score: (n, d), the gradient of the log-density there.
    step_size: s, a positive number, or a tensor that broadcasts to (n, d).
    noise: (n, d), standard normal.

    >>> one = torch.ones(1, 1)
    >>> langevin_update(one, one, 1.0, one).item()
    2.5
    """
    return z + 0.5 * step_size**2 * score + step_size * noise


def langevin_step(
    log_density: LogDensity, z: Float[Tensor, "n d"], step_size: StepSizes, noise: Float[Tensor, "n d"]
) -> Float[Tensor, "n d"]:
    """Return z + (s^2 / 2) d/dz log_density(z) + s noise, (n, d).

    log_density: (n, d) -> (n,), one value for each row from that row alone.
    z: (n, d), where the step starts.
    step_size: s, a positive number, or a tensor that broadcasts to (n, d).
    noise: (n, d), standard normal.

    >>> z = torch.ones(1, 1)
    >>> langevin_step(lambda z: -(z**2).sum(1) / 2, z, 1.0, torch.zeros(1, 1)).item()
    0.5
    """
    differentiable = torch.is_grad_enabled() and any(
        isinstance(part, Tensor) and part.requires_grad for part in (z, step_size, noise)
    )
    return langevin_update(z, score(log_density, z, differentiable), step_size, noise)


def _check(z: Tensor, step_size: StepSizes, noise: ChainNoise) -> None:
    """Raise InputError for what no chain can start from; where a tensor is on a GPU its numbers are not waited for."""
    if z.ndim != 2 or not z.is_floating_point():
        raise InputError("z", f"{z.dtype} of shape {tuple(z.shape)}", "give floats (n, d)")
    if isinstance(noise, Tensor) and noise.shape[1:] != z.shape:
        raise InputError("noise", f"shape {tuple(noise.shape)}", f"give ({len(noise)}, {len(z)}, {z.shape[1]})")
    on_cpu = not isinstance(step_size, Tensor) or (step_size.device.type == "cpu" and not step_size.requires_grad)
    if on_cpu and not bool(torch.as_tensor(step_size).gt(0).all()):  # NaN is not greater either
        raise InputError("step_size", step_size, "write a positive number")


def short_run(
    log_density: LogDensity,
    z: Float[Tensor, "n d"],
    step_size: StepSizes,
    noise: ChainNoise,
    step: Step = langevin_step,
) -> Float[Tensor, "n d"]:
    """Return where K = len(noise) Langevin steps from z end, (n, d).

        z_{k+1} = z_k + (s_k^2 / 2) d/dz log_density(z_k) + s_k noise_k,   k = 0..K-1

    What it arrives at is not looked at: `shortrun.draw` says where chains diverge. Only z is differentiated. Memory
    does not grow with K, unless z, step_size or the noise require gradients: then the whole chain is one differentiable
    map.

    log_density: (n, d) -> (n,), one value for each row from that row alone.
    z: (n, d), where the chains start.
    step_size: a positive number, or a tensor that broadcasts to (K, n, d) by the usual rules: (d,) for a step of each
        latent, (K, 1, 1) for a step of each k, (n, 1) for a step of each image.
    noise: standard normal (K, n, d), or an object that draws each (n, d) when it is its turn; `no_noise` for gradient
        ascent.
    step: takes each step; `langevin_step`, or a `CompiledStep`.

    Raises InputError for shapes that do not fit one another and for step sizes that are not positive.

    >>> def log_density(z):
    ...     return -((z - 3) ** 2).sum(1) / 2
    >>> z = torch.zeros(1000, 1)
    >>> round(short_run(log_density, z, 0.5, no_noise(100, z)).mean().item(), 3)
    3.0
    >>> rng = torch.Generator().manual_seed(0)
    >>> ends = short_run(log_density, z, 0.5, torch.randn(100, *z.shape, generator=rng))
    >>> 0.9 < ends.std().item() < 1.1
    True

    Source: Nijkamp et al., "Learning Multi-layer Latent Variable Model via Variational Optimization of Short Run MCMC
    for Approximate Inference", ECCV 2020, arXiv 1912.01909.
    """
    steps = len(noise)
    _check(z, step_size, noise)
    if isinstance(step_size, Tensor) and step_size.ndim == 3:
        schedule = step_size.expand(steps, -1, -1)
    else:
        schedule = [step_size] * steps
    for s, eps in zip(schedule, noise, strict=True):
        z = step(log_density, z, s, eps)
    return z
