"""Plain arrays of any usual layout and type -> image sets.

InputErrors are about the `path`, the file or folder that the arrays came from.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from shortrun.data.image_set import ROUNDING, ImageSet, PixelRange
from shortrun.errors import InputError

DARK = 31  # the largest 8-bit value of a set of images that is taken for another scale than 0 to 255


def channels_first(array: np.ndarray, path: str | Path) -> np.ndarray:
    """Return (n, h, w), (n, h, w, c) or (n, c, h, w) as (n, c, h, w), c in {1, 3}.

    Where both ends could be the channels, the last axis is. Raises InputError for other shapes.
    """
    wanted = "give (n, h, w), (n, h, w, c) or (n, c, h, w) with c = 1 or 3"
    found = f"{path} has an array of shape {'x'.join(map(str, array.shape)) or 'scalar'}"
    if array.size == 0:
        raise InputError("path", problem=f"{found}, which holds no images", instead=wanted)
    if array.ndim == 3:
        if array.shape[2] in (1, 3):
            raise InputError(
                "path", problem=f"{found}, which looks like one image", instead=f"{wanted}, so array[None] for one"
            )
        return array[:, None]
    if array.ndim == 4 and array.shape[3] in (1, 3):
        return array.transpose(0, 3, 1, 2)
    if array.ndim == 4 and array.shape[1] in (1, 3):
        return array
    raise InputError("path", problem=f"{found}, which is no set of grey or colour images", instead=wanted)


def image_sets(
    arrays: Sequence[np.ndarray],
    labels: Sequence[np.ndarray | None],
    path: str | Path,
    pixel_range: PixelRange | None = None,
    usual: PixelRange = "unit",
) -> tuple[ImageSet, ...]:
    """Return one set per array (n, h, w), (n, h, w, c) or (n, c, h, w), c in {1, 3}, all of one shape and range.

    Integers must lie in 0..255, bools become two levels. Floats lie in the pixel_range, where it is given. Where it is
    not, they lie in [-1, 1] if any is negative, and else in the `usual` range.

    Raises InputError for anything else, and for images that differ in shape.
    """
    found: PixelRange | None = None
    arrays = [channels_first(array, path) for array in arrays]
    first = arrays[0]
    for other in arrays[1:]:
        if other.shape[1:] != first.shape[1:] or other.dtype.kind != first.dtype.kind:
            raise InputError(
                "path",
                problem=(
                    f"{path} has train images of {first.dtype} {_by(first)} and test images of {other.dtype} "
                    f"{_by(other)} (channels x height x width)"
                ),
                instead="make them alike",
            )
    if first.dtype.kind == "b":
        pixels, levels = arrays, 2
    elif first.dtype.kind in "iu":
        pixels, levels = _eight_bit(arrays, path), 256
    elif first.dtype.kind == "f":
        levels, found = None, _checked_range(arrays, path, pixel_range, usual)
        pixels = _signed(arrays, found)
    else:
        raise InputError(
            "path", problem=f"{path} has images of type {first.dtype}", instead="give uint8, bool or float"
        )
    kind = np.float32 if levels is None else np.uint8
    return tuple(
        ImageSet(
            torch.from_numpy(np.require(array, kind, ["C", "W"])),
            None if y is None else as_labels(y, len(array), path),
            levels,
            pixel_range=found,
        )
        for array, y in zip(pixels, labels, strict=True)
    )


def as_labels(array: np.ndarray, n: int, path: str | Path) -> Int64[Tensor, "n"]:
    """Return whole-number labels (n,) or (n, 1) as int64; raises InputError for others."""
    if array.shape not in ((n,), (n, 1)):
        raise InputError(
            "path",
            problem=f"{path} has labels of shape {'x'.join(map(str, array.shape))} for {n} images",
            instead="give one each",
        )
    if array.dtype.kind not in "iufb" or not np.array_equal(array, np.trunc(array.astype(np.float64))):
        raise InputError(
            "path",
            problem=f"{path} has labels of type {array.dtype} that are not whole numbers",
            instead="give integers",
        )
    return torch.from_numpy(array.reshape(n).astype(np.int64))


def _by(array: np.ndarray) -> str:
    return "x".join(map(str, array.shape[1:]))


def _range(arrays: Sequence[np.ndarray]) -> tuple[float, float]:
    return min(float(a.min()) for a in arrays), max(float(a.max()) for a in arrays)


def _eight_bit(arrays: Sequence[np.ndarray], path: str | Path) -> Sequence[np.ndarray]:
    low, high = _range(arrays)
    if low < 0 or high > 255:
        raise InputError(
            "path",
            problem=f"{path} has whole numbers from {low:g} to {high:g}",
            instead="give 0 to 255, or floats in [0, 1]: divided by the number that is white, 65535 for example",
        )
    if high == 1 or (0 < high <= DARK and sum(map(len, arrays)) > 1):
        # as 8-bit levels these would all be nearly black, which nobody means; one dark image may be meant
        of_two = f"{path} has whole numbers that are only 0 and 1", "save them as bool, or as 0 and 255"
        of_more = (
            f"{path} has whole numbers up to {high:g}, which as 8-bit pixels are nearly black",
            "save floats in [0, 1]: divided by the number that is white",
        )
        problem, instead = of_two if high == 1 else of_more
        raise InputError("path", problem=problem, instead=instead)
    return arrays


def _checked_range(
    arrays: Sequence[np.ndarray], path: str | Path, pixel_range: PixelRange | None, usual: PixelRange
) -> PixelRange:
    """Return what floats mean; raise InputError where they lie outside of it."""
    low, high = _range(arrays)
    if not (low >= -1 - ROUNDING and high <= 1 + ROUNDING):  # NaN fails both
        raise InputError(
            "path",
            problem=f"{path} has numbers from {low:g} to {high:g}",
            instead="give [0, 1] or [-1, 1], or uint8 0 to 255",
        )
    if pixel_range == "unit" and low < -ROUNDING:
        raise InputError("pixel_range", f"'unit', and {path} has numbers from {low:g} to {high:g}", "write signed")
    return pixel_range or ("signed" if low < 0 else usual)


def _signed(arrays: Sequence[np.ndarray], found: PixelRange) -> Sequence[np.ndarray]:
    """Return floats of a range as float32 in [-1, 1]."""
    if found == "signed":
        return [array.astype(np.float32).clip(-1, 1) for array in arrays]
    return [array.astype(np.float32).clip(0, 1) * 2 - 1 for array in arrays]
