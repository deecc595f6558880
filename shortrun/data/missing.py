"""Incomplete training images: which of their pixels are hidden, drawn at random or given as masks.

Drawn pixels are missing completely at random: neither an image nor anything else decides which ones.
"""

import math
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional

from shortrun.continuation import continued
from shortrun.data.arrays import is_array_file, read_arrays
from shortrun.data.folders import list_images, name_in, named_images
from shortrun.data.framing import Framing
from shortrun.data.image_set import Dataset, ImageSet
from shortrun.data.own_images import observed_pixels, read_mask
from shortrun.data.pictures import header
from shortrun.errors import InputError, renaming
from shortrun.streams import Use, stream

Shape = Literal["pixels", "blocks"]
"""pixels: single ones; blocks: one rectangular hole in each image, of the image's proportions."""
WHOLE = 1e-3
"""How far from 1 the resized mask of a pixel may be whose parts are all observed."""
BLOCK = 4096
"""Images whose masks are drawn at a time."""


def draw_masks(
    n: int, h: int, w: int, rate: float, rng: torch.Generator, shape: Shape = "pixels"
) -> Bool[Tensor, "n 1 h w"]:
    """Return masks (n, 1, h, w) that hide a share of the pixels of each image, True where a pixel is observed.

    At least one pixel of an image is hidden and at least one is not. All places of a hole inside the image have equal
    chances, so that it covers the centre more often than a corner.

    n: how many images.
    h: their height in pixels.
    w: their width in pixels.
    rate: in (0, 1), the share of hidden pixels.
    rng: gives the random numbers, on the CPU.
    shape: pixels, drawn one by one, or blocks, one hole in each image.

    >>> draw_masks(1, 4, 4, 0.25, torch.Generator().manual_seed(0)).sum().item()
    12
    >>> draw_masks(1, 4, 4, 0.25, torch.Generator().manual_seed(0), "blocks").sum((2, 3)).item()
    12
    """
    if shape == "pixels":
        count, parts = min(max(round(rate * h * w), 1), h * w - 1), []
        for size in [BLOCK] * (n // BLOCK) + [n % BLOCK]:
            order = torch.rand(size, h * w, generator=rng).argsort(dim=1)
            parts.append(torch.ones(size, h * w, dtype=torch.bool).scatter_(1, order[:, :count], False))
        return torch.cat(parts).view(n, 1, h, w)
    height, width = (max(1, round(side * math.sqrt(rate))) for side in (h, w))
    if (height, width) == (h, w):
        height, width = (height, width - 1) if w > 1 else (height - 1, width)
    top, left = (
        (torch.rand(n, 1, 1, 1, generator=rng) * (whole - part + 1)).long() for whole, part in ((h, height), (w, width))
    )
    down, across = torch.arange(h).view(1, 1, h, 1), torch.arange(w).view(1, 1, 1, w)
    return ~((down >= top) & (down < top + height) & (across >= left) & (across < left + width))


def hide_at_random(dataset: Dataset, rate: float, shape: Shape = "pixels", seed: int = 0) -> Dataset:
    """Return a data set whose train images are incomplete; its test images stay whole.

    dataset: of whole images.
    rate: in (0, 1), the share of the pixels of each image that is hidden.
    shape: pixels, drawn one by one, or blocks, one hole in each image.
    seed: 0 or more; the pixels of an image depend on it and on the number of images before it alone.

    Raises InputError for images of one pixel.

    >>> from shortrun import load_dataset
    >>> digits = hide_at_random(load_dataset("digits"), 0.5)
    >>> digits.train.hidden_share, digits.test.masks
    (0.5, None)
    """
    n, (_, h, w) = len(dataset.train), dataset.train.shape
    if h * w < 2:
        raise InputError("missing", problem="images of one pixel have nothing to hide", instead="leave it out")
    masks = draw_masks(n, h, w, rate, stream(seed, Use.MISSING), shape)
    return replace(dataset, train=replace(dataset.train, masks=masks))


def hide_by_masks(dataset: Dataset, path: Path, framing: Framing | None = None, photos: Path | None = None) -> Dataset:
    """Return a data set whose train images have the masks of the user's own.

    Where the source has no split, some of the images with masks would be for testing. Test figures are of whole images:
    those that have a hidden pixel are left out, which a line on stderr says. Where no test image is whole, the hidden
    pixels of all are smoothly continued from the others; a line and the name of the split say so.

    dataset: with the names of its images.
    path: an .npy or .npz file of one mask for each image of the source, in its order, (n, h, w) or (n, 1, h, w), or a
        folder of pictures that are named like the images of a folder; 1 and white are observed.
    framing: of the images: pictures are cropped and resized as they were; None where they were not.
    photos: the folder of the images: a mask of another size than its photo is brought to that first; None for none.

    Raises InputError for masks that cannot be read, of another size, or missing for an image.
    """
    path = Path(path).expanduser()
    train, test = dataset.train, dataset.test
    if train.names is None:
        raise InputError(
            "masks",
            problem=f"the images of {dataset.name} have no order or names that masks could follow",
            instead="save them as an .npz file or a folder",
        )
    folder = os.path.isdir(path)
    sizes = {} if photos is None or not folder else named_images(photos)
    read = partial(_from_folder, framing=framing or Framing(), photos=sizes) if folder else _from_file
    masks, split = read(path, train, train.names), dataset.split
    if test.names is not None:
        observed = read(path, test, test.names)
        whole = observed.flatten(1).all(1)
        if not whole.any():
            share = 1 - float(observed.float().mean())
            words = f"no test image is whole: their hidden pixels, {share:.1%}, are smoothly continued"
            print(f"{path}: {words}, and test figures are of that", file=sys.stderr)
            test, split = smoothly_whole(test, observed), f"{split} ({share:.1%} smoothly continued)"
        elif not whole.all():
            left = int((~whole).sum())
            print(f"{path}: {left} of {len(whole)} test images are incomplete and left out", file=sys.stderr)
            test = test.select(whole)
    return replace(dataset, train=replace(train, masks=masks), test=test, split=split)


def smoothly_whole(images: ImageSet, masks: Bool[Tensor, "n 1 h w"]) -> ImageSet:
    """Return images whose hidden pixels are a smooth continuation of the others.

    images: which may hold anything at hidden pixels.
    masks: true where a pixel is observed.
    """
    made = [continued(pixels.double(), mask[0]) for pixels, mask in zip(images.pixels, masks, strict=True)]
    filled = torch.stack(made)
    if images.levels is None:
        return replace(images, pixels=filled.clamp(-1, 1).float())
    return replace(images, pixels=filled.round().clamp(0, images.levels - 1).to(torch.uint8))


def _from_file(path: Path, images: ImageSet, names: np.ndarray) -> Bool[Tensor, "n 1 h w"]:
    if not is_array_file(path):
        raise InputError("masks", problem=f"{path} is no array", instead="give .npy, .npz or a folder of pictures")
    if names.dtype.kind != "i":
        raise InputError(
            "masks",
            problem=f"{path} is an array, but the images are files, whose order is nobody's",
            instead="give a folder of pictures that are named like them",
        )
    arrays = read_arrays(path, roles=("x", "train_x"))
    array = arrays.get("x", arrays.get("train_x"))
    assert array is not None
    _, h, w = images.shape
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[1] != 1) or array.shape[-2:] != (h, w):
        shape = "x".join(map(str, array.shape))
        raise InputError("masks", problem=f"{path} is {shape}, the images are {h}x{w}", instead=f"give (n, {h}, {w})")
    if int(names.max()) >= len(array):
        raise InputError(
            "masks",
            problem=f"{path} has {len(array):,} masks, and image {int(names.max()):,} of the source, from 0, has none",
            instead="give one for each image, in their order",
        )
    return torch.from_numpy(observed_pixels(array.reshape(len(array), 1, h, w)[names], path))


def _from_folder(
    path: Path, images: ImageSet, names: np.ndarray, framing: Framing, photos: Mapping[str, Path]
) -> Bool[Tensor, "n 1 h w"]:
    if names.dtype.kind == "i":
        raise InputError(
            "masks",
            problem=f"{path} is a folder, but the images are no files whose names masks could have",
            instead="give an .npy or .npz array, one mask for each image",
        )
    found = {name_in(path, file): file for file in list_images(path)}
    absent = [name for name in names.tolist() if name not in found]
    if absent:
        raise InputError(
            "masks",
            problem=f"{path} has none for {len(absent)} of {len(names)} images, {absent[0]} for example",
            instead="give a picture of the same name for each, a white one for a whole image",
        )
    shape = images.shape[1:]
    return torch.stack([_fitted(found[name], photos.get(name), shape, framing) for name in names.tolist()])


def _fitted(path: Path, photo: Path | None, shape: tuple[int, int], framing: Framing) -> Bool[Tensor, "1 h w"]:
    """Return the mask of an image, cropped and resized as the image was.

    A pixel counts as observed where all that it was made of is: bicubic weights reach farther than the pixels that a
    smaller one covers, and what is damaged must not get in.
    """
    found = header(path)
    if framing == Framing() or (found.height, found.width) == shape:
        return read_mask(path, shape)[0] > 0.5
    observed = read_mask(path, (found.height, found.width)).double()
    if photo is not None:
        with renaming({"path": "source"}):
            size = header(photo)
        observed = functional.interpolate(observed, (size.height, size.width), mode="nearest-exact")
    share = framing.apply(observed, str(path))[0]
    if share.shape[1:] != shape:
        raise InputError("masks", problem=f"{path} is not of its image's size", instead="make both of one size")
    return (share - 1).abs() < WHOLE
