"""Tensors in files: safetensors, written whole or not at all. Nothing is unpickled."""

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save
from torch import Tensor

from shortrun.errors import InputError, undamaged
from shortrun.files import replacing

RETRAIN = "train again, or restore it from a copy"
"""What to do where weights are damaged."""


def write_weights(tensors: Mapping[str, Tensor], path: Path, about: dict[str, str] | None = None) -> None:
    """Write tensors by name as safetensors; about: words that go into the file's header, by name.

    The bytes are made first and written here. The library's own writing goes through another file of a random name
    beside this one, which a kill would leave for good.
    """
    content = save(_apart(tensors), about)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


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
