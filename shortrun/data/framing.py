"""Which part of an image is kept and what size it gets."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from shortrun.data.image_set import ImageSet
from shortrun.errors import InputError
from shortrun.memory import check_fits

CHUNK = 4096  # images that are float32 at one time


@dataclass(frozen=True)
class Framing:
    """A centre crop of `crop` x `crop` pixels, then a resize to `size` (h, w); either may be left out.

    With a size alone the crop is the largest one of that shape; with neither, images stay as they are.
    """

    crop: int | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.crop is not None and self.crop < 1:
            raise InputError("crop", self.crop, "give 1 pixel or more")
        if self.size is not None and min(self.size) < 1:
            raise InputError("size", min(self.size), "give 1 pixel or more")

    def box(self, height: int, width: int, name: str) -> tuple[int, int, int, int]:
        """Return (top, left, height, width) of the crop; raises InputError where the picture is smaller."""
        kept_height, kept_width = height, width
        if self.crop is not None:
            if self.crop > min(height, width):
                raise InputError(
                    "crop",
                    f"{self.crop}, but {name} is only {height}x{width} (height x width)",
                    f"give at most {min(height, width)}",
                )
            kept_height = kept_width = self.crop
        elif self.size is not None:
            scale = min(height / self.size[0], width / self.size[1])
            kept_height = min(height, max(1, round(self.size[0] * scale)))
            kept_width = min(width, max(1, round(self.size[1] * scale)))
        return (height - kept_height) // 2, (width - kept_width) // 2, kept_height, kept_width

    def apply(self, images: Float[Tensor, "n c h w"], name: str) -> Float[Tensor, "n c H W"]:
        """Return images cropped and resized by antialiased bicubic interpolation, which may overshoot their range."""
        top, left, height, width = self.box(images.shape[2], images.shape[3], name)
        images = images[:, :, top : top + height, left : left + width]
        if self.size is None or self.size == (height, width):
            return images
        return F.interpolate(images, self.size, mode="bicubic", antialias=True)


def reframed(image_set: ImageSet, framing: Framing, name: str) -> ImageSet:
    """Return the set cropped and resized, with the same levels and range; raises InputError for too large a crop."""
    if framing == Framing():
        return image_set
    if framing.size is not None:
        wanted = len(image_set) * image_set.shape[0] * framing.size[0] * framing.size[1]
        check_fits(wanted, "size", f"{len(image_set):,} images of {framing.size[0]} pixels a side", "write fewer")
    chunks = []
    for pixels in image_set.pixels.split(CHUNK):
        images = framing.apply(pixels.float(), name)
        if image_set.levels is None:
            chunks.append(images.clamp(-1, 1))
        else:
            chunks.append(images.round().clamp(0, image_set.levels - 1).to(torch.uint8))
    return replace(image_set, pixels=torch.cat(chunks).contiguous())
