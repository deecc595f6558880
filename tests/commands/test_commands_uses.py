import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import shortrun
from shortrun.data import load_dataset, read_images
from shortrun.tasks import masks

Call = Callable[..., tuple[int, str, str]]
USES = {
    "sample": ("samples", ["samples.png", "samples.npz"]),
    "reconstruct": ("reconstructions", ["reconstructions.png", "reconstructions.npz"]),
    "inpaint": ("inpainting", ["inpainting.png", "inpainting.npz"]),
    "encode": ("latents", ["latents.npz"]),
    "interpolate": ("interpolation", ["interpolation.png", "interpolation.npz"]),
    "traverse": ("traversal", ["traversal.png", "traversal.npz"]),
}


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files if name != "arguments"}


def as_bytes(x: torch.Tensor) -> np.ndarray:
    return ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def digits_for_testing() -> torch.Tensor:
    return load_dataset("digits").test.images()


@pytest.mark.parametrize("command", USES)
def test_outputs_lie_under_the_run_are_named_and_can_be_repeated(call: Call, run: Path, command: str) -> None:
    folder, files = USES[command]
    code, out, err = call(command, run, "--n", 4)
    assert (code, err) == (0, "")
    for name in files:
        assert f"wrote {run / folder / name}" in out
    assert sorted(path.name for path in (run / folder).iterdir()) == sorted(files)
    first = arrays(run / folder / files[-1])
    assert str(first["made_by"]) == f"shortrun {command}"
    for name in files[:-1]:
        with Image.open(run / folder / name) as picture:
            assert picture.mode == "RGB"
            assert picture.info["made_by"] == f"shortrun {command}"
            assert json.loads(picture.info["arguments"])["seed"] == 0
    # again, over what it wrote itself; and with another seed elsewhere
    assert call(command, run, "--n", 4)[0] == 0
    again = arrays(run / folder / files[-1])
    assert first.keys() == again.keys()
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert call(command, run, "--n", 4, "--seed", 1, "--out", run / "b")[0] == 0
    other = arrays(run / "b" / files[-1])
    assert any(not np.array_equal(first[name], other[name]) for name in first)


def test_sample_writes_bytes(call: Call, trained: Path, tmp_path: Path) -> None:
    assert call("sample", trained, "--n", 150, "--out", tmp_path / "a" / "b", "--batch-size", 40)[0] == 0
    images = arrays(tmp_path / "a" / "b" / "samples.npz")["images"]
    assert images.shape == (150, 8, 8, 1)
    assert images.dtype == np.uint8
    rng = torch.Generator().manual_seed(0)
    assert np.array_equal(images[:40], as_bytes(shortrun.load(trained).sample(40, rng)))


def test_reconstruct_prints_the_error_of_what_it_writes(call: Call, trained: Path, tmp_path: Path) -> None:
    code, out, _ = call("reconstruct", trained, "--steps", 5, "--no-noise", "--out", tmp_path)
    assert code == 0
    made = arrays(tmp_path / "reconstructions.npz")
    assert made["images"].shape == (48, 8, 8, 1)
    error = ((made["images"] / 255.0 - as_bytes(digits_for_testing()[:48]) / 255.0) ** 2).mean((1, 2, 3))
    assert np.allclose(error, made["mse"], atol=2e-3)  # both are rounded to bytes here
    assert f"MSE {made['mse'].mean():.5f} (pixels in [0, 1], 48 test images, 5 steps, without noise, seed 0)" in out
    decoded = shortrun.load(trained).decode(torch.from_numpy(made["z"]))
    assert np.array_equal(made["images"], as_bytes(decoded))
    call("reconstruct", trained, "--n", 2, "--out", tmp_path / "b")
    assert "3 steps, with noise" in call("reconstruct", trained, "--n", 2, "--out", tmp_path / "b")[1]


def test_own_images_are_all_taken_and_fitted_on_request(call: Call, trained: Path, own: Path, tmp_path: Path) -> None:
    code, out, _ = call("reconstruct", trained, "--images", own, "--out", tmp_path / "a")
    assert code == 0
    assert "3 images" in out
    assert arrays(tmp_path / "a" / "reconstructions.npz")["images"].shape == (3, 8, 8, 1)
    Image.new("RGB", (40, 30), (200, 10, 60)).save(own / "wide.jpg")
    code, _, err = call("reconstruct", trained, "--images", own, "--out", tmp_path / "b")
    assert code == 2
    assert "set fit" in err
    assert not (tmp_path / "b").exists()
    assert call("reconstruct", trained, "--images", own, "--fit", "--out", tmp_path / "b")[0] == 0
    assert len(arrays(tmp_path / "b" / "reconstructions.npz")["z"]) == 4


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--mask", "box"], masks.centre_box(8, 8, 8)),
        (["--mask", "box", "--size", "3"], masks.centre_box(8, 8, 8, 3)),
        (["--mask", "stripes", "--size", "2"], masks.stripes(8, 8, 8, 2)),
        (["--mask", "half"], masks.half(8, 8, 8, "left")),
        (["--mask", "half", "--keep", "bottom"], masks.half(8, 8, 8, "bottom")),
        (["--missing", "0.25"], masks.random_pixels(8, 8, 8, torch.Generator().manual_seed(0), 0.25)),
        (["--mask", "brush"], masks.brush(8, 8, 8, torch.Generator().manual_seed(0), 0.3)),
    ],
)
def test_inpaint_fills_in_what_the_mask_leaves_out(
    call: Call, trained: Path, tmp_path: Path, words: list[str], expected: torch.Tensor
) -> None:
    code, out, _ = call("inpaint", trained, *words, "--completions", 5, "--out", tmp_path)
    assert code == 0
    made = arrays(tmp_path / "inpainting.npz")
    x, seen = digits_for_testing()[:8], made["mask"]
    assert np.array_equal(seen, expected[:, 0] > 0.5)
    assert made["completions"].shape == (5, 8, 8, 8, 1)
    given = as_bytes(x)
    for completion in made["completions"]:
        assert np.array_equal(completion[seen], given[seen])
    assert np.allclose(made["mean"][seen], ((x + 1) / 2).permute(0, 2, 3, 1).numpy()[seen], atol=1e-6)
    assert made["uncertainty"].shape == (8, 8, 8)
    assert (made["uncertainty"][seen] == 0).all()
    assert (made["uncertainty"][~seen] > 0).mean() > 0.9
    assert np.allclose(made["uncertainty"], made["completions"][..., 0].std(0) / 255, atol=0.005)
    # the two errors printed are those of the arrays
    truth = given / 255.0
    single = ((made["completions"] / 255.0 - truth) ** 2)[:, ~seen].mean()
    mean = ((made["mean"] - truth) ** 2)[~seen].mean()
    line = next(line for line in out.splitlines() if line.startswith("MSE"))
    printed = [float(word) for word in line.split() if word.startswith("0.")]
    assert printed == pytest.approx([single, mean], abs=2e-3)
    assert mean <= single
    assert f"{1 - seen.mean():.1%}" in line


def test_inpaint_takes_the_users_own_mask_and_images(call: Call, trained: Path, own: Path, tmp_path: Path) -> None:
    picture = np.full((8, 8), 255, dtype=np.uint8)
    picture[2:4, 5] = 0
    Image.fromarray(picture).save(tmp_path / "mask.png")
    code, out, _ = call(
        "inpaint",
        trained,
        "--mask",
        tmp_path / "mask.png",
        "--images",
        own,
        "--completions",
        2,
        "--out",
        tmp_path / "a",
    )
    assert code == 0
    made = arrays(tmp_path / "a" / "inpainting.npz")
    assert made["completions"].shape == (2, 3, 8, 8, 1)
    assert np.array_equal(made["mask"], np.broadcast_to(picture > 0, (3, 8, 8)))
    assert np.array_equal(made["completions"][1][made["mask"]], as_bytes(read_images(own))[made["mask"]])
    assert "MSE on the missing pixels" in out


def test_encode_writes_layers_and_labels_of_either_split(call: Call, trained: Path, tmp_path: Path) -> None:
    assert call("encode", trained, "--out", tmp_path / "a")[0] == 0
    made = arrays(tmp_path / "a" / "latents.npz")
    assert {name: array.shape for name, array in made.items() if array.ndim} == {
        "z": (60, 9),
        "z_2": (60, 4),
        "z_1": (60, 5),
        "failed": (60,),
        "labels": (60,),
    }
    assert np.array_equal(np.hstack([made["z_2"], made["z_1"]]), made["z"])
    assert call("encode", trained, "--split", "train", "--n", 100, "--out", tmp_path / "b")[0] == 0
    labels = load_dataset("digits").train.labels
    assert labels is not None
    assert np.array_equal(arrays(tmp_path / "b" / "latents.npz")["labels"], labels[:100])


def test_encode_writes_no_labels_that_it_does_not_know(call: Call, trained: Path, own: Path, tmp_path: Path) -> None:
    assert call("encode", trained, "--images", own, "--out", tmp_path / "a")[0] == 0
    assert "labels" not in arrays(tmp_path / "a" / "latents.npz")


def test_interpolate_walks_between_pairs(call: Call, trained: Path, own: Path, tmp_path: Path) -> None:
    assert call("interpolate", trained, "--columns", 6, "--out", tmp_path / "a")[0] == 0
    made = arrays(tmp_path / "a" / "interpolation.npz")
    assert made["images"].shape == (8, 6, 8, 8, 1)
    assert made["z"].shape == (8, 6, 9)
    decoded = shortrun.load(trained).decode(torch.from_numpy(made["z"][:, 2]))
    assert np.abs(made["images"][:, 2].astype(int) - as_bytes(decoded)).max() <= 1
    code, out, _ = call("interpolate", trained, "--images", own, "--out", tmp_path / "b")
    assert code == 0
    assert "image 3 has no partner" in out
    assert len(arrays(tmp_path / "b" / "interpolation.npz")["images"]) == 1


def test_traverse_varies_every_layer_or_the_one_named(call: Call, trained: Path, tmp_path: Path) -> None:
    assert call("traverse", trained, "--columns", 4, "--out", tmp_path / "a")[0] == 0
    made = arrays(tmp_path / "a" / "traversal.npz")
    assert [name for name in made if name.startswith("layer")] == ["layer_2", "layer_1"]  # the top first
    assert made["layer_2"].shape == made["layer_1"].shape == (2, 4, 8, 8, 1)
    assert (np.ptp(made["z_layer_2"], axis=1)[:, 4:] == 0).all()
    assert (np.ptp(made["z_layer_2"], axis=1)[:, :4] > 0).all()
    assert (np.ptp(made["z_layer_1"], axis=1)[:, :4] == 0).all()
    # all rows start from the same latents
    assert np.array_equal(made["z_layer_1"][:, 0, :4], made["z_layer_1"][:, 3, :4])
    assert np.array_equal(made["z_layer_2"][:, 0, 4:], made["z_layer_2"][:, 3, 4:])
    words = ("--prior", "--layer", 1, "--coordinate", 2, "--n", 3, "--out", tmp_path / "b")
    assert call("traverse", trained, *words)[0] == 0
    made = arrays(tmp_path / "b" / "traversal.npz")
    assert set(made) == {"layer_1", "z_layer_1", "made_by"}
    assert np.allclose(made["z_layer_1"][..., 6], np.linspace(-2.5, 2.5, 10))
    assert (np.ptp(made["z_layer_1"], axis=1) > 0).sum() == 3


@pytest.mark.parametrize("command", ["reconstruct", "inpaint", "encode", "interpolate", "traverse"])
def test_chains_that_failed_are_said(call: Call, run: Path, command: str) -> None:
    path = run / "checkpoint" / "model.safetensors"
    weights = load_file(path)
    weights["step_size.log_values"].fill_(80)  # the first steps overflow float32, with half of it too
    save_file(weights, path)
    code, out, _ = call(command, run, "--n", 2)
    assert code == 0
    assert "chains stayed non-finite" in out


def test_info_says_what_the_run_reached(call: Call, trained: Path) -> None:
    code, out, _ = call("info", trained)
    assert code == 0
    result = json.loads((trained / "result.json").read_text())
    assert f"{result['mse']['value']:.4g}" in out
    for words in ("finished", "digits", "3 steps", "top down 4 5", "samples.png"):
        assert words in out


def test_a_saved_model_does_without_a_run(call: Call, trained: Path, own: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    shortrun.load(trained).save_pretrained(saved)
    assert call("sample", saved, "--n", 3)[0] == 0
    assert call("traverse", saved, "--prior")[0] == 0
    assert call("encode", saved, "--images", own)[0] == 0
    assert call("info", saved)[0] == 0
    code, _, err = call("reconstruct", saved)
    assert code == 2
    assert "add --images" in err


@pytest.mark.parametrize("command", [*USES, "info"])
def test_help_comes_without_waiting_for_torch(command: str) -> None:
    program = (
        "import sys; from shortrun.cli import main\n"
        f"try: main([{command!r}, '--help'])\n"
        "except SystemExit as done: assert not done.code\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"shortrun {command}" in done.stdout
    assert "RUN" in done.stdout


def test_as_a_program(trained: Path, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "shortrun"]
    done = subprocess.run(
        [*program, "sample", str(trained), "--n", "3", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(arrays(tmp_path / "samples.npz")["images"]) == 3
    done = subprocess.run([*program, "encode", "nowhere"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("shortrun: error: nowhere")
    assert done.stderr.count("\n") == 1
