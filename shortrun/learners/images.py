"""What images have to be where they come in from outside; nothing further in looks again."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from shortrun.config import LearnerConfig
from shortrun.errors import InputError
from shortrun.model.likelihood import Images, Mask, observed
from shortrun.pixels import squared_error

ROUNDING = 1e-3
"""How far pixels may leave [-1, 1]: resizing and other arithmetic do so."""


def check_images(description: LearnerConfig | None, x: Tensor) -> None:
    """Raise InputError where there are no images, or of another shape than the model's.

    description: of the model; None where nothing says its shape.
    x: (n, c, h, w), the images.
    """
    if x.ndim != 4 or not len(x):
        raise InputError("x", f"an array of shape {tuple(x.shape)}", "give at least one image, (n, c, h, w)")
    wanted = None if description is None else description.image_shape
    if wanted is not None and tuple(x.shape[1:]) != tuple(wanted):
        raise InputError(
            "x", f"images of {_by(x.shape[1:])}", f"the model has {_by(wanted)} (channels x height x width)"
        )


def check_pixels(x: Tensor, name: str = "x") -> None:
    """Raise InputError where pixels are not floats in [-1, 1].

    x: any number of images. name: of the argument.
    """
    if not x.is_floating_point():
        raise InputError(name, f"pixels of {x.dtype}", "give floats in [-1, 1], x / 127.5 - 1 of 8-bit ones")
    if not bool(x.isfinite().all()):
        raise InputError(name, "pixels that are not finite", "replace them, or hide them by a mask")
    low, high = float(x.min()), float(x.max())
    if low < -1 - ROUNDING or high > 1 + ROUNDING:
        raise InputError(name, f"pixels from {low:g} to {high:g}", "give [-1, 1], x / 127.5 - 1 of 0 to 255")


def check_weights(module: nn.Module) -> None:
    """Raise InputError where weights are not float32, in which chains, noise and images are.

    module: the learner.
    """
    for parameter in module.parameters():
        if parameter.dtype != torch.float32:
            raise InputError("learner", f"weights of {parameter.dtype}", "call its float() first")


def observed_error(made: Images, x: Images, mask: Mask | None) -> Float[Tensor, ""]:
    """Return the mean squared error over all observed pixels, for pixels in [0, 1].

    made: (n, c, h, w) in [-1, 1].
    x: (n, c, h, w) in [-1, 1]; what they hold at hidden pixels is not looked at.
    mask: (n, 1 or c, h, w), 1 = observed; None where all pixels are.
    """
    error = squared_error(made, x)
    if mask is None:
        return error.mean()
    return observed(error, mask).sum() / (mask > 0.5).expand_as(error).sum().clamp(min=1)


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
