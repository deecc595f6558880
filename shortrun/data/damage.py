"""Photos at their own size, and where each is damaged.

InputErrors are about the `images` and the `mask`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from shortrun.data.folders import list_images, name_in
from shortrun.data.own_images import OBSERVED_FROM
from shortrun.data.pictures import is_image_file, open_picture, plain
from shortrun.errors import InputError, renaming

ALPHA = "alpha"
COLOUR = re.compile(r"#?([0-9a-fA-F]{6})")
NEAR = 48
"""How far each of red, green and blue may be from the colour of damage, of 255: JPEG files blur what was painted."""


@dataclass(frozen=True)
class Damage:
    """Where photos are damaged: the masks of a folder or a file, transparent pixels, or pixels of a colour.

    source: a folder of masks that are named like the photos; a mask for all of them, white where observed; or `alpha`
        for what is transparent.
    colour: #rrggbb, of what is damaged, in place of a source.

    Raises InputError for what is no colour.
    """

    source: str = ""
    colour: str = ""

    def __post_init__(self) -> None:
        if self.colour and not COLOUR.fullmatch(self.colour):
            raise InputError("mask_colour", repr(self.colour), "write red, green and blue, '#ff00ff' for example")

    def of(self, path: Path, folder: Path) -> Path | None:
        """Return the mask of a photo; None where the photo itself shows its damage.

        path: of the photo.
        folder: that its name is a path in.
        """
        if self.colour or self.source == ALPHA:
            return None
        source = Path(self.source).expanduser()
        if source.is_file():
            return source
        wanted = source / name_in(folder, path)
        named = (other for other in sorted(wanted.parent.glob("*")) if other.stem == wanted.name)
        if (found := next(filter(is_image_file, named), None)) is None:
            raise InputError("mask", problem=f"{source} has none for {path}", instead="name masks like the photos")
        return found


@dataclass(frozen=True)
class DamagedPhoto:
    """A photo and where it is not damaged."""

    name: str
    """Its path in the folder of the photos, without the end of its file name."""
    pixels: UInt8[Tensor, "c height width"]
    observed: Bool[Tensor, "height width"]


def list_photos(path: Path) -> list[Path]:
    """Return the picture files of a folder, sorted, or the one file.

    path: of either; raises InputError where it is neither.
    """
    path = Path(path).expanduser()
    with renaming({"path": "images"}):
        if path.is_dir():
            return list_images(path)
    if path.is_file() and is_image_file(path):
        return [path]
    raise InputError("images", problem=f"{path} is no picture and no folder of them", instead="give png, jpg, ...")


def read_photo(path: Path, folder: Path, damage: Damage, grey: bool) -> DamagedPhoto:
    """Return a photo at its own size and where it is observed.

    path: of the photo.
    folder: that its name is a path in; the photo itself where it was given alone.
    damage: where to look for it.
    grey: whether the photo is turned to grey.

    Raises InputError for files that cannot be read, a photo without a single observed pixel, and one without
    transparency where that is to be the mask.
    """
    mask = damage.of(path, folder)
    with renaming({"path": "images"}):
        picture = open_picture(path)
        shown = plain(picture, path)
    kept = np.asarray(shown.convert("L" if grey else "RGB"))
    pixels = torch.from_numpy((kept[None] if grey else kept.transpose(2, 0, 1)).copy())
    if mask is not None:
        observed = _of_picture(mask, picture.size)
    elif damage.colour:
        wanted = [int(part, 16) for part in re.findall("..", damage.colour.removeprefix("#"))]
        away = np.abs(np.asarray(shown.convert("RGB")).astype(int) - wanted).max(2)
        observed = away > NEAR
    elif picture.has_transparency_data:
        observed = np.asarray(picture.convert("RGBA"))[..., 3] >= OBSERVED_FROM
    else:
        raise InputError("mask", problem=f"{path} has no transparent pixels", instead="write a folder of masks, or PNG")
    if not observed.any():
        raise InputError("mask", problem=f"no pixel of {path} is observed", instead="leave that photo out")
    return DamagedPhoto(name_in(folder, path), pixels, torch.from_numpy(observed.copy()))


def _of_picture(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Return where a mask is white, at the size of its photo, (width, height)."""
    from PIL import Image

    with renaming({"path": "mask"}):
        mask = plain(open_picture(path), path).convert("L")
    # as the photo was fitted, so its mask: a pixel counts as observed where the nearest of the mask is
    return np.asarray(mask.resize(size, Image.Resampling.NEAREST) if mask.size != size else mask) >= OBSERVED_FROM
