"""Images with their labels, as they lie in memory."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from torch import Tensor

from shortrun.errors import InputError

ROUNDING = 1e-4  # how far a float may leave its range
PixelRange = Literal["unit", "signed"]
"""What floats in a file mean."""
RANGES: dict[PixelRange, str] = {"unit": "[0, 1]", "signed": "[-1, 1]"}


@dataclass(frozen=True)
class ImageSet:
    """Images with their labels, as they lie in memory.

    pixels: (n, c, h, w), uint8 indices 0 to levels - 1, or float32 in [-1, 1] where there are no levels.
    labels: (n,) int64, the class of each image; None where there are none.
    levels: 2 to 256, how many values a pixel can take: 256 for 8-bit images, 17 for scikit-learn's digits, 2 for binary
        ones; None for float32 pixels.
    factors: by name (n,) int64, what each image was made from; None where that is not known.
    pixel_range: what the numbers of the file meant, unit for [0, 1] or signed for [-1, 1], where they were floats.
    names: (n,), what each image is called in its source: its path in the folder, or its place in the file; None where
        that is not known.
    masks: (n, 1, h, w), False where a pixel is hidden; None where all are observed. What hidden pixels held is thrown
        away here: they become the darkest value, whatever they were.

    Raises InputError where these disagree, for pixels that are not finite or out of range, and for an image of which
    all pixels are hidden.

    >>> import torch
    >>> two = ImageSet(torch.tensor([[[[0, 16]]], [[[8, 0]]]], dtype=torch.uint8), torch.tensor([1, 0]), levels=17)
    >>> len(two), two.shape
    (2, (1, 1, 2))
    >>> two.images().flatten().tolist()
    [-1.0, 1.0, 0.0, -1.0]
    """

    pixels: UInt8[Tensor, "n c h w"] | Float32[Tensor, "n c h w"]
    labels: Int64[Tensor, "n"] | None = None
    levels: int | None = None
    factors: Mapping[str, Int64[Tensor, "m"]] | None = None
    pixel_range: PixelRange | None = None
    names: np.ndarray | None = None
    masks: Bool[Tensor, "_ 1 _ _"] | None = None

    def __post_init__(self) -> None:
        if self.masks is not None:
            self._hide(self.masks)
        if (self.levels is None) != (self.pixels.dtype == torch.float32):
            raise InputError(
                "levels",
                f"{'none' if self.levels is None else self.levels} with {self.pixels.dtype} pixels",
                "give uint8 pixels with levels, or float32 pixels in [-1, 1] without",
            )
        if self.levels is not None and not 2 <= self.levels <= 256:
            raise InputError("levels", self.levels, "give 2 to 256")
        if self.pixels.ndim != 4 or 0 in self.pixels.shape:
            shape = tuple(self.pixels.shape)
            raise InputError("pixels", f"an array of shape {shape}", "give (n, c, h, w), at least one image")
        _, c, _, w = self.pixels.shape
        if w in (1, 3) and c not in (1, 3):
            raise InputError(
                "pixels", f"an array of shape {tuple(self.pixels.shape)}, channels last", "put them second"
            )
        if self.levels is None:
            if not bool(self.pixels.isfinite().all()) or float(self.pixels.abs().max()) > 1 + ROUNDING:
                low, high = float(self.pixels.min()), float(self.pixels.max())
                raise InputError("pixels", f"floats from {low:g} to {high:g}", "give [-1, 1], or uint8 with levels")
        elif int(self.pixels.max()) >= self.levels:
            raise InputError(
                "pixels", f"values up to {int(self.pixels.max())}", f"{self.levels} levels are 0 to {self.levels - 1}"
            )
        if self.labels is not None and len(self.labels) != len(self.pixels):
            raise InputError("labels", f"{len(self.labels)} for {len(self.pixels)} images", "give one each")
        for name, values in (self.factors or {}).items():
            if len(values) != len(self.pixels):
                got = f"{len(values)} of {name} for {len(self.pixels)} images"
                raise InputError("factors", got, "give one each")

    def _hide(self, masks: Bool[Tensor, "m 1 h w"]) -> None:
        wanted = (len(self.pixels), 1, *self.pixels.shape[2:])
        if masks.shape != wanted:
            raise InputError("masks", f"an array of shape {tuple(masks.shape)}", f"give {wanted}, one for each image")
        blind = (~masks.flatten(1).any(1)).nonzero()[:, 0]
        if len(blind):
            first = int(blind[0]) if self.names is None else self.names[int(blind[0])]
            more = f" and {len(blind) - 1} more" if len(blind) > 1 else ""
            raise InputError(
                "masks",
                problem=f"all pixels of image {first}{more} are hidden",
                instead="take it out, or see whether the masks are the wrong way round: 1 and white are observed",
            )
        darkest = torch.tensor(-1.0 if self.levels is None else 0, dtype=self.pixels.dtype)
        object.__setattr__(self, "pixels", torch.where(masks, self.pixels, darkest))

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (c, h, w) of one image."""
        _, c, h, w = self.pixels.shape
        return c, h, w

    def digest(self) -> str:
        """Return the SHA-256 of the pixels, in order, which tells sets of images apart."""
        found = hashlib.sha256()
        for part in self.pixels.split(10_000):
            found.update(part.contiguous().numpy().data)
        return found.hexdigest()

    def images(self, index: slice | Tensor = slice(None)) -> Float[Tensor, "m c h w"]:
        """Return images as (m, c, h, w) in [-1, 1], new float32 tensors.

        Only the rows asked for are converted, so a large set stays uint8 in memory.

        index: which images: a slice, int64 positions or a bool mask; all of them where not given.
        """
        images = self.pixels[index].to(torch.float32, copy=True)
        # division first: the top level then gives 1 exactly
        return images if self.levels is None else images.div_(self.levels - 1).mul_(2).sub_(1)

    def observed(self, index: slice | Tensor = slice(None)) -> Float[Tensor, "m 1 h w"] | None:
        """Return which pixels of images are observed, (m, 1, h, w), 1 = observed; None where all of all images are.

        index: which images, as `images` takes it.
        """
        return None if self.masks is None else self.masks[index].float()

    @property
    def hidden_share(self) -> float:
        """The share of the pixels of all images that is hidden."""
        return 0.0 if self.masks is None else 1 - float(self.masks.double().mean())

    def mean_image(self) -> Float32[Tensor, "c h w"]:
        """Return the mean of each pixel over the images in which it is observed, in [-1, 1].

        A pixel that no image shows gets the mean over all pixels.
        """
        total = torch.zeros(self.shape, dtype=torch.float64)
        count = torch.zeros(1, *self.shape[1:], dtype=torch.float64)
        for rows in torch.arange(len(self)).split(10_000):
            x, seen = self.images(rows).double(), self.observed(rows)
            total += (x if seen is None else x * seen).sum(0)
            count += len(rows) if seen is None else seen.double().sum(0)
        overall = total.sum((1, 2), keepdim=True) / count.sum()
        return torch.where(count > 0, total / count.clamp(min=1), overall).float()

    def select(self, index: slice | Tensor) -> "ImageSet":
        """Return the set of some of the images, with all that is known of them.

        index: which images: a slice, int64 positions or a bool mask.
        """
        labels = None if self.labels is None else self.labels[index]
        factors = self.factors and {name: values[index] for name, values in self.factors.items()}
        names = None if self.names is None else self.names[index.numpy() if isinstance(index, Tensor) else index]
        masks = None if self.masks is None else self.masks[index]
        return replace(self, pixels=self.pixels[index], labels=labels, factors=factors, names=names, masks=masks)

    def factor_table(self) -> Int64[Tensor, "n f"] | None:
        """Return the factors as columns, in their order, as metrics of disentanglement take them; None without any."""
        return torch.stack(list(self.factors.values()), dim=1) if self.factors else None

    def take(self, n: int) -> "ImageSet":
        """Return the set of the first n images.

        n: 1 to the size of the set; another raises InputError.
        """
        if not 1 <= n <= len(self):
            raise InputError("n", n, f"the set has {len(self)} images: choose 1 to {len(self)}")
        return self.select(slice(n))

    def binarized(self) -> "ImageSet":
        """Return the set with two levels: a pixel above the middle of its range becomes 1, else 0."""
        middle = 0.0 if self.levels is None else (self.levels - 1) / 2
        return replace(self, pixels=(self.pixels > middle).to(torch.uint8), levels=2)


@dataclass(frozen=True)
class Dataset:
    """The train and the test images of one source; both have the same shape and levels.

    name: of the source, as it stands beside every figure.
    train: the images to learn from.
    test: the images to measure on.
    split: what the test images are, as it stands beside every figure of them.
    classes: the names of the classes, by label; empty where they have none.

    >>> from shortrun import load_dataset
    >>> digits = load_dataset("digits")
    >>> digits.train.shape, digits.labelled
    ((1, 8, 8), True)
    >>> digits.hold_out(100).split
    'held-out train'
    """

    name: str
    train: ImageSet
    test: ImageSet
    split: str = "test"
    """What the test images are, as it stands beside every figure of them."""
    classes: tuple[str, ...] = ()
    """The names of the classes, by label; empty where they have none."""

    @property
    def labelled(self) -> bool:
        """Whether the images have labels, of two classes or more."""
        labels = self.train.labels
        return labels is not None and self.test.labels is not None and len(labels.unique()) > 1

    def hold_out(self, n: int) -> "Dataset":
        """Return the data set with some of its train images in place of the test images.

        Settings are chosen by these, so that the test images stay unseen. Which ones depends on the number of images
        and on n alone.

        n: how many images, at least 1 and fewer than there are train images; another raises InputError.
        """
        if not 1 <= n < len(self.train):
            raise InputError("n", f"{n} of {len(self.train)} training images", "write fewer, at least 1")
        order = torch.from_numpy(np.random.default_rng(0).permutation(len(self.train)))
        train, held = self.train.select(order[n:].sort().values), self.train.select(order[:n].sort().values)
        return replace(self, train=train, test=held, split="held-out train")

    def label_of(self, name: int | str) -> int:
        """Return the label of a class.

        name: of the class, or its label.

        Raises InputError where the images have no labels, and for a class that none of the train images has.
        """
        there = require_labels(self.train, self.name).unique().tolist()
        label = self.classes.index(str(name)) if str(name) in self.classes else name
        if label not in there:
            words = ", ".join(self.classes[each] for each in there) if self.classes else listed(there)
            raise InputError("name", repr(name), f"{self.name} has the classes {words}")
        return int(label)

    def leave_out(self, *names: int | str) -> "Dataset":
        """Return the data set without the images of some classes, of both its parts; its name says so.

        names: of the classes, or their labels.

        Raises InputError where the images have no labels, for a class that none of the train images has, and where no
        image is left for training or for testing.

        >>> from shortrun import load_dataset
        >>> eight = load_dataset("digits").leave_out(4, 9)
        >>> eight.name, eight.train.labels.unique().tolist()
        ('digits without 4, 9', [0, 1, 2, 3, 5, 6, 7, 8])
        """
        left_out = torch.tensor([self.label_of(name) for name in names], dtype=torch.int64)
        kept = [~torch.isin(require_labels(part, self.name), left_out) for part in (self.train, self.test)]
        for rows, what in zip(kept, ("training", self.split), strict=True):
            if not rows.any():
                raise InputError(
                    "names", ", ".join(map(str, names)), f"leave some: {self.name} has no other {what} images"
                )
        train, test = (part.select(rows) for part, rows in zip((self.train, self.test), kept, strict=True))
        return replace(self, name=f"{self.name} without {', '.join(map(str, names))}", train=train, test=test)


def listed(labels: list[int]) -> str:
    """Say labels, and those without a gap by the first and the last.

    >>> listed([0, 1, 2, 3]), listed([1, 7, 8])
    ('0 to 3', '1, 7, 8')
    """
    whole = len(labels) > 2 and labels == list(range(labels[0], labels[-1] + 1))
    return f"{labels[0]} to {labels[-1]}" if whole else ", ".join(map(str, labels))


def taken_for(name: object, pixel_range: PixelRange, why: str, option: str) -> str:
    """Return in a line what floats of a file are taken for that could mean both ranges.

    name: of the file or the data set.
    pixel_range: what they are taken for.
    why: the reason, with a comma before it; empty where there is none.
    option: what says it otherwise.
    """
    other: PixelRange = "signed" if pixel_range == "unit" else "unit"
    return (
        f"{name}: floats of 0 and above are taken for {RANGES[pixel_range]}{why}; "
        f"write {option} {other} where they lie in {RANGES[other]}"
    )


def require_labels(image_set: ImageSet, name: str) -> Int64[Tensor, "n"]:
    """Return the labels (n,) of a set.

    image_set: the images.
    name: of the data set, for the error.

    Raises InputError that names the data set where it has no labels.
    """
    if image_set.labels is None:
        raise InputError(
            "dataset",
            problem=f"{name} has no labels, which are needed here",
            instead=(
                "give train_y and test_y in the .npz, one sub-folder per class, or a named data set such as digits"
            ),
        )
    return image_set.labels
