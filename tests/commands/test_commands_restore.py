import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import shortrun
from shortrun.data import load_dataset, read_images
from shortrun.tasks import operators

Call = Callable[..., tuple[int, str, str]]


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize(
    ("words", "operator", "side"),
    [
        (["--sigma", "0.1"], operators.identity(), 8),
        (["--blur", "1.5"], operators.blur(1.5), 8),
        (["--downsample", "2"], operators.downsample(2), 4),
        (["--blur", "0.7", "--downsample", "4"], operators.chained(operators.blur(0.7), operators.downsample(4)), 2),
    ],
)
def test_test_images_are_degraded_and_restored(
    call: Call, trained: Path, tmp_path: Path, words: list[str], operator: Callable, side: int
) -> None:
    pytest.importorskip("torchmetrics")
    pytest.importorskip("skimage")
    code, out, err = call("restore", trained, "--degrade", *words, "--n", 4, "--draws", 3, "--out", tmp_path)
    assert (code, err) == (0, "")
    made = arrays(tmp_path / "restoration.npz")
    assert made["draws"].shape == (3, 4, 8, 8, 1)
    assert made["given"].shape == (4, side, side, 1)
    assert not made["failed"].any()
    assert (made["uncertainty"] > 0).all()
    x = load_dataset("digits").test.images()[:4]
    clean = ((operator(x) + 1) / 2).permute(0, 2, 3, 1).numpy()
    sigma = 0.1 if "--sigma" in words else 0.05
    assert np.abs(made["given"] - clean).mean() < sigma  # what is below 0 and above 1 is cut
    mean = ((made["mean"][..., 0] - ((x[:, 0] + 1) / 2).numpy()) ** 2).mean()
    lines = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in out.splitlines() if line.startswith("| ")}
    assert float(lines["mean of 3"][1]) == pytest.approx(mean, rel=1e-3)
    assert {"one draw", "mean of 3", "as given" if side == 8 else "bicubic"} <= lines.keys()
    assert any("total variation" in name for name in lines)
    assert ("Wiener" in lines) == (side == 8)
    assert "of them inside their 90% interval" in out
    with Image.open(tmp_path / "restoration.png") as picture:
        assert json.loads(picture.info["arguments"])["degrade"] is True
    again = tmp_path / "again"
    assert call("restore", trained, "--degrade", *words, "--n", 4, "--draws", 3, "--out", again)[0] == 0
    assert np.array_equal(arrays(again / "restoration.npz")["draws"], made["draws"])


def test_own_images_are_restored_and_no_error_is_quoted(call: Call, trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (2, 4, 4), dtype=np.uint8)
    for name, pixels in zip("ab", noise, strict=True):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    code, out, err = call(
        "restore", trained, "--images", folder, "--downsample", 2, "--sigma", 0.02, "--out", tmp_path / "out"
    )
    assert (code, err) == (0, "")
    made = arrays(tmp_path / "out" / "restoration.npz")
    assert made["draws"].shape == (16, 2, 8, 8, 1)
    assert np.allclose(made["given"][..., 0], noise / 255, atol=1e-6)
    assert "MSE" not in out
    assert "mean uncertainty 0." in out
    learner, y = shortrun.load(trained), read_images(folder)
    expected = shortrun.restore(learner, y, operators.downsample(2), 0.04, torch.Generator().manual_seed(0))
    assert np.allclose(made["mean"], ((expected.mean + 1) / 2).permute(0, 2, 3, 1).numpy(), atol=1e-5)


def test_own_whole_images_are_degraded(call: Call, trained: Path, own: Path, tmp_path: Path) -> None:
    code, out, _ = call("restore", trained, "--images", own, "--degrade", "--steps", 2, "--out", tmp_path / "out")
    assert code == 0
    assert "one draw" in out
    assert "3 images, noise 0.05, 16 draws" in out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "--images: are missing; add --images PATH, or --degrade"),
        (["--degrade", "--sigma", 0], "--sigma: got 0.0; write a positive number"),
        (["--degrade", "--sigma", -0.1], "--sigma: got -0.1; write a positive number"),
        (["--degrade", "--sigma", "nan"], "--sigma: got nan; write a positive number"),
        (["--degrade", "--blur", 0], "--blur: got 0.0; write a positive number of pixels"),
        (["--degrade", "--downsample", 3], "--downsample: got 3; write one that divides 8 and 8"),
        (["--degrade", "--downsample", 0], "--downsample: got 0; "),
        (["--degrade", "--draws", 0], "--draws: got 0; "),
        (["--degrade", "--steps", 0], "--steps: got 0; "),
        (["--degrade", "--n", 0], "--n: got 0; "),
        (["--images", "OWN", "--downsample", 2], "--images: "),
        (["--images", "NONE"], "--images: "),
    ],
)
def test_what_cannot_be_restored_is_one_line(
    call: Call, trained: Path, own: Path, tmp_path: Path, words: list[object], line: str
) -> None:
    places: dict[object, Path] = {"OWN": own, "NONE": tmp_path / "none.png"}
    out = tmp_path / "out"
    code, _, err = call("restore", trained, *(places.get(word, word) for word in words), "--out", out)
    assert code == 2
    assert err.startswith(f"shortrun: error: {line}"), err
    assert err.count("\n") == 1
    assert not out.exists()
