import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from data_writers import noise, refused, write_image
from PIL import Image

from shortrun.data import load_dataset

PARTS = [0, 0, 0, 1, 2, 2]


@pytest.fixture
def celeba(tmp_path: Path) -> Path:
    """Six images and a partition in CelebA's own layout; image i has the level 30 * i."""
    lines = []
    for i, part in enumerate(PARTS):
        write_image(tmp_path / "img_align_celeba" / f"{i + 1:06}.jpg", np.full((218, 178, 3), 30 * i, np.uint8))
        lines.append(f"{i + 1:06}.jpg {part}\n")
    (tmp_path / "list_eval_partition.txt").write_text("".join(lines))
    return tmp_path


def levels(folder: Path) -> tuple[list[int], list[int]]:
    data = load_dataset("celeba", data_dir=folder)
    assert data.train.shape == data.test.shape == (3, 64, 64)
    return (data.train.pixels[:, 0, 9, 9].int() // 10 * 10).tolist(), (
        data.test.pixels[:, 0, 9, 9].int() // 10 * 10
    ).tolist()


def test_the_official_split_leaves_validation_out(celeba: Path) -> None:
    assert levels(celeba) == ([0, 30, 60], [120, 150])


def test_the_other_layouts(celeba: Path) -> None:
    (celeba / "Img").mkdir()
    (celeba / "Eval").mkdir()
    (celeba / "img_align_celeba").rename(celeba / "Img" / "img_align_celeba")
    (celeba / "list_eval_partition.txt").rename(celeba / "Eval" / "list_eval_partition.txt")
    assert levels(celeba) == ([0, 30, 60], [120, 150])

    kaggle = celeba / "kaggle"
    (kaggle / "img_align_celeba").mkdir(parents=True)
    (celeba / "Img" / "img_align_celeba").rename(kaggle / "img_align_celeba" / "img_align_celeba")
    rows = (celeba / "Eval" / "list_eval_partition.txt").read_text().replace(" ", ",")
    (kaggle / "list_eval_partition.csv").write_text("image_id,partition\n" + rows)
    assert levels(kaggle) == ([0, 30, 60], [120, 150])

    kaggle.rename(celeba / "celeba")
    assert levels(celeba) == ([0, 30, 60], [120, 150])


def test_the_centre_140_pixels_are_resized_to_64(celeba: Path) -> None:
    array = noise(218, 178, 3)
    array[39:179, 19:159] = 77  # the centre; what lies around must not show
    write_image(celeba / "img_align_celeba" / "000001.png", array)
    (celeba / "list_eval_partition.txt").write_text("000001.png 0\n000005.jpg 2\n")
    assert load_dataset("celeba", data_dir=celeba).train.pixels.unique().tolist() == [77]
    assert len(load_dataset("celeba", data_dir=celeba, crop=142).train.pixels.unique()) > 1
    data = load_dataset("celeba", data_dir=celeba, image_size=32, train_limit=1)
    assert data.train.shape == (3, 32, 32)


def test_limits_spare_the_other_files(celeba: Path) -> None:
    (celeba / "img_align_celeba" / "000003.jpg").unlink()
    data = load_dataset("celeba", data_dir=celeba, train_limit=2, test_limit=1)
    assert (len(data.train), len(data.test)) == (2, 1)
    with refused("train_limit", "got 4", "only 3"):
        load_dataset("celeba", data_dir=celeba, train_limit=4)


def test_what_is_missing_is_named(celeba: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with refused("data_dir", "celeba", "your own copy", "img_align_celeba", "list_eval_partition.txt"):
        load_dataset("celeba")
    with refused("data_dir", celeba / "none", "is no folder"):
        load_dataset("celeba", data_dir=celeba / "none")
    (celeba / "img_align_celeba" / "000002.jpg").unlink()
    with refused("data_dir", "1 of 5", "000002.jpg"):
        load_dataset("celeba", data_dir=celeba)
    for text, words in (
        ("000001.jpg 7\n", ["line 1"]),
        ("000001.jpg 0\n", ["no test (2)"]),
        ("\n\njust\n", ["line 3"]),
    ):
        (celeba / "list_eval_partition.txt").write_text(text)
        with refused("data_dir", "list_eval_partition.txt", *words):
            load_dataset("celeba", data_dir=celeba)
    (celeba / "list_eval_partition.txt").write_bytes(b"\xff\xfe\x00")
    with refused("data_dir", "list_eval_partition.txt", "not a text file"):
        load_dataset("celeba", data_dir=celeba)
    (celeba / "list_eval_partition.txt").unlink()
    with refused("data_dir", "list_eval_partition.txt is missing", celeba):
        load_dataset("celeba", data_dir=celeba)
    shutil.rmtree(celeba / "img_align_celeba")
    with refused("data_dir", "img_align_celeba is missing", "unpacked"):
        load_dataset("celeba", data_dir=celeba)
    (celeba / "img_align_celeba.zip").touch()
    with refused("data_dir", "unpack img_align_celeba.zip"):
        load_dataset("celeba", data_dir=celeba)


def test_a_damaged_image_is_named(celeba: Path) -> None:
    path = celeba / "img_align_celeba" / "000005.jpg"
    path.write_bytes(path.read_bytes()[:500])
    with refused("data_dir", path, "damaged"):
        load_dataset("celeba", data_dir=celeba)


def test_more_files_than_one_round_of_the_threads_stay_in_order(celeba: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shortrun.data.pictures.CHUNK", 2)
    assert levels(celeba) == ([0, 30, 60], [120, 150])
    with Image.open(celeba / "img_align_celeba" / "000001.jpg") as picture:
        assert torch.equal(torch.tensor(picture.size), torch.tensor([178, 218]))
