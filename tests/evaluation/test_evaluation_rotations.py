"""Features of images without labels: of a classifier of rotations, kept and quoted as one of labels is."""

import dataclasses
from pathlib import Path

import pytest
import torch

from shortrun.config import ModelConfig
from shortrun.data import Dataset, ImageSet, load_dataset
from shortrun.evaluation.assess import assess
from shortrun.evaluation.rotations import features_for, rotation_features, turned
from shortrun.learners import ShortRun


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHORTRUN_CACHE", str(tmp_path))
    return tmp_path / "features"


def unlabelled(name: str = "digits") -> Dataset:
    data = load_dataset(name, train_limit=400, test_limit=100)
    train, test = (dataclasses.replace(part, labels=None) for part in (data.train, data.test))
    return Dataset("mine", train, test)


def test_images_are_turned_by_all_angles() -> None:
    images = ImageSet(torch.arange(8, dtype=torch.uint8).view(2, 1, 2, 2), levels=17)
    made = turned(images)
    assert len(made) == 8
    assert made.labels is not None
    assert made.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert made.pixels[:, 0].tolist()[::2] == [[[0, 1], [2, 3]], [[1, 3], [0, 2]], [[3, 2], [1, 0]], [[2, 0], [3, 1]]]
    assert made.levels == 17


def test_rotations_of_digits_are_told_and_kept(cache: Path) -> None:
    data = unlabelled()
    features = features_for(data)
    assert features is not None
    assert features.task == "rotations"
    assert features.accuracy > 0.7, "0.25 by chance"
    [file] = cache.iterdir()
    assert file.name.startswith("rotations_of_mine-")
    again = rotation_features(data)
    assert torch.equal(again(data.test.images()), features(data.test.images()))
    assert again.task == "rotations"


def test_what_has_labels_has_features_of_labels() -> None:
    features = features_for(load_dataset("digits", train_limit=100, test_limit=40))
    assert features is not None
    assert features.task == ""


def test_distances_quote_the_rotations() -> None:
    data = unlabelled()
    learner = ShortRun.build((1, 8, 8), ModelConfig(latents=(2, 3), width=8), levels=17)
    found = assess(learner.eval(), data, samples=60, parts=["samples"])
    assert found["fid_prior"].value is not None
    assert found["fid_prior"].value > 0
    assert found["fid_prior"].conditions["features"] == "own classifier of rotations of mine"
    assert found["fid_prior"].conditions["features_accuracy"] > 0.7


def test_where_nothing_can_be_learned_the_reason_is_said() -> None:
    rng = torch.Generator().manual_seed(0)

    def noise(n: int, h: int, w: int, **more: torch.Tensor) -> ImageSet:
        return ImageSet(torch.rand(n, 1, h, w, generator=rng) * 2 - 1, **more)  # pyright: ignore

    masks = torch.rand(40, 1, 4, 4, generator=rng) < 0.9
    sets = {
        "oblong": (noise(40, 4, 5), noise(9, 4, 5)),
        "few": (noise(8, 4, 4), noise(9, 4, 4)),
        "damaged": (noise(40, 4, 4, masks=masks), noise(9, 4, 4)),
    }
    for name, (train, test) in sets.items():
        data = Dataset(name, train, test)
        assert features_for(data) is None, name
    learner = ShortRun.build((1, 4, 5), ModelConfig(latents=(2, 3), width=8), levels=None)
    found = assess(learner.eval(), Dataset("oblong", *sets["oblong"]), samples=20, parts=["samples"])
    assert found["fid_prior"].left_out is not None
    assert "oblong images; give features" in found["fid_prior"].left_out
