"""The weights of matrix products in the precision of autocast, cast once for a whole chain."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

Result = TypeVar("Result")

PRODUCTS = (nn.Linear, nn.modules.conv._ConvNd)
"""Modules whose weights autocast casts at every call. Others may compute in float32 whatever autocast says."""


class _Run(nn.Module):
    """A module beside the function that `functional_call` is to call."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, run: Callable[[], Result]) -> Result:
        return run()


def cast_weights(module: nn.Module, device: torch.device) -> dict[str, Tensor]:
    """Return the weights of a module's matrix products in the precision of autocast, by name.

    Those of convolutions lie channels last, in which oneDNN and cuDNN compute; what they return then does so too. None
    where autocast is off.

    module: any.
    device: where its weights are.
    """
    if not torch.is_autocast_enabled(device.type):
        return {}
    dtype, cast, seen = torch.get_autocast_dtype(device.type), {}, set()
    for name, owner in module.named_modules():
        if isinstance(owner, PRODUCTS):
            for part, weight in owner.named_parameters(name, recurse=False):
                if id(weight) in seen:  # tied: `call_with` puts what it is given in place of all of them
                    continue
                seen.add(id(weight))
                layout = torch.channels_last if weight.ndim == 4 else torch.preserve_format
                cast[part] = weight.detach().to(dtype, memory_format=layout)
    return cast


def cast_once(module: nn.Module, device: torch.device, run: Callable[[], Result]) -> Result:
    """Return what a function returns, which runs with the weights of matrix products in the precision of autocast.

    Autocast casts a frozen weight anew at every call, because it remembers only those that are learned: in a chain, K
    times an update. The weights of the block get no gradients.

    module: whose weights are cast; they are the old ones again afterwards.
    device: where its weights are.
    run: called without arguments.

    >>> layer = nn.Linear(2, 3)
    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     cast_once(layer, torch.device("cpu"), lambda: layer.weight.dtype), layer.weight.dtype
    (torch.bfloat16, torch.float32)
    """
    return call_with(module, cast_weights(module, device), run)


def call_with(module: nn.Module, weights: Mapping[str, Tensor], run: Callable[[], Result]) -> Result:
    """Return what a function returns, which runs with other tensors in place of a module's weights.

    module: any.
    weights: by name.
    run: called without arguments.
    """
    if not weights:
        return run()
    placed = {f"module.{name}": part for name, part in _everywhere(module, weights).items()}
    # tied weights are put into all their places here: `functional_call` would leave a module that is in two places with
    # the new ones
    return torch.func.functional_call(_Run(module), placed, (run,), tie_weights=False)


def _everywhere(module: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors by name that stand in place of a module's weights, those of tied ones by all their names."""
    new = {id(old): weights[name] for name, old in module.named_parameters() if name in weights}
    return {
        f"{place}.{name}" if place else name: new[id(old)]
        for place, owner in module.named_modules()
        for name, old in owner._parameters.items()
        if id(old) in new
    }


def is_cast(weight: Tensor) -> bool:
    """Return whether what stands in place of a module's weight is another tensor, as within `cast_once`.

    weight: as `parameters` of the module gives it.
    """
    return not isinstance(weight, nn.Parameter)
