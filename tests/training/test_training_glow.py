"""The learner `glow` as a user has it: through the command line, interrupted, used afterwards."""

import json
import math
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import shortrun
from shortrun.cli import main
from shortrun.learners.glow import Glow

pytest.importorskip("normflows")

SMALL = [
    *("digits", "--learner", "glow", "--training.batch-size=50", "--training.log-steps=5", "--training.threads=1"),
    *("--training.picture-epochs=9", "--data.train-limit=400", "--data.test-limit=40", "--device=cpu"),
    *("--glow.flows=2", "--glow.width=16", "--training.learning-rate=5e-3"),
]
STATE = "checkpoint/training.safetensors"


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    assert main(["train", *SMALL, "--training.updates=200", "--out", str(out)]) == 0
    return out


def test_two_hundred_updates_stay_finite_and_learn(unbroken: Path) -> None:
    lines = [json.loads(line) for line in (unbroken / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["skipped"] == 0
    assert all(math.isfinite(line[name]) for line in lines for name in ("loss", "grad_norm", "bits_per_dim"))
    # a code that knows nothing of digits spends log2(17) = 4.09 bits on a pixel
    assert lines[-1]["bits_per_dim"] < 3.2
    assert lines[-1]["bits_per_dim"] < lines[0]["bits_per_dim"] - 0.3


def test_the_report_has_bits_and_conditions(unbroken: Path) -> None:
    result = json.loads((unbroken / "result.json").read_text())
    bits = result["bits_per_dim"]
    assert 2 < bits["value"] < 3.5
    assert (bits["split"], bits["images"], bits["levels"], bits["learner"]) == ("test", 40, 17, "glow")
    assert (bits["inference"], bits["weights"]) == ("exact", "moving average")
    assert result["mse"]["value"] < 1e-8
    assert result["failed_test_chains"]["value"] == 0
    learner, x = shortrun.load(unbroken), shortrun.load_dataset("digits").test.images(slice(0, 40))
    assert isinstance(learner, Glow)
    again = learner.test_figures(x, torch.Generator().manual_seed(0))["bits_per_dim"].value
    assert again == pytest.approx(bits["value"], abs=0.02)  # other noise, the same images


def test_a_trained_flow_is_exactly_inverted(unbroken: Path) -> None:
    learner, x = shortrun.load(unbroken), shortrun.load_dataset("digits").test.images()
    rng = torch.Generator().manual_seed(0)
    assert (learner.reconstruct(x, rng) - x).abs().max() < 1e-4
    assert learner.sample(200, rng).isfinite().all()


def test_stopped_it_goes_on_as_the_unbroken_run(tmp_path: Path) -> None:
    unbroken, out = tmp_path / "unbroken", tmp_path / "stopped"
    words = ["train", *SMALL, "--training.updates=40", "--out"]
    assert main([*words, str(unbroken)]) == 0
    words = [sys.executable, "-m", "shortrun", *words, str(out)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out / "metrics.jsonl").is_file() or not (out / "metrics.jsonl").read_text():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert not (out / "result.json").exists()
    assert main(["train", "--resume", str(out)]) == 0
    for name in ("metrics.jsonl", "checkpoint/model.safetensors", "figures/samples.png"):
        assert (unbroken / name).read_bytes() == (out / name).read_bytes(), name
    states = [load_file(run / STATE) for run in (unbroken, out)]
    assert states[0].keys() == states[1].keys()
    assert all(states[0][name].equal(states[1][name]) for name in states[0])
    results = [json.loads((run / "result.json").read_text()) for run in (unbroken, out)]
    assert results[0]["bits_per_dim"] == results[1]["bits_per_dim"]


@pytest.mark.parametrize("command", ["sample", "reconstruct", "encode", "interpolate", "traverse", "info"])
def test_every_use_of_a_model_takes_it(
    unbroken: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(unbroken, tmp_path / "run"))
    assert main([command, str(run), *([] if command == "info" else ["--n", "2"])]) == 0
    if command == "info":
        said = capsys.readouterr().out
        assert " scales of " in said
        assert " layers of latents" not in said


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["inpaint"], ["--mask: glow cannot", "a learner with a generator"]),
        (["reconstruct", "--steps", "3"], ["--steps: glow has no chain"]),
        (["encode", "--no-noise"], ["--no-noise: glow has no chain"]),
    ],
)
def test_what_it_cannot_do_is_one_clear_line(
    unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], parts: list[str]
) -> None:
    assert main([words[0], str(unbroken), "--n", "2", "--out", str(tmp_path / "out"), *words[1:]]) == 2
    line = capsys.readouterr().err
    assert line.startswith("shortrun: error: ")
    assert line.count("\n") == 1
    assert all(part in line for part in parts)


def test_sizes_that_do_not_divide_are_refused_before_a_folder_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *SMALL, "--glow.scales=3", "--out", str(tmp_path / "run")]) == 2
    assert "--glow.scales: got 3 for images of 8x8; write 1 to 2" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_recipes_have_a_flow_that_fits_their_images() -> None:
    shapes = {
        "digits": (1, 8, 8),
        "coloured_digits": (3, 32, 32),
        "mnist": (1, 28, 28),
        "fashion_mnist": (1, 28, 28),
        "svhn": (3, 32, 32),
    }
    for recipe, shape in shapes.items():
        glow = shortrun.load_config(recipe, "glow").glow
        assert Glow(shape, 256, glow.scales, 1, 4).dim == math.prod(shape)
