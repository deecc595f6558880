"""What is wrong with a decoder or an encoder of the user's own, found on two images before a run begins.

Everything is tried on a copy, in a state of the random numbers that is put back, so that a probe leaves no trace.
"""

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shortrun.errors import InputError, reason
from shortrun.learners.own_modules import called, said_of
from shortrun.model.casting import cast_once

ROUNDING = 1e-4
"""Difference between outputs, relative to the largest, that may come from the order of sums."""
REPEATED = 1e-5
"""The same between two calls with the same inputs."""
LOOK = "look at its divisions, roots, norms, logarithms and exponentials"
"""What to do where numbers are not finite."""


@dataclass(frozen=True)
class Own:
    """A module of the user's own, and how it is called."""

    module: nn.Module
    argument: str
    """The setting whose value it is."""
    arguments: Callable[[Tensor], Sequence[Tensor]]
    """From inputs, (n, ...), to what the module is called with."""
    read: Callable[["Own", Any, int], Tensor]
    """From what it returns of n images to one tensor, (n, ...); raises InputError for another type or shape."""
    wanted: str
    """How it is to be written, for the errors."""
    apart: str
    """What may depend on what, for the errors."""

    @property
    def name(self) -> str:
        """The class, as errors say it."""
        return type(self.module).__name__

    def refused(self, problem: str, instead: str) -> InputError:
        """Return the error of what the module does.

        problem: a verb and more.
        instead: what to write.
        """
        return InputError(self.argument, problem=f"{self.name} {problem}", instead=instead)

    def __call__(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """Return what a copy of the module gives of inputs, (n, ...)."""
        arguments = self.arguments(inputs)
        with said_of(self.argument, called(self.name, arguments), self.wanted):
            found = module(*arguments)
        return self.read(self, found, len(inputs))


@contextmanager
def leaving_no_trace(device: torch.device) -> Iterator[None]:
    """Put back the state of all global random numbers, and compute products exactly, while the block runs.

    device: whose state is kept beside the CPU's.
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), exact:
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


@torch.no_grad()
def check_outputs(own: Own, inputs: Tensor, precision: AbstractContextManager[object]) -> tuple[nn.Module, Tensor]:
    """Return a copy of a module that gives what it has to, image by image, and its outputs, (2, ...).

    own: the module.
    inputs: (2, ...), of two images.
    precision: the context in which an update computes.

    Raises InputError for wrong shapes and types, for outputs that are not finite, are drawn at random, or depend on the
    other image, for tensors that a call changes, and for weights that cannot be learned, copied or saved.
    """
    check_weights(own)
    module, given = copied(own), inputs.clone()
    first = own(module, given)
    if first.dtype != torch.float32:
        raise own.refused(f"returns {first.dtype}", "return torch.float32: .float() at its end, for example")
    if not first.isfinite().all():
        raise own.refused("returns NaN or infinite numbers", LOOK)
    if not given.equal(inputs):
        raise own.refused("changes what it is called with, in place", "write z * 2 for z.mul_(2), for example")
    if (name := changed(own.module, module)) is not None:
        raise own.refused(
            f"changes its own {name} when it is called, while {own.apart}",
            "write GroupNorm for BatchNorm, weight_norm for spectral_norm, for example",
        )
    if differ(own(module, inputs), first, REPEATED):
        raise own.refused("returns something else for the same inputs", "write it without dropout and random numbers")
    turned, single = own(module, inputs.flip(0)).flip(0), own(module, inputs[:1])
    if differ(turned, first, ROUNDING) or differ(single, first[:1], ROUNDING):
        raise own.refused(
            f"couples the images of a batch, while {own.apart}",
            "write it without means, sums and shapes over the batch",
        )
    if differ(own(copied(own).eval(), inputs), first, ROUNDING):
        raise own.refused("returns something else after .eval()", "write it the same in both modes, without dropout")
    with precision:
        try:
            cast_once(module, inputs.device, lambda: own(module, inputs))
        except InputError as error:
            raise own.refused(
                f"works in float32 and not in the precision of training ({error.problem})",
                "cast to one type where two meet, or write training.precision = float32",
            ) from error
    return module, first


def check_weights(own: Own) -> None:
    """Raise InputError for weights of another type than float32, and for those that overlap in memory.

    own: the module.
    """
    places: dict[int, str] = {}
    for name, weight in own.module.named_parameters():
        if weight.dtype != torch.float32:
            raise own.refused(f"has weights of {weight.dtype} ({name})", "call .float() on it where it is made")
        if weight.numel() and weight.data_ptr() in places:
            other = places[weight.data_ptr()]
            raise own.refused(
                f"has weights that are two and lie in the same memory, {other} and {name}",
                f"tie them as one parameter: self.{name} = self.{other}",
            )
        places[weight.data_ptr()] = name


def check_gradients(own: Own, module: nn.Module, inputs: Tensor, rng: torch.Generator, twice: bool) -> None:
    """Raise InputError for a decoder without finite gradients by its latents, or whose weights have no part in it.

    own: the module.
    module: a copy of it.
    inputs: (2, d), latents.
    rng: gives the random numbers, on the CPU.
    twice: whether the second derivative is needed.
    """
    weights = [each for each in module.parameters() if each.requires_grad]
    if not weights:
        raise own.refused("has no weights that are learned", "give it parameters of which some require a gradient")
    at = inputs.clone().requires_grad_()
    out = own(module, at)
    instead = "write it of differentiable functions of torch, without detach, no_grad, numpy and rounding"
    if not out.requires_grad:
        raise own.refused("has no gradient", instead)
    v = torch.randn(out.shape, generator=rng).to(out)
    with said_of(own.argument, f"{own.name}, differentiated", instead):
        gradient, *of_weights = torch.autograd.grad(
            (out * v).sum(), [at, *weights], create_graph=True, allow_unused=True
        )
    flat = gradient is not None and not gradient.any() and differ(out.detach()[:1], out.detach()[1:], ROUNDING)
    if gradient is None or flat:
        raise own.refused("has no gradient with respect to its latents", instead)
    if all(each is None for each in of_weights):
        raise own.refused("has weights, none of which has a part in what it returns", "use them in forward")
    second = gradient
    if twice and gradient.requires_grad:
        w = torch.randn(gradient.shape, generator=rng).to(gradient)
        with said_of(own.argument, f"{own.name}, differentiated twice", instead):
            (second,) = torch.autograd.grad((gradient * w).sum(), at, allow_unused=True)
    for what, each in (("gradient", gradient), ("second derivative", second)):
        if each is not None and not each.isfinite().all():
            raise own.refused(f"has a {what} that is not finite", LOOK)


def copied(own: Own) -> nn.Module:
    """Return a copy of a module; raise InputError where there can be none, as the average of the weights needs one.

    own: the module.
    """
    try:
        return copy.deepcopy(own.module)
    except Exception as error:  # what its attributes say of being copied is anybody's
        raise own.refused(
            f"cannot be copied ({reason(error)})",
            "write torch.nn.utils.parametrizations.weight_norm for weight_norm, and keep no tensors of a graph in it",
        ) from error


def changed(before: nn.Module, after: nn.Module) -> str | None:
    """Return the name of the first tensor of a module that another has with other numbers; None where there is none."""
    now = {**dict(after.named_parameters()), **dict(after.named_buffers())}
    for name, each in (*before.named_parameters(), *before.named_buffers()):
        if name not in now or not torch.equal(each.nan_to_num(), now[name].nan_to_num()):
            return name
    return next(iter(now.keys() - {name for name, _ in (*before.named_parameters(), *before.named_buffers())}), None)


def differ(one: Tensor, other: Tensor, share: float) -> bool:
    """Return whether outputs of one shape are further from one another than a share of the largest."""
    return float((one - other).abs().max()) > share * max(1.0, float(other.abs().max()))
