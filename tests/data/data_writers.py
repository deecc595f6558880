"""What the tests of the data room share: small files in public formats, and how an error line is checked."""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shortrun.errors import InputError

torch.set_num_threads(1)

REAL = Path(os.environ.get("SHORTRUN_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
IDX_CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


@contextmanager
def refused(argument: str, *words: object) -> Iterator[None]:
    """Expect an InputError of one line about the argument that names all the words."""
    with pytest.raises(InputError) as caught:
        yield
    line = str(caught.value)
    assert caught.value.argument == argument
    assert "\n" not in line
    assert line.startswith(f"{argument}: "), line
    for word in words:
        assert str(word) in line, line


def real(name: str) -> Path:
    """Return a file of the folder of real images, or skip the test."""
    if not (REAL / name).exists():
        pytest.skip(f"no {name} in {REAL}: set SHORTRUN_DATA")
    return REAL / name


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Return uint8 noise that holds 0 and 255."""
    array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    array.flat[0], array.flat[-1] = 0, 255
    return array


def idx_bytes(array: np.ndarray) -> bytes:
    """Return an array in the idx format: two zeros, type, dimensions, sizes and numbers, all big-endian."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, IDX_CODES[array.dtype.name], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_image(path: Path, array: np.ndarray) -> Path:
    """Write (h, w) or (h, w, c) uint8 as the kind of image that the suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path
