"""The learner `persistent` as a user has it: an interrupted run goes on as the unbroken one, its model is of use."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import shortrun
from shortrun.cli import main

SMALL = [
    *("digits", "--learner", "persistent", "--training.epochs=6", "--training.batch-size=50"),
    *("--training.log-steps=7", "--training.picture-epochs=4", "--model.latents", "4", "6", "--model.width=32"),
    *("--inference.steps=2", "--persistent.fresh-steps=12", "--training.threads=1", "--training.precision=float32"),
    *("--data.train-limit=400", "--data.test-limit=40", "--device=cpu"),
]
STATE = "checkpoint/training.safetensors"


def interrupted(out: Path, store: str, kill: signal.Signals, lines: int) -> None:
    """Start a run that writes no checkpoint by itself, and stop it once it has written so many lines of metrics."""
    words = [sys.executable, "-m", "shortrun", "train", *SMALL, f"--persistent.store={store}", "--out", str(out)]
    words.append("--training.checkpoint-seconds=3600")
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    path, deadline = out / "metrics.jsonl", time.monotonic() + 120
    while not path.is_file() or path.read_text().count("\n") < lines:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(kill)
    process.communicate()
    assert not (out / "result.json").exists()


def assert_same_run(one: Path, other: Path) -> None:
    """Compare everything that does not measure time."""
    for name in ("metrics.jsonl", "checkpoint/model.safetensors", "figures/samples.png", "figures/reconstructions.png"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    states = [load_file(run / STATE) for run in (one, other)]
    assert states[0].keys() == states[1].keys()
    assert all(states[0][name].equal(states[1][name]) for name in states[0])
    results = [json.loads((run / "result.json").read_text()) for run in (one, other)]
    assert results[0]["mse"] == results[1]["mse"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    assert main(["train", *SMALL, "--out", str(out)]) == 0
    return out


def test_the_chains_lie_with_the_checkpoint_and_not_with_the_model(unbroken: Path) -> None:
    state = load_file(unbroken / STATE)
    chains = state["kept/chains"]
    assert chains.shape == (400, 10)
    assert chains.dtype == torch.float32
    # each is closer to its own image than to the next one
    x = shortrun.load_dataset("digits", train_limit=400, test_limit=40).train.images()
    errors = [((shortrun.load(unbroken).decode(z) - x) ** 2).mean() for z in (chains, chains.roll(1, 0))]
    assert errors[0] < 0.95 * errors[1]
    weights = load_file(unbroken / "checkpoint/model.safetensors")
    assert not any("chain" in name for name in weights)
    assert {f"average/module.{name}" for name in weights} <= state.keys()
    assert not (unbroken / "chains.npy").exists()


def test_the_test_figures_quote_the_run_from_the_prior(unbroken: Path) -> None:
    mse = json.loads((unbroken / "result.json").read_text())["mse"]
    assert (mse["learner"], mse["steps"], mse["steps_per_visit"]) == ("persistent", 12, 2)


def test_killed_far_after_its_checkpoint_it_goes_on_as_the_unbroken_run(unbroken: Path, tmp_path: Path) -> None:
    """The only checkpoint is that of the start: what the file on disk has since then must not count."""
    out = tmp_path / "killed"
    interrupted(out, "disk", signal.SIGKILL, 2)
    ahead, start = np.load(out / "chains.npy"), load_file(out / STATE)["kept/chains"].numpy()
    assert (ahead != start).mean() > 0.5
    assert main(["train", "--resume", str(out)]) == 0
    assert_same_run(unbroken, out)
    assert np.array_equal(np.load(out / "chains.npy"), load_file(out / STATE)["kept/chains"].numpy())
    assert not list(out.rglob(".*.partial*")), "a temporary file was left"


def test_stopped_in_an_epoch_it_goes_on_as_the_unbroken_run(unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    interrupted(out, "memory", signal.SIGINT, 2)
    assert main(["train", "--resume", str(out)]) == 0
    assert_same_run(unbroken, out)


def test_two_processes_keep_the_same_chains_as_one(unbroken: Path, tmp_path: Path) -> None:
    """The sums of gradients run in another order: the chains agree to rounding, which training amplifies a little."""
    one, two = tmp_path / "one", tmp_path / "two"
    words = [*SMALL, "--training.epochs=1", "--persistent.store=disk", "--out"]
    assert main(["train", *words, str(one)]) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    launched = subprocess.run(
        [*torchrun, "-m", "shortrun", "train", *words, str(two)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert launched.returncode == 0, launched.stderr
    kept = [np.load(two / name) for name in ("chains.npy", "chains_1.npy")]
    assert np.array_equal(*kept)
    assert np.abs(kept[0] - np.load(one / "chains.npy")).max() < 2e-3
    assert np.abs(kept[0] - load_file(one / STATE)["kept/chains"].numpy()).max() < 2e-3


USES = {
    "sample": "samples/samples.npz",
    "reconstruct": "reconstructions/reconstructions.npz",
    "encode": "latents/latents.npz",
    "inpaint": "inpainting/inpainting.npz",
    "interpolate": "interpolation/interpolation.npz",
    "traverse": "traversal/traversal.npz",
}


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files if name not in ("arguments", "made_by")}


@pytest.mark.parametrize("command", USES)
def test_every_use_of_a_model_takes_it(unbroken: Path, tmp_path: Path, command: str) -> None:
    run = Path(shutil.copytree(unbroken, tmp_path / "run"))
    made = []
    for extra in ([], ["--steps", "12"], ["--steps", "1"])[: 1 if command == "sample" else 3]:
        assert main([command, str(run), "--n", "2", *extra]) == 0
        made.append(arrays(run / USES[command]))
    assert all(np.isfinite(value).all() for value in made[0].values() if value.dtype.kind == "f")
    if command != "sample":
        assert all(np.array_equal(made[0][name], made[1][name]) for name in made[0])
        assert not all(np.array_equal(made[0][name], made[2][name]) for name in made[0])


def test_info_says_what_it_is(unbroken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(unbroken)]) == 0
    said = capsys.readouterr().out
    assert "persistent" in said
    assert "steps at each visit of a chain, " in said


def test_the_recipes_take_few_steps_at_a_visit() -> None:
    for recipe in ("digits", "coloured_digits", "mnist", "fashion_mnist", "svhn"):
        own, short = shortrun.load_config(recipe, "persistent"), shortrun.load_config(recipe)
        assert own.learner == "persistent"
        assert own.inference.steps <= min(10, short.inference.steps)
