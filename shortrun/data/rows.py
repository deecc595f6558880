"""Images as rows of numbers of any range, as scikit-learn has them, and back."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.data.image_set import ImageSet
from shortrun.errors import InputError, renaming

ROUNDING = 1e-6
"""How far a number may leave the range that was said, as a share of it."""


@dataclass(frozen=True)
class Rows:
    """How rows of numbers stand for images.

    shape: (c, h, w) of an image.
    given: the shape of an image where rows came in, and go out: (pixels,), (h, w) or (c, h, w).
    low: the number that is -1 in the model, black for example.
    high: the number that is 1, larger than `low`.
    stated: whether the user said so: other numbers are then refused, and else taken for the nearer end.
    levels: values that a pixel can take, 2 to 256; None for numbers without steps.

    Raises InputError where the range has no width, for sizes that do not fit, and for other levels.

    >>> rows = Rows((1, 2, 2), (4,), low=0.0, high=16.0)
    >>> rows.image_set(np.array([[0.0, 4.0, 8.0, 16.0]])).images().flatten().tolist()
    [-1.0, -0.5, 0.0, 1.0]
    >>> rows.numbers(torch.tensor([-1.0, -0.5, 0.0, 1.0]).view(1, 1, 2, 2)).tolist()
    [[0.0, 4.0, 8.0, 16.0]]
    """

    shape: tuple[int, ...]
    given: tuple[int, ...]
    low: float
    high: float
    stated: bool = False
    levels: int | None = None

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise InputError("pixel_range", (self.low, self.high), "write two finite numbers, the lower one first")
        if len(self.shape) != 3 or min(self.shape) < 1 or math.prod(self.shape) != math.prod(self.given):
            pixels = math.prod(self.given)
            raise InputError("image_shape", self.shape, f"write channels, height, width that make {pixels} pixels")
        if self.levels is not None and not 2 <= self.levels <= 256:
            raise InputError("levels", self.levels, "write 2 to 256, or None")

    @property
    def log_scale(self) -> float:
        """log |dx / dnumber| of a pixel: what makes a log density of pixels in [-1, 1] one of the rows' numbers."""
        return math.log(2 / (self.high - self.low))

    def image_set(self, rows: Float[np.ndarray, "n pixels"]) -> ImageSet:
        """Return the images of rows.

        rows: (n, pixels), finite numbers.

        Raises InputError for numbers outside of a range that was said, and for images with their channels last.
        """
        unit = (rows.astype(np.float64) - self.low) / (self.high - self.low)
        if self.stated and (unit.min() < -ROUNDING or unit.max() > 1 + ROUNDING):
            got = f"numbers from {rows.min():g} to {rows.max():g}"
            raise InputError("X", got, f"pixel_range says {self.low:g} to {self.high:g}")
        unit = unit.clip(0, 1).reshape(len(rows), *self.shape)
        with renaming({"pixels": "X"}):
            if self.levels is None:
                return ImageSet(torch.from_numpy((2 * unit - 1).astype(np.float32)))
            return ImageSet(torch.from_numpy((unit * (self.levels - 1)).round().astype(np.uint8)), levels=self.levels)

    def numbers(self, x: Float[Tensor, "n c h w"]) -> Float[np.ndarray, "n ..."]:
        """Return images in the shape and the range that rows came in, float32.

        x: (n, c, h, w) in [-1, 1].
        """
        unit = (x.numpy().astype(np.float64) + 1) / 2
        return (self.low + unit * (self.high - self.low)).astype(np.float32).reshape(len(x), *self.given)


def likely_shape(given: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the (c, h, w) that images of a shape have: a line of pixels is a square where one has as many.

    given: (pixels,), (h, w) or (c, h, w).

    >>> likely_shape((64,)), likely_shape((5,)), likely_shape((4, 6))
    ((1, 8, 8), (1, 1, 5), (1, 4, 6))
    """
    if len(given) == 1:
        side = math.isqrt(given[0])
        return (1, side, side) if side * side == given[0] else (1, 1, given[0])
    c, h, w = (1, *given) if len(given) == 2 else given
    return c, h, w
