"""Files that are made to break their readers: each ends in one line, and none takes memory that it does not fill."""

import gzip
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from data_writers import noise, refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shortrun.data import load_dataset, read_images, read_mask
from shortrun.errors import InputError


def npy(header: str, data: bytes = bytes(128)) -> bytes:
    """Return a .npy file with any header."""
    words = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(words)) + words + data


def shaped(shape: str, descr: str = "|u1") -> bytes:
    return npy(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}")


def zipped(member: bytes, name: str = "x.npy") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, member)
    return file.getvalue()


def flagged(offset: int, value: int) -> bytes:
    """Return an archive with a number of its member's header changed, in both places where it stands."""
    data = bytearray(zipped(shaped("(2, 8, 8)")))
    data[offset] = data[data.rfind(b"PK\1\2") + offset + 2] = value
    return bytes(data)


def mat(**arrays: object) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, arrays)
    return file.getvalue()


CELLS = np.empty((1, 2), dtype=object)
CELLS[0, 0], CELLS[0, 1] = np.arange(3), "a"
PIXELS = np.zeros((8, 8, 3, 2), np.uint8)
OPEN = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 8, 8)"
FILES: dict[str, bytes] = {
    "header_open.npy": npy(OPEN),
    "header_of_a_key_that_is_a_table.npy": npy("{{}: 1}"),
    "header_nested.npy": npy("(" * 9000),
    "objects.npy": shaped("(2, 8, 8)", "|O"),
    "of_10_13.npy": shaped("(10000000000000, 1, 1)"),
    "of_10_30.npy": shaped(f"({10**30}, 1, 1)"),
    "of_less_than_none.npy": shaped("(-1, 8, 8)"),
    "version_9.npy": b"\x93NUMPY\x09\x00" + shaped("(2, 8, 8)")[8:],
    "header_open.npz": zipped(npy(OPEN)),
    "no_array.npz": zipped(b"words"),
    "shape_of_text.npz": zipped(shaped("('a', 8, 8)")),
    "of_10_13.npz": zipped(shaped("(10000000000000, 1, 1)")),
    "behind_other_bytes.npz": b"x" + zipped(shaped("(2, 8, 8)")),
    "encrypted.npz": flagged(6, 1),
    "method_99.npz": flagged(8, 99),
    "labels_are_a_struct.mat": mat(X=PIXELS, y={"a": 1}),
    "labels_are_cells.mat": mat(X=PIXELS, y=CELLS),
    "images_are_cells.mat": mat(X=CELLS),
    "of_255_dimensions.idx": b"\0\0\x08\xff" + struct.pack(">255I", *[1] * 255) + b"\0",
    "of_none_by_2_32.idx": b"\0\0\x08\x04" + struct.pack(">IIII", 0, *[2**32 - 1] * 3),
    "of_4_10_9.idx": b"\0\0\x08\x03" + struct.pack(">III", 4 * 10**9, 28, 28) + bytes(784),
}


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_or_lying_file_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name])
    for call, argument in ((read_images, "path"), (lambda path: load_dataset(str(path)), "source")):
        with refused(argument, name):
            call(path)


def test_a_mask_is_read_with_the_same_care(tmp_path: Path) -> None:
    (tmp_path / "mask.npy").write_bytes(npy(OPEN))
    with refused("path", "mask.npy"):
        read_mask(tmp_path / "mask.npy", (8, 8))


@pytest.mark.parametrize("call", [read_images, lambda path: read_mask(path, (8, 8))])
@pytest.mark.parametrize("name", ["a" * 300 + ".png", "a" * 5000 + ".npy", "a\0b.png"])
def test_a_name_that_no_file_can_have_is_not_there(call: Callable[[Path], object], name: str) -> None:
    with refused("path", "does not exist"):
        call(Path(name))
    with pytest.raises(InputError, match="does not exist") as caught:
        load_dataset(name)
    assert len(str(caught.value)) < 1_000


def of_zeros(wanted: int) -> bytes:
    """Return a gzip file of an idx of so many zeros, made quickly: one compressed block over and over."""
    header = b"\0\0\x08\x03" + struct.pack(">III", wanted // 1024, 32, 32)
    return gzip.compress(header) + gzip.compress(bytes(2**24)) * (wanted // 2**24)


def test_a_packed_file_that_unpacks_to_gigabytes_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "zeros-idx3-ubyte.gz"
    path.write_bytes(of_zeros(3 * 2**30))
    with refused("path", "unpacks", "3.0 GiB"):
        read_images(path)
    path = tmp_path / "zeros.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("x.npy", "w") as file,
    ):
        file.write(shaped("(300000, 32, 32)"))
        for _ in range(18):
            file.write(bytes(2**24))
    with refused("path", "unpacks", "as no images do"):
        read_images(path)


def test_what_does_not_fit_into_memory_is_refused_with_both_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "a.npz", x=noise(100, 32, 32))
    assert len(read_images(tmp_path / "a.npz")) == 100
    monkeypatch.setattr("shortrun.memory.memory", lambda: 150_000)
    with refused("path", "a.npz", "more than half of this machine's"):
        read_images(tmp_path / "a.npz")


def test_a_file_that_kills_its_reader_is_refused(tmp_path: Path) -> None:
    data = bytearray(mat(X=noise(8, 8, 3, 6), y=np.arange(6)[:, None]))
    at = data.find(struct.pack("<II", 2, 8 * 8 * 3 * 6))  # the tag of the pixels: their type, and how many bytes
    assert at > 0
    data[at : at + 4] = struct.pack("<I", 200)  # a type that SciPy looks up behind the end of its table
    (tmp_path / "a.mat").write_bytes(data)
    with refused("path", "a.mat"):
        read_images(tmp_path / "a.mat")


SOUND = {
    "a.npy": lambda: (file := io.BytesIO(), np.save(file, noise(4, 8, 8)), file.getvalue())[-1],
    "a.npz": lambda: (file := io.BytesIO(), np.savez(file, x=noise(4, 8, 8), y=np.arange(4)), file.getvalue())[-1],
    "a.idx": lambda: b"\0\0\x08\x03" + struct.pack(">III", 4, 8, 8) + noise(4, 8, 8).tobytes(),
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(SOUND)), cut=st.integers(0, 300), data=st.data())
def test_any_change_of_some_bytes_is_read_or_refused(name: str, cut: int, data: st.DataObject, tmp_path: Path) -> None:
    content = bytearray(SOUND[name]())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, min(len(content), 200) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / name
    path.write_bytes(content[: len(content) - cut] if cut < 100 else content)
    try:
        assert read_images(path).isfinite().all()
    except InputError as error:
        lines = str(error).count("\n")
    else:
        lines = 0
    assert lines == 0
    path.unlink()
