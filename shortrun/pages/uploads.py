"""A visitor's own picture: opened as every image file is, and refused where it is too much."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from shortrun.data.pictures import header, open_picture, plain
from shortrun.errors import InputError

MOST_PIXELS = 20_000_000
"""Of an upload; a file of few bytes may hold more."""
SIDE = 512
"""Pixels of the longer side, to which larger pictures are made smaller: they are filled in while the visitor waits."""
LONGEST = 4
"""How many times as long as wide a picture may be: each square of it is filled in by a window of its own."""


def read_upload(path: Path, grey: bool) -> UInt8[Tensor, "c height width"]:
    """Return a visitor's picture, made smaller where its longer side is above `SIDE`.

    path: where the upload lies.
    grey: whether it is turned to grey.

    Raises InputError, which names the file without its folder, where it is damaged, of an unknown kind, of too many
    pixels, or of a shape that takes too many windows.
    """
    try:
        found = header(path)
        _check(found.height, found.width)
        picture = plain(open_picture(path), path.name).convert("L" if grey else "RGB")
    except InputError as error:
        # a visitor need not know where uploads lie
        raise InputError(
            "picture", problem=error.problem.replace(str(path), path.name), instead=error.instead
        ) from None
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = np.asarray(picture)
    return torch.from_numpy((pixels[None] if grey else pixels.transpose(2, 0, 1)).copy())


def _check(height: int, width: int) -> None:
    if height * width > MOST_PIXELS:
        raise InputError(
            "picture", problem=f"it has {width}x{height} pixels", instead=f"give one of {MOST_PIXELS:,} at most"
        )
    if max(height, width) > LONGEST * min(height, width):
        raise InputError(
            "picture", problem=f"it has {width}x{height} pixels", instead=f"cut it to {LONGEST} to 1 at most"
        )
