import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from data_writers import idx_bytes, noise, refused
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.io import savemat

from shortrun.data import PixelRange, load_dataset, read_images, require_labels
from shortrun.data.arrays import read_arrays
from shortrun.data.layouts import image_sets


def reference(array: np.ndarray) -> torch.Tensor:
    """uint8 (n, h, w) or (n, h, w, c) -> float (n, c, h, w) in [-1, 1], by another way than the code's."""
    array = array[..., None] if array.ndim == 3 else array
    return torch.from_numpy(array.astype(np.float64) / 127.5 - 1).permute(0, 3, 1, 2).float()


@settings(deadline=None)
@given(
    st.integers(1, 5), st.sampled_from([1, 3]), st.integers(4, 9), st.integers(4, 9), st.sampled_from(["first", "last"])
)
def test_channels_may_come_first_or_last(n: int, c: int, h: int, w: int, place: str) -> None:
    array = noise(n, h, w, c)
    stored = array if place == "last" else np.ascontiguousarray(array.transpose(0, 3, 1, 2))
    (images,) = image_sets([stored], [None], "here")
    assert images.shape == (c, h, w)
    torch.testing.assert_close(images.images(), reference(array))


def test_grey_images_need_no_channel_axis() -> None:
    array = noise(3, 5, 7)
    (images,) = image_sets([array], [None], "here")
    assert images.shape == (1, 5, 7)
    assert images.levels == 256
    torch.testing.assert_close(images.images(), reference(array))


@pytest.mark.parametrize("kind", ["uint8", "int64", ">i4", "uint16"])
def test_whole_numbers_of_any_width_are_8_bit(kind: str) -> None:
    array = noise(3, 5, 7)
    (images,) = image_sets([array.astype(kind)], [None], "here")
    assert images.pixels.numpy().tobytes() == array.tobytes()


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", ">f4"])
def test_floats_may_lie_in_zero_one_or_minus_one_one(kind: str) -> None:
    array = noise(3, 5, 7)
    for stored in (array / 255, array / 127.5 - 1):
        (images,) = image_sets([stored.astype(kind)], [None], "here")
        assert images.levels is None
        torch.testing.assert_close(images.images(), reference(array), atol=2e-3, rtol=0)
        assert images.images().abs().max() <= 1


def test_train_and_test_share_one_range() -> None:
    # the test images alone would be taken for [0, 1]
    train, test = image_sets([np.full((1, 4, 4), -0.5), np.full((1, 4, 4), 0.5)], [None, None], "here")
    assert train.images().unique().item() == -0.5
    assert test.images().unique().item() == 0.5


def test_what_floats_mean_can_be_said_and_is_kept() -> None:
    positive = np.full((2, 4, 4), 0.5)
    cases: list[tuple[PixelRange | None, PixelRange, float, PixelRange]] = [
        (None, "unit", 0, "unit"),
        (None, "signed", 0.5, "signed"),
        ("unit", "signed", 0, "unit"),
        ("signed", "unit", 0.5, "signed"),
    ]
    for said, usual, value, found in cases:
        (images,) = image_sets([positive], [None], "here", said, usual)
        assert images.images().unique().item() == value
        assert images.pixel_range == found
        assert images.select(slice(1)).pixel_range == images.binarized().pixel_range == found
    (images,) = image_sets([-positive], [None], "here", None, "unit")
    assert images.pixel_range == "signed"
    with refused("pixel_range", "'unit'", "-0.5", "write signed"):
        image_sets([-positive], [None], "here", "unit")
    (images,) = image_sets([noise(2, 4, 4)], [None], "here", "signed")
    assert images.pixel_range is None


def test_bools_have_two_levels() -> None:
    array = noise(3, 5, 7) > 127
    (images,) = image_sets([array], [None], "here")
    assert images.levels == 2
    assert torch.equal(images.images() > 0, torch.from_numpy(array)[:, None])


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((0, 4, 4), np.uint8), ["0x4x4", "no images"]),
        (noise(6, 5, 3), ["6x5x3", "array[None]"]),
        (noise(4, 5), ["4x5", "(n, h, w)"]),
        (noise(2, 4, 4, 4), ["2x4x4x4", "c = 1 or 3"]),
        (np.arange(32).reshape(2, 4, 4) * 10, ["0 to 310", "0 to 255"]),
        (noise(2, 4, 4) - np.int64(3), ["-3", "0 to 255"]),
        (np.tile(np.array([0, 1], np.uint8), (2, 4, 2)), ["0 and 1", "bool"]),
        (noise(2, 4, 4).astype(float), ["0 to 255", "[-1, 1]"]),
        (np.full((2, 4, 4), np.nan), ["nan", "[0, 1]"]),
        (np.full((2, 4, 4), 1j), ["complex128", "uint8"]),
        (np.full((2, 4, 4), "a"), ["<U1", "uint8"]),
    ],
)
def test_arrays_that_are_no_images_are_refused(array: np.ndarray, words: list[str]) -> None:
    with refused("path", "here", *words):
        image_sets([array], [None], "here")


@pytest.mark.parametrize(
    ("labels", "word"), [(np.zeros(3), "3"), (np.full(2, 0.5), "whole"), (np.array(["a", "b"]), "<U1")]
)
def test_labels_that_are_none_are_refused(labels: np.ndarray, word: str) -> None:
    with refused("path", "here", "labels", word):
        image_sets([noise(2, 4, 4)], [labels], "here")


def test_parts_that_differ_are_refused() -> None:
    with refused("path", "here", "1x4x4", "1x5x4", "alike"):
        image_sets([noise(2, 4, 4), noise(2, 5, 4)], [None, None], "here")
    with refused("path", "here", "uint8", "float64"):
        image_sets([noise(2, 4, 4), np.zeros((2, 4, 4))], [None, None], "here")


@settings(max_examples=30, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.int8, np.int16, np.int32, np.float32, np.float64]).map(np.dtype),
        hnp.array_shapes(min_dims=1, max_dims=4, max_side=5),
    ),
    st.booleans(),
)
def test_idx_files_round_trip(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, zipped: bool) -> None:
    data = idx_bytes(array)
    path = tmp_path_factory.mktemp("idx") / ("a-idx.gz" if zipped else "a-idx")
    path.write_bytes(gzip.compress(data, mtime=0) if zipped else data)
    np.testing.assert_array_equal(read_arrays(path)["x"], array)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ["not an idx file"]),
        (b"\x01\x00\x08\x03", ["not an idx file", "0x01000803"]),
        (b"\0\0\x07\x03", ["not an idx file"]),
        (b"\0\0\x08\x03\0\0", ["header"]),
        (idx_bytes(noise(2, 4, 4))[:-1], ["31 bytes", "32"]),
        (idx_bytes(noise(2, 4, 4)) + b"x", ["more than 32 bytes"]),
        (gzip.compress(idx_bytes(noise(2, 4, 4)), mtime=0)[:-12], ["damaged"]),
        (gzip.compress(idx_bytes(noise(2, 4, 4)), mtime=0)[:-8] + b"12345678", ["damaged"]),
    ],
)
def test_broken_idx_files_are_refused(tmp_path: Path, data: bytes, words: list[str]) -> None:
    path = tmp_path / "t-images-idx3-ubyte.gz"
    path.write_bytes(data)
    with refused("source", path, *words):
        load_dataset(str(path))


def test_a_file_without_a_split_is_split_by_the_seed(tmp_path: Path) -> None:
    array = noise(20, 4, 5)
    np.save(tmp_path / "a.npy", array)
    path = str(tmp_path / "a.npy")
    data = load_dataset(path)
    assert data.name == "a"
    assert (len(data.train), len(data.test)) == (16, 4)
    together = torch.cat([data.train.pixels, data.test.pixels]).flatten(1).tolist()
    assert sorted(together) == sorted(array.reshape(20, -1).tolist())
    assert torch.equal(data.train.pixels, load_dataset(path).train.pixels)
    assert not torch.equal(data.train.pixels, load_dataset(path, seed=1).train.pixels)
    assert len(load_dataset(path, test_fraction=0.5).test) == 10


def test_an_npz_with_a_split_keeps_it_and_its_order(tmp_path: Path) -> None:
    train, test = noise(6, 4, 4, 3), noise(2, 4, 4, 3, seed=1)
    np.savez(tmp_path / "a.npz", train_x=train, test_x=test, train_y=np.arange(6), test_y=np.arange(2)[:, None])
    data = load_dataset(str(tmp_path / "a.npz"), train_limit=5)
    torch.testing.assert_close(data.train.images(), reference(train[:5]))
    torch.testing.assert_close(data.test.images(), reference(test))
    assert require_labels(data.train, "a").tolist() == [0, 1, 2, 3, 4]
    assert require_labels(data.test, "a").tolist() == [0, 1]
    torch.testing.assert_close(read_images(tmp_path / "a.npz"), reference(test))


@pytest.mark.parametrize("key", ["x", "images", "train_x", "whatever"])
def test_an_npz_of_one_array_is_split(tmp_path: Path, key: str) -> None:
    np.savez_compressed(tmp_path / "a.npz", **{key: noise(10, 4, 4)})  # pyright: ignore[reportArgumentType]
    assert len(load_dataset(str(tmp_path / "a.npz")).train) == 8
    assert len(read_images(tmp_path / "a.npz")) == 10


def test_labels_follow_their_images_through_the_split(tmp_path: Path) -> None:
    labels = np.arange(10)
    np.savez(tmp_path / "a.npz", x=np.tile(labels[:, None, None] * 20, (1, 4, 4)).astype(np.uint8), y=labels)
    data = load_dataset(str(tmp_path / "a.npz"))
    for part in (data.train, data.test):
        assert torch.equal(part.pixels[:, 0, 0, 0].long(), require_labels(part, "a") * 20)


def test_size_crop_and_binarize_hold_for_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", noise(10, 8, 12))
    path = str(tmp_path / "a.npy")
    assert load_dataset(path, image_size=4).train.shape == (1, 4, 4)
    assert load_dataset(path, crop=6).train.shape == (1, 6, 6)
    data = load_dataset(path, crop=6, image_size=16, binarize=True)
    assert data.train.shape == data.test.shape == (1, 16, 16)
    assert data.train.levels == 2
    with refused("crop", "got 9", "8x12", "at most 8"):
        load_dataset(path, crop=9)


def test_npz_files_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.array([{}, {}], object))
    with refused("source", path, "'x'", "not a plain array"):
        load_dataset(str(path))
    np.savez(path, a=noise(2, 4, 4), b=noise(2, 4, 4))
    with refused("source", path, "a, b", "train_x"):
        load_dataset(str(path))
    np.savez(path, test_x=noise(2, 4, 4))
    with refused("source", path, "no train_x"):
        load_dataset(str(path))
    np.savez(path, train_x=noise(2, 4, 4), test_x=np.zeros((0, 4, 4), np.uint8))
    with refused("source", path, "no images"):
        load_dataset(str(path))
    np.savez(path, x=noise(1, 4, 4))
    with refused("test_fraction", path, "1 image(s)"):
        load_dataset(str(path))
    np.savez(path, x=noise(20, 16, 16))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with refused("source", path, "cut short"):
        load_dataset(str(path))
    path.write_bytes(whole[:300] + bytes(40) + whole[340:])
    with refused("source", path, "damaged"):
        load_dataset(str(path))
    path.write_bytes(b"no archive")
    with refused("source", path, "not an .npz"):
        load_dataset(str(path))


def test_npy_files_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([{}], object), allow_pickle=True)
    with refused("source", path, "not a plain .npy"):
        load_dataset(str(path))
    np.save(path, noise(10, 8, 8))
    path.write_bytes(path.read_bytes()[:-100])
    with refused("source", path, "cut short"):
        load_dataset(str(path))
    path.write_bytes(b"")
    with refused("source", path):
        load_dataset(str(path))
    np.savez(tmp_path / "b.npz", x=noise(2, 4, 4))
    (tmp_path / "b.npz").rename(path)
    with refused("source", path, "rename it to .npz"):
        load_dataset(str(path))


def test_mat_files_in_the_layout_of_svhn(tmp_path: Path) -> None:
    images = noise(10, 6, 5, 3)
    labels = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], np.uint8)
    path = tmp_path / "some_32x32.mat"
    savemat(path, {"X": images.transpose(1, 2, 3, 0), "y": labels[:, None]}, do_compression=True)
    arrays = read_arrays(path)
    np.testing.assert_array_equal(arrays["x"], images)
    assert arrays["y"].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    torch.testing.assert_close(read_images(path), reference(images))
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], whole[:100], b"", whole[:300] + bytes(200) + whole[500:]):
        path.write_bytes(broken)
        with refused("source", path, "damaged"):
            load_dataset(str(path))
    savemat(path, {"Z": images})
    with refused("source", path, "no X", "(h, w, c, n)"):
        load_dataset(str(path))
    savemat(path, {"X": images})
    with refused("source", path, "10x6x5x3", "(h, w, c, n)"):
        load_dataset(str(path))


def test_whole_numbers_of_another_scale_are_refused_with_their_range(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", noise(4, 8, 8) // 16)
    with refused("source", "a.npy", "whole numbers up to 15", "nearly black", "floats in [0, 1]"):
        load_dataset(str(tmp_path / "a.npy"))
    np.save(tmp_path / "b.npy", noise(4, 8, 8).astype(np.int32) * 16)
    with refused("source", "b.npy", "whole numbers from 0 to 4080", "divided by the number that is white"):
        load_dataset(str(tmp_path / "b.npy"))


def test_one_image_of_0_and_1_is_refused_and_one_dark_image_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", noise(1, 8, 8) // 128)
    with refused("path", "only 0 and 1", "save them as bool"):
        read_images(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", noise(1, 8, 8) // 16)
    assert float(read_images(tmp_path / "b.npy").max()) < -0.8
