"""Tensors in files: safetensors, written whole or not at all. Nothing is unpickled."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from shortrun.errors import InputError, damaged, undamaged
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


def check_finite(tensors: Mapping[str, Tensor], path: Path, instead: str = RETRAIN) -> None:
    """Raise InputError for tensors of a file in which a number is not finite: what a model makes of them would be NaN.

    instead: what to do about the file.
    """
    for name, each in tensors.items():
        if not bool(torch.isfinite(each).all()):
            raise damaged(path, f"{name} is not finite", instead)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read tensors by name; raise InputError where the file is absent or damaged, or holds what is not finite."""
    if not os.path.isfile(path):
        raise InputError(str(path), problem="not there", instead="give the folder of a run or of a saved model")
    with undamaged(path, RETRAIN):
        tensors = load_file(path)
    check_finite(tensors, path)
    return tensors
