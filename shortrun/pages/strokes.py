"""What a visitor painted over a picture, as the browser sends it."""

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from shortrun.errors import InputError

LONGEST = 2_000_000
"""Characters; a picture painted pixel by pixel has fewer."""


def read_strokes(words: str, size: tuple[int, int]) -> Bool[Tensor, "h w"]:
    """Return where a picture is painted over.

    words: lengths of runs of pixels, row by row, with commas between: not painted, painted, not painted and so on.
    size: (h, w) of the picture.

    Raises InputError for other words, for runs that do not make the picture, and where nothing is painted.

    >>> read_strokes("1,2,1", (2, 2)).tolist()
    [[False, True], [True, False]]
    """
    h, w = size
    lengths = words.split(",") if len(words) <= LONGEST else []
    if not all(each.isascii() and each.isdigit() and len(each) < 10 for each in lengths):
        raise _other_picture()
    runs = np.array([int(each) for each in lengths], dtype=np.int64)
    if runs.sum() != h * w:
        raise _other_picture()
    painted = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(h, w)
    if not painted.any():
        raise InputError("picture", problem="nothing is painted over", instead="paint over what is to be filled in")
    return torch.from_numpy(painted)


def _other_picture() -> InputError:
    return InputError("picture", problem="what was painted is of another picture", instead="paint over it again")
