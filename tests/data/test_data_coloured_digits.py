"""Coloured digits: their factors say how each image was made, exactly."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from data_writers import refused
from torch import Tensor

from shortrun.data import Dataset, ImageSet, load_dataset, require_labels
from shortrun.data.coloured_digits import BACKGROUNDS, FACTORS, INKS, LUMA, SHIFTS, THICKNESSES, coloured


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset("coloured_digits")


def factors_of(images: ImageSet) -> Mapping[str, Tensor]:
    assert images.factors is not None
    return images.factors


def masks_of(images: ImageSet) -> np.ndarray:
    """How far each pixel lies from the background's colour to that of the ink; all of an image is between the two."""
    factors, pixels = factors_of(images), images.pixels.numpy().astype(np.float64)
    ground = BACKGROUNDS[factors["background"]].astype(np.float64)[:, :, None, None]
    way = INKS[factors["ink"]].astype(np.float64)[:, :, None, None] - ground
    masks = ((pixels - ground) * way).sum(1) / (way**2).sum(1)
    assert np.abs(ground + masks[:, None] * way - pixels).max() < 1  # rounded
    return masks


def test_sizes_labels_and_counts(data: Dataset) -> None:
    assert (len(data.train), len(data.test)) == (20_000, 2_000)
    assert data.train.shape == (3, 32, 32)
    assert data.train.levels == 256
    for part in (data.train, data.test):
        factors = factors_of(part)
        assert tuple(factors) == FACTORS
        assert torch.equal(factors["digit"], require_labels(part, "coloured_digits"))
        for name, values in factors.items():
            share = values.bincount() / len(part)
            counts = {"right": len(SHIFTS), "down": len(SHIFTS), "thickness": len(THICKNESSES), "digit": 10}
            assert len(share) == counts.get(name, len(INKS))
            assert (share * len(share) - 1).abs().max() < 0.25, name
    table = data.test.factor_table()
    assert table is not None
    assert torch.equal(table[:, 3], factors_of(data.test)["right"])


def test_factors_are_the_colours_the_place_and_the_thickness(data: Dataset) -> None:
    factors, masks = factors_of(data.test), masks_of(data.test)
    assert torch.equal(
        data.test.pixels[:, :, 0, 0], torch.from_numpy(BACKGROUNDS)[factors["background"]]
    )  # no digit reaches into a corner
    assert (masks.reshape(len(masks), -1).max(1) > 0.99).all()  # some pixels are of ink alone
    for name, axis in (("down", 2), ("right", 1)):
        ink = masks.max(axis=axis) > 0.5
        middle = (np.argmax(ink, 1) + 31 - np.argmax(np.flip(ink, 1), 1)) / 2 - 15.5
        away = np.abs(middle - SHIFTS[factors[name]])
        assert np.mean(away <= 0.5) > 0.98
        assert away.max() <= 2
    outline = np.hypot(np.diff(masks, axis=1)[:, :, :-1], np.diff(masks, axis=2)[:, :-1]).sum((1, 2))
    width = 2 * masks.sum((1, 2)) / outline
    away = np.abs(width - THICKNESSES[factors["thickness"]])
    assert np.mean(away < 0.1) > 0.99
    assert away.max() < 0.5


def test_nothing_is_cut_off_by_a_shift() -> None:
    digits = np.full((1, 8, 8), 16, np.uint8)
    for seed in range(30):
        images = coloured(digits, np.array([8]), 3, np.random.default_rng(seed))
        masks = masks_of(images)
        edge = np.concatenate([masks[:, 0], masks[:, -1], masks[:, :, 0], masks[:, :, -1]], axis=1)
        areas = masks.sum((1, 2))
        assert np.ptp(areas) < 0.01 * areas.max()
        assert edge.max() <= 1.01


def test_every_ink_is_brighter_than_every_background() -> None:
    assert (INKS @ LUMA).min() > 2 * (BACKGROUNDS @ LUMA).max()
    for table in (BACKGROUNDS, INKS):
        apart = np.abs(table[:, None].astype(int) - table[None].astype(int)).sum(2)
        assert apart[~np.eye(len(table), dtype=bool)].min() > 50


def test_they_are_always_the_same(data: Dataset) -> None:
    again = load_dataset("coloured_digits")
    for part, other in ((data.train, again.train), (data.test, again.test)):
        assert part.digest() == other.digest()
        assert all(torch.equal(values, factors_of(other)[name]) for name, values in factors_of(part).items())
    digits, labels = np.full((2, 8, 8), 16, np.uint8), np.array([3, 4])
    one, two = (coloured(digits, labels, 5, np.random.default_rng(seed)) for seed in (1, 2))
    assert one.digest() != two.digest()


def test_no_digit_of_the_test_images_is_trained_on(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    made_of: list[set[bytes]] = []

    def noted(digits: np.ndarray, labels: np.ndarray, count: int, rng: np.random.Generator) -> ImageSet:
        made_of.append({digit.tobytes() for digit in digits})
        return coloured(digits, labels, count, rng)

    monkeypatch.setattr("shortrun.data.sources.coloured", noted)
    assert load_dataset("coloured_digits").test.digest() == data.test.digest()
    digits = load_dataset("digits")
    for used, part in zip(made_of, (digits.train, digits.test), strict=True):
        assert used == {image.numpy().tobytes() for image in part.pixels[:, 0]}
    assert not made_of[0] & made_of[1]


def test_limits_sizes_and_levels_keep_the_factors(data: Dataset) -> None:
    few = load_dataset("coloured_digits", train_limit=30, test_limit=10, image_size=16, binarize=True)
    assert (len(few.train), len(few.test)) == (30, 10)
    assert few.train.shape == (3, 16, 16)
    assert few.train.levels == 2
    for name, values in factors_of(few.train).items():
        assert torch.equal(values, factors_of(data.train)[name][:30])
    held = data.hold_out(500)
    assert torch.equal(grounds_of(held.test), held.test.pixels[:, :, 0, 0])
    with refused("train_limit", "got 20001", "only 20000"):
        load_dataset("coloured_digits", train_limit=20_001)


def grounds_of(images: ImageSet) -> Tensor:
    return torch.from_numpy(BACKGROUNDS)[factors_of(images)["background"]]


def test_factors_are_as_many_as_images() -> None:
    pixels = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    with refused("factors", "1 of size for 2 images"):
        ImageSet(pixels, levels=2, factors={"size": torch.zeros(1, dtype=torch.int64)})
    assert ImageSet(pixels, levels=2).factor_table() is None
