from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Call = Callable[..., tuple[int, str, str]]
WITH_IMAGES = ("reconstruct", "inpaint", "encode", "interpolate", "traverse")


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def refused(call: Call, run: Path, tmp_path: Path) -> Callable[..., None]:
    """Expect a command to say one line, with all the words in it, exit with 2 and write nothing."""

    def check(words: list[object], *expected: object) -> None:
        before, folders = contents(tmp_path), sorted(tmp_path.rglob("*"))
        code, out, err = call(*words)
        assert (code, out) == (2, "")
        assert err.startswith("shortrun: error: ")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        for word in expected:
            assert str(word) in err, err
        assert contents(tmp_path) == before
        assert sorted(tmp_path.rglob("*")) == folders

    return check


@pytest.mark.parametrize("command", ["sample", *WITH_IMAGES, "info"])
def test_a_run_that_is_not_there(refused: Callable[..., None], tmp_path: Path, command: str) -> None:
    refused([command, tmp_path / "nowhere"], tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    refused([command, tmp_path / "empty"], tmp_path / "empty", "config")


@pytest.mark.parametrize("command", ["sample", *WITH_IMAGES])
def test_numbers_out_of_range_and_devices(refused: Callable[..., None], run: Path, command: str) -> None:
    refused([command, run, "--n", 0], "--n: got 0", "at least 1")
    refused([command, run, "--seed", -1], "--seed: got -1")
    refused([command, run, "--batch-size", 0], "--batch-size: got 0")
    refused([command, run, "--device", "abacus"], "--device: got 'abacus'")


@pytest.mark.parametrize("command", WITH_IMAGES)
def test_images_that_cannot_be_used(
    refused: Callable[..., None], run: Path, own: Path, tmp_path: Path, command: str
) -> None:
    refused([command, run, "--n", 62], "--n: got 62", "60 test images")
    refused([command, run, "--images", own, "--n", 4], "--n: got 4", "3 images")
    refused([command, run, "--steps", 0], "--steps: got 0")
    refused([command, run, "--fit"], "--fit", "--images")
    refused([command, run, "--images", tmp_path / "none.png"], "--images: ", "none.png")
    (tmp_path / "empty").mkdir()
    refused([command, run, "--images", tmp_path / "empty"], f"--images: {tmp_path / 'empty'} holds no images")
    Image.new("RGB", (20, 10)).save(own / "a_wide.png")
    refused([command, run, "--images", own], "--images: ", "a_wide.png", "3x10x20", "1x8x8", "set fit")
    (own / "a_wide.png").write_bytes((own / "a.png").read_bytes()[:60])
    refused([command, run, "--images", own], "--images: ", "a_wide.png is damaged")


@pytest.mark.parametrize("missing", [0, 1, -0.5, 50, "nan"])
@pytest.mark.parametrize("mask", ["random", "brush"])
def test_shares_of_missing_pixels(refused: Callable[..., None], run: Path, mask: str, missing: object) -> None:
    refused(["inpaint", run, "--mask", mask, "--missing", missing], "--missing: got", "between 0 and 1")


def test_masks_that_cannot_be_used(refused: Callable[..., None], run: Path, tmp_path: Path) -> None:
    refused(["inpaint", run, "--mask", "bruch"], "--mask: got 'bruch'", "did you mean 'brush'?")
    refused(["inpaint", run, "--mask", "zzz"], "--mask: got 'zzz'", "box, brush, half, random, stripes")
    refused(["inpaint", run, "--mask", tmp_path / "none.png"], "--mask: ", "none.png does not exist")
    Image.new("L", (8, 9), 0).save(tmp_path / "mask.png")
    refused(["inpaint", run, "--mask", tmp_path / "mask.png"], "--mask: ", "9x8", "8x8")
    Image.new("L", (8, 8), 255).save(tmp_path / "mask.png")
    refused(["inpaint", run, "--mask", tmp_path / "mask.png"], "--mask: no pixel is missing")
    (tmp_path / "mask.png").write_bytes(b"nothing")
    refused(["inpaint", run, "--mask", tmp_path / "mask.png"], "--mask: ", "mask.png is damaged")
    refused(["inpaint", run, "--mask", "box", "--size", 9], "--size: got 9", "1 to 8")
    refused(["inpaint", run, "--mask", "stripes", "--size", 0], "--size: got 0", "1 to 7")


def test_options_of_another_mask(refused: Callable[..., None], run: Path) -> None:
    refused(["inpaint", run, "--mask", "box", "--missing", 0.2], "--missing: got 0.2", "random or brush")
    refused(["inpaint", run, "--mask", "random", "--size", 2], "--size: got 2", "box or stripes or brush")
    refused(["inpaint", run, "--keep", "left"], "--keep: got 'left'", "half")
    refused(["inpaint", run, "--completions", 0], "--completions: got 0")


def test_layers_and_coordinates_out_of_range(refused: Callable[..., None], run: Path, own: Path) -> None:
    refused(["traverse", run, "--layer", 3], "--layer: got 3", "1 (the lowest) to 2 (the top)")
    refused(["traverse", run, "--layer", 0], "--layer: got 0")
    refused(["traverse", run, "--layer", 1, "--coordinate", 5], "--coordinate: got 5", "0 to 4")
    refused(["traverse", run, "--coordinate", 1], "--coordinate: got 1", "--layer")
    refused(["traverse", run, "--prior", "--images", own], "--prior", "--images")
    refused(["traverse", run, "--prior", "--steps", 3], "--prior", "--steps")
    refused(["traverse", run, "--columns", 0], "--columns: got 0")


def test_walks_and_splits(refused: Callable[..., None], run: Path, own: Path) -> None:
    refused(["interpolate", run, "--columns", 1], "--columns: got 1", "at least 2")
    refused(["interpolate", run, "--n", 3], "--n: got 3", "even")
    refused(["interpolate", run, "--images", own / "a.png"], "--images", "two images")
    refused(["encode", run, "--split", "train", "--images", own], "--split: got 'train'", "--images")


def test_files_of_other_making_are_left_alone(
    refused: Callable[..., None], call: Call, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    np.savez(out / "latents.npz", z=np.zeros(3))
    refused(["encode", run, "--out", out], "--out", out / "latents.npz", "another folder")
    (out / "samples.png").write_text("not a picture")
    refused(["sample", run, "--out", out], "--out", out / "samples.png")
    Image.new("L", (4, 4)).save(out / "samples.png")
    refused(["sample", run, "--out", out], "--out", out / "samples.png")
    refused(["sample", run, "--out", out / "samples.png"], "--out", "is a file")
    refused(["sample", run, "--out", out / "samples.png" / "deeper"], "--out", "is a file")
    # files of other names in the same folder are nobody's business
    assert call("reconstruct", run, "--n", 2, "--out", out)[0] == 0
    assert (out / "latents.npz").is_file()


def test_a_run_that_is_damaged(refused: Callable[..., None], run: Path) -> None:
    weights = run / "checkpoint" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    refused(["sample", run], "model.safetensors", "damaged")
    refused(["info", run], "model.safetensors", "damaged")


def test_a_run_whose_images_were_given_in_python(refused: Callable[..., None], call: Call, run: Path) -> None:
    config = run / "checkpoint" / "config.json"
    np.savez(run.parent / "other.npz", test_x=np.zeros((100, 9, 9), np.uint8), train_x=np.zeros((100, 9, 9), np.uint8))
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace('"digits"', f'"{run.parent / "other.npz"}"'))
    assert config.is_file()
    refused(["reconstruct", run, "--n", 1], "--images", "was not trained on other", "add --images")
