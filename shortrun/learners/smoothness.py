"""Whether a decoder is smooth enough for a Langevin chain, whose log-determinants need its second derivative."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

Function = Callable[[nn.Module, Tensor], Tensor]
"""A module and its inputs, (n, d), to its outputs, (n, ...)."""

KINKED = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.SELU, nn.Threshold),
    *(nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Hardshrink, nn.Softshrink),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)
"""Layers of PyTorch whose derivative jumps."""
KINKED_FUNCTIONS = ("relu", "leaky_relu", "prelu", "rrelu", "threshold", "hardtanh", "hardsigmoid", "hardswish")
POOLS = ("max_pool", "adaptive_max_pool", "fractional_max_pool", "mkldnn_max_pool")
"""How the names of PyTorch's functions begin whose derivative jumps."""
POINTS = 17
"""Places on a line between two draws of latents where the derivative is first looked at."""
PARTS = 10
"""Parts that the interval with the largest change is cut into, each time again."""
CUTS = 5
"""Times that it is cut: the last intervals are 1 / 1,600,000 of the line."""
STAYS = 0.5
"""Share of a change that is left after two more cuts where the derivative jumps; a smooth one leaves 1 / PARTS^2."""
SEEN = 1e-7
"""Change of a derivative, relative to its largest value, that is no rounding of float64."""


def kinked_layer(module: nn.Module) -> str | None:
    """Return the name and the kind of the first layer whose derivative jumps; None where there is none.

    ELU and CELU have a derivative without jumps where alpha is 1, and are let through.

    module: any.
    """
    for name, layer in module.named_modules():
        bent = isinstance(layer, nn.ELU) and not isinstance(layer, nn.SELU) and layer.alpha != 1
        if isinstance(layer, KINKED) or bent:
            return f"{name or 'itself'}, of kind {type(layer).__name__},"
    return None


class _Functions(TorchDispatchMode):
    """Collects the names of all functions that tensors go through."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func.overloadpacket.__name__))
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def kinked_function(function: Function, module: nn.Module, z: Tensor) -> str | None:
    """Return the name of the first of PyTorch's functions in a module whose derivative jumps; None where there is none.

    function: calls the module.
    module: any.
    z: (n, d), its inputs.
    """
    with _Functions() as called:
        function(module, z)
    return next((name for name in called.names if name.strip("_").startswith((*KINKED_FUNCTIONS, *POOLS))), None)


def has_convolutions(module: nn.Module) -> bool:
    """Return whether a module has convolutions, which take far longer in float64 than in float32.

    module: any.
    """
    return any(isinstance(layer, nn.modules.conv._ConvNd) for layer in module.modules())


def derivative_jumps(function: Function, module: nn.Module, z: Tensor, rng: torch.Generator) -> bool:
    """Return whether a derivative of a module jumps on a line between two inputs.

        phi(t) = v^T f(a + t (b - a)),   |phi'(t + h) - phi'(t)| -> 0 as h -> 0 where f has a continuous derivative

    The interval is cut again and again in which the change of phi' stands out most from the others. What a smooth
    function changes there shrinks with the interval, a jump stays. Everything is computed in float64 by a copy of the
    module. A module that cannot compute in float64 counts as smooth.

    function: calls the module.
    module: treats its inputs apart, and draws no random numbers.
    z: (2, d), the inputs a and b.
    rng: gives v, on the CPU.
    """
    try:
        return _jumps(function, copy.deepcopy(module).double(), z.double(), rng)
    except (RuntimeError, TypeError, ValueError):  # it has tensors or casts of its own that stay in float32
        return False


def _jumps(function: Function, module: nn.Module, z: Tensor, rng: torch.Generator) -> bool:
    direction, v = z[1] - z[0], None

    def slope(t: Tensor) -> Tensor:
        nonlocal v
        at = (z[0] + t[:, None] * direction).requires_grad_()
        out = function(module, at).flatten(1)
        if v is None:
            v = torch.randn(out.shape[1], generator=rng, dtype=torch.float64).to(out)
        (gradient,) = torch.autograd.grad((out @ v).sum(), at)
        return gradient @ direction

    places = torch.linspace(0, 1, POINTS, dtype=z.dtype, device=z.device)
    slopes = slope(places)
    largest, changes = float(slopes.abs().max()), list[float]()
    for _ in range(CUTS):
        change = slopes.diff()
        i = int((change - change.median()).abs().argmax())
        changes.append(float(change[i].abs()))
        share = torch.linspace(0, 1, PARTS + 1, dtype=z.dtype, device=z.device)
        places = places[i] + share * (places[i + 1] - places[i])
        slopes = slope(places)
    changes.append(float(slopes.diff().abs().max()))
    return changes[-1] > SEEN * largest and changes[-1] > STAYS * changes[-3]
