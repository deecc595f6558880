"""Classes that are neither learned nor tested on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shortrun import Config, DataConfig, InputError, load_dataset
from shortrun.data import Dataset, ImageSet, require_labels
from shortrun.training.setup import read_dataset


def test_the_images_of_a_class_leave_both_parts_and_the_others_keep_their_order() -> None:
    whole, eight = load_dataset("digits"), load_dataset("digits", leave_out=[4, 9])
    for part, left in ((whole.train, eight.train), (whole.test, eight.test)):
        labels = require_labels(part, "digits")
        kept = (labels != 4) & (labels != 9)
        assert left.pixels.equal(part.pixels[kept])
        assert require_labels(left, "digits").equal(labels[kept])
    assert eight.name == "digits without 4, 9"
    assert len(load_dataset("digits", leave_out=[4], train_limit=100).train) < 100, "the limit counts them"


def test_a_configuration_says_it() -> None:
    config = Config(data=DataConfig(leave_out=(4,)))
    assert read_dataset(config).train.digest() == load_dataset("digits", leave_out=[4]).train.digest()
    with pytest.raises(InputError, match=r"data.leave_out: got 12; digits has the classes 0 to 9"):
        read_dataset(Config(data=DataConfig(leave_out=(12,))))


def test_factors_go_with_their_images() -> None:
    kept = load_dataset("coloured_digits", train_limit=50, test_limit=20).leave_out(3).train
    assert kept.factors is not None
    assert all(len(values) == len(kept) for values in kept.factors.values())
    assert kept.factors["digit"].equal(require_labels(kept, ""))


def test_classes_of_a_folder_have_names(tmp_path: Path) -> None:
    for i in range(24):
        place = tmp_path / ("3", "7", "dog")[i % 3]
        place.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), i, dtype=np.uint8)).save(place / f"{i}.png")
    found = load_dataset(str(tmp_path), leave_out=["dog"])
    assert set(require_labels(found.train, "").tolist()) == {0, 1}
    assert load_dataset(str(tmp_path), leave_out=[7]).label_of(3) == 0, "a name comes before a number"
    with pytest.raises(InputError, match=r"leave_out: got 'cat'; .* has the classes 3, 7, dog"):
        load_dataset(str(tmp_path), leave_out=["cat"])


def test_without_labels_and_without_images_it_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "plain.npz", x=np.zeros((20, 4, 4), dtype=np.uint8))
    with pytest.raises(InputError, match="leave_out: plain has no labels"):
        load_dataset(str(tmp_path / "plain.npz"), leave_out=[1])
    pixels = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    part = ImageSet(pixels, torch.tensor([0, 0, 1]), levels=2)
    with pytest.raises(InputError, match="names: got 0; leave some: few has no other test images"):
        Dataset("few", part, part.take(2)).leave_out(0)
