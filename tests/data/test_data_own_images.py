from pathlib import Path

import numpy as np
import pytest
import torch
from data_writers import noise, refused, write_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shortrun.data import pictures, read_images, read_mask
from shortrun.data.pictures import plain


def test_images_of_the_right_shape_come_as_they_are(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", noise(4, 5, 3))
    images = read_images(path, shape=(3, 4, 5))
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (-1, 1)
    assert torch.equal(images, read_images(path, shape=(3, 4, 5), fit=True))


def test_another_shape_is_named_with_the_way_out(tmp_path: Path) -> None:
    image = write_image(tmp_path / "b" / "a.png", noise(4, 5, 3))
    np.save(tmp_path / "c.npy", noise(2, 4, 5, 3))
    for path in (image, image.parent, tmp_path / "c.npy"):
        named = tmp_path / "c.npy" if path.suffix == ".npy" else image
        with refused("path", named, "3x4x5", "1x8x8", "fit"):
            read_images(path, shape=(1, 8, 8))
    write_image(image.parent / "b.png", noise(8, 8))
    with refused("path", image, "3x4x5"):
        read_images(image.parent, shape=(1, 8, 8))
    with refused("fit"):
        read_images(image, fit=True)


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.sampled_from([1, 3]), st.integers(1, 20), st.integers(1, 20)),
    st.tuples(st.sampled_from([1, 3]), st.integers(4, 20), st.integers(4, 20)),
)
def test_fit_gives_the_shape_from_any_other(
    tmp_path_factory: pytest.TempPathFactory, wanted: tuple[int, int, int], found: tuple[int, int, int]
) -> None:
    folder = tmp_path_factory.mktemp("fit")
    c, h, w = found
    array = noise(h, w, c)
    write_image(folder / "a.png", array[..., 0] if c == 1 else array)
    np.save(folder / "a.npy", array[None])
    for name in ("a.png", "a.npy"):
        images = read_images(folder / name, shape=wanted, fit=True)
        assert images.shape == (1, *wanted)
        assert images.abs().max() <= 1


def test_fit_takes_a_folder_of_odd_files(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", noise(9, 12, 3))
    write_image(tmp_path / "b.jpg", noise(20, 8))
    assert read_images(tmp_path, shape=(1, 6, 6), fit=True).shape == (2, 1, 6, 6)


def test_colour_turns_grey_as_pillow_turns_it(tmp_path: Path) -> None:
    array = noise(6, 6, 3)
    write_image(tmp_path / "a.png", array)
    np.save(tmp_path / "a.npy", array[None])
    of_file, of_array = (read_images(tmp_path / name, shape=(1, 6, 6), fit=True) for name in ("a.png", "a.npy"))
    torch.testing.assert_close(of_file, of_array, atol=0.01, rtol=0)
    grey = write_image(tmp_path / "g.png", array[..., 0])
    coloured = read_images(grey, shape=(3, 6, 6), fit=True)
    assert torch.equal(coloured[:, 0], coloured[:, 2])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_shows_white_in_strips_as_at_once(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Image.fromarray(noise(7, 5, 4), "RGBA").convert(mode)
    if mode == "P":
        picture.info["transparency"] = 3
    white = Image.new("RGBA", picture.size, "white")
    expected = Image.alpha_composite(white, picture.convert("RGBA")).convert("L" if mode == "LA" else "RGB")
    assert np.asarray(expected).max() > 250
    for strip in (1, 10, 2**20):
        monkeypatch.setattr(pictures, "STRIP", strip)
        assert plain(picture, "a.png").tobytes() == expected.tobytes()


def test_paths_that_hold_no_images_are_refused(tmp_path: Path) -> None:
    with refused("path", tmp_path / "none", "does not exist"):
        read_images(tmp_path / "none")
    (tmp_path / "a.txt").write_text("text")
    with refused("path", tmp_path / "a.txt", "give an image"):
        read_images(tmp_path / "a.txt")
    np.savez(tmp_path / "a.npz", x=np.zeros((0, 4, 4), np.uint8))
    with refused("path", tmp_path / "a.npz", "no images"):
        read_images(tmp_path / "a.npz")


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_a_mask_is_one_where_it_is_white(tmp_path_factory: pytest.TempPathFactory, h: int, w: int, seed: int) -> None:
    folder = tmp_path_factory.mktemp("mask")
    levels = np.random.default_rng(seed).integers(0, 256, (h, w), dtype=np.uint8)
    wanted = torch.from_numpy(levels >= 128).float()[None, None]
    write_image(folder / "grey.png", levels)
    write_image(folder / "colour.png", np.stack([levels] * 3, 2))
    Image.fromarray(levels >= 128).save(folder / "bits.png")
    np.save(folder / "bool.npy", levels >= 128)
    np.save(folder / "ones.npy", (levels >= 128).astype(np.int64))
    np.save(folder / "float.npy", (levels >= 128).astype(np.float32)[None, None])
    np.save(folder / "white.npy", (levels >= 128) * np.uint8(255))
    for path in folder.iterdir():
        mask = read_mask(path, (h, w))
        assert mask.dtype == torch.float32
        assert torch.equal(mask, wanted), path.name


def test_masks_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", noise(4, 5))
    with refused("path", path, "4x5", "8x9"):
        read_mask(path, (8, 9))
    with refused("path", tmp_path / "none.png", "does not exist"):
        read_mask(tmp_path / "none.png", (4, 5))
    (tmp_path / "a.txt").write_text("text")
    with refused("path", "a.txt", "white = observed"):
        read_mask(tmp_path / "a.txt", (4, 5))
    path.write_bytes(path.read_bytes()[:40])
    with refused("path", path, "damaged"):
        read_mask(path, (4, 5))
    for array in (
        np.full((4, 5), np.nan),
        np.full((4, 5), -1),
        np.full((4, 5), 256),
        np.full((4, 5), "a"),
        np.zeros((0, 5)),
    ):
        np.save(tmp_path / "b.npy", array)
        with refused("path", "b.npy", "0 (missing) to 255 (observed)"):
            read_mask(tmp_path / "b.npy", (4, 5))
    np.save(tmp_path / "b.npy", np.ones((3, 4, 5)))
    with refused("path", "b.npy", "3x4x5", "4x5"):
        read_mask(tmp_path / "b.npy", (4, 5))
