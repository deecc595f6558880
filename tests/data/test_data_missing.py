"""Incomplete training images: what is hidden, that nothing of it is left, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data_writers import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shortrun import ImageSet, load_dataset
from shortrun.data.framing import Framing
from shortrun.data.missing import draw_masks, hide_at_random, hide_by_masks


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(2, 12), st.integers(2, 12), st.floats(0.01, 0.95), st.integers(0, 99))
def test_of_each_image_a_share_is_hidden_and_never_all(n: int, h: int, w: int, rate: float, seed: int) -> None:
    pixels = draw_masks(n, h, w, rate, rng(seed))
    assert (~pixels).sum((1, 2, 3)).tolist() == [min(max(round(rate * h * w), 1), h * w - 1)] * n
    holes = draw_masks(n, h, w, rate, rng(seed), "blocks")
    for mask in holes[:, 0]:
        down, across = (~mask).nonzero().unbind(1)
        assert mask.any()
        assert len(down) == (down.max() - down.min() + 1) * (across.max() - across.min() + 1), "a rectangle"


def test_pixels_are_missing_completely_at_random() -> None:
    """Each pixel of each image with equal chances, and two pixels together as draws without return have it."""
    masks = (~draw_masks(20_000, 4, 4, 0.5, rng())).flatten(1).float()
    assert float((masks.mean(0) - 0.5).abs().max()) < 0.02
    pairs = (masks.T @ masks / len(masks)).fill_diagonal_(0.5 * 7 / 15)
    assert float((pairs - 0.5 * 7 / 15).abs().max()) < 0.02
    holes = ~draw_masks(20_000, 4, 4, 0.25, rng(), "blocks")
    corners = holes[:, 0, 0, 0].float().mean()
    assert float(corners) == pytest.approx(1 / 9, abs=0.01), "one of nine places"


def test_the_first_images_are_hidden_alike_however_many_follow() -> None:
    digits = load_dataset("digits")
    few = replace(digits, train=digits.train.take(50))
    one, other = (hide_at_random(data, 0.5).train.masks for data in (digits, few))
    assert one is not None
    assert other is not None
    assert one[:50].equal(other)
    third = hide_at_random(digits, 0.5, seed=1).train.masks
    assert third is not None
    assert not third.equal(one)


@pytest.mark.parametrize("levels", [17, None])
def test_nothing_of_what_is_hidden_is_left(levels: int | None) -> None:
    pixels = torch.randint(17, (6, 3, 4, 5), generator=rng(), dtype=torch.uint8)
    pixels = pixels if levels else pixels.float() / 8 - 1
    masks = draw_masks(6, 4, 5, 0.5, rng())
    spoiled = torch.where(masks, pixels, pixels.new_tensor(16 if levels else 1.0))
    sets = [ImageSet(each, levels=levels, masks=masks) for each in (pixels, spoiled)]
    assert sets[0].pixels.equal(sets[1].pixels)
    assert sets[0].digest() == sets[1].digest()
    assert sets[0].mean_image().equal(sets[1].mean_image())
    assert (sets[0].images()[~masks.expand(-1, 3, -1, -1)] == -1).all()
    assert sets[0].hidden_share == pytest.approx(0.5)


def test_the_mean_image_is_of_observed_pixels() -> None:
    pixels = torch.tensor([[[[0.5, -0.5, 0.1]]], [[[1.0, 0.9, 0.3]]]])
    masks = torch.tensor([[[[True, False, False]]], [[[True, True, False]]]])
    mean = ImageSet(pixels, masks=masks).mean_image().flatten()
    # a pixel that no image shows: the mean over all that is observed
    torch.testing.assert_close(mean, torch.tensor([0.75, 0.9, 0.8]))
    whole = ImageSet(pixels)
    torch.testing.assert_close(whole.mean_image(), pixels.mean(0))


def test_images_that_are_selected_keep_their_masks() -> None:
    digits = hide_at_random(load_dataset("digits"), 0.3).train
    rows = torch.tensor([5, 3, 8])
    chosen = digits.select(rows)
    assert digits.masks is not None
    assert digits.names is not None
    assert chosen.masks is not None
    assert chosen.names is not None
    assert chosen.masks.equal(digits.masks[rows])
    assert chosen.names.tolist() == digits.names[rows.numpy()].tolist()
    seen = digits.observed(rows)
    assert seen is not None
    assert seen.dtype == torch.float32
    assert seen.equal(digits.masks[rows].float())
    assert load_dataset("digits").train.observed(rows) is None


def test_an_image_without_any_observed_pixel_is_refused_by_name() -> None:
    masks = torch.ones(3, 1, 2, 2, dtype=torch.bool)
    masks[1:] = False
    with refused("masks", "all pixels of image one and 1 more are hidden", "wrong way round"):
        ImageSet(torch.zeros(3, 1, 2, 2), masks=masks, names=np.array(["zero", "one", "two"]))
    with refused("masks", "(3, 1, 2, 3)"):
        ImageSet(torch.zeros(3, 1, 2, 2), masks=torch.ones(3, 1, 2, 3, dtype=torch.bool))
    with refused("missing", "one pixel"):
        hide_at_random(replace(load_dataset("digits"), train=ImageSet(torch.zeros(3, 1, 1, 1))), 0.5)


def arrays(folder: Path, split: bool) -> Path:
    x = np.arange(40, dtype=np.uint8).repeat(20).reshape(40, 5, 4)
    path = folder / "images.npz"
    if split:
        np.savez(path, train_x=x[:30], test_x=x[30:])
    else:
        np.savez(path, x=x)
    return path


@pytest.mark.parametrize("kind", ["bools", "channel", "bytes", "npz"])
def test_masks_of_a_file_follow_its_images(tmp_path: Path, kind: str) -> None:
    dataset = load_dataset(str(arrays(tmp_path, split=True)))
    masks = np.random.default_rng(0).random((30, 5, 4)) < 0.5
    masks[:, 1, 1] = True
    path = tmp_path / ("masks.npz" if kind == "npz" else "masks.npy")
    written = {"channel": masks[:, None].astype(float), "bytes": masks.astype(np.uint8) * 255}.get(kind, masks)
    if kind == "npz":
        np.savez(path, masks=written)
    else:
        np.save(path, written)
    found = hide_by_masks(dataset, path)
    assert found.train.masks is not None
    assert found.train.masks[:, 0].numpy().tolist() == masks.tolist()
    assert found.test.masks is None


def test_masks_follow_images_that_are_split_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = load_dataset(str(arrays(tmp_path, split=False)))
    masks = np.ones((40, 5, 4), dtype=bool)
    masks[::2, 0, 0] = False
    np.save(tmp_path / "masks.npy", masks)
    found = hide_by_masks(dataset, tmp_path / "masks.npy")
    assert found.train.masks is not None
    numbers = found.train.pixels[:, 0, 2, 2].numpy()  # each image is full of its own number
    assert found.train.masks[:, 0, 0, 0].tolist() == (numbers % 2 == 1).tolist()
    assert (found.test.pixels[:, 0, 2, 2].numpy() % 2 == 1).all(), "test figures are of whole images"
    assert "test images are incomplete and left out" in capsys.readouterr().err
    masks[:, 0, 0] = False
    np.save(tmp_path / "masks.npy", masks)
    found = hide_by_masks(dataset, tmp_path / "masks.npy")
    assert "no test image is whole: their hidden pixels, 5.0%, are smoothly continued" in capsys.readouterr().err
    assert found.split == "test (5.0% smoothly continued)"
    assert torch.equal(found.test.pixels, dataset.test.pixels), "each image is of one grey, and so is its continuation"
    assert found.test.masks is None


def test_masks_in_a_folder_are_those_of_the_same_name(tmp_path: Path) -> None:
    for i in range(10):
        for place, suffix, grey in (("images", "png", 20 * i), ("masks", "bmp", 255)):
            picture = np.full((3, 4), grey, dtype=np.uint8)
            if place == "masks":
                picture[0, i % 4] = 0
            for part in ("train", "test"):
                path = tmp_path / place / part / f"{i}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(path)
    dataset = load_dataset(str(tmp_path / "images"))
    found = hide_by_masks(dataset, tmp_path / "masks" / "train")
    assert found.train.masks is not None
    for pixels, mask in zip(dataset.train.pixels, found.train.masks, strict=True):
        hidden = (~mask[0]).nonzero().tolist()
        assert hidden == [[0, int(pixels[0, 2, 2]) // 20 % 4]]
    (tmp_path / "masks" / "train" / "3.bmp").unlink()
    with refused("masks", "none for 1 of 10 images, 3 for example"):
        hide_by_masks(dataset, tmp_path / "masks" / "train")
    np.save(tmp_path / "masks.npy", np.ones((10, 3, 4)))
    with refused("masks", "the images are files"):
        hide_by_masks(dataset, tmp_path / "masks.npy")


@pytest.mark.parametrize("size", [(80, 60), (160, 60), (40, 40)])
def test_masks_of_photos_are_fitted_as_the_photos_are(tmp_path: Path, size: tuple[int, int]) -> None:
    for i in range(5):
        photo = np.full((60, 80, 3), 40 * i, dtype=np.uint8)
        mask = np.full((60, 80), 255, dtype=np.uint8)
        mask[20:30, 30:45], photo[20:30, 30:45] = 0, (255, 0, 255)
        for place, picture in (("images", photo), ("masks", mask)):
            (tmp_path / place).mkdir(exist_ok=True)
            saved = Image.fromarray(picture)
            # a mask of another size is brought to the photo's
            saved = saved.resize(size, Image.Resampling.NEAREST) if place == "masks" else saved
            saved.save(tmp_path / place / f"{i}.png")
    dataset = load_dataset(str(tmp_path / "images"), image_size=20)
    found = hide_by_masks(dataset, tmp_path / "masks", Framing(size=(20, 20)), tmp_path / "images")
    assert found.train.masks is not None
    for pixels, mask in zip(dataset.train.pixels, found.train.masks, strict=True):
        grey = pixels[:, 0, 0]
        assert (pixels[:, mask[0]] == grey[:, None]).all(), "nothing of the damage is in what counts as observed"
        assert 0.75 < float(mask.float().mean()) < 1 - 10 * 15 / 60**2
        hidden = (~mask[0]).nonzero()
        assert hidden.min(0).values.tolist() < [7, 7]
        assert hidden.max(0).values.tolist() >= [9, 11]
    for pixels in found.test.pixels:
        assert (pixels.int() - pixels[:, :1, :1].int()).abs().max() <= 1, "the hole is continued"


def test_masks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    dataset, path = load_dataset(str(arrays(tmp_path, split=True))), tmp_path / "masks.npy"
    for shape, words in [((29, 5, 4), "29 masks, and image 29"), ((30, 4, 5), "30x4x5"), ((30, 5, 4, 1), "30x5x4x1")]:
        np.save(path, np.ones(shape))
        with refused("masks", words):
            hide_by_masks(dataset, path)
    np.save(path, np.full((30, 5, 4), np.nan))
    with refused("path", "no mask"):
        hide_by_masks(dataset, path)
    with refused("path", "does not exist"):
        hide_by_masks(dataset, tmp_path / "none.npy")
    with refused("masks", "no array"):
        hide_by_masks(dataset, tmp_path / "none.txt")
    with refused("masks", "no files whose names"):
        hide_by_masks(dataset, tmp_path)
    with refused("masks", "no order or names"):
        hide_by_masks(replace(dataset, train=replace(dataset.train, names=None)), path)
