"""Pictures: grids of images as PNG. The one place where [-1, 1] becomes bytes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from shortrun.files import replacing
from shortrun.pixels import to_unit

Images = Float[Tensor, "n c h w"]
BLUES = ((70.0, 100.0, 200.0), (110.0, 140.0, 230.0))
GREYS = ((150.0, 150.0, 150.0), (205.0, 205.0, 205.0))
"""The colours, in bytes, of missing pixels: blue in grey images, in colour ones the grey of an empty canvas."""


def to_bytes(x: Images) -> UInt8[np.ndarray, "n h w c"]:
    """Return images of [-1, 1] as bytes, channels last."""
    return (to_unit(x.detach().float().cpu()) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def grid(images: Images, columns: int, gap: int = 2) -> Image.Image:
    """Lay images of [-1, 1] out in rows, first image top left, small ones magnified by whole pixels."""
    tiles = to_bytes(images)
    if tiles.shape[3] == 1:
        tiles = tiles.repeat(3, axis=3)
    count, height, width, _ = tiles.shape
    factor = max(1, round(48 / max(height, width)))
    tiles = tiles.repeat(factor, axis=1).repeat(factor, axis=2)
    height, width = height * factor, width * factor
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, dtype=np.uint8)
    for index, tile in enumerate(tiles):
        top = gap + (index // columns) * (height + gap)
        left = gap + (index % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = tile
    return Image.fromarray(sheet)


def captioned_rows(rows: Sequence[tuple[str, Float[Tensor, "_ c h w"]]]) -> Image.Image:
    """Lay rows of images out under each other, each with its caption to the left."""
    strips = [grid(images, columns=len(images)) for _, images in rows]
    font = ImageFont.load_default(size=14)
    margin = 12 + max(int(font.getlength(caption)) for caption, _ in rows)
    sheet = Image.new("RGB", (margin + max(strip.width for strip in strips), sum(s.height for s in strips)), "white")
    draw, top = ImageDraw.Draw(sheet), 0
    for (caption, _), strip in zip(rows, strips, strict=True):
        draw.text((6, top + strip.height // 2), caption, fill="black", font=font, anchor="lm")
        sheet.paste(strip, (margin, top))
        top += strip.height
    return sheet


def titled(picture: Image.Image, title: str) -> Image.Image:
    """Put a line of words above a picture."""
    font = ImageFont.load_default(size=14)
    sheet = Image.new("RGB", (max(picture.width, 12 + int(font.getlength(title))), picture.height + 26), "white")
    ImageDraw.Draw(sheet).text((6, 14), title, fill="black", font=font, anchor="lm")
    sheet.paste(picture, (0, 26))
    return sheet


def side_by_side(pictures: Sequence[Image.Image], gap: int = 16) -> Image.Image:
    """Lay pictures out beside each other, their tops in line."""
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    sheet = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white")
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width + gap
    return sheet


def to_rgb(x: Images) -> Float[Tensor, "n 3 h w"]:
    """Return grey images in three equal channels; colour ones as they are."""
    return x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x


def shade_missing(x: Images, mask: Float[Tensor, "#n _ h w"]) -> Float[Tensor, "n 3 h w"]:
    """Show missing pixels (mask 0) as a checker: of two blues in grey images, of two greys in colour ones.

    With a mask for each channel a pixel counts as missing where any of its channels is.
    """
    colours = torch.tensor(BLUES if x.shape[1] == 1 else GREYS, dtype=x.dtype, device=x.device) / 127.5 - 1
    down, across = torch.arange(x.shape[2]), torch.arange(x.shape[3])
    checker = colours[(down[:, None] + across) % 2].permute(2, 0, 1)
    seen = (mask > 0.5).all(dim=1, keepdim=True)
    return torch.where(seen, to_rgb(x), checker)


def heat(values: Float[Tensor, "n 1 h w"], top: float) -> Float[Tensor, "n 3 h w"]:
    """Show numbers as heat, in [-1, 1]: 0 is black, then red and yellow, `top` and above are white.

    The lightness rises all along the ramp, so that it can be read in grey too.
    """
    height = (values / top if top > 0 else torch.zeros_like(values)).clamp(0, 1)
    return torch.cat([(3 * height - start).clamp(0, 1) for start in range(3)], dim=1) * 2 - 1


def write_png(picture: Image.Image, path: Path, notes: Mapping[str, str] | None = None) -> None:
    """Write a picture as PNG, whole or not at all; notes: text that goes into the file, by keyword."""
    text = PngInfo()
    for keyword, words in (notes or {}).items():
        text.add_text(keyword, words)
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG", pnginfo=text)
