"""Compiled chains: resumed bit for bit, decided by a measurement, and done without where compiling fails.

What compiles runs in processes of its own, without the type checks of the tests.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from shortrun.config import InferenceConfig, ModelConfig, TrainingConfig
from shortrun.errors import InputError
from shortrun.inference import langevin_step
from shortrun.inference.compiled import CompiledStep
from shortrun.learners import ShortRun
from shortrun.training import compiling
from shortrun.training.compiling import choose_step, keep_compiled_graphs
from shortrun.training.position import Position
from shortrun.training.processes import Processes

ALONE = Processes(0, 1, torch.device("cpu"))
X = torch.rand(6, 1, 8, 8) * 2 - 1
RUN = """
import sys
import shortrun
from shortrun.config import Config, DataConfig, InferenceConfig, ModelConfig, TrainingConfig

out, stop_after = sys.argv[1], int(sys.argv[2])
config = Config(
    DataConfig(train_limit=200, test_limit=40),
    ModelConfig(latents=(4, 6), width=32),
    InferenceConfig(steps=4),
    TrainingConfig(
        updates=9, batch_size=50, fit_images=0, threads=1, compile="always", log_steps=2, checkpoint_seconds=1e-6
    ),
)
def stop(moment):
    if moment.step == stop_after:
        raise KeyboardInterrupt
try:
    shortrun.train(config, out, watch=stop)
except KeyboardInterrupt:
    pass
"""


def python(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    environment = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=400, check=False, env=environment)


def compiled(out: Path) -> bool | None:
    with safe_open(out / "checkpoint/training.safetensors", framework="pt") as file:
        return json.loads(file.metadata()["position"])["compiled"]


@pytest.mark.slow  # three processes that compile
def test_a_resumed_run_equals_the_unbroken_one(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = python("-c", RUN, str(whole), "99")
    assert done.returncode == 0, done.stderr
    assert "the steps of chains are compiled, which took" in done.stderr
    assert python("-c", RUN, str(broken), "5").returncode == 0
    assert not (broken / "result.json").exists()
    assert compiled(broken) is True
    again = python("-m", "shortrun", "train", "--resume", str(broken))
    assert again.returncode == 0, again.stderr
    assert "the steps of chains are compiled, which took" in again.stderr
    assert (whole / "metrics.jsonl").read_bytes() == (broken / "metrics.jsonl").read_bytes()
    states = [load_file(out / "checkpoint/training.safetensors") for out in (whole, broken)]
    assert states[0].keys() == states[1].keys()
    assert all(states[0][name].equal(states[1][name]) for name in states[0])


def test_without_a_compiler_always_is_refused_in_a_line(tmp_path: Path) -> None:
    small = ["--training.updates=2", "--training.threads=1", "--inference.steps=2", "--training.compile=always"]
    words = ["-m", "shortrun", "train", "digits", *small, "--out", str(tmp_path / "run")]
    done = python(*words, CXX="no_such_compiler", TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == 2
    assert "training.compile: the steps of chains cannot be compiled here" in done.stderr
    assert "Traceback" not in done.stderr


COMPARE = """
import torch
from shortrun.inference import langevin_step, short_run
from shortrun.inference.compiled import CompiledStep

device = "cuda" if torch.cuda.is_available() else "cpu"
centre = torch.arange(3.0, device=device)
z, noise, sizes = (torch.randn(*size, device=device) for size in ((5, 3), (6, 5, 3), (6, 1, 3)))
step = CompiledStep((5, 3))
with torch.no_grad():
    ends = [
        short_run(lambda at: -((at - centre) ** 4).sum(1), start, 0.1 * sizes.abs(), noise[:, : len(start)], way)
        for start in (z, z[:2])
        for way in (langevin_step, step)
    ]
assert torch.allclose(ends[0], ends[1], atol=1e-4), ends[:2]
assert torch.equal(ends[2], ends[3])  # of another size: not compiled
"""


def test_a_compiled_chain_ends_where_the_other_does() -> None:
    done = python("-c", COMPARE)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_steps_on_a_gpu_never_wait_for_the_host() -> None:
    made, x, rng = learner().cuda(), X.cuda(), torch.Generator("cuda").manual_seed(0)
    made.infer(x, rng)

    def waits(steps: int) -> int:
        with torch.profiler.profile() as profile:
            made.infer(x, rng, steps=steps)
        return sum("Synchronize" in event.name for event in profile.events() or [])

    assert waits(30) == waits(3)


def learner() -> ShortRun:
    return ShortRun.build((1, 8, 8), ModelConfig(latents=(2, 3), width=8), InferenceConfig(steps=5))


def choose(
    monkeypatch: pytest.MonkeyPatch, eager: float, fast: float, updates: int, works: bool = True, **settings: str
) -> tuple[ShortRun, Position]:
    """Choose by times that are given, in seconds a step, with a step that only says that it is compiled."""
    made, position = learner(), Position(total=updates)

    def seconds(learner: ShortRun, x: torch.Tensor, settings: TrainingConfig) -> float:
        return fast if isinstance(learner.step, CompiledStep) else eager

    def run(learner: ShortRun, x: torch.Tensor, settings: TrainingConfig) -> None:
        if not works:
            raise RuntimeError("no compiler\nat all")

    monkeypatch.setattr(compiling, "_seconds_a_step", seconds)
    monkeypatch.setattr(compiling, "_run_chains", run)
    choose_step(made, X, TrainingConfig(**({"compile": "auto"} | settings)), position, ALONE)  # pyright: ignore[reportArgumentType]
    return made, position


@pytest.mark.parametrize(
    ("eager", "fast", "updates", "taken", "said"),
    [
        (0.002, 0.001, 5, False, ""),
        (0.002, 0.001, 1000, False, "are not compiled: all chains of the run take about 10 s"),
        (0.02, 0.01, 10000, True, "which saves the run 8.3 min"),
        (0.02, 0.021, 10000, False, "are not compiled: a step takes 21 ms compiled and 20 ms as it is"),
    ],
)
def test_auto_compiles_where_it_is_measured_to_pay(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    eager: float,
    fast: float,
    updates: int,
    taken: bool,
    said: str,
) -> None:
    made, position = choose(monkeypatch, eager, fast, updates)
    assert position.compiled is taken
    assert isinstance(made.step, CompiledStep) is taken
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == bool(said)


def test_a_failing_compiler_leaves_a_run_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made, position = choose(monkeypatch, 0.02, 0.01, 10000, works=False)
    assert position.compiled is False
    assert made.step is langevin_step
    assert "cannot be compiled here (no compiler); the run goes on without" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"training\.compile: .*no compiler"):
        choose(monkeypatch, 0.02, 0.01, 10000, works=False, compile="always")


def test_never_and_runs_from_before_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose(monkeypatch, 0.02, 0.01, 10000, compile="never")[1].compiled is False
    position = Position(step=3, total=10000)
    choose_step(learner(), X, TrainingConfig(compile="auto"), position, ALONE)
    assert position.compiled is False


def test_without_a_cache_that_can_be_written_pytorch_keeps_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container whose home cannot be written: a run there is trained all the same."""
    monkeypatch.setattr("shortrun.training.compiling.pooch.os_cache", lambda name: tmp_path / name)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "mine")
    keep_compiled_graphs()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "mine"
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    (tmp_path / "shortrun").write_text("no folder")
    keep_compiled_graphs()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    (tmp_path / "shortrun").unlink()
    keep_compiled_graphs()
    assert os.environ.pop("TORCHINDUCTOR_CACHE_DIR") == str(tmp_path / "shortrun" / "compiled")
