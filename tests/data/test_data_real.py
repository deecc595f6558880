import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from data_writers import real, refused

from shortrun.data import load_dataset, read_images, require_labels

pytestmark = pytest.mark.data

# mean and standard deviation of the train images in [0, 1], as the sets' users quote them
MOMENTS = {"mnist": (0.1307, 0.3081), "fashion_mnist": (0.2860, 0.3530)}


@pytest.mark.parametrize("name", list(MOMENTS))
def test_the_archives_have_the_known_sizes_and_moments(name: str) -> None:
    data = load_dataset(name, data_dir=real(f"{name}.npz").parent)
    assert (len(data.train), len(data.test)) == (60000, 10000)
    assert data.train.shape == (1, 28, 28)
    assert require_labels(data.train, name).bincount(minlength=10).min() > 5000
    pixels = data.train.pixels.float() / 255
    assert pixels.mean().item() == pytest.approx(MOMENTS[name][0], abs=1e-4)
    assert pixels.std().item() == pytest.approx(MOMENTS[name][1], abs=1e-4)


def test_the_official_idx_files_are_the_test_part_of_the_archive(tmp_path: Path) -> None:
    folder = real("mnist_idx")
    test = load_dataset("mnist", data_dir=real("mnist.npz").parent, train_limit=1).test
    images = read_images(folder / "t10k-images-idx3-ubyte.gz", shape=(1, 28, 28))
    assert torch.equal(images, test.images())
    with refused("data_dir", folder, "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
        load_dataset("mnist", data_dir=folder)
    for part in ("train", "t10k"):  # the same files as both parts, unpacked
        for kind in ("images-idx3", "labels-idx1"):
            data = gzip.decompress((folder / f"t10k-{kind}-ubyte.gz").read_bytes())
            (tmp_path / f"{part}-{kind}-ubyte").write_bytes(data)
    both = load_dataset("mnist", data_dir=tmp_path)
    assert torch.equal(both.train.pixels, test.pixels)
    assert torch.equal(require_labels(both.test, "mnist"), require_labels(test, "mnist"))


def test_the_mat_file_is_the_head_of_the_archive() -> None:
    path = real("svhn_small_32x32.mat")
    train = load_dataset("svhn", data_dir=real("svhn.npz").parent, train_limit=2000).train
    assert torch.equal(read_images(path), train.images())
    data = load_dataset(str(path))
    assert (len(data.train), len(data.test)) == (1600, 400)
    counts = torch.cat([require_labels(part, "svhn") for part in (data.train, data.test)]).bincount()
    assert torch.equal(counts, require_labels(train, "svhn").bincount())


def test_a_folder_of_photographs() -> None:
    folder = real("flowers64_jpg")
    images = read_images(folder, shape=(3, 64, 64))
    assert images.shape == (60, 3, 64, 64)
    data = load_dataset(str(folder), image_size=32)
    assert data.train.shape == (3, 32, 32)
    assert (len(data.train), len(data.test)) == (48, 12)
    with np.load(real("flowers64.npz")) as archive:
        parts = [(archive[f"{part}_name"].tolist(), archive[f"{part}_x"]) for part in ("train", "test")]
    pixels = {name: image for names, part in parts for name, image in zip(names, part, strict=True)}
    for path, image in zip(sorted(folder.iterdir()), images, strict=True):
        wanted = torch.from_numpy(pixels[path.name.split("_", 1)[1]]).permute(2, 0, 1) / 127.5 - 1
        assert (image - wanted).abs().mean() < 0.1  # the .jpg is compressed


def test_an_archive_of_colour_images_by_its_path() -> None:
    data = load_dataset(str(real("flowers64.npz")), train_limit=10)
    assert data.name == "flowers64"
    assert data.train.shape == (3, 64, 64)
    assert (len(data.train), len(data.test)) == (10, 400)
