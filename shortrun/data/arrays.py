"""Files that hold many images as one array: .npz, .npy, .mat, idx.

InputErrors are about the `path`, the file.
"""

import gzip
import math
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from io import BufferedIOBase
from pathlib import Path
from typing import IO

import numpy as np

from shortrun.errors import InputError, reading, reason
from shortrun.memory import check_fits, check_packing

ROLES = ("train_x", "train_y", "test_x", "test_y", "x", "y")
IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP_MAGIC = b"\x1f\x8b"
CHUNK = 2**24  # bytes of a packed file that are unpacked at a time
LESS = "give fewer or smaller images"


def is_array_file(path: Path) -> bool:
    """Say by its name whether a file is one of those that `read_arrays` reads."""
    return path.suffix.lower() in (".npz", ".npy", ".mat", ".idx", ".gz") or "-idx" in path.name


def read_arrays(path: Path, roles: tuple[str, ...] = ROLES) -> dict[str, np.ndarray]:
    """Return a file's arrays by role: train_x, test_x where the file is split, else x, and their labels _y or y.

    Of an .npz only the `roles` asked for are read. Raises InputError for a file that is missing, corrupt or of
    another kind.
    """
    if not os.path.isfile(path):  # says no to a name that no file can have, where Path.is_file raises
        raise InputError("path", problem=f"{path} does not exist", instead="write the path of a file")
    with reading(path):
        match path.suffix.lower():
            case ".npz":
                return _read_npz(path, roles)
            case ".npy":
                return {"x": _read_npy(path)}
            case ".mat":
                return _read_mat(path)
            case _:
                return {"x": _read_idx(path)}


def _read_npz(path: Path, roles: tuple[str, ...]) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        begins = file.read(2) == b"PK"  # an archive behind other bytes is one to zipfile, but not to numpy
    if not (begins and zipfile.is_zipfile(path)):
        raise InputError("path", problem=f"{path} is not an .npz archive, or was cut short", instead="copy it again")
    with zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        keys = _roles(members, path)
        return {role: _member(archive, members[key], key, path) for role, key in keys.items() if role in roles}


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, key: str, path: Path) -> np.ndarray:
    check_packing(info.file_size, info.compress_size, path)
    try:
        with archive.open(info) as file:
            _check_header(file, info.file_size, path)
        with archive.open(info) as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except ValueError as error:
        # numpy says this for Python objects, which it would have to unpickle, and for a broken header
        if isinstance(error, InputError):
            raise
        raise InputError(
            "path",
            problem=f"{path} has {key!r}, which is not a plain array of numbers ({reason(error)})",
            instead="save it with dtype uint8, bool or float",
        ) from error


def _check_header(file: IO[bytes] | BufferedIOBase, size: int, path: Path) -> None:
    """Raise InputError where an array of the .npy format would not fit, or is longer than the `size` bytes it has."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if any(length < 0 for length in shape):
        raise ValueError(f"its shape is {shape}")
    wanted = math.prod(shape) * dtype.itemsize
    if wanted > size:
        raise InputError(
            "path",
            problem=f"{path} was cut short: its header promises {wanted:,} bytes, it has {size:,}",
            instead="copy it again",
        )
    check_fits(wanted, "path", f"the images of {path}", LESS)


def _roles(names: Iterable[str], path: Path) -> dict[str, str]:
    names = list(names)
    if "train_x" in names or "test_x" in names:
        keys = {role: role for role in ("train_x", "train_y", "test_x", "test_y") if role in names}
        if "test_x" not in keys:  # not split after all
            return {role.replace("train_", ""): key for role, key in keys.items()}
        return keys
    images = next((name for name in ("x", "images") if name in names), None)
    labels = next((name for name in ("y", "labels") if name in names), None)
    if images is None:
        others = [name for name in names if name != labels]
        if len(others) != 1:
            found = ", ".join(names) or "none"
            raise InputError(
                "path",
                problem=f"{path} does not say which of its arrays holds the images ({found})",
                instead="name them train_x and test_x, or x",
            )
        images = others[0]
    return {"x": images} if labels is None else {"x": images, "y": labels}


def _read_npy(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            if file.read(4) == b"PK\3\4":
                raise InputError("path", problem=f"{path} is an .npz archive", instead="rename it to .npz")
            file.seek(0)
            _check_header(file, path.stat().st_size, path)
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            "path",
            problem=f"{path} is not a plain .npy array, or was cut short ({reason(error)})",
            instead="copy it again",
        ) from error


def _read_mat(path: Path) -> dict[str, np.ndarray]:
    from scipy.io import loadmat, whosmat

    with reading(path, "damaged or not a .mat file"):
        try:
            named = whosmat(path)
        except NotImplementedError as error:
            raise InputError(
                "path", problem=f"{path} is a MATLAB 7.3 file, which is not read here", instead="save it with -v7"
            ) from error
        for name, shape, _ in named:
            if name in ("X", "y"):
                wanted = math.prod(max(length, 0) for length in shape)
                check_packing(wanted, path.stat().st_size, path)
                check_fits(wanted, "path", f"{name} of {path}", LESS)
        _try_elsewhere(path)
        arrays = loadmat(path, variable_names=["X", "y"])
    found = arrays.get("X")
    if found is None or found.ndim != 4 or found.shape[2] not in (1, 3):
        shape = "no X" if found is None else f"an X of shape {'x'.join(map(str, found.shape))}"
        raise InputError(
            "path", problem=f"{path} has {shape}", instead="SVHN's layout is wanted, X (h, w, c, n) and y (n, 1)"
        )
    result = {"x": found.transpose(3, 0, 1, 2)}
    if "y" in arrays:
        labels = arrays["y"].reshape(-1)
        if labels.dtype.kind not in "iuf":
            raise InputError("path", problem=f"{path} has a y that is no array of numbers", instead="give one a label")
        result["y"] = np.where(labels == 10, 0, labels)  # SVHN writes the digit 0 as 10
    return result


def _try_elsewhere(path: Path) -> None:
    """Raise InputError where SciPy's reader dies of a .mat file: of damaged ones it may read beyond its memory.

    So another process reads the file first, which costs the time of a second reading.
    """
    code = "import sys; from scipy.io import loadmat; loadmat(sys.argv[1], variable_names=['X', 'y'])"
    done = subprocess.run([sys.executable, "-P", "-c", code, str(path)], capture_output=True, check=False)
    if done.returncode < 0:  # ended by a signal; an exception comes again below, with its words
        raise InputError("path", problem=f"{path} is damaged: its reader died of it", instead="copy it again")


def _read_idx(path: Path) -> np.ndarray:
    packed = path.stat().st_size
    with path.open("rb") as raw:
        zipped = raw.read(2) == GZIP_MAGIC
        raw.seek(0)
        with gzip.GzipFile(fileobj=raw) if zipped else raw as file:
            return _idx(file, packed, path)


def _idx(file: BufferedIOBase, packed: int, path: Path) -> np.ndarray:
    """Return the array of an idx file, which is read no further than its header says."""
    data = file.read(4)
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in IDX_TYPES or data[3] == 0:
        raise InputError(
            "path",
            problem=f"{path} is not an idx file (it starts with 0x{data.hex()})",
            instead="give .npz, .npy, .mat or idx(.gz)",
        )
    lengths = file.read(4 * data[3])
    if len(lengths) < 4 * data[3]:
        raise InputError("path", problem=f"{path} ends within its header", instead="copy it again")
    shape = struct.unpack(f">{data[3]}I", lengths)
    dtype = np.dtype(IDX_TYPES[data[2]])
    wanted = dtype.itemsize * math.prod(shape)
    check_packing(wanted, packed, path)
    check_fits(wanted, "path", f"the images of {path}", LESS)
    values = bytearray()
    while len(values) <= wanted and (chunk := file.read(min(CHUNK, wanted + 1 - len(values)))):
        values += chunk
    if len(values) != wanted:
        found = f"more than {wanted}" if len(values) > wanted else len(values)
        raise InputError(
            "path",
            problem=f"{path} has {found} bytes after its header, which promises {wanted}",
            instead="copy it again",
        )
    return np.frombuffer(values, dtype).reshape(shape)
