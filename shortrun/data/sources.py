"""From the name of a source to its train and test images."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from shortrun.data.arrays import is_array_file, read_arrays
from shortrun.data.coloured_digits import coloured
from shortrun.data.downloads import DOWNLOADS, fetch
from shortrun.data.folders import (
    CELEBA_CROP,
    CELEBA_HINT,
    CELEBA_SIZE,
    list_celeba,
    list_folder,
    read_files,
)
from shortrun.data.framing import Framing, reframed
from shortrun.data.hub import read_hub
from shortrun.data.image_set import Dataset, ImageSet, PixelRange, require_labels
from shortrun.data.layouts import image_sets
from shortrun.data.selection import Selection
from shortrun.errors import InputError, did_you_mean, renaming

NAMES = ("digits", "coloured_digits", *DOWNLOADS, "celeba")
COLOURED_TRAIN, COLOURED_TEST = 20_000, 2_000  # images of coloured_digits
ALSO = "a path (.npz, .npy, .mat, idx, a folder of images) or hub:OWNER/NAME also goes"


def load_dataset(
    source: str,
    *,
    data_dir: Path | None = None,
    image_size: int | None = None,
    crop: int | None = None,
    train_limit: int | None = None,
    test_limit: int | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    leave_out: Sequence[int | str] = (),
    binarize: bool = False,
    pixel_range: PixelRange | None = None,
) -> Dataset:
    """Return the train and test images of a source.

    source: one of
        digits: scikit-learn's, 1x8x8 with 17 levels, nothing to download
        coloured_digits: the same in colours, 3x32x32, with known factors; see `shortrun.data.coloured_digits`
        mnist, fashion_mnist, svhn: downloaded once, or read from `data_dir`, the official files or NAME.npz
        celeba: read from `data_dir`
        a path: an .npz, .npy, SVHN-style .mat or idx(.gz) file, or a folder of images
        hub:OWNER/NAME[:CONFIG]: a data set of the Hugging Face hub
    data_dir: the folder that holds a named data set; None to download it.
    image_size: pixels of a side, to which the centre square is resized (antialiased bicubic); None leaves the images.
    crop: pixels of a side of the centre crop that comes before resizing; None for none.
    train_limit: the first so many train images; None for all.
    test_limit: the first so many test images; None for all.
    test_fraction: in (0, 1), the share of the images that become the test set where a source has no split of its own.
    seed: 0 or more, of the choice of these images.
    leave_out: classes, by name or label, whose images are taken out of both parts, after the limits and the split have
        counted them.
    binarize: whether to leave two levels, black and white.
    pixel_range: what floats of a file mean, unit for [0, 1] or signed for [-1, 1]; None to find it: signed where any
        is negative, else unit.

    For `celeba`, crop is 140 and image_size is 64 where not given. The centre 140 of the 178x218 aligned images,
    resized to 64x64, is what Wasserstein auto-encoders (Tolstikhin et al., arXiv 1711.01558) and regularized
    auto-encoders (Ghosh et al., arXiv 1903.12436) made usual. Short-run learners compare their CelebA figures with
    these.

    Raises InputError for anything that cannot be used.

    >>> digits = load_dataset("digits", train_limit=100, binarize=True)
    >>> len(digits.train), digits.train.shape, digits.train.levels
    (100, (1, 8, 8), 2)
    """
    own_copy = data_dir is not None and source in (*DOWNLOADS, "celeba")
    with renaming({"path": "data_dir" if own_copy else "source", "size": "image_size"}):
        selection = Selection(train_limit, test_limit, test_fraction, seed)
        framing = Framing(crop, None if image_size is None else (image_size, image_size))
        folder = None if data_dir is None else Path(data_dir).expanduser()
        dataset = _read_source(source, folder, selection, framing, pixel_range)
    if leave_out:
        with renaming(dict.fromkeys(("name", "names", "dataset"), "leave_out")):
            dataset = dataset.leave_out(*leave_out)
    if binarize:
        return replace(dataset, train=dataset.train.binarized(), test=dataset.test.binarized())
    return dataset


def _read_source(
    source: str, data_dir: Path | None, selection: Selection, framing: Framing, pixel_range: PixelRange | None
) -> Dataset:
    if not source.strip():
        raise InputError("source", repr(source), f"choose one of {', '.join(NAMES)} ({ALSO})")
    path = Path(source).expanduser()
    if source == "digits":
        return Dataset(source, *_parted(_read_digits(), selection, framing, source))
    if source == "coloured_digits":
        return Dataset(source, *_parted(_make_coloured_digits(), selection, framing, source))
    if source in DOWNLOADS:
        folder = fetch(source) if data_dir is None else data_dir
        return Dataset(source, *_parted(_read_published(source, folder, pixel_range), selection, framing, source))
    if source == "celeba":
        if data_dir is None:
            raise InputError("data_dir", "none, and celeba is not downloaded", f"give your own copy: {CELEBA_HINT}")
        framing = Framing(framing.crop or CELEBA_CROP, framing.size or (CELEBA_SIZE, CELEBA_SIZE))
        return Dataset(source, *read_files(*list_celeba(data_dir, selection), framing))
    if source.startswith("hub:"):
        return Dataset(source.removeprefix("hub:"), *read_hub(source, selection, framing))
    if os.path.isdir(path):
        train, test = list_folder(path, selection)
        return Dataset(path.resolve().name, *read_files(train, test, framing), classes=train.classes)
    if os.path.isfile(path):
        sets = _read_array_file(path, pixel_range)
        return Dataset(path.name.split(".")[0], *_parted(sets, selection, framing, str(path)))
    if path.suffix or path.parent != Path():
        raise InputError("source", problem=f"{source} does not exist", instead=f"the names are {', '.join(NAMES)}")
    raise InputError("source", repr(source), f"{did_you_mean(source, NAMES)} ({ALSO})")


def _parted(sets: tuple[ImageSet, ...], selection: Selection, framing: Framing, name: str) -> tuple[ImageSet, ImageSet]:
    # of a source that has a split, only the train images have names: masks are for them
    sets = (replace(sets[0], names=np.arange(len(sets[0]))), *sets[1:])
    if len(sets) == 1:
        train_rows, test_rows = selection.split(len(sets[0]), name)
        train, test = sets[0].select(train_rows), sets[0].select(test_rows)
    else:
        keep_train, keep_test = selection.counts(len(sets[0]), len(sets[1]))
        train, test = sets[0].take(keep_train), sets[1].take(keep_test)
    what = "every image of this source"
    return reframed(train, framing, what), reframed(test, framing, what)


ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip", ".7z")
"""Ends of the names of files that hold other files."""


def _read_digits() -> tuple[ImageSet]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = torch.from_numpy(images).to(torch.uint8).reshape(-1, 1, 8, 8)
    return (ImageSet(pixels, torch.from_numpy(labels).long(), levels=17),)


def _make_coloured_digits() -> tuple[ImageSet, ImageSet]:
    """Make the images, always the same; no digit is both among those of training and of testing."""
    (digits,) = _read_digits()
    parts = [digits.select(rows) for rows in Selection().split(len(digits), "digits")]
    counts, rng = (COLOURED_TRAIN, COLOURED_TEST), np.random.default_rng(0)
    train, test = (
        coloured(part.pixels[:, 0].numpy(), require_labels(part, "digits").numpy(), count, rng)
        for part, count in zip(parts, counts, strict=True)
    )
    return train, test


def _read_array_file(path: Path, pixel_range: PixelRange | None) -> tuple[ImageSet, ...]:
    if path.name.lower().endswith(ARCHIVES):
        raise InputError(
            "path", problem=f"{path} is an archive", instead="unpack it, and write the folder or file in it"
        )
    if not is_array_file(path):
        raise InputError(
            "path",
            problem=f"{path} is not a file of many images",
            instead="give .npz, .npy, .mat, idx(.gz) or a folder",
        )
    return _read_sets(path, pixel_range)


def _read_sets(path: Path, pixel_range: PixelRange | None) -> tuple[ImageSet, ...]:
    arrays = read_arrays(path)
    if "x" in arrays:
        return image_sets([arrays["x"]], [arrays.get("y")], path, pixel_range)
    if "train_x" not in arrays:
        raise InputError(
            "path",
            problem=f"{path} has test_x and no train_x",
            instead="add train_x, or name the array x to have it split",
        )
    images, labels = [arrays["train_x"], arrays["test_x"]], [arrays.get("train_y"), arrays.get("test_y")]
    return image_sets(images, labels, path, pixel_range)


def _read_published(name: str, folder: Path, pixel_range: PixelRange | None) -> tuple[ImageSet, ...]:
    """Read the official files from FOLDER/NAME or FOLDER, or FOLDER/NAME.npz.

    FOLDER's own come last: mnist and fashion_mnist give their files the same names.
    """
    if not folder.is_dir():
        raise InputError("path", problem=f"{folder} is no folder", instead=f"write the folder that holds {name}")
    wanted = list(DOWNLOADS[name].md5)
    archive = folder / f"{name}.npz"
    inside, here = _found(wanted, folder / name), _found(wanted, folder)
    if len(inside) < len(wanted) and archive.is_file():
        return _read_sets(archive, pixel_range)
    found = inside if len(inside) >= len(here) else here
    missing = [file for file in wanted if file not in found]
    if missing:
        raise InputError(
            "path",
            problem=f"{folder} does not hold all of {name}",
            instead=f"put {', '.join(missing)} (or {name}.npz) into it",
        )
    parts = [read_arrays(path) for path in found.values()]
    if name == "svhn":
        return image_sets([part["x"] for part in parts], [part.get("y") for part in parts], folder, pixel_range)
    train_x, train_y, test_x, test_y = (part["x"] for part in parts)
    return image_sets([train_x, test_x], [train_y, test_y], folder, pixel_range)


def _found(wanted: list[str], folder: Path) -> dict[str, Path]:
    candidates = {file: (folder / file, folder / file.removesuffix(".gz")) for file in wanted}
    return {
        file: next(path for path in paths if os.path.isfile(path))
        for file, paths in candidates.items()
        if any(os.path.isfile(path) for path in paths)
    }
