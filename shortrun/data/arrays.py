"""Files that hold many images as one array: .npz, .npy, .mat, idx."""

import gzip
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from shortrun.data.arguments import reason
from shortrun.errors import InputError

ROLES = ("train_x", "train_y", "test_x", "test_y", "x", "y")
IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP_MAGIC = b"\x1f\x8b"


def is_array_file(path: Path) -> bool:
    """Say by its name whether a file is one of those that `read_arrays` reads."""
    return path.suffix.lower() in (".npz", ".npy", ".mat", ".idx", ".gz") or "-idx" in path.name


def read_arrays(path: Path, argument: str, roles: tuple[str, ...] = ROLES) -> dict[str, np.ndarray]:
    """Return a file's arrays by role: train_x, test_x where the file is split, else x, and their labels _y or y.

    Of an .npz only the `roles` asked for are read. Raises InputError, which starts with `argument`, for a file that
    is missing, corrupt or of another kind.
    """
    subject = f"{argument} {path}"
    if not path.is_file():
        raise InputError(subject, problem="no such file")
    try:
        match path.suffix.lower():
            case ".npz":
                return _read_npz(path, subject, roles)
            case ".npy":
                return {"x": _read_npy(path, subject)}
            case ".mat":
                return _read_mat(path, subject)
            case _:
                return {"x": _read_idx(path, subject)}
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(
            subject, problem=f"the file is damaged or cannot be read ({reason(error)})", instead="copy it again"
        ) from error


def read_idx(path: Path, argument: str) -> np.ndarray:
    """Return the array of an idx or idx.gz file, of any dimension; raises InputError for wrong magic or length."""
    return read_arrays(path, argument)["x"]


def _read_npz(path: Path, subject: str, roles: tuple[str, ...]) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(path):
        raise InputError(subject, problem="the file is not an .npz archive, or was cut short", instead="copy it again")
    with np.load(path, allow_pickle=False) as archive:
        keys = _roles(archive.files, subject)
        return {role: _member(archive, key, subject) for role, key in keys.items() if role in roles}


def _member(archive: np.lib.npyio.NpzFile, key: str, subject: str) -> np.ndarray:
    try:
        return archive[key]
    except ValueError as error:
        # numpy says this for Python objects, which it would have to unpickle, and for a broken header
        raise InputError(subject, problem=f"{key!r} is not a plain array of numbers ({reason(error)})") from error


def _roles(names: Iterable[str], subject: str) -> dict[str, str]:
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
                subject,
                problem=f"it is not clear which array holds the images (arrays: {found})",
                instead="name them train_x and test_x, or x",
            )
        images = others[0]
    return {"x": images} if labels is None else {"x": images, "y": labels}


def _read_npy(path: Path, subject: str) -> np.ndarray:
    try:
        with path.open("rb") as file:
            array = np.load(file, allow_pickle=False)
    except ValueError as error:
        raise InputError(
            subject, problem=f"the file is not a plain .npy array, or was cut short ({reason(error)})"
        ) from error
    if not isinstance(array, np.ndarray):
        raise InputError(subject, problem="the file is an .npz archive", instead="rename it to .npz")
    return array


def _read_mat(path: Path, subject: str) -> dict[str, np.ndarray]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        arrays = loadmat(path, variable_names=["X", "y"])
    except NotImplementedError as error:
        raise InputError(
            subject, problem="a MATLAB 7.3 file, which is not read here", instead="save it with -v7"
        ) from error
    except (MatReadError, ValueError, TypeError, LookupError, OverflowError, MemoryError, struct.error) as error:
        raise InputError(subject, problem=f"the file is damaged or not a .mat file ({reason(error)})") from error
    found = arrays.get("X")
    if found is None or found.ndim != 4 or found.shape[2] not in (1, 3):
        shape = "no X" if found is None else f"an X of shape {'x'.join(map(str, found.shape))}"
        raise InputError(
            subject, problem=f"it has {shape}", instead="SVHN's layout is wanted, X (h, w, c, n) and y (n, 1)"
        )
    result = {"x": found.transpose(3, 0, 1, 2)}
    if "y" in arrays:
        labels = arrays["y"].reshape(-1)
        result["y"] = np.where(labels == 10, 0, labels)  # SVHN writes the digit 0 as 10
    return result


def _read_idx(path: Path, subject: str) -> np.ndarray:
    data = path.read_bytes()
    if data[:2] == GZIP_MAGIC:
        data = gzip.decompress(data)
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in IDX_TYPES or data[3] == 0:
        raise InputError(
            subject,
            problem=f"not an idx file (it starts with 0x{data[:4].hex()})",
            instead="give .npz, .npy, .mat or idx(.gz)",
        )
    header = 4 + 4 * data[3]
    if len(data) < header:
        raise InputError(subject, problem="the idx file ends within its header", instead="copy it again")
    shape = struct.unpack(f">{data[3]}I", data[4:header])
    dtype = np.dtype(IDX_TYPES[data[2]])
    wanted = header + dtype.itemsize * int(np.prod(shape, dtype=object))
    if len(data) != wanted:
        raise InputError(
            subject,
            problem=f"the idx file has {len(data)} bytes where its header promises {wanted}",
            instead="copy it again",
        )
    return np.frombuffer(data, dtype, offset=header).reshape(shape)
