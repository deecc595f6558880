"""What the commands write: a picture and an .npz or .json beside it, each of which says which command made it."""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortrun.commands.inputs import ModelArguments
from shortrun.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

MADE_BY = "made_by"
"""The key, in a PNG's text, an .npz and a .json, of the command that made it."""
ARGUMENTS = "arguments"
"""The key of the command's arguments, as JSON."""


def choose_folder(arguments: ModelArguments, command: str, default: str, names: list[str]) -> Path:
    """Return the folder to write to, before any work is done.

    Raises InputError where it cannot be made, or where a file of one of the names is there that another program, or
    another command, has made: what the same command wrote before may be overwritten, nothing else.
    """
    folder = arguments.out or choose_place(arguments.run) / default
    refuse_others(folder, names, command)
    return folder


def refuse_others(folder: Path, names: list[str], command: str) -> None:
    """Raise InputError where a folder cannot be made, or holds a file of one of the names that is not the command's."""
    for path in [folder, *folder.parents]:
        if path.is_file():
            raise InputError("out", problem=f"{path} is a file", instead="write the path of a folder")
    for path in (folder / name for name in names):
        if path.exists() and _maker(path) != command:
            raise InputError("out", problem=f"{path} is there and not from {command}", instead="write another folder")


def choose_place(run: Path) -> Path:
    """Return the folder under which a command writes that is not told where: the run's own.

    For a model that the package brings along it is one under runs/, since nothing is written into the package.
    """
    from shortrun.training.run_folder import PREFIX

    return Path("runs") / str(run).replace(":", "_") if str(run).startswith(PREFIX) else run


def write_outputs(
    folder: Path,
    command: str,
    arguments: ModelArguments,
    pictures: Mapping[str, "Image.Image"],
    arrays: Mapping[str, "np.ndarray"],
    array_file: str,
) -> None:
    """Write pictures and one .npz, each whole or not at all, and print their paths."""
    import numpy as np

    from shortrun.files import replacing

    notes = _notes(command, arguments)
    with _beside(pictures, notes, folder / array_file) as path, replacing(path) as temporary:
        np.savez_compressed(temporary, **dict(arrays), **{key: np.array(words) for key, words in notes.items()})  # pyright: ignore[reportArgumentType]


def write_numbers(
    folder: Path,
    command: str,
    arguments: ModelArguments,
    pictures: Mapping[str, "Image.Image"],
    numbers: Mapping[str, Any],
    number_file: str,
) -> None:
    """Write pictures and one .json of numbers, each whole or not at all, and print their paths."""
    from shortrun.files import write_json

    notes = _notes(command, arguments)
    with _beside(pictures, notes, folder / number_file) as path:
        write_json(path, {MADE_BY: command, ARGUMENTS: json.loads(notes[ARGUMENTS]), **numbers})


@contextmanager
def writing_pictures(
    folder: Path, command: str, arguments: ModelArguments
) -> Iterator[Callable[["Image.Image", str], None]]:
    """Give a function that writes a picture by its name in a folder, whole or not at all."""
    from shortrun.figures.images import write_png

    notes = _notes(command, arguments)
    try:
        yield lambda picture, name: write_png(picture, folder / name, notes)
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(
        "out", problem=f"{folder} cannot be written ({error.strerror or error})", instead="write another folder"
    )


def _notes(command: str, arguments: ModelArguments) -> dict[str, str]:
    from shortrun.files import to_text

    return {MADE_BY: command, ARGUMENTS: to_text(dataclasses.asdict(arguments))}


@contextmanager
def _beside(pictures: Mapping[str, "Image.Image"], notes: dict[str, str], file: Path) -> Iterator[Path]:
    """Write pictures, give the path of the file that the block writes beside them, and print all paths."""
    from shortrun.figures.images import write_png

    folder = file.parent
    try:
        for name, picture in pictures.items():
            write_png(picture, folder / name, notes)
        yield file
    except OSError as error:
        raise _unwritable(folder, error) from None
    for name in [*pictures, file.name]:
        print(f"wrote {folder / name}")


def warn_of_failed(failed: "torch.Tensor") -> None:
    """Say how many chains stayed non-finite, if any did."""
    if count := int(failed.sum()):
        print(
            f"warning: {count} of {failed.numel()} chains stayed non-finite; a draw from the prior stands in for each"
        )


def _maker(path: Path) -> Any:
    """Return the command that made a file, or None where it is of other making."""
    import zipfile

    import numpy as np
    from PIL import Image

    try:
        if path.suffix == ".npz":
            with np.load(path) as file:  # without allow_pickle: nothing in it is run
                return str(file[MADE_BY])
        if path.suffix == ".csv":  # has no place for it: the .npz or .json beside it says it
            return _maker(path.with_suffix(".npz")) or _maker(path.with_suffix(".json"))
        if path.suffix in (".html", ".htm"):
            with path.open("rb") as page:
                found = re.search(rb'<meta name="generator" content="([^"]*)">', page.read(1000))
            return found and found[1].decode()
        if path.suffix == ".json":
            return json.loads(path.read_text(encoding="utf-8"))[MADE_BY]
        with Image.open(path, formats=["PNG"]) as picture:
            return picture.info.get(MADE_BY)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, SyntaxError):
        return None
