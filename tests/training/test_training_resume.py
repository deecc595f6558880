"""An interrupted run that is resumed equals the unbroken one bit for bit; all through the command line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

SMALL = [
    "--training.epochs=12",
    "--training.batch-size=50",
    "--training.log-steps=7",
    "--training.picture-epochs=4",
    "--model.latents",
    "4",
    "6",
    "--model.width=32",
    "--inference.steps=4",
    "--inference.candidates=8",
    "--training.threads=1",
    "--data.train-limit=400",
    "--data.test-limit=40",
]
STEPS = 12 * 8


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "shortrun", *words]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=240, check=False)


def start(out: Path, *extra: str) -> subprocess.Popen[str]:
    words = command("train", "digits", *SMALL, "--training.checkpoint-seconds=0.01", "--out", str(out), *extra)
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_metrics(process: subprocess.Popen[str], out: Path, lines: int) -> None:
    """Wait until a run has written so many lines of metrics; fail when it ended before."""
    path, deadline = out / "metrics.jsonl", time.monotonic() + 120
    while not path.is_file() or path.read_text().count("\n") < lines:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def assert_same_run(one: Path, other: Path) -> None:
    """Compare everything that does not measure time."""
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    for name in ("checkpoint/model.safetensors", "figures/samples.png", "figures/reconstructions.png"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    states = [load_file(run / "checkpoint/training.safetensors") for run in (one, other)]
    assert states[0].keys() == states[1].keys()
    assert all(states[0][name].equal(states[1][name]) for name in states[0])
    results = [json.loads((run / "result.json").read_text()) for run in (one, other)]
    assert results[0]["mse"] == results[1]["mse"]
    assert results[0]["second_moment"] == results[1]["second_moment"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    done = run("train", "digits", *SMALL, "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out


def test_killed_twice_and_resumed_equals_unbroken(unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    process = start(out)
    wait_for_metrics(process, out, 3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "result.json").exists()
    assert len((out / "metrics.jsonl").read_text().splitlines()) < STEPS // 7
    process = subprocess.Popen(
        command("train", "--resume", str(out)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for_metrics(process, out, 8)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = run("train", "--resume", str(out))
    assert done.returncode == 0, done.stderr
    assert_same_run(unbroken, out)
    assert not list(out.rglob(".*.partial*")), "a temporary file was left"


def test_ctrl_c_says_how_to_go_on_and_resumes(unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    process = start(out, "--training.checkpoint-seconds=3600")
    wait_for_metrics(process, out, 2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert f"shortrun train --resume {out}" in said
    assert "Traceback" not in said
    again = run("train", "--resume", str(out))
    assert again.returncode == 0, again.stderr
    assert_same_run(unbroken, out)


def test_resuming_a_finished_run_changes_nothing(unbroken: Path) -> None:
    before = (unbroken / "result.json").read_bytes()
    done = run("train", "--resume", str(unbroken))
    assert done.returncode == 0, done.stderr
    assert (unbroken / "result.json").read_bytes() == before


def test_the_resolved_configuration_repeats_the_run(unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    done = run("train", str(unbroken / "config.toml"), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert_same_run(unbroken, out)


def test_another_seed_gives_another_model(unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "seed1"
    assert run("train", "digits", *SMALL, "--seed", "1", "--out", str(out)).returncode == 0
    name = "checkpoint/model.safetensors"
    assert (unbroken / name).read_bytes() != (out / name).read_bytes()


def test_two_processes_learn_the_same_model(unbroken: Path, tmp_path: Path) -> None:
    """The sums run in another order, so the weights agree to rounding, which training amplifies a little."""
    one, two = tmp_path / "one", tmp_path / "two"
    words = [*SMALL, "--training.precision=float32", "--device=cpu", "--training.epochs=2"]
    assert run("train", "digits", *words, "--out", str(one)).returncode == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    launched = subprocess.run(
        [*torchrun, "-m", "shortrun", "train", "digits", *words, "--out", str(two)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert launched.returncode == 0, launched.stderr
    assert launched.stdout.count("samples.png") == 1, "both processes spoke"
    states = [load_file(path / "checkpoint/training.safetensors") for path in (one, two)]
    for name, value in states[0].items():
        if name.startswith("weights/"):
            assert (value - states[1][name]).abs().max() < 2e-4, name
    figures = [json.loads((path / "result.json").read_text())["mse"]["value"] for path in (one, two)]
    assert figures[0] == pytest.approx(figures[1], rel=1e-3)
