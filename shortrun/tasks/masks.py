"""Masks of missing pixels, (n, 1, h, w) float32: 1 = observed, 0 = missing."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from shortrun.errors import InputError

Mask = Float[Tensor, "n 1 h w"]
Side = Literal["left", "right", "top", "bottom"]


def random_pixels(n: int, h: int, w: int, rng: torch.Generator, missing: float = 0.5) -> Mask:
    """Return masks (n, 1, h, w) that leave out pixels of each image at random.

    They are round(missing h w) pixels, at least one and not all.

    n: how many images.
    h: their height in pixels.
    w: their width in pixels.
    rng: gives the random numbers.
    missing: in (0, 1), the share of missing pixels; another raises InputError.

    >>> float(random_pixels(1, 4, 4, torch.Generator().manual_seed(0), missing=0.25).sum())
    12.0
    """
    check_missing(missing)
    count = min(max(round(missing * h * w), 1), h * w - 1)
    order = torch.rand(n, h * w, generator=rng, device=rng.device).argsort(dim=1).cpu()
    return torch.ones(n, h * w).scatter_(1, order[:, :count], 0.0).reshape(n, 1, h, w)


def centre_box(n: int, h: int, w: int, size: int | None = None) -> Mask:
    """Return masks (n, 1, h, w) that leave out a box in the centre.

    n: how many images.
    h: their height in pixels.
    w: their width in pixels.
    size: 1 to min(h, w), pixels of a side of the box; half of the shorter side of the image where not given.

    Raises InputError for another size.

    >>> centre_box(1, 4, 4, size=2)[0, 0, 1].tolist()
    [1.0, 0.0, 0.0, 1.0]
    """
    size = max(1, min(h, w) // 2) if size is None else size
    if not 1 <= size <= min(h, w):
        raise InputError("size", size, f"the side of the box is 1 to {min(h, w)} pixels here")
    mask = torch.ones(n, 1, h, w)
    top, left = (h - size) // 2, (w - size) // 2
    mask[:, :, top : top + size, left : left + size] = 0
    return mask


def stripes(n: int, h: int, w: int, size: int | None = None) -> Mask:
    """Return masks (n, 1, h, w) that leave out every other horizontal stripe; the top one is observed.

    n: how many images.
    h: their height in pixels.
    w: their width in pixels.
    size: 1 to h - 1, pixels of the height of a stripe; h / 8 where not given.

    Raises InputError for another size.

    >>> stripes(1, 4, 1, size=1).flatten().tolist()
    [1.0, 0.0, 1.0, 0.0]
    """
    size = max(1, h // 8) if size is None else size
    if not 1 <= size < h:
        raise InputError("size", size, f"stripes are 1 to {h - 1} pixels high here")
    observed = (torch.arange(h) // size % 2 == 0).float()
    return observed[None, None, :, None].repeat(n, 1, 1, w)


def half(n: int, h: int, w: int, keep: Side = "left") -> Mask:
    """Return masks (n, 1, h, w) that leave out one half; of an odd side the middle line is kept.

    n: how many images.
    h: their height in pixels.
    w: their width in pixels.
    keep: the half that is observed: left, right, top or bottom.

    >>> half(1, 1, 4, keep="right").flatten().tolist()
    [0.0, 0.0, 1.0, 1.0]
    """
    mask = torch.ones(n, 1, h, w)
    if keep in ("left", "right"):
        missing = mask[..., w - w // 2 :] if keep == "left" else mask[..., : w // 2]
    else:
        missing = mask[..., h - h // 2 :, :] if keep == "top" else mask[..., : h // 2, :]
    missing.fill_(0)
    return mask


def brush(n: int, h: int, w: int, rng: torch.Generator, missing: float = 0.3, size: int | None = None) -> Mask:
    """Return masks (n, 1, h, w) that leave out curved strokes of a brush, others for each image, until enough is gone.

    n: how many images.
    h: their height in pixels.
    w: their width in pixels.
    rng: gives the random numbers.
    missing: in (0, 1), the least share of missing pixels.
    size: 1 to min(h, w), pixels of the thickness of a stroke; an eighth of the shorter side where not given.

    Raises InputError for another share or size.

    >>> mask = brush(1, 8, 8, torch.Generator().manual_seed(0), missing=0.5)
    >>> bool(mask.mean() <= 0.5)
    True
    """
    check_missing(missing)
    size = max(1, round(min(h, w) / 8)) if size is None else size
    if not 1 <= size <= min(h, w):
        raise InputError("size", size, f"a stroke is 1 to {min(h, w)} pixels thick here")
    # a generator for each image: how many strokes one takes does not shift the next
    seeds = torch.randint(2**62, (n,), generator=rng, device=rng.device).tolist()
    pictures = [_brushed(h, w, torch.Generator().manual_seed(seed), missing, size) for seed in seeds]
    return torch.stack([torch.tensor(list(picture.tobytes())).reshape(1, h, w) for picture in pictures]).float()


def _brushed(h: int, w: int, rng: torch.Generator, missing: float, thickness: int) -> Image.Image:
    picture = Image.new("L", (w, h), 1)
    draw = ImageDraw.Draw(picture)
    while True:
        across, down, turn = torch.rand(3, generator=rng).tolist()
        x, y, angle = across * w, down * h, 2 * math.pi * turn
        bend, length = 0.3 * float(torch.randn(1, generator=rng)), 1.5 * thickness
        points = [(x, y)]
        for _ in range(4 + int(torch.randint(8, (1,), generator=rng))):
            angle += bend + 0.3 * float(torch.randn(1, generator=rng))  # it curves one way, with some trembling
            x = min(max(x + length * math.cos(angle), 0), w - 1)
            y = min(max(y + length * math.sin(angle), 0), h - 1)
            points.append((x, y))
            draw.line(points, fill=0, width=thickness, joint="curve")
            if picture.tobytes().count(0) >= missing * h * w:
                return picture


def check_missing(missing: float) -> None:
    """Raise InputError where the share of missing pixels is not between 0 and 1."""
    if not 0 < missing < 1:
        raise InputError("missing", missing, "write a share of the pixels between 0 and 1, 0.5 for example")
