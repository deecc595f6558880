"""Linear operators of images, for `restore`: functions (n, c, h, w) -> (n, ...) that can be differentiated."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from shortrun.errors import InputError, check_at_least
from shortrun.model.linear_map import Operator

REACH = 4
"""Widths after which the weights of a blur are cut off."""


def identity() -> Operator:
    """Return x -> x: what is measured is the image with noise, and to restore it is denoising."""
    return lambda x: x


def blur(width: float) -> Operator:
    """Return x -> weighted means around each pixel, with the weights of a normal density.

    Weights are cut off at 4 widths and sum to 1. Beyond the border the image is taken to go on as its reflection, and
    as its border pixels where it is too small for that.

    width: a positive number, the standard deviation in pixels.

    Raises InputError for another width.

    >>> blurred = blur(1.0)(torch.eye(9)[4].reshape(1, 1, 1, 9).expand(1, 1, 9, 9))
    >>> [round(value, 2) for value in blurred[0, 0, 4].tolist()]
    [0.0, 0.0, 0.05, 0.24, 0.4, 0.24, 0.05, 0.0, 0.0]
    """
    if not 0 < width < math.inf:
        raise InputError("width", width, "write a positive number of pixels, 1.5 for example")
    reach = math.ceil(REACH * width)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1).double() / width) ** 2)
    weights /= weights.sum()

    def blurred(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        for axis in (2, 3):
            x = torch.einsum("nchw,gh->ncgw" if axis == 2 else "nchw,gw->nchg", x, _smoothing(weights, x, axis))
        return x

    return blurred


def _smoothing(weights: Float[Tensor, "k"], x: Float[Tensor, "n c h w"], axis: int) -> Float[Tensor, "g g"]:
    """Return the matrix that takes weighted means along an axis."""
    size, reach = x.shape[axis], len(weights) // 2
    from_pixel = torch.arange(size)[:, None] + torch.arange(-reach, reach + 1)
    turn = max(2 * (size - 1), 1)  # reflected about the middle of the border pixels, as often as it takes
    from_pixel = from_pixel.remainder(turn)
    from_pixel = torch.minimum(from_pixel, turn - from_pixel) if size > 1 else torch.zeros_like(from_pixel)
    matrix = torch.zeros(size, size, dtype=weights.dtype)
    return matrix.scatter_add_(1, from_pixel, weights.expand(size, -1)).to(x)


def downsample(factor: int) -> Operator:
    """Return x -> means of disjoint squares of pixels, (n, c, h / factor, w / factor): to restore is super-resolution.

    factor: at least 1, the pixels of a side of the squares; the sides of the images have to be multiples of it.

    Raises InputError for a factor below 1, and when it is called on images that it does not divide.

    >>> downsample(2)(torch.arange(4.0).reshape(1, 1, 2, 2)).item()
    1.5
    """
    check_at_least(1, factor=factor)

    def pooled(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c rows columns"]:
        height, width = x.shape[2:]
        if height % factor or width % factor:
            raise InputError("factor", factor, f"write one that divides {height} and {width}, the sides of the images")
        return functional.avg_pool2d(x, factor)

    return pooled


def mask(observed: Float[Tensor, "1 _ h w"]) -> Operator:
    """Return x -> the observed pixels of x, (n, m): to restore is to fill in the others.

    observed: (1, 1 or c, h, w), 1 = observed, the same for all images; `shortrun.tasks.masks` makes some.

    >>> mask(torch.tensor([[[[1.0, 0.0]]]]))(torch.tensor([[[[3.0, 4.0]]]])).tolist()
    [[3.0]]
    """
    return lambda x: x[:, (observed[0] > 0.5).to(x.device).expand(x.shape[1:])]


def chained(*operators: Operator) -> Operator:
    """Return the operators one after another, as one: blur, then downsample.

    operators: at least one; each but the first takes what the one before returns.

    >>> chained(identity(), downsample(2))(torch.ones(1, 1, 4, 4)).shape
    torch.Size([1, 1, 2, 2])
    """

    def applied(x: Tensor) -> Tensor:
        for operator in operators:
            x = operator(x)
        return x

    return applied
