import numpy as np
import pytest
import torch
from data_writers import noise, refused
from hypothesis import given, settings
from hypothesis import strategies as st

from shortrun.data import Dataset, ImageSet, require_labels
from shortrun.data.framing import Framing, reframed
from shortrun.data.selection import Selection


def eight_bit(n: int = 5, c: int = 1, h: int = 4, w: int = 6) -> ImageSet:
    return ImageSet(torch.from_numpy(noise(n, c, h, w)), torch.arange(n), 256)


@settings(deadline=None)
@given(st.integers(2, 256))
def test_the_levels_go_evenly_from_minus_one_to_one(levels: int) -> None:
    pixels = torch.arange(levels, dtype=torch.uint8).reshape(levels, 1, 1, 1)
    images = ImageSet(pixels, levels=levels).images().flatten()
    assert images[0] == -1
    assert images[-1] == 1
    torch.testing.assert_close(images, torch.linspace(-1, 1, levels), atol=1e-6, rtol=0)


def test_only_the_rows_asked_for_come_as_new_tensors() -> None:
    images = eight_bit()
    rows = torch.tensor([3, 1])
    assert torch.equal(images.images(rows), images.images()[rows])
    assert torch.equal(images.images(slice(1, 3)), images.images()[1:3])
    assert torch.equal(images.images(torch.tensor([True, False, False, True, False])), images.images()[[0, 3]])
    floats = ImageSet(torch.zeros(2, 1, 3, 3))
    floats.images().fill_(9)
    assert floats.pixels.max() == 0


def test_length_shape_take_and_select_keep_labels() -> None:
    images = eight_bit()
    assert len(images) == 5
    assert images.shape == (1, 4, 6)
    assert len(images.take(2)) == 2
    assert require_labels(images.select(torch.tensor([4, 0])), "x").tolist() == [4, 0]
    with refused("n", "got 6", "5 images"):
        images.take(6)


@pytest.mark.parametrize(
    ("pixels", "levels"),
    [
        (torch.tensor([0, 127, 128, 255], dtype=torch.uint8), 256),
        (torch.tensor([0, 8, 9, 16], dtype=torch.uint8), 17),
        (torch.tensor([-1.0, 0.0, 0.1, 1.0]), None),
    ],
)
def test_binarized_is_one_above_the_middle(pixels: torch.Tensor, levels: int | None) -> None:
    binary = ImageSet(pixels.reshape(4, 1, 1, 1), levels=levels).binarized()
    assert binary.levels == 2
    assert binary.pixels.flatten().tolist() == [0, 0, 1, 1]
    assert binary.images().flatten().tolist() == [-1, -1, 1, 1]


def test_what_does_not_fit_together_is_refused() -> None:
    with refused("levels", "got none", "uint8"):
        ImageSet(torch.zeros(2, 1, 2, 2, dtype=torch.uint8))
    with refused("levels", "got 256", "float32"):
        ImageSet(torch.zeros(2, 1, 2, 2), levels=256)
    with refused("levels", "got 300"):
        ImageSet(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), levels=300)


def test_missing_labels_are_named() -> None:
    with refused("dataset", "faces has no labels"):
        require_labels(ImageSet(torch.zeros(2, 1, 2, 2)), "faces")


@settings(deadline=None)
@given(st.integers(2, 60), st.floats(0.01, 0.99), st.integers(0, 5))
def test_a_split_takes_every_image_once(n: int, fraction: float, seed: int) -> None:
    selection = Selection(test_fraction=fraction, seed=seed)
    if n - np.ceil(n * fraction) < 1:
        with refused("test_fraction", "here", n):
            selection.split(n, "here")
        return
    train, test = selection.split(n, "here")
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(n))
    assert len(test) == np.ceil(n * fraction)
    again, _ = selection.split(n, "here")
    assert torch.equal(train, again)


def test_limits_keep_the_head_of_a_split() -> None:
    whole, _ = Selection().split(20, "here")
    train, test = Selection(train_limit=3, test_limit=1).split(20, "here")
    assert torch.equal(train, whole[:3])
    assert len(test) == 1
    with refused("train_limit", "got 17", "only 16"):
        Selection(train_limit=17).split(20, "here")
    with refused("test_limit", "got 5", "only 4"):
        Selection(test_limit=5).split(20, "here")
    with refused("test_limit", "got 0", "1 or more"):
        Selection(test_limit=0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, float("nan")])
def test_a_fraction_outside_zero_and_one_is_refused(fraction: float) -> None:
    with refused("test_fraction", "above 0 and below 1"):
        Selection(test_fraction=fraction)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_the_crop_lies_inside_and_has_the_shape_of_the_size(h: int, w: int, to_h: int, to_w: int) -> None:
    top, left, height, width = Framing(size=(to_h, to_w)).box(h, w, "it")
    assert 0 <= top <= top + height <= h
    assert 0 <= left <= left + width <= w
    assert height == h or width == w  # the largest such crop
    assert abs(2 * top + height - h) <= 1  # centred
    assert abs(2 * left + width - w) <= 1


def test_a_set_is_cropped_exactly_and_resized_within_its_levels() -> None:
    images = eight_bit(h=6, w=9)
    cropped = reframed(images, Framing(crop=4), "it")
    assert torch.equal(cropped.pixels, images.pixels[:, :, 1:5, 2:6])
    resized = reframed(images, Framing(crop=6, size=(12, 12)), "it")
    assert resized.pixels.dtype == torch.uint8
    assert resized.shape == (1, 12, 12)
    assert torch.equal(require_labels(resized, "x"), require_labels(images, "x"))
    floats = reframed(ImageSet(images.images()), Framing(size=(3, 3)), "it")
    assert floats.images().abs().max() <= 1
    flat = ImageSet(torch.full((1, 1, 8, 8), 16, dtype=torch.uint8), levels=17)
    assert reframed(flat, Framing(size=(5, 5)), "it").pixels.unique().tolist() == [16]


def test_sizes_that_cannot_be_are_refused() -> None:
    with refused("crop", "got 7", "4x6", "at most 4"):
        reframed(eight_bit(), Framing(crop=7), "it")
    with refused("crop", "got 0", "1 pixel"):
        Framing(crop=0)
    with refused("size", "got -2", "1 pixel"):
        Framing(size=(-2, -2))


@settings(deadline=None)
@given(st.data())
def test_held_out_images_are_train_images_that_are_left_out_of_training(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 60))
    n = data.draw(st.integers(1, size - 1))
    pixels = torch.arange(size, dtype=torch.uint8).reshape(size, 1, 1, 1)
    train = ImageSet(pixels, torch.arange(size) * 2, 256)
    parted = Dataset("x", train, eight_bit()).hold_out(n)
    kept, held = (part.pixels.flatten().tolist() for part in (parted.train, parted.test))
    assert len(held) == n
    assert sorted(kept + held) == list(range(size))
    assert kept == sorted(kept)
    assert require_labels(parted.test, "x").tolist() == [2 * pixel for pixel in held]
    assert parted.split == "held-out train"
    assert torch.equal(parted.test.pixels, Dataset("x", train, eight_bit()).hold_out(n).test.pixels)


def test_what_is_held_out_does_not_follow_the_order_of_the_labels() -> None:
    train = ImageSet(torch.zeros(1000, 1, 1, 1), torch.arange(1000) // 100)
    held = require_labels(Dataset("x", train, train).hold_out(200).test, "x")
    assert held.bincount(minlength=10).min() > 8


@pytest.mark.parametrize("n", [0, 5, 6])
def test_some_images_stay_for_training(n: int) -> None:
    with refused("n", f"got {n} of 5 training images"):
        Dataset("x", eight_bit(), eight_bit()).hold_out(n)


def test_a_data_set_is_labelled_where_two_classes_can_be_told_apart() -> None:
    bare = ImageSet(torch.zeros(3, 1, 2, 2))
    one = ImageSet(torch.zeros(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64))
    assert Dataset("x", eight_bit(), eight_bit()).labelled
    assert not Dataset("x", bare, bare).labelled
    assert not Dataset("x", eight_bit(), bare).labelled
    assert not Dataset("x", one, one).labelled


@pytest.mark.parametrize(
    ("pixels", "levels", "words"),
    [
        (torch.full((2, 1, 4, 4), torch.nan), None, "floats from nan"),
        (torch.full((2, 1, 4, 4), 255.0), None, "floats from 255 to 255"),
        (torch.full((2, 1, 4, 4), 17, dtype=torch.uint8), 17, "17 levels are 0 to 16"),
        (torch.zeros(2, 4, 4, 3), None, "channels last"),
        (torch.zeros(0, 1, 4, 4), None, "at least one image"),
    ],
)
def test_pixels_out_of_range_or_order_are_refused(pixels: torch.Tensor, levels: int | None, words: str) -> None:
    with refused("pixels", words):
        ImageSet(pixels, levels=levels)
