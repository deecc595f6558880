"""Folders of image files, and which of them are for training and testing.

InputErrors are about the `path`, the folder or a file in it, and about the settings of the selection.
"""

import csv
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from shortrun.data.framing import Framing
from shortrun.data.image_set import ImageSet
from shortrun.data.pictures import framed_files, header, is_image_file, stack
from shortrun.data.selection import Selection
from shortrun.errors import InputError

TRAIN, TEST = ("train", "training"), ("test", "testing")
LOOKED_AT = 200
"""Images of a folder whose sizes are looked at."""
CELEBA_CROP, CELEBA_SIZE = 140, 64
CELEBA_HINT = "it wants the unpacked folder img_align_celeba/ and the file list_eval_partition.txt"


@dataclass(frozen=True)
class ImageFiles:
    """Paths of n image files and their labels (n,), or None."""

    paths: Sequence[Path]
    labels: Int64[Tensor, "n"] | None = None
    classes: tuple[str, ...] = ()
    """The names of the classes, by label."""
    folder: Path | None = None
    """The folder that names of images are paths in; None for images without names."""

    @property
    def names(self) -> np.ndarray | None:
        """The paths in the folder, without the ends of file names, (n,)."""
        if self.folder is None:
            return None
        return np.array([name_in(self.folder, path) for path in self.paths])

    def select(self, rows: Int64[Tensor, "m"]) -> "ImageFiles":
        """Return the files at these positions."""
        return ImageFiles(
            [self.paths[row] for row in rows.tolist()],
            None if self.labels is None else self.labels[rows],
            self.classes,
            self.folder,
        )


def name_in(folder: Path, path: Path) -> str:
    """Return what an image is called: its path in a folder, without the end of its file name.

    folder: of the images; the image itself where it was given alone.
    path: of the image.
    """
    return path.stem if path == folder else path.relative_to(folder).with_suffix("").as_posix()


def list_images(folder: Path) -> list[Path]:
    """Return all image files under a folder, sorted; raises InputError where there are none.

    Hidden files and folders, such as .ipynb_checkpoints, are left out, and so are links to folders.
    """
    paths = sorted(path for path in _visible(folder) if is_image_file(path) and path.is_file())
    if not paths:
        raise InputError("path", problem=f"{folder} holds no images", instead="give png, jpg, bmp, webp, gif or tiff")
    return paths


def list_folder(folder: Path, selection: Selection, announced: bool = True) -> tuple[ImageFiles, ImageFiles]:
    """Return the train and the test files of a folder.

    Sub-folders `train` and `test`, or `training` and `testing`, in capitals or not, are the split. Others beside them
    are left out. Where there are none all images are split by the selection. Inside, where every image lies in a
    sub-folder, these are the classes, numbered by their sorted names. Where it is to be `announced`, a line on stderr
    says what is left out.

    Raises InputError where there are no images or only one of the two sub-folders.
    """
    train, test = (_part(folder, names) for names in (TRAIN, TEST))
    if train.is_dir() and test.is_dir():
        parts = list_images(train), list_images(test)
        classes = _classes(parts[0], train), _classes(parts[1], test)
        names = sorted(set(classes[0] or ()) | set(classes[1] or ()))
        train_files = _with_classes(parts[0], classes[0], names, train)
        test_files = _with_classes(parts[1], classes[1], names, None)
        keep_train, keep_test = selection.counts(len(parts[0]), len(parts[1]))
        if announced:
            _announce(folder, len(parts[0]) + len(parts[1]), names, [train, test])
        return train_files.select(torch.arange(keep_train)), test_files.select(torch.arange(keep_test))
    for there, absent in ((train, "test"), (test, "train")):
        if there.is_dir():
            raise InputError(
                "path",
                problem=f"{folder} has a folder {there.name!r} and none named {absent!r}",
                instead=f"add it, or give {there} to have it split",
            )
    paths = list_images(folder)
    classes = _classes(paths, folder)
    names = sorted(set(classes or ()))
    files = _with_classes(paths, classes, names, folder)
    if announced:
        _announce(folder, len(paths), names, [folder])
    train_rows, test_rows = selection.split(len(paths), str(folder))
    return files.select(train_rows), files.select(test_rows)


def named_images(folder: Path) -> dict[str, Path]:
    """Return the images of a folder that are learned from, by the names that `ImageFiles.names` gives them.

    folder: as `list_folder` takes it.
    """
    train, test = (_part(folder, names) for names in (TRAIN, TEST))
    root = train if train.is_dir() and test.is_dir() else folder
    return {name_in(root, path): path for path in list_images(root)}


class Survey(NamedTuple):
    """What a folder of images holds, seen from its files' headers."""

    train: int
    """Images to learn from."""
    width: int
    """Pixels, the median of the images looked at."""
    height: int
    grey: bool
    """Whether all of them are grey."""


def survey(folder: Path, selection: Selection) -> Survey:
    """Look at a folder of images without reading their pixels; of many, at so many as are quickly looked at.

    folder: of the images, with the sub-folders that `list_folder` knows.
    selection: how they are split.

    Raises InputError as `list_folder` does, and for an image among those looked at that is damaged.
    """
    train, _ = list_folder(folder, selection, announced=False)
    seen = [header(path) for path in train.paths[:: max(1, len(train.paths) // LOOKED_AT)]]
    widths, heights = sorted(each.width for each in seen), sorted(each.height for each in seen)
    middle = len(seen) // 2
    return Survey(len(train.paths), widths[middle], heights[middle], all(each.grey for each in seen))


def list_celeba(path: Path, selection: Selection) -> tuple[ImageFiles, ImageFiles]:
    """Return CelebA's official train (0) and test (2) files; the validation ones (1) are left out.

    Reads CelebA's own layout, its Google Drive one (Img/, Eval/), Kaggle's (nested folder, .csv) and torchvision's
    (celeba/). Raises InputError where the images, the partition file or a listed image is missing.
    """
    if not path.is_dir():
        raise InputError("path", problem=f"{path} is no folder", instead=CELEBA_HINT)
    places = [base / sub for base in (path, path / "celeba") for sub in ("", "Img", "Eval")]
    folders = [place / "img_align_celeba" for place in places if (place / "img_align_celeba").is_dir()]
    if not folders:
        zipped = any((place / "img_align_celeba.zip").is_file() for place in places)
        advice = "unpack img_align_celeba.zip there" if zipped else CELEBA_HINT
        raise InputError("path", problem=f"the folder img_align_celeba is missing in {path}", instead=advice)
    nested = folders[0] / "img_align_celeba"
    images = nested if nested.is_dir() else folders[0]
    names = (place / f"list_eval_partition.{suffix}" for place in places for suffix in ("txt", "csv"))
    partition = next((name for name in names if name.is_file()), None)
    if partition is None:
        raise InputError("path", problem=f"the file list_eval_partition.txt is missing in {path}", instead=CELEBA_HINT)
    parts = _read_partition(partition)
    keep_train, keep_test = selection.counts(len(parts["0"]), len(parts["2"]))
    train = [images / name for name in parts["0"][:keep_train]]
    test = [images / name for name in parts["2"][:keep_test]]
    absent = [path for path in (*train, *test) if not path.is_file()]
    if absent:
        raise InputError(
            "path",
            problem=(
                f"{len(absent)} of {len(train) + len(test)} images that {partition.name} lists are "
                f"missing, the first is {absent[0]}"
            ),
            instead="unpack img_align_celeba again",
        )
    return ImageFiles(train, folder=images), ImageFiles(test)


def read_files(train: ImageFiles, test: ImageFiles, framing: Framing) -> tuple[ImageSet, ImageSet]:
    """Return the images of both parts, 8-bit, all of one shape; raises InputError that names the first odd file."""
    paths = [*train.paths, *test.paths]
    remedy = "set image_size to crop and resize all"
    if framing.crop is not None:
        remedy += " (beside crop)"
    pixels = stack(framed_files(paths, framing), len(paths), remedy)
    n = len(train.paths)
    return (
        ImageSet(pixels[:n], train.labels, 256, names=train.names),
        ImageSet(pixels[n:], test.labels, 256, names=test.names),
    )


def _visible(folder: Path) -> Iterator[Path]:
    """Yield the files under a folder, none that is hidden or in a hidden folder; links to folders are not followed."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place) / name for name in files if not name.startswith("."))


def _part(folder: Path, names: tuple[str, ...]) -> Path:
    """Return the sub-folder of one of these names, in capitals or not; where there is none, the place of the first."""
    found = [path for path in sorted(folder.iterdir()) if path.name.lower() in names and path.is_dir()]
    if len(found) > 1:
        raise InputError(
            "path",
            problem=f"{folder} has both {found[0].name!r} and {found[1].name!r}",
            instead="leave one, or give that folder",
        )
    return found[0] if found else folder / names[0]


def _announce(folder: Path, taken: int, classes: list[str], places: list[Path]) -> None:
    """Say in a line what is taken of a folder and what is left out, where anything is."""
    left = Counter(
        path.suffix.lower() or path.name
        for place in places
        for path in _visible(place)
        if not is_image_file(path) and path.is_file()
    )
    links = sum(path.is_symlink() and path.is_dir() for place in places for path in place.iterdir())
    stray = [path.name for place in places for path in sorted(place.iterdir()) if is_image_file(path)]
    named = len(classes) > 1
    words = f"{taken:,} images" + (f" of {len(classes)} classes ({_listed(classes)})" if named else "")
    folders = any(path.is_dir() and not path.name.startswith(".") for path in places[0].iterdir())
    if stray and folders and not named:
        words += f", without classes, since {_listed(stray)} lies above the folders"
    parts = [f"{count} {suffix}" for suffix, count in left.most_common(5)]
    parts += [f"{links} link{'s' if links > 1 else ''} to folders"] if links else []
    if parts:
        words += f"; left out: {', '.join(parts)}"
    if parts or named or (stray and folders):
        print(f"{folder}: {words}", file=sys.stderr)


def _listed(names: list[str]) -> str:
    """Say the first few of some names."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _classes(paths: Sequence[Path], folder: Path) -> list[str] | None:
    parts = [path.relative_to(folder).parts for path in paths]
    return [part[0] for part in parts] if all(len(part) > 1 for part in parts) else None


def _with_classes(
    paths: Sequence[Path], classes: list[str] | None, names: list[str], folder: Path | None
) -> ImageFiles:
    labels = _labels(classes, names)
    return ImageFiles(paths, labels, () if labels is None else tuple(names), folder)


def _labels(classes: list[str] | None, names: list[str]) -> Int64[Tensor, "n"] | None:
    if classes is None or len(names) < 2:  # one sub-folder is a place, not a class
        return None
    number = {name: i for i, name in enumerate(names)}
    return torch.tensor([number[name] for name in classes])


def _read_partition(path: Path) -> dict[str, list[str]]:
    parts: dict[str, list[str]] = {"0": [], "1": [], "2": []}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file, delimiter="," if path.suffix == ".csv" else " ", skipinitialspace=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            "path", problem=f"{path} is not a text file", instead="'000001.jpg 0' is the form of its lines"
        ) from error
    for number, row in enumerate(rows, 1):
        row = [field for field in row if field]
        if not row or (number == 1 and row[0] == "image_id"):
            continue
        if len(row) != 2 or row[1] not in parts:
            raise InputError(
                "path",
                problem=f"line {number} of {path} is {' '.join(row)!r}",
                instead="'000001.jpg 0' is the form",
            )
        parts[row[1]].append(row[0])
    if not parts["0"] or not parts["2"]:
        raise InputError(
            "path",
            problem=f"{path} lists no train (0) or no test (2) images",
            instead="copy the official file again",
        )
    return parts
