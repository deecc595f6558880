"""Image files -> pixels.

InputErrors are about the `path`, the file; the pictures of another source are named by where they stand in it.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from shortrun.data.framing import Framing
from shortrun.errors import InputError, reading
from shortrun.memory import check_fits
from shortrun.progress import shown

if TYPE_CHECKING:
    import PIL.Image

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".pgm", ".ppm"))
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
"""What files may hold, whatever their names say: Pillow reads others by starting programs, Ghostscript for EPS."""
GREY_MODES = ("1", "L", "LA", "La")
ORIENTATION = 0x0112
"""The EXIF tag that says how a camera was held; from 5 on, width and height are exchanged."""
MOST_PIXELS = 80_000_000
"""A picture with more pixels than that is refused before it is decoded: as a file it may be small."""
STRIP = 2**20
"""Pixels of a picture that are put on white at a time."""
SILENT_UP_TO = 2000  # images that are read without a progress bar
CHUNK = 512  # files handed to the threads at one time, so that an error is soon seen


def is_image_file(path: Path) -> bool:
    """Say by its name whether a file is an image that can be read; hidden files are not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def open_picture(path: Path) -> "PIL.Image.Image":
    """Return an image file (its first frame), turned as its EXIF orientation says; InputError where it is damaged."""
    from PIL import Image, ImageOps

    if not os.path.exists(path):
        raise InputError("path", problem=f"{path} does not exist", instead="write the path of a file")
    with (
        reading(path, "damaged or of an unknown kind", "replace or remove it"),
        Image.open(path, formats=FORMATS) as picture,
    ):
        if picture.width * picture.height > MOST_PIXELS:
            size = f"{picture.width}x{picture.height} pixels"
            raise InputError("path", problem=f"{path} has {size}", instead=f"make it {MOST_PIXELS:,} at most")
        return ImageOps.exif_transpose(picture)


class Header(NamedTuple):
    """What an image file says of itself before its pixels."""

    width: int
    height: int
    grey: bool


def header(path: Path) -> Header:
    """Return size and kind of an image file, turned as its EXIF orientation says, from its first bytes.

    path: of the file.

    Raises InputError where it is damaged.
    """
    from PIL import Image

    with (
        reading(path, "damaged or of an unknown kind", "replace or remove it"),
        Image.open(path, formats=FORMATS) as picture,
    ):
        grey = picture.mode in GREY_MODES or picture.mode.startswith("I")
        if picture.getexif().get(ORIENTATION, 1) >= 5:
            return Header(picture.height, picture.width, grey)
        return Header(picture.width, picture.height, grey)


def plain(picture: "PIL.Image.Image", name: str | Path) -> "PIL.Image.Image":
    """Return a picture as 8-bit grey (mode L) or colour (RGB); what is transparent shows white."""
    from PIL import Image

    if picture.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
        deep = np.asarray(picture)
        if deep.min() < 0 or 0 < deep.max() < 4096 or deep.max() > 65535:
            problem = f"{name} has 16-bit pixels from {deep.min()} to {deep.max()}, of which the white is not known"
            raise InputError("path", problem=problem, instead="scale them to 0 to 65535, or save them with 8 bits")
        return Image.fromarray((deep >> 8).astype(np.uint8))
    if picture.mode == "F":
        raise InputError("path", problem=f"{name} has floating-point pixels", instead="save it with 8 bits, or as .npy")
    mode = "L" if picture.mode in GREY_MODES else "RGB"
    if picture.has_transparency_data:
        return _on_white(picture, mode)
    return picture.convert(mode)


def _on_white(picture: "PIL.Image.Image", mode: str) -> "PIL.Image.Image":
    """Return a picture on white: the colours under transparent pixels are nobody's, programs leave any there.

    A strip is done at a time. All of a large picture at once would take five times the memory of the picture.
    """
    from PIL import Image

    whole = Image.new(mode, picture.size)
    height = max(1, STRIP // picture.width)
    for top in range(0, picture.height, height):
        strip = picture.crop((0, top, picture.width, min(top + height, picture.height))).convert("RGBA")
        whole.paste(Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip).convert(mode), (0, top))
    return whole


def frame(picture: "PIL.Image.Image", framing: Framing, name: str) -> UInt8[np.ndarray, "c h w"]:
    """Return a picture cropped and resized (Pillow's antialiased bicubic) as (c, h, w), c = 1 if it is grey, else 3."""
    from PIL import Image

    picture = plain(picture, name)
    top, left, height, width = framing.box(picture.height, picture.width, name)
    box = (left, top, left + width, top + height)
    if framing.size is not None and framing.size != (height, width):
        # cropped first: a resize with a box would let pixels outside of it in
        picture = picture.crop(box).resize((framing.size[1], framing.size[0]), Image.Resampling.BICUBIC)
    elif (height, width) != (picture.height, picture.width):
        picture = picture.crop(box)
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def stack(pictures: Iterable[tuple[str, np.ndarray]], n: int, remedy: str) -> UInt8[Tensor, "n c h w"]:
    """Return n named pictures (c, h, w) as one tensor; InputError names the first that differs and ends in `remedy`.

    Grey pictures among colour ones become colour, and a line on stderr says how many.
    """
    pixels: np.ndarray | None = None
    first, first_name, grey = np.empty(0), "", 0
    for row, (name, picture) in enumerate(shown(pictures, "reading", "image", n, SILENT_UP_TO)):
        if pixels is None:
            check_fits(n * picture.size, "path", f"{n:,} images like {name}", f"give fewer, or {remedy}")
            pixels, first, first_name = np.empty((n, *picture.shape), np.uint8), picture, name
        if picture.shape[1:] != first.shape[1:]:
            raise InputError(
                "path",
                problem=f"{name} is {_size(picture)} (height x width), while {first_name} is {_size(first)}",
                instead=remedy,
            )
        if len(picture) > pixels.shape[1]:
            check_fits(n * picture.size, "path", f"{n:,} images like {name}", f"give fewer, or {remedy}")
            pixels = pixels.repeat(len(picture), 1)
        grey += len(picture) == 1
        pixels[row] = picture
    if pixels is None:
        raise InputError("path", problem="there are no images", instead="give at least one")
    if grey and pixels.shape[1] > 1:
        print(f"grey images, {grey:,} of {n:,}, are taken as colour", file=sys.stderr)
    return torch.from_numpy(pixels)


def framed_files(paths: Sequence[Path], framing: Framing) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, pixels (c, h, w)) of image files in order, each decoded once, in threads."""

    def read(path: Path) -> tuple[str, np.ndarray]:
        return str(path), frame(open_picture(path), framing, str(path))

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for start in range(0, len(paths), CHUNK):
            yield from threads.map(read, paths[start : start + CHUNK])


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[1]}x{picture.shape[2]}"
