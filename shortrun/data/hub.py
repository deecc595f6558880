"""Any image data set that Hugging Face's `datasets` can load."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from jaxtyping import Int64
from torch import Tensor

from shortrun.data.framing import Framing
from shortrun.data.image_set import ImageSet
from shortrun.data.pictures import frame, stack
from shortrun.data.selection import Selection
from shortrun.errors import InputError, reason, renaming

if TYPE_CHECKING:
    import datasets

TEST_NAMES = ("test", "validation", "valid", "val")


def read_hub(source: str, selection: Selection, framing: Framing) -> tuple[ImageSet, ImageSet]:
    """Return the train and test images of `hub:OWNER/NAME`, `hub:OWNER/NAME:CONFIG` or `hub:FOLDER`.

    The image column is the one of type Image, the labels the one of type ClassLabel. Without a test or validation
    split, the train split is split by the selection. Raises InputError where `datasets` is not installed, or cannot
    load it, or there is no image column.
    """
    splits = _load(source)
    train = splits.get("train")
    if train is None:
        raise InputError(
            "source", problem=f"{source} has no split train (splits: {', '.join(splits)})", instead="take another"
        )
    test = next((splits[name] for name in TEST_NAMES if name in splits), None)
    if test is None:
        train_rows, test_rows = selection.split(len(train), source)
        train, test = train.select(train_rows.tolist()), train.select(test_rows.tolist())
    else:
        keep_train, keep_test = selection.counts(len(train), len(test))
        train, test = train.select(range(keep_train)), test.select(range(keep_test))
    column = _image_column(train, source)
    rows = (named for part in (train, test) for named in _framed_rows(part, column, framing, source))
    with renaming({"path": "source"}):
        pixels = stack(rows, len(train) + len(test), "set image_size to crop and resize all")
    n = len(train)
    return ImageSet(pixels[:n], _labels(train), 256), ImageSet(pixels[n:], _labels(test), 256)


def _load(source: str) -> "dict[str, datasets.Dataset]":
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            "source", problem=f"{source} needs the package datasets", instead="pip install 'shortrun[hub]'"
        ) from error

    name, _, config = source.removeprefix("hub:").partition(":")
    folder = Path(source.removeprefix("hub:")).expanduser()
    if name and folder.exists():  # a folder's name may have a colon in it
        name, config = str(folder), ""
    elif not is_hub_name(name) or config.startswith("//"):  # an address: the library would ask the network for long
        raise InputError("source", repr(source), "give hub:OWNER/NAME, hub:OWNER/NAME:CONFIG or hub:FOLDER")
    if folder.exists() and folder.resolve() == Path(folder.resolve().anchor):  # it would be searched to its last file
        problem = f"{source} is the root of the file system"
        raise InputError("source", problem=problem, instead="give the folder of one data set")
    try:
        return {str(split): part for split, part in datasets.load_dataset(name, config or None).items()}
    except Exception as error:  # the library raises its own and many others' errors, all about what was asked for
        raise InputError(
            "source",
            problem=f"datasets cannot load {source} ({reason(error)})",
            instead="check the name, the config and the network",
        ) from error


def is_hub_name(name: str) -> bool:
    """Say whether a data set of the hub may have a name: OWNER/NAME, or NAME of the old ones.

    >>> [is_hub_name(name) for name in ("ylecun/mnist", "mnist", "", "https://a/b", "../x", "a/b/c")]
    [True, True, False, False, False, False]
    """
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _image_column(part: "datasets.Dataset", source: str) -> str:
    import datasets

    for name, feature in part.features.items():
        if isinstance(feature, datasets.Image):
            return name
    found = ", ".join(part.column_names)
    raise InputError(
        "source", problem=f"{source} has no column of type Image (columns: {found})", instead="take one with images"
    )


def _framed_rows(
    part: "datasets.Dataset", column: str, framing: Framing, source: str
) -> Iterator[tuple[str, np.ndarray]]:
    for row in range(len(part)):
        name = f"{source} row {row} of {part.split}"
        try:
            picture = part[row][column]
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(
                "path", problem=f"{name} is damaged ({reason(error)})", instead="replace or remove it"
            ) from error
        if picture is None:
            raise InputError("path", problem=f"{name} has no image", instead="remove it")
        yield name, frame(picture, framing, name)


def _labels(part: "datasets.Dataset") -> Int64[Tensor, "n"] | None:
    import datasets

    for name, feature in part.features.items():
        if isinstance(feature, datasets.ClassLabel):
            return torch.tensor(part[name][:], dtype=torch.int64)
    return None
