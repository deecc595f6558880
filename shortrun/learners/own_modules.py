"""Decoders and encoders of the user's own: made, and made ready, with one line where that fails."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from shortrun.errors import InputError, reason
from shortrun.registry import Names, find
from shortrun.streams import initial_weights


@contextmanager
def said_of(argument: str, what: str, instead: str) -> Iterator[None]:
    """Turn whatever code of the user's own raises into one line about an argument.

    The code is anybody's, so every exception is caught here.

    argument: whose value the code is.
    what: the code was asked to do, after its name: `Plain, called with (z_2, z_1)`, for example.
    instead: what to write.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            argument, problem=f"{what}, raised {type(error).__name__} ({reason(error)})", instead=instead
        ) from error


def made(names: Names, word: str, argument: str, arguments: Mapping[str, Any], seed: int) -> nn.Module:
    """Return the module that a word names, with new weights.

    names: of a registry.
    word: one of the names, or module:Name.
    argument: whose value the word is, for the error.
    arguments: that the function is called with, by name; `image_shape` and `latents` come first and without a name.
    seed: 0 or more, of the weights.

    Raises InputError where the function raises, or gives no module.
    """
    make = find(names, word, argument)
    keywords = {name: value for name, value in arguments.items() if name not in ("image_shape", "latents")}
    with initial_weights(seed):
        if word in names:
            return make(arguments["image_shape"], arguments["latents"], **keywords)
        call = f"image_shape, latents, *, {', '.join(keywords)}"
        with said_of(argument, f"{word!r}, called with {call}", f"write a function of ({call})"):
            module = make(arguments["image_shape"], arguments["latents"], **keywords)
    check_module(module, argument, repr(word))
    return module


def check_module(module: object, argument: str, name: str) -> None:
    """Raise InputError where what the user gave as a network is none.

    module: what was given.
    argument: whose value it is.
    name: of what gave it.
    """
    if not isinstance(module, nn.Module):
        found = f"the class {module.__name__}" if isinstance(module, type) else f"a {type(module).__name__}"
        raise InputError(
            argument, problem=f"{name} is {found}, no network", instead="give a torch.nn.Module, MyModule() for example"
        )


def ready(module: nn.Module, argument: str, inputs: Sequence[Tensor], seed: int) -> nn.Module:
    """Return a module whose lazy layers have their sizes, which the first call gives them.

    module: any; it is left as it is where nothing in it is lazy.
    argument: whose value it is, for the error.
    inputs: that it is called with.
    seed: 0 or more, of the weights that are made.
    """
    if any(is_lazy(each) for each in (*module.parameters(), *module.buffers())):
        name = type(module).__name__
        with (
            initial_weights(seed),
            torch.no_grad(),
            said_of(argument, called(name, inputs), "write what can be called so"),
        ):
            module(*inputs)
    return module


def called(name: str, inputs: Sequence[Tensor]) -> str:
    """Say what a module is called with, by the shapes: `Plain, called with tensors (2, 8), (2, 32)`."""
    return f"{name}, called with {', '.join(str(tuple(each.shape)) for each in inputs)}"
