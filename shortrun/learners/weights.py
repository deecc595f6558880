"""Tensors in files: safetensors, written whole or not at all. Nothing is unpickled."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from shortrun.errors import InputError, in_one_line, undamaged
from shortrun.files import replacing

RETRAIN = "train again, or restore it from a copy"
"""What to do where weights are damaged."""


def write_weights(tensors: Mapping[str, Tensor], path: Path, about: dict[str, str] | None = None) -> None:
    """Write tensors by name as safetensors; about: words that go into the file's header, by name."""
    with replacing(path) as temporary:
        try:
            save_file(_apart(tensors), temporary, about)
        except SafetensorError as error:  # what the file system said, in words alone
            raise OSError(errno.EIO, in_one_line(error), str(path)) from error


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors on the CPU of which no two share memory, as a file wants them: tied weights are written twice."""
    found: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, each in tensors.items():
        plain = each.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        found[name] = plain.clone() if place in taken else plain
        taken.add(place)
    return found


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read tensors by name; raise InputError where the file is absent or damaged."""
    if not os.path.isfile(path):
        raise InputError(str(path), problem="not there", instead="give the folder of a run or of a saved model")
    with undamaged(path, RETRAIN):
        return load_file(path)
