import builtins
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from data_writers import noise, refused, write_image

from shortrun.data import load_dataset, require_labels


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of 10 + 4 images in two classes, and `datasets` kept offline with its cache in a temporary folder."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = tmp_path / "faces"
    for part, n in (("train", 5), ("test", 2)):
        for name, level in (("cat", 10), ("dog", 200)):
            for i in range(n):
                write_image(folder / part / name / f"{i}.png", np.full((6, 8, 3), level, np.uint8))
    return folder


def test_an_image_folder_with_its_classes_and_split(hub: Path) -> None:
    data = load_dataset(f"hub:{hub}")
    assert (len(data.train), len(data.test)) == (10, 4)
    assert data.train.shape == (3, 6, 8)
    assert torch.equal(data.train.pixels[:, 0, 0, 0] == 200, require_labels(data.train, "x") == 1)
    small = load_dataset(f"hub:{hub}", image_size=4, train_limit=3, test_limit=1, binarize=True)
    assert (len(small.train), len(small.test), small.train.shape) == (3, 1, (3, 4, 4))


def test_parquet_without_a_test_split(hub: Path, tmp_path: Path) -> None:
    import datasets

    table = datasets.Dataset.from_dict(
        {"picture": [noise(5, 5, seed=i) for i in range(10)], "size": list(range(10))},
        features=datasets.Features({"size": datasets.Value("int64"), "picture": datasets.Image()}),
    )
    (tmp_path / "table").mkdir()
    table.to_parquet(tmp_path / "table" / "train.parquet")
    data = load_dataset(f"hub:{tmp_path / 'table'}")
    assert (len(data.train), len(data.test)) == (8, 2)
    assert data.train.shape == (1, 5, 5)
    assert data.train.labels is None
    together = torch.cat([data.train.pixels, data.test.pixels]).flatten(1).tolist()
    assert sorted(together) == sorted(noise(5, 5, seed=i).flatten().tolist() for i in range(10))


def test_a_table_without_images_is_refused(hub: Path, tmp_path: Path) -> None:
    import datasets

    (tmp_path / "table").mkdir()
    datasets.Dataset.from_dict({"a": [1, 2, 3]}).to_parquet(tmp_path / "table" / "train.parquet")
    with refused("source", "hub:", "no column of type Image", "(columns: a)"):
        load_dataset(f"hub:{tmp_path / 'table'}")


def test_images_that_differ_or_are_damaged_are_refused(hub: Path) -> None:
    write_image(hub / "train" / "dog" / "odd.png", noise(9, 9, 3))
    with refused("source", "hub:", "9x9", "6x8", "image_size"):
        load_dataset(f"hub:{hub}")
    (hub / "train" / "dog" / "odd.png").write_bytes(b"\x89PNG")
    with refused("source", "hub:", "row 10 of train", "damaged"):
        load_dataset(f"hub:{hub}")


def test_names_that_cannot_be_loaded_are_refused(hub: Path) -> None:
    with refused("source", "cannot load hub:nobody/nothing "):
        load_dataset("hub:nobody/nothing")
    with refused("source", "cannot load hub:nobody/nothing:small "):
        load_dataset("hub:nobody/nothing:small")
    for source in ("hub:", "hub:https://127.0.0.1:9/x", "hub:a/b/../../c", "hub:-x", "hub:a\0b"):
        with refused("source", "hub:", "OWNER/NAME"):
            load_dataset(source)


def test_the_whole_file_system_is_no_data_set() -> None:
    with refused("source", "the root of the file system"):
        load_dataset(f"hub:{Path.cwd().anchor}")


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name == "datasets":
            raise ImportError(name)
        return find(name, *rest)  # type: ignore[arg-type]

    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with refused("source", "hub:some/thing", "pip install 'shortrun[hub]'"):
        load_dataset("hub:some/thing")
