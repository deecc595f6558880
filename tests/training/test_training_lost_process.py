"""Two processes that torchrun started: one that ends or does not answer ends the other, and one of them says why."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch.distributed as dist
from safetensors import safe_open

from shortrun.errors import InputError, LostProcess
from shortrun.training.processes import lost_process, patience, said_once

WORDS = [
    *("train", "digits", "--device=cpu", "--training.epochs=9999", "--training.checkpoint-seconds=0.1"),
    *("--training.log-steps=2", "--data.train-limit=400", "--data.test-limit=40", "--model.width=16"),
    *("--training.threads=1", "--training.precision=float32", "--inference.steps=2"),
]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "shortrun"]
LOST = (
    "shortrun: error: another process of the run has ended or does not answer; the last checkpoint is kept; go on with"
)

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes in /proc")


def lines(said: str) -> list[str]:
    """Return what shortrun says; torchrun adds a report of its own."""
    assert said.count("Traceback (most recent call last)") <= 1, said  # torchrun's
    return [line for line in said.splitlines() if line.startswith("shortrun: ")]


def ranks(torchrun: int) -> list[int]:
    """Return the processes that torchrun started, by rank."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "stat").read_text().rpartition(")")[2].split()[1] == str(torchrun):
                words = (path / "environ").read_text().split("\0")
                found |= {int(word.partition("=")[2]): int(path.name) for word in words if word.startswith("RANK=")}
        except (OSError, ValueError):  # it has just ended
            continue
    return [found[rank] for rank in sorted(found)]


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@contextmanager
def training(out: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Start two processes and wait until they learn; none is left at the end."""
    process = subprocess.Popen(
        [*TORCHRUN, *WORDS, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "SHORTRUN_TIMEOUT": "4"},
    )
    pids: list[int] = []
    try:
        deadline, metrics = time.monotonic() + 120, out / "metrics.jsonl"
        while not (metrics.is_file() and metrics.stat().st_size):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        pids = ranks(process.pid)
        assert len(pids) == 2
        yield process, pids
    finally:
        for pid in [*pids, process.pid]:
            if not has_ended(pid):
                os.kill(pid, signal.SIGKILL)


def checkpoint_is_whole(run: Path) -> bool:
    with safe_open(run / "checkpoint" / "training.safetensors", "pt") as file:
        return bool(file.keys()) and not list(run.rglob(".*partial*"))


@pytest.mark.parametrize(
    ("lost", "number"), [(1, signal.SIGKILL), pytest.param(0, signal.SIGSTOP, marks=pytest.mark.slow)]
)
def test_one_that_is_killed_or_stands_still_ends_the_other(tmp_path: Path, lost: int, number: int) -> None:
    with training(tmp_path / "run") as (process, pids):
        os.kill(pids[lost], number)
        deadline = time.monotonic() + 60
        while not has_ended(pids[1 - lost]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        if number == signal.SIGSTOP:  # torchrun would wait for it for half a minute
            os.kill(pids[lost], signal.SIGKILL)
        said, _ = process.communicate(timeout=60)
    assert lines(said) == [f"{LOST}: shortrun train --resume {tmp_path / 'run'}"]
    assert process.returncode != 0
    assert checkpoint_is_whole(tmp_path / "run")


def test_a_signal_to_torchrun_stops_both_after_the_same_step(tmp_path: Path) -> None:
    with training(tmp_path / "run") as (process, _):
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    (line,) = lines(said)
    assert line.startswith("shortrun: stopped after step ")
    assert line.endswith(f"go on with: shortrun train --resume {tmp_path / 'run'}")
    assert checkpoint_is_whole(tmp_path / "run")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        pytest.param(["--training.epochs=0"], "--training.epochs: got 0; ", marks=pytest.mark.slow),
        (["--training.batch-size=33"], "--training.batch-size: got 33 for 2 processes; write a multiple of 2"),
        # the first process alone sees that
        pytest.param(["--out=FULL"], "--out: ", marks=pytest.mark.slow),
    ],
)
def test_what_cannot_be_used_is_said_once(tmp_path: Path, words: list[str], line: str) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    words = [word.replace("FULL", str(tmp_path)) for word in words]
    done = subprocess.run([*TORCHRUN, *WORDS, *words], capture_output=True, text=True, check=False, cwd=tmp_path)
    said, *others = lines(done.stderr)
    assert not others, done.stderr
    assert said.startswith(f"shortrun: error: {line}")
    assert "exitcode  : 2 " in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_first_to_end_speaks_and_the_others_end_with_its_code(tmp_path: Path) -> None:
    store = dist.FileStore(str(tmp_path / "store"), 2)  # pyright: ignore[reportPrivateImportUsage]
    first, other = InputError("steps", 0), LostProcess("gone")
    said_once(first, store, 1)
    said_once(other, store, 0)
    assert (first.silent, other.silent, other.code) == (False, True, 2)


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (dist.DistBackendError("NCCL error"), True),
        (RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("gloo"), False),
    ],
)
def test_the_errors_of_a_lost_process(error: Exception, lost: bool) -> None:
    assert (lost_process(error) is not None) == lost


@pytest.mark.parametrize("words", ["0", "-1", "soon", "nan"])
def test_the_time_to_wait_is_a_number_of_seconds(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    assert patience().total_seconds() == 600
    monkeypatch.setenv("SHORTRUN_TIMEOUT", "2.5")
    assert patience().total_seconds() == 2.5
    monkeypatch.setenv("SHORTRUN_TIMEOUT", words)
    with pytest.raises(InputError, match="SHORTRUN_TIMEOUT: got"):
        patience()
