"""shortrun inpaint on photos with damage: every way to say where it is, and what must stay as it was."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Call = Callable[..., tuple[int, str, str]]
MAGENTA = (255, 0, 255)
SIZES = [(40, 30), (20, 20), (17, 50)]
"""Width and height of the photos."""


def masks() -> list[np.ndarray]:
    """True where observed: a hole in each but the second."""
    found = [np.ones((height, width), dtype=bool) for width, height in SIZES]
    found[0][10:15, 20:28] = False
    found[2][3:9, 4:10] = False
    return found


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of three photos with two magenta holes; one lies in a folder of its own."""
    rng = np.random.default_rng(0)
    for (width, height), name, mask in zip(SIZES, ("a", "b", "sub/c"), masks(), strict=True):
        down, across = np.mgrid[:height, :width]
        pixels = np.stack([down * 3, across * 2, 90 + 0 * down], 2) + rng.integers(0, 20, (height, width, 3))
        pixels[~mask] = MAGENTA
        path = tmp_path / "photos" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return tmp_path / "photos"


def grey(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L"))


def check_filled(photos: Path, out: Path) -> None:
    for name, mask in zip(("a", "b", "sub/c"), masks(), strict=True):
        before, after = grey(photos / f"{name}.png"), grey(out / "filled" / f"{name}.png")
        assert after.shape == mask.shape, "at its own size"
        assert np.array_equal(before[mask], after[mask]), "observed pixels are as given"
        shades = np.asarray(Image.open(out / "uncertainty" / f"{name}.png"))
        assert not shades[mask].any(), "nothing is uncertain where it is observed"
        if not mask.all():
            assert (before[~mask] != after[~mask]).all()
            # the ramp goes on in the hole
            assert abs(after[~mask].mean() - before[mask].mean()) < 60


def test_damage_of_a_colour(call: Call, trained: Path, photos: Path, tmp_path: Path) -> None:
    words = ["inpaint", trained, "--images", photos, "--completions", 3, "--out", tmp_path / "out"]
    code, said, _ = call(*words, "--mask-colour", "#ff00ff")
    assert code == 0
    assert "filled in 2 of 3 photos through 5 square windows at 8x8 pixels, the mean of 3 completions each" in said
    assert "black 0, white 0.25" in said
    assert "MSE" not in said, "no truth is known"
    check_filled(photos, tmp_path / "out")
    picture = Image.open(tmp_path / "out" / "photos.png")
    assert picture.width > 3 * 128
    assert not (tmp_path / "out" / "completions.npz").exists()


def test_damage_of_a_folder_of_masks_of_any_size(call: Call, trained: Path, photos: Path, tmp_path: Path) -> None:
    for name, mask in zip(("a", "b", "sub/c"), masks(), strict=True):
        path = tmp_path / "masks" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.kron(mask, np.ones((2, 2), dtype=bool)).astype(np.uint8) * 255).save(path)
    words = ["inpaint", trained, "--images", photos, "--mask", tmp_path / "masks", "--completions", 3]
    assert call(*words, "--arrays", "--out", tmp_path / "out")[0] == 0
    check_filled(photos, tmp_path / "out")
    with np.load(tmp_path / "out" / "completions.npz") as made:
        assert made["completions"].shape == (3, 5, 8, 8, 1)
        assert made["photo"].tolist() == ["a", "a", "sub/c", "sub/c", "sub/c"]
        assert made["window"].tolist() == [[0, 0, 30], [0, 10, 30], [0, 0, 17], [16, 0, 17], [33, 0, 17]]
    # what the same command wrote may be written over, what somebody else did not
    assert call(*words, "--out", tmp_path / "out")[0] == 0
    Image.new("L", (2, 2)).save(tmp_path / "out" / "filled" / "b.png")
    code, _, error = call(*words, "--out", tmp_path / "out")
    assert code == 2
    assert "b.png is there and not from shortrun inpaint" in error
    (tmp_path / "masks" / "b.png").unlink()
    code, _, error = call(*words, "--out", tmp_path / "other")
    assert code == 2
    assert "has none for" in error
    assert "b.png" in error
    assert not (tmp_path / "other").exists()


def test_transparent_pixels_are_damage(call: Call, trained: Path, photos: Path, tmp_path: Path) -> None:
    for name, mask in zip(("a", "b", "sub/c"), masks(), strict=True):
        picture = Image.open(photos / f"{name}.png")
        picture.putalpha(Image.fromarray(mask.astype(np.uint8) * 255))
        picture.save(photos / f"{name}.png")
    words = ["inpaint", trained, "--images", photos, "--mask", "alpha", "--completions", 2]
    assert call(*words, "--out", tmp_path / "out")[0] == 0
    for name, mask in zip(("a", "b", "sub/c"), masks(), strict=True):
        before = np.asarray(Image.open(photos / f"{name}.png").convert("RGB").convert("L"))
        assert np.array_equal(before[mask], grey(tmp_path / "out" / "filled" / f"{name}.png")[mask])


def test_one_photo_and_one_mask(call: Call, trained: Path, photos: Path, tmp_path: Path) -> None:
    Image.fromarray(masks()[0].astype(np.uint8) * 255).save(tmp_path / "holes.png")
    words = ["inpaint", trained, "--images", photos / "a.png", "--mask", tmp_path / "holes.png", "--completions", 2]
    assert call(*words, "--out", tmp_path / "out")[0] == 0
    after = grey(tmp_path / "out" / "filled" / "a.png")
    assert np.array_equal(after[masks()[0]], grey(photos / "a.png")[masks()[0]])


def test_the_same_seed_fills_in_the_same(call: Call, trained: Path, photos: Path, tmp_path: Path) -> None:
    words = ["inpaint", trained, "--images", photos, "--mask-colour", "ff00ff", "--completions", 2]
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        assert call(*words, "--seed", seed, "--out", tmp_path / name)[0] == 0
    one, two, three = (grey(tmp_path / name / "filled" / "a.png") for name in ("one", "two", "three"))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, three)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--mask", "alpha"], ["--mask: ", "a.png has no transparent pixels"]),
        (["--mask-colour", "magenta"], ["--mask-colour: got 'magenta'", "#ff00ff"]),
        (["--mask-colour", "#00ff00"], ["--mask: no pixel is missing in any photo"]),
        (["--mask-colour", "#ff00ff", "--mask", "box"], ["--mask-colour: is in place of --mask"]),
        (["--mask-colour", "#ff00ff", "--missing", "0.5"], ["--missing: got 0.5"]),
        (["--mask", "alpha", "--size", "3"], ["--size: got 3"]),
        (["--mask-colour", "#ff00ff", "--n", "9"], ["--n: got 9", "there are 3 photos"]),
        (["--mask-colour", "#ff00ff", "--fit"], ["--fit: photos are filled in at their own size"]),
        (["--arrays", "--mask", "box", "--fit"], ["--arrays: inpainting.npz has all completions"]),
    ],
)
def test_what_cannot_be_used_is_one_line_and_writes_nothing(
    call: Call, trained: Path, photos: Path, tmp_path: Path, words: list[str], parts: list[str]
) -> None:
    code, _, error = call("inpaint", trained, "--images", photos, *words, "--out", tmp_path / "out")
    assert code == 2
    assert error.count("\n") == 1
    for part in parts:
        assert part in error
    assert not (tmp_path / "out").exists()


def test_photos_of_one_name_and_masks_without_photos_are_refused(
    call: Call, trained: Path, photos: Path, tmp_path: Path
) -> None:
    Image.open(photos / "a.png").convert("RGB").save(photos / "a.jpg")
    code, _, error = call("inpaint", trained, "--images", photos, "--mask-colour", "#ff00ff")
    assert code == 2
    assert "have one name" in error
    code, _, error = call("inpaint", trained, "--mask", "alpha")
    assert code == 2
    assert "add --images FOLDER" in error
    Image.new("RGB", (9, 9), MAGENTA).save(tmp_path / "all.png")
    code, _, error = call("inpaint", trained, "--images", tmp_path / "all.png", "--mask-colour", "#ff00ff")
    assert code == 2
    assert "no pixel of" in error
