"""What is refused before any work is done: densities that no chain can climb, and settings that cannot be."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from shortrun.densities.start import Start, check_whole
from shortrun.errors import InputError, reason
from shortrun.inference.jacobian import pulled_score
from shortrun.inference.langevin import LogDensity
from shortrun.normals import Flat

LOOKED_AT = 64
"""Draws of the start that a density is tried on."""
SAME = 1e-3
"""Values of a row that is looked at alone and among others may differ by this share, by rounding in float32."""
FAILURES = (RuntimeError, TypeError, ValueError, IndexError, AttributeError)
"""What a function of the user's own raises where shapes, types or precisions do not fit."""


def entered(log_density: LogDensity, start: Start, rng: torch.Generator, **numbers: object) -> LogDensity:
    """Return a log density that was tried on draws of the start, and that takes rows which are not finite.

    Functions of `torch.distributions` raise an error for NaN, at which a chain that diverged arrives: such rows have
    the log density NaN and the gradient 0 here.

    log_density: of the user's own.
    start: where chains start.
    rng: gives the random numbers of the chains; the trial takes none of them.
    numbers: whole numbers of at least 1, by the name of their argument.

    Raises InputError for whatever cannot be used.
    """
    check_whole(1, **numbers)
    if not callable(log_density):
        raise InputError(
            "log_density", type(log_density).__name__, "give a function (n, d) -> (n,), or a learner of this package"
        )
    if not isinstance(start, Start):
        raise InputError("start", type(start).__name__, "give shortrun.Start.standard(d), for example")
    if not isinstance(rng, torch.Generator):
        raise InputError("rng", type(rng).__name__, "give torch.Generator().manual_seed(0), for example")
    # a generator of its own: what is tried does not shift what is drawn
    z = start.draw(LOOKED_AT, torch.Generator(rng.device).manual_seed(0))
    check_values(log_density, z)
    check_derivatives(log_density, z)

    def guarded(z: Tensor) -> Tensor:
        finite = torch.isfinite(z).all(1)
        return torch.where(finite, log_density(torch.where(finite[:, None], z, start.mean)), math.nan)

    return guarded


def check_values(log_density: LogDensity, z: Flat) -> None:
    """Raise InputError where a density does not give one finite number for each row of z from that row alone."""
    n = len(z)
    values = tried(lambda: log_density(z.clone()), z)
    if not isinstance(values, Tensor):
        raise InputError("log_density", f"a {type(values).__name__} back", f"return a tensor of shape ({n},)")
    if values.shape != (n,):
        raise InputError(
            "log_density",
            f"values of shape {tuple(values.shape)} for z of shape {tuple(z.shape)}",
            f"return one for each row, ({n},)",
        )
    if values.dtype != z.dtype:
        raise InputError("log_density", f"{values.dtype} for z of {z.dtype}", precision(values.dtype))
    if bad := int((~torch.isfinite(values)).sum()):
        raise InputError(
            "log_density",
            f"values that are not finite at {bad} of {n} draws of the start",
            "start where it is finite, by shortrun.Start.normal for example",
        )
    alone = tried(lambda: log_density(z[:1].clone()), z)
    if alone.shape != (1,) or abs(float(alone.detach()[0] - values.detach()[0])) > SAME * (
        1 + float(values.detach()[0].abs())
    ):
        raise InputError(
            "log_density",
            "another value for a row alone than among others",
            "give one value for each row from that row alone, without random numbers",
        )


def check_derivatives(log_density: LogDensity, z: Flat) -> None:
    """Raise InputError where a density has no finite gradient, or no product with its Hessian, at rows of z."""
    with torch.enable_grad():
        at = z.clone().requires_grad_()
        values = log_density(at)
        gradient = torch.autograd.grad(values.sum(), at, allow_unused=True)[0] if values.requires_grad else None
    if gradient is None:
        raise InputError(
            "log_density",
            problem="its values do not depend on z by functions that PyTorch can differentiate",
            instead="leave out detach, numpy and torch.no_grad",
        )
    if bad := int((~torch.isfinite(gradient)).any(1).sum()):
        raise InputError(
            "log_density",
            f"a gradient that is not finite at {bad} of {len(z)} draws of the start",
            "write it without 0 / 0, log 0 and sqrt 0",
        )
    try:
        pulled_score(log_density, z[:2])[1](torch.ones_like(z[:2]))
    except FAILURES as error:
        raise InputError(
            "log_density",
            problem=f"cannot be differentiated twice ({reason(error)})",
            instead="write it in functions of torch, without autograd.grad in it",
        ) from error


def tried(call: Callable[[], Any], z: Flat) -> Any:
    """Return what a call of a density returns; raise InputError where it raises."""
    try:
        return call()
    except FAILURES as error:
        words = reason(error)
        fit = "dtype" in words or "Float" in words or "Double" in words
        raise InputError(
            "log_density",
            problem=f"raises {type(error).__name__} for z of shape {tuple(z.shape)}, {z.dtype} ({words})",
            instead=precision(torch.float32) if fit else "give a function (n, d) -> (n,)",
        ) from error


def precision(dtype: torch.dtype) -> str:
    """Say how density and chains come to the same precision."""
    return f"let its tensors have the dtype of z, or start with Start.standard(d, dtype={dtype})"


def check_step_size(step_size: float) -> float:
    """Return a step size; raise InputError for what is no positive number."""
    try:
        found = float(step_size)
    except (TypeError, ValueError, RuntimeError):
        found = math.nan
    if not 0 < found < math.inf:
        raise InputError("step_size", step_size, "write a positive number, 0.1 for example")
    return found
