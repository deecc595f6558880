"""Pixels of [-1, 1], as models see them, in the range [0, 1] of files, figures and quoted errors."""

from jaxtyping import Float
from torch import Tensor


def to_unit(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return images of [-1, 1] in [0, 1]; what lies outside is clipped."""
    return ((x + 1) / 2).clamp(0, 1)


def difference(x: Float[Tensor, "..."], y: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return x - y, pixel by pixel, as it is for pixels in [0, 1]: half of that of images in [-1, 1]."""
    return (x - y) / 2


def squared_error(x: Float[Tensor, "..."], y: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return the squared error of each pixel, for pixels in [0, 1], of images in [-1, 1]."""
    return difference(x, y) ** 2


def mse(x: Float[Tensor, "n c h w"], y: Float[Tensor, "n c h w"]) -> Float[Tensor, "n"]:
    """Return the mean squared error of each image, for pixels in [0, 1], of images in [-1, 1]."""
    return squared_error(x, y).flatten(1).mean(1)
