"""A folder of images in place of a recipe: the settings that are chosen for it, and a run of them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import shortrun
from shortrun.cli import main
from shortrun.config import checked_settings, is_folder, read_recipe, recipe_names
from shortrun.errors import InputError
from shortrun.training.photos import RECIPE, choice, read_settings, settings_of


def photos(folder: Path, count: int, width: int, height: int, grey: bool = False) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        shape = (height, width) if grey else (height, width, 3)
        # one colour and a spot of another
        pixels = np.broadcast_to(rng.integers(0, 256, shape[2:]), shape).astype(np.uint8).copy()
        pixels[height // 4 : height // 2, width // 4 : width // 2] = rng.integers(0, 256, shape[2:])
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize(
    ("count", "width", "height", "side", "blocks", "latents", "batch"),
    [
        (20, 300, 200, 64, "conv", (32, 64, 128), 16),
        (100, 64, 64, 64, "conv", (32, 64, 128), 50),
        (5, 50, 90, 32, "conv", (32, 32, 64), 4),
        (30, 28, 28, 28, "conv", (8, 16, 32), 24),
        (30, 9, 8, 8, "dense", (8, 16, 32), 24),
        (2, 64, 64, 64, "conv", (32, 64, 128), 1),
    ],
)
def test_size_generator_and_batch_suit_the_images(
    tmp_path: Path, count: int, width: int, height: int, side: int, blocks: str, latents: tuple[int, ...], batch: int
) -> None:
    config = checked_settings(settings_of(photos(tmp_path / "photos", count, width, height)))
    assert config.data.source == str(tmp_path / "photos")
    assert config.data.image_size == side
    assert (config.model.blocks, config.model.latents) == (blocks, latents)
    assert config.training.batch_size == batch
    steps_an_epoch = (count - -(-count // 5)) // batch
    pictures = (config.training.updates or 0) // (steps_an_epoch * config.training.picture_epochs)
    assert 12 <= pictures <= 15


def test_what_is_chosen_follows_the_size_that_is_asked_for_and_the_learner(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", 12, 100, 100)
    assert settings_of(folder, image_size=32).model.latents == (32, 32, 64)
    assert settings_of(folder, "ladder_vae").model.parameterization == "conditional"
    grey = photos(tmp_path / "grey", 4, 100, 100, grey=True)
    assert ", grey\n" in choice(settings_of(grey))


def test_a_recipe_s_name_stands_for_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "digits", 4, 8, 8)
    assert not is_folder("digits")
    assert is_folder("./digits")
    assert read_settings("digits") == read_recipe("digits")
    assert RECIPE.stem not in recipe_names(), "it names no images, so that it is no recipe of its own"


@pytest.mark.parametrize("name", ["empty", "one"])
def test_a_folder_that_cannot_be_learned_from_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / name, 0 if name == "empty" else 1, 8, 8)
    assert main(["train", name]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert {"empty": "holds no images", "one": "give at least 2 images"}[name] in line
    assert not (tmp_path / "runs").exists()


def test_a_folder_is_learned_from_and_filled_in_as_a_user_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", 20, 40, 36)
    short = ["--training.updates", "3", "--model.width", "16", "--model.latents", "3", "4", "--out", "run"]
    assert main(["train", "photos", *short, "--data.image-size", "16"]) == 0
    said = capsys.readouterr().out
    assert "16 images to learn from, mostly 40x36, in colour\n" in said
    assert "taken as 16x16" in said
    assert main(["inpaint", "run", "--n", "2"]) == 0
    learner = shortrun.load("run")
    assert learner.description is not None
    assert learner.description.image_shape == (3, 16, 16)
    with pytest.raises(InputError, match="no images"):
        shortrun.train(str(photos(tmp_path / "none", 0, 8, 8)))
