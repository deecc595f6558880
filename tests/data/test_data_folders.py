import os
from pathlib import Path

import numpy as np
import pytest
import torch
from data_writers import noise, refused, write_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shortrun import progress
from shortrun.data import load_dataset, pictures, read_images, require_labels
from shortrun.data.folders import Survey, survey
from shortrun.data.framing import Framing
from shortrun.data.image_set import ImageSet
from shortrun.data.layouts import image_sets
from shortrun.data.selection import Selection


def fill(folder: Path, names: list[str], *shape: int) -> list[np.ndarray]:
    arrays = [noise(*shape, seed=i) for i in range(len(names))]
    for name, array in zip(names, arrays, strict=True):
        write_image(folder / name, array)
    return arrays


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 4), st.sampled_from([1, 3]), st.integers(1, 9), st.integers(1, 9), st.sampled_from(["png", "bmp"])
)
def test_lossless_files_round_trip(
    tmp_path_factory: pytest.TempPathFactory, n: int, c: int, h: int, w: int, kind: str
) -> None:
    folder = tmp_path_factory.mktemp("images")
    arrays = [noise(h, w, c, seed=i) for i in range(n)]
    for i, array in enumerate(arrays):
        write_image(folder / f"{i}.{kind}", array[..., 0] if c == 1 else array)
    wanted = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    assert torch.equal(read_images(folder), ImageSet(wanted, levels=256).images())


def test_images_of_any_depth_are_found_and_split(tmp_path: Path) -> None:
    arrays = fill(tmp_path, ["a.png", "b/c.PNG", "b/d/e.bmp", "f.webp", "g.tiff"], 8, 9, 3)
    write_image(tmp_path / "._a.png", noise(3, 3))
    (tmp_path / "notes.txt").write_text("not an image")
    data = load_dataset(str(tmp_path))
    assert (len(data.train), len(data.test)) == (4, 1)
    assert data.train.shape == (3, 8, 9)
    assert data.train.labels is None
    assert data.name == tmp_path.name
    assert len(read_images(tmp_path)) == len(arrays)


def test_class_folders_give_labels_by_their_sorted_names(tmp_path: Path) -> None:
    for name, level in (("tulip", 200), ("daisy", 40)):
        for i in range(5):
            write_image(tmp_path / name / f"{i}.png", np.full((4, 4), level, np.uint8))
    data = load_dataset(str(tmp_path))
    for part in (data.train, data.test):
        assert torch.equal(part.pixels[:, 0, 0, 0] == 200, require_labels(part, "x") == 1)


def test_train_and_test_folders_are_the_split(tmp_path: Path) -> None:
    fill(tmp_path, ["train/b/1.png", "train/c/2.png", "test/a/3.png", "test/c/4.png", "valid/a/5.png"], 4, 4)
    data = load_dataset(str(tmp_path))
    assert (len(data.train), len(data.test)) == (2, 2)
    assert require_labels(data.train, "x").tolist() == [1, 2]
    assert require_labels(data.test, "x").tolist() == [0, 2]
    with refused("train_limit", "got 3", "only 2"):
        load_dataset(str(tmp_path), train_limit=3)
    with refused("source", tmp_path / "train"):
        (tmp_path / "train" / "train").mkdir()
        load_dataset(str(tmp_path / "train"))


def test_only_the_kept_files_are_decoded(tmp_path: Path) -> None:
    fill(tmp_path, ["train/1.png", "test/1.png"], 4, 4)
    (tmp_path / "train" / "2.png").write_bytes(b"broken")
    assert len(load_dataset(str(tmp_path), train_limit=1).train) == 1


def test_a_crop_and_a_size_make_odd_files_alike(tmp_path: Path) -> None:
    for i, shape in enumerate([(20, 30), (40, 24), (25, 25)]):
        write_image(tmp_path / f"{i}.png", noise(*shape, 3))
    with refused("source", tmp_path, "image_size", "height x width"):
        load_dataset(str(tmp_path))
    data = load_dataset(str(tmp_path), image_size=16)
    assert data.train.shape == (3, 16, 16)
    assert load_dataset(str(tmp_path), crop=20).train.shape == (3, 20, 20)
    with refused("crop", "got 21", "20x30", tmp_path / "0.png"):
        load_dataset(str(tmp_path), crop=21)


def test_the_first_odd_file_and_both_sizes_are_named(tmp_path: Path) -> None:
    fill(tmp_path, ["a.png", "b.png"], 4, 5)
    write_image(tmp_path / "c.png", noise(7, 6))
    with refused("path", tmp_path / "c.png", "7x6", "4x5", tmp_path / "a.png"):
        read_images(tmp_path)


@pytest.mark.parametrize("grey", ["a.png", "b.png", "c.png"])
def test_grey_among_colour_becomes_colour_and_that_is_said(
    tmp_path: Path, grey: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.png", "c.png"):
        write_image(tmp_path / name, noise(4, 5) if name == grey else noise(4, 5, 3, seed=1))
    images = read_images(tmp_path)
    assert images.shape == (3, 3, 4, 5)
    alike = [bool((image == image[:1]).all()) for image in images]
    assert alike == [name == grey for name in ("a.png", "b.png", "c.png")]
    assert capsys.readouterr().err == "grey images, 1 of 3, are taken as colour\n"


def test_a_survey_tells_number_size_and_colour_without_reading_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "grey", ["a.png", "b.png", "c.png", "notes.txt.png"], 4, 9)
    (tmp_path / "grey" / "notes.txt").write_text("none")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(30, 40, 3)).save(tmp_path / "turned.png", exif=exif)
    monkeypatch.setattr(pictures, "plain", lambda *_: pytest.fail("pixels were read"))
    assert survey(tmp_path / "grey", Selection()) == Survey(train=3, width=9, height=4, grey=True)
    assert pictures.header(tmp_path / "turned.png") == pictures.Header(30, 40, grey=False)
    assert capsys.readouterr().err == ""
    (tmp_path / "grey" / "b.png").write_bytes(b"no image")
    with refused("path", tmp_path / "grey" / "b.png", "damaged"):
        survey(tmp_path / "grey", Selection(test_fraction=0.01))


def test_a_file_and_an_array_are_resized_alike(tmp_path: Path) -> None:
    ramp = np.add.outer(np.arange(40), np.arange(60) * 2).astype(np.uint8)
    framing = Framing(crop=32, size=(12, 12))
    framed = pictures.frame(Image.fromarray(ramp), framing, "it")
    (images,) = image_sets([ramp[None]], [None], "it")
    torch.testing.assert_close(
        framing.apply(images.pixels.float(), "it")[0], torch.from_numpy(framed.copy()).float(), atol=1.5, rtol=0
    )


def test_the_kinds_of_pixels_that_files_have(tmp_path: Path) -> None:
    colour = noise(4, 5, 3)
    grey = noise(4, 5)
    full = np.full((4, 5, 1), 255, np.uint8)
    seen = np.where((grey > 99)[..., None], colour, np.uint8(255))
    for name, picture, wanted in (
        ("alpha", Image.fromarray(np.concatenate([colour, full], 2)), colour),
        ("palette", Image.fromarray(grey).convert("RGB").convert("P"), None),
        ("grey_alpha", Image.merge("LA", [Image.fromarray(grey), Image.fromarray(full[..., 0])]), grey),
        ("hidden", Image.fromarray(np.concatenate([colour, full * (grey > 99)[..., None]], 2)), seen),
        ("bits", Image.fromarray(grey > 127), (grey > 127) * np.uint8(255)),
        ("deep", Image.fromarray(grey.astype(np.uint16) * 257), grey),
    ):
        path = tmp_path / f"{name}.png"
        picture.save(path)
        images = read_images(path)
        assert images.shape[1:] == ((1, 4, 5) if wanted is not None and wanted.ndim == 2 else (3, 4, 5)), name
        if wanted is not None:
            pixels = torch.from_numpy(wanted.reshape(4, 5, -1).copy()).permute(2, 0, 1)[None]
            torch.testing.assert_close(images, ImageSet(pixels, levels=256).images(), msg=name)


def test_a_photograph_is_turned_as_it_was_held(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(noise(4, 9, 3)).save(tmp_path / "a.png", exif=exif)
    assert read_images(tmp_path / "a.png").shape == (1, 3, 9, 4)


def test_the_first_frame_of_a_gif_is_taken(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((4, 4), level, np.uint8)) for level in (0, 255)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_images(tmp_path / "a.gif").unique().tolist() == [-1]


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
def test_damaged_files_are_named(tmp_path: Path, kind: str) -> None:
    path = write_image(tmp_path / f"a.{kind}", noise(40, 40, 3))
    write_image(tmp_path / "z.png", noise(40, 40, 3))
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"not an image"):
        path.write_bytes(broken)
        with refused("source", path, "damaged"):
            load_dataset(str(tmp_path), test_fraction=0.5)
        with refused("path", path, "damaged"):
            read_images(path)


def test_no_program_is_started_for_a_file_and_no_bomb_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n%%EOF\n")
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program was started"))
    with refused("path", tmp_path / "a.png", "damaged or of an unknown kind"):
        read_images(tmp_path / "a.png")
    Image.new("1", (9000, 9000)).save(tmp_path / "b.png")
    assert (tmp_path / "b.png").stat().st_size < 100_000
    with refused("path", tmp_path / "b.png", "9000x9000 pixels", "80,000,000 at most"):
        read_images(tmp_path / "b.png")


def test_floating_point_pictures_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tiff")
    with refused("path", tmp_path / "a.tiff", "floating-point"):
        read_images(tmp_path / "a.tiff")


def test_folders_without_images_and_half_splits_are_refused(tmp_path: Path) -> None:
    with refused("source", tmp_path, "no images"):
        load_dataset(str(tmp_path))
    with refused("path", tmp_path, "no images"):
        read_images(tmp_path)
    fill(tmp_path, ["train/a.png"], 4, 4)
    with refused("source", tmp_path, "'train'", "'test'"):
        load_dataset(str(tmp_path))
    with refused("test_fraction", tmp_path / "train", "1 image(s)"):
        load_dataset(str(tmp_path / "train"))


def test_many_files_show_progress_on_a_terminal_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []
    monkeypatch.setattr(progress, "tqdm", lambda items, **settings: seen.append(settings["disable"]) or items)
    fill(tmp_path, ["a.png", "b.png"], 4, 4)
    read_images(tmp_path)
    monkeypatch.setattr(pictures, "SILENT_UP_TO", 1)
    read_images(tmp_path)
    assert seen == [True, None]
    assert capsys.readouterr().err == ""


def test_a_line_says_what_is_taken_and_what_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, ["cat/1.png", "cat/2.png", "dog/3.png", "dog/4.png"], 4, 4)
    write_image(tmp_path / ".ipynb_checkpoints" / "1.png", noise(9, 9))
    for name in ("cat/5.heic", "dog/6.heic", "notes.txt"):
        (tmp_path / name).write_bytes(b"words")
    data = load_dataset(str(tmp_path))
    assert require_labels(data.train, "x").max() == 1
    said = capsys.readouterr().err
    assert said == f"{tmp_path}: 4 images of 2 classes (cat, dog); left out: 2 .heic, 1 .txt\n"


def test_the_names_of_the_classes_are_kept(tmp_path: Path) -> None:
    fill(tmp_path / "a", ["dog/1.png", "cat/2.png", "dog/3.png", "cat/4.png"], 4, 4)
    data = load_dataset(str(tmp_path / "a"))
    assert data.classes == data.hold_out(1).classes == ("cat", "dog")
    assert load_dataset(str(tmp_path / "a"), binarize=True).classes == ("cat", "dog")
    fill(tmp_path / "b", ["train/dog/1.png", "train/cat/2.png", "test/emu/3.png"], 4, 4)
    assert load_dataset(str(tmp_path / "b")).classes == ("cat", "dog", "emu")
    fill(tmp_path / "c", ["dog/1.png", "dog/2.png"], 4, 4)
    assert load_dataset(str(tmp_path / "c")).classes == load_dataset("digits").classes == ()


def test_an_image_above_the_class_folders_takes_the_classes_away_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path, ["cat/1.png", "dog/3.png", "stray.png", "dog/4.png"], 4, 4)
    assert load_dataset(str(tmp_path)).train.labels is None
    assert "4 images, without classes, since stray.png lies above the folders" in capsys.readouterr().err


@pytest.mark.parametrize(("train", "test"), [("training", "testing"), ("Train", "Test"), ("TRAIN", "testing")])
def test_other_names_of_the_split_are_known(tmp_path: Path, train: str, test: str) -> None:
    fill(tmp_path, [f"{train}/b/1.png", f"{train}/c/2.png", f"{test}/b/3.png"], 4, 4)
    data = load_dataset(str(tmp_path))
    assert (len(data.train), len(data.test)) == (2, 1)
    assert require_labels(data.train, "x").tolist() == [0, 1]


def test_a_folder_with_two_names_of_a_part_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, ["train/1.png", "training/2.png", "test/3.png"], 4, 4)
    with refused("source", "has both 'train' and 'training'"):
        load_dataset(str(tmp_path))


def test_links_to_folders_are_not_followed_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "photos", ["1.png", "2.png"], 4, 4)
    fill(tmp_path / "elsewhere", ["3.png", "4.png"], 4, 4)
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "elsewhere")
    data = load_dataset(str(tmp_path / "photos"))
    assert len(data.train) + len(data.test) == 2
    assert "left out: 1 link to folders" in capsys.readouterr().err


@pytest.mark.parametrize("top", [255, 4095])
def test_16_bit_pixels_that_do_not_reach_their_white_are_refused(tmp_path: Path, top: int) -> None:
    Image.fromarray((noise(8, 8).astype(np.uint16) * (top // 255)).astype(np.uint16)).save(tmp_path / "a.png")
    with refused("path", "a.png has 16-bit pixels from 0 to", "scale them to 0 to 65535"):
        read_images(tmp_path / "a.png")


def test_pipes_and_links_to_nothing_are_no_images(tmp_path: Path) -> None:
    fill(tmp_path, ["1.png", "2.png"], 4, 4)
    os.mkfifo(tmp_path / "3.png")
    (tmp_path / "4.png").symlink_to(tmp_path / "nothing")
    assert len(read_images(tmp_path)) == 2
