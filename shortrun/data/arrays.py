"""Files that hold many images as one array: .npz, .npy, .mat, idx.

InputErrors are about the `path`, the file.
"""

import gzip
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from shortrun.errors import InputError, reason

ROLES = ("train_x", "train_y", "test_x", "test_y", "x", "y")
IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP_MAGIC = b"\x1f\x8b"


def is_array_file(path: Path) -> bool:
    """Say by its name whether a file is one of those that `read_arrays` reads."""
    return path.suffix.lower() in (".npz", ".npy", ".mat", ".idx", ".gz") or "-idx" in path.name


def read_arrays(path: Path, roles: tuple[str, ...] = ROLES) -> dict[str, np.ndarray]:
    """Return a file's arrays by role: train_x, test_x where the file is split, else x, and their labels _y or y.

    Of an .npz only the `roles` asked for are read. Raises InputError for a file that is missing, corrupt or of
    another kind.
    """
    if not path.is_file():
        raise InputError("path", problem=f"{path} does not exist", instead="write the path of a file")
    try:
        match path.suffix.lower():
            case ".npz":
                return _read_npz(path, roles)
            case ".npy":
                return {"x": _read_npy(path)}
            case ".mat":
                return _read_mat(path)
            case _:
                return {"x": _read_idx(path)}
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(
            "path", problem=f"{path} is damaged or cannot be read ({reason(error)})", instead="copy it again"
        ) from error


def _read_npz(path: Path, roles: tuple[str, ...]) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(path):
        raise InputError("path", problem=f"{path} is not an .npz archive, or was cut short", instead="copy it again")
    with np.load(path, allow_pickle=False) as archive:
        keys = _roles(archive.files, path)
        return {role: _member(archive, key, path) for role, key in keys.items() if role in roles}


def _member(archive: np.lib.npyio.NpzFile, key: str, path: Path) -> np.ndarray:
    try:
        return archive[key]
    except ValueError as error:
        # numpy says this for Python objects, which it would have to unpickle, and for a broken header
        raise InputError(
            "path",
            problem=f"{path} has {key!r}, which is not a plain array of numbers ({reason(error)})",
            instead="save it with dtype uint8, bool or float",
        ) from error


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
            array = np.load(file, allow_pickle=False)
    except ValueError as error:
        raise InputError(
            "path",
            problem=f"{path} is not a plain .npy array, or was cut short ({reason(error)})",
            instead="copy it again",
        ) from error
    if not isinstance(array, np.ndarray):
        raise InputError("path", problem=f"{path} is an .npz archive", instead="rename it to .npz")
    return array


def _read_mat(path: Path) -> dict[str, np.ndarray]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        arrays = loadmat(path, variable_names=["X", "y"])
    except NotImplementedError as error:
        raise InputError(
            "path", problem=f"{path} is a MATLAB 7.3 file, which is not read here", instead="save it with -v7"
        ) from error
    except (MatReadError, ValueError, TypeError, LookupError, OverflowError, MemoryError, struct.error) as error:
        raise InputError(
            "path", problem=f"{path} is damaged or not a .mat file ({reason(error)})", instead="copy it again"
        ) from error
    found = arrays.get("X")
    if found is None or found.ndim != 4 or found.shape[2] not in (1, 3):
        shape = "no X" if found is None else f"an X of shape {'x'.join(map(str, found.shape))}"
        raise InputError(
            "path", problem=f"{path} has {shape}", instead="SVHN's layout is wanted, X (h, w, c, n) and y (n, 1)"
        )
    result = {"x": found.transpose(3, 0, 1, 2)}
    if "y" in arrays:
        labels = arrays["y"].reshape(-1)
        result["y"] = np.where(labels == 10, 0, labels)  # SVHN writes the digit 0 as 10
    return result


def _read_idx(path: Path) -> np.ndarray:
    data = path.read_bytes()
    if data[:2] == GZIP_MAGIC:
        data = gzip.decompress(data)
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in IDX_TYPES or data[3] == 0:
        raise InputError(
            "path",
            problem=f"{path} is not an idx file (it starts with 0x{data[:4].hex()})",
            instead="give .npz, .npy, .mat or idx(.gz)",
        )
    header = 4 + 4 * data[3]
    if len(data) < header:
        raise InputError("path", problem=f"{path} ends within its header", instead="copy it again")
    shape = struct.unpack(f">{data[3]}I", data[4:header])
    dtype = np.dtype(IDX_TYPES[data[2]])
    wanted = header + dtype.itemsize * int(np.prod(shape, dtype=object))
    if len(data) != wanted:
        raise InputError(
            "path",
            problem=f"{path} has {len(data)} bytes where its header promises {wanted}",
            instead="copy it again",
        )
    return np.frombuffer(data, dtype, offset=header).reshape(shape)
