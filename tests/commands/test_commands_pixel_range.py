"""What floats of a file mean: as it is said, as in the run's own data, or as their signs say."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import shortrun
from shortrun.cli import main
from shortrun.data import read_images

Call = Callable[..., tuple[int, str, str]]
TINY = [
    *("--training.precision", "float32", "--model.latents", "4", "5", "--model.width", "16", "--inference.steps", "2"),
    *("--training.batch-size", "20", "--training.fit-images", "0"),
]
RNG = np.random.default_rng(0)
SIGNED = RNG.uniform(-1, 1, (80, 8, 8)).astype(np.float32)
POSITIVE = RNG.uniform(0, 1, (3, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, plain: str) -> dict[str, Path]:
    """Runs on floats in [-1, 1], in [0, 1], on 8-bit pixels, and on positive floats that are said to be signed."""
    place = tmp_path_factory.mktemp("ranges")
    kinds = {
        "signed": (SIGNED, []),
        "unit": ((SIGNED + 1) / 2, []),
        "bytes": (((SIGNED + 1) * 127.5).astype(np.uint8), []),
        "said": (np.abs(SIGNED), ["--data.pixel-range", "signed"]),
    }
    found = {}
    for name, (pixels, words) in kinds.items():
        np.save(place / f"{name}.npy", pixels)
        found[name] = place / f"run_{name}"
        source = ["--data.source", str(place / f"{name}.npy"), *words]
        small = ["--training.updates", "2"]
        assert main(["train", plain, *source, "--out", str(found[name]), *TINY, *small, "--data.test-limit", "10"]) == 0
    return found


@pytest.fixture
def positive(tmp_path: Path) -> Path:
    np.save(tmp_path / "positive.npy", POSITIVE)
    return tmp_path / "positive.npy"


def shown(folder: Path, call: Call, run: Path, images: Path, *words: str) -> tuple[np.ndarray, str]:
    """Return the observed pixels of an inpainting, in [0, 1], which are those that were taken, and what was said."""
    out = folder / f"inpainted_{run.name}_{'_'.join(words)}"
    code, _, err = call("inpaint", run, "--images", images, "--completions", 1, "--out", out, *words)
    assert code == 0, err
    with np.load(out / "inpainting.npz") as made:
        # nothing is observed in the corner of a box mask, so compare only where something is
        return np.where(made["mask"], made["completions"][0, ..., 0] / 255, np.nan), err


@pytest.mark.parametrize(
    ("run", "words", "taken", "line"),
    [
        (
            "signed",
            [],
            "signed",
            "are taken for [-1, 1], as in the run's data; write --pixel-range unit where they lie",
        ),
        ("said", [], "signed", "are taken for [-1, 1], as in the run's data;"),
        ("unit", [], "unit", "are taken for [0, 1], as in the run's data; write --pixel-range signed where they lie"),
        ("bytes", [], "unit", "floats of 0 and above are taken for [0, 1]; write --pixel-range signed"),
        ("signed", ["--pixel-range", "unit"], "unit", ""),
        ("unit", ["--pixel-range", "signed"], "signed", ""),
        ("bytes", ["--pixel-range", "signed"], "signed", ""),
    ],
)
def test_positive_floats_mean_what_is_said_or_what_the_run_learned_from(
    runs: dict[str, Path], positive: Path, call: Call, tmp_path: Path, run: str, words: list[str], taken: str, line: str
) -> None:
    found, err = shown(tmp_path, call, runs[run], positive, *words)
    wanted = (POSITIVE + 1) / 2 if taken == "signed" else POSITIVE
    assert np.nanmax(np.abs(found - wanted)) < 0.5 / 255 + 1e-6
    assert line in err
    assert err.count("\n") == bool(line)


@pytest.mark.parametrize("run", ["signed", "unit", "bytes"])
def test_negative_floats_say_it_themselves(runs: dict[str, Path], call: Call, tmp_path: Path, run: str) -> None:
    np.save(tmp_path / "signed.npy", SIGNED[:3])
    found, err = shown(tmp_path, call, runs[run], tmp_path / "signed.npy")
    assert np.nanmax(np.abs(found - (SIGNED[:3] + 1) / 2)) < 0.5 / 255 + 1e-6
    assert err == ""
    code, _, err = call("encode", runs[run], "--images", tmp_path / "signed.npy", "--pixel-range", "unit")
    assert code == 2
    assert err.startswith("shortrun: error: --pixel-range: got 'unit', and ")
    assert err.endswith("write signed\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["encode", "reconstruct", "interpolate", "traverse"])
def test_every_use_of_a_model_takes_them_so(
    runs: dict[str, Path], positive: Path, call: Call, tmp_path: Path, command: str
) -> None:
    few = ["--n", "2"] if command in ("interpolate", "traverse") else []
    code, _, err = call(command, runs["signed"], "--images", positive, "--out", tmp_path / "out", *few)
    assert code == 0
    assert "are taken for [-1, 1], as in the run's data" in err
    if command == "encode":
        learner, rng = shortrun.load(runs["signed"]), torch.Generator().manual_seed(0)
        x = read_images(positive, pixel_range="signed")
        with np.load(tmp_path / "out" / "latents.npz") as made:
            assert np.array_equal(made["z"], shortrun.encode(learner, x, rng).z.numpy())


def test_a_saved_model_keeps_what_its_floats_meant(
    runs: dict[str, Path], positive: Path, call: Call, tmp_path: Path
) -> None:
    saved = tmp_path / "saved"
    shortrun.load(runs["signed"]).save_pretrained(saved)
    _, err = shown(tmp_path, call, saved, positive)
    assert "are taken for [-1, 1], as in the run's data" in err


def test_the_option_is_for_images_of_your_own(runs: dict[str, Path], call: Call) -> None:
    code, _, err = call("encode", runs["signed"], "--pixel-range", "unit")
    assert code == 2
    assert err == "shortrun: error: --pixel-range: only for images of your own; add --images PATH\n"


def test_training_says_what_it_takes_positive_floats_for(tmp_path: Path, call: Call, plain: str) -> None:
    np.savez(tmp_path / "a.npz", x=np.abs(SIGNED))
    words = ["train", plain, *TINY, "--data.source", tmp_path / "a.npz", "--data.test-limit", "5"]
    words += ["--training.updates", "2"]
    code, _, err = call(*words, "--out", tmp_path / "unsaid")
    assert code == 0
    said = [line for line in err.splitlines() if not line.startswith("warning: test images are rebuilt")]
    assert said == [
        "a: floats of 0 and above are taken for [0, 1]; write --data.pixel-range signed where they lie in [-1, 1]"
    ]
    code, _, err = call(*words, "--out", tmp_path / "said", "--data.pixel-range", "signed")
    assert code == 0
    assert "floats" not in err
    for name, range_ in (("unsaid", "[0, 1]"), ("said", "[-1, 1]")):
        assert f"floats, {range_} in their files" in call("info", tmp_path / name)[1]
    np.savez(tmp_path / "b.npz", x=SIGNED)
    code, _, err = call(
        *words, "--data.source", tmp_path / "b.npz", "--data.pixel-range", "unit", "--out", tmp_path / "c"
    )
    assert code == 2
    assert err.startswith("shortrun: error: --data.pixel-range: got 'unit', and ")
    assert not (tmp_path / "c").exists()
