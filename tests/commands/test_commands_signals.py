"""Ctrl-C, SIGTERM and SIGUSR1 at any moment: one line that says how to go on, exit code 130, nothing half-written."""

import itertools
import os
import pkgutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shortrun.interruption import SIGNALS, finishing, stoppable

Call = Callable[..., tuple[int, str, str]]
TINY = [
    *("--training.epochs", "2", "--training.picture-epochs", "9", "--training.precision", "float32"),
    *("--model.latents", "3", "4", "--model.width", "16", "--inference.steps", "3"),
    *("--data.train-limit", "300", "--data.test-limit", "40"),
]
COMPARED = ["--learners", "vae", "--seeds", "1", "--samples", "60", "--likelihood-images", "0", "--points", "0"]
AGAIN, RESUME = "begins anew", "go on with: shortrun train --resume RUN"
MOMENTS = [
    ("loop.read_dataset", 1, AGAIN),
    ("run_folder.write_text", 1, RESUME),
    ("loop.State.start", 1, RESUME),
    ("checkpoint.save_state", 1, RESUME),
    ("loop.update", 3, RESUME),
    ("loop.write_report", 1, RESUME),
    ("report.test_figures", 1, RESUME),
    ("report.write_json", 1, RESUME),
]
"""Functions that a training calls, in the order of their calls; which call a signal comes in; the end of what is said.
"""


@pytest.fixture
def signalled(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have a signal sent where a function begins, at its call number `first`."""

    def patch(name: str, number: int, first: int = 1) -> None:
        place, _, last = name.rpartition(".")
        found = pkgutil.resolve_name(place)
        function, calls = getattr(found, last), []

        def interrupted(*arguments: Any, **named: Any) -> Any:
            calls.append(1)
            if len(calls) == first:
                signal.raise_signal(number)
            return function(*arguments, **named)

        monkeypatch.setattr(found, last, interrupted)

    return patch


def of_stopping(err: str) -> list[str]:
    """Return the lines on stderr but for the warning that so short a training has hardly learned."""
    return [line for line in err.splitlines() if not line.startswith("warning: test images are rebuilt")]


def finished(run: Path) -> dict[str, bytes]:
    """Return what an unbroken run of the same command has too, to the last bit."""
    names = ("metrics.jsonl", "checkpoint/model.safetensors", "figures/samples.png", "figures/reconstructions.png")
    assert (run / "result.json").is_file()
    assert not list(run.rglob(".*partial*"))
    return {name: (run / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    from shortrun.cli import main

    run = tmp_path_factory.mktemp("runs") / "unbroken"
    assert main(["train", "digits", *TINY, "--out", str(run)]) == 0
    return finished(run)


@pytest.mark.parametrize(
    ("moment", "number"), zip(MOMENTS, itertools.cycle(SIGNALS)), ids=[name for name, _, _ in MOMENTS]
)
def test_a_training_stops_at_any_moment_and_goes_on(
    call: Call,
    signalled: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    unbroken: dict[str, bytes],
    moment: tuple[str, int, str],
    number: int,
) -> None:
    run, (name, first, end) = tmp_path / "run", moment
    words = ["train", "digits", *TINY, "--out", run]
    signalled(f"shortrun.training.{name}", number, first)
    code, _, err = call(*words)
    assert code == 130
    (line,) = of_stopping(err)
    assert line.startswith("shortrun: stopped")
    assert line.endswith(end.replace("RUN", str(run)))
    assert run.exists() == (end == RESUME)
    assert not list(tmp_path.rglob(".*partial*"))
    monkeypatch.undo()
    assert call("train", "--resume", run)[0] == 0 if run.exists() else call(*words)[0] == 0
    assert finished(run) == unbroken


@pytest.mark.parametrize(
    "name",
    [
        "comparison.read_dataset",
        "comparison.features_for",
        "contest.train",
        "comparison.assess",
        "comparison.write_png",
    ],
)
def test_a_comparison_stops_at_any_moment_and_goes_on(
    call: Call, signalled: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    words = ["compare", "digits", *TINY, *COMPARED, "--budget", "1epochs", "--out", tmp_path / "out"]
    signalled(f"shortrun.compare.{name}", signal.SIGTERM)
    code, _, err = call(*words)
    assert (code, of_stopping(err)) == (130, ["shortrun: stopped; the same command goes on where it stands"])
    monkeypatch.undo()
    assert call(*words)[0] == 0
    assert (tmp_path / "out" / "images.png").is_file()
    assert not list(tmp_path.rglob(".*partial*"))


def test_an_evaluation_leaves_nothing(
    call: Call, signalled: Callable[..., None], trained: Path, tmp_path: Path
) -> None:
    signalled("shortrun.evaluation.assess.check_asked", SIGNALS[-1])
    code, _, err = call("evaluate", trained, "--samples", 60, "--likelihood-images", 0, "--out", tmp_path / "out")
    assert (code, err) == (130, "shortrun: stopped; the same command begins anew\n")
    assert not list(tmp_path.iterdir())


def test_an_experiment_goes_on(
    call: Call, signalled: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tiny = [*TINY, "--training.epochs", 1, "--model.latents", 2]
    words = ["experiment", "figure5", "digits", *tiny, "--seeds", 1, "--images", 2, "--out", tmp_path / "out"]
    signalled("shortrun.experiments.figure5.divergence_curves", SIGNALS[-1])
    code, _, err = call(*words)
    assert (code, of_stopping(err)) == (130, ["shortrun: stopped; the same command goes on where it stands"])
    monkeypatch.undo()
    assert call(*words)[0] == 0


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no SIGUSR1")
def test_a_process_of_its_own_stops_while_it_reports(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [sys.executable, "-m", "shortrun", "train", "digits", *TINY, "--out", str(run)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (run / "checkpoint" / "model.safetensors").is_file() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGUSR1)
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said.count("\n")) == (130, 1)
    assert said.endswith(f"go on with: shortrun train --resume {run}\n")


def test_what_python_has_to_drop_is_asked_again() -> None:
    class Closing:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def drop() -> None:
        with stoppable():
            Closing()
            time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        drop()


def test_handlers_of_the_caller_come_back_and_sigusr1_stays_the_callers() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    seen: list[int] = []
    last = signal.signal(SIGNALS[-1], lambda number, frame: seen.append(number))
    try:
        with finishing() as stop:
            signal.raise_signal(signal.SIGTERM)
            assert stop.asked
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            if hasattr(signal, "SIGUSR1"):
                signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(SIGNALS[-1], last)
    assert seen == ([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_signals_after_the_work_change_nothing() -> None:
    code = "import os, signal, sys, shortrun.cli; sys.argv[1:] = ['--version']; shortrun.cli.main(); "
    code += "[os.kill(os.getpid(), number) for number in (signal.SIGTERM, signal.SIGINT)]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("shortrun ")
    assert os.name == "nt" or signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
