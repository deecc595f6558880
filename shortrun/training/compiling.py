"""How the steps of a run's chains are taken: compiled or not, recorded or not. Decided before the first update."""

import os
import sys
import time
from pathlib import Path

import pooch
import torch

from shortrun.config import TrainingConfig
from shortrun.errors import InputError
from shortrun.inference.captured import CapturedStep
from shortrun.inference.compiled import CompiledStep
from shortrun.inference.langevin import langevin_step
from shortrun.learners import ChainLearner
from shortrun.model.likelihood import Images
from shortrun.training.position import Position
from shortrun.training.precision import autocast
from shortrun.training.processes import Processes

COMPILE_SECONDS = 30.0
"""What compiling takes, about, where nothing is cached: 16 s for digits, 40 s for five layers of convolutions."""
LARGEST_SAVING = 0.5
"""Share of a chain's time that compiling has saved at best, for small batches of digits."""
FEWEST_STEPS = 500
"""Steps of all chains of a run, below which nothing is measured."""
TIMED_STEPS = 4
"""Length of the chains that are timed."""
TIMING_SECONDS = 1.0
"""How long chains are timed, at most; two of them are timed at least."""


def keep_compiled_graphs() -> None:
    """Let PyTorch keep what it compiles where it stays when the machine restarts, for the runs that are resumed.

    To be called before the first optimizer is made: PyTorch makes a folder then. The user's own choice of a folder
    counts. Where the system's cache cannot be written, as in a container without a home, PyTorch's own choice stands.
    """
    if "TORCHINDUCTOR_CACHE_DIR" in os.environ:
        return
    folder = Path(pooch.os_cache("shortrun")) / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK):
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)


def choose_step(
    learner: ChainLearner, x: Images, settings: TrainingConfig, position: Position, here: Processes
) -> None:
    """Give a learner a compiled step where that is worth it, and one that is recorded on a GPU; say so in lines.

    Whether it is compiled is part of the position, so a run that is resumed takes it from its checkpoint. Every update
    then has the same kind of steps, and the resumed run equals the unbroken one. Recording changes no number.

    learner: of the run.
    x: this process's part of a batch.
    settings: of the run; `compile` says what is wanted.
    position: where the run stands, at its first update or later.
    here: this process; one that cannot compile keeps all from it.

    Raises InputError where compiling is wanted `always` and fails.
    """
    # checkpoints from before there was a decision have none: their runs go on as they began
    undecided = position.compiled is None and position.step == 0
    if settings.compile == "never" or not (undecided or position.compiled):
        position.compiled = False
    else:
        _choose_compiled(learner, x, settings, position, here)
    if here.device.type == "cuda" and settings.cuda_graphs == "auto":
        _record(learner, x, settings)


def _choose_compiled(
    learner: ChainLearner, x: Images, settings: TrainingConfig, position: Position, here: Processes
) -> None:
    """Give a learner a compiled step where that is worth it, and say so in a line."""
    wanted = position.compiled or settings.compile == "always"
    left = (position.total - position.step) * learner.steps
    compiled, words = (_compiled if wanted else _measured)(learner, x, settings, left)
    if settings.compile == "always" and not compiled:
        raise InputError("training.compile", problem=words, instead="write auto or never")
    position.compiled = bool(here.mean(torch.tensor([float(compiled)], device=here.device)).item() == 1)
    if not position.compiled:
        learner.step = langevin_step
    if here.first and words:
        print(words, file=sys.stderr, flush=True)


def _compiled(learner: ChainLearner, x: Images, settings: TrainingConfig, left: int) -> tuple[bool, str]:
    """Give a learner a compiled step; return whether that went well, and what happened in words."""
    started = time.monotonic()
    learner.step = CompiledStep((len(x), learner.dim))
    try:
        _run_chains(learner, x, settings)
    except Exception as error:  # noqa: BLE001  (a compiler may raise anything, and the run can do without)
        learner.step = langevin_step
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return False, f"the steps of chains cannot be compiled here ({reason})"
    return True, f"the steps of chains are compiled, which took {time.monotonic() - started:.0f} s"


def _record(learner: ChainLearner, x: Images, settings: TrainingConfig) -> None:
    """Give a learner the step that it has as one that is recorded; say so in a line where it cannot be."""
    before = learner.step
    learner.step = CapturedStep(before)
    try:
        _run_chains(learner, x, settings)
    except RuntimeError as error:
        learner.step = before
        reason = str(error).strip().splitlines()[0]
        print(
            f"the steps of chains cannot be recorded in a CUDA graph ({reason}); the run goes on without",
            file=sys.stderr,
            flush=True,
        )


def _measured(learner: ChainLearner, x: Images, settings: TrainingConfig, left: int) -> tuple[bool, str]:
    """Give a learner a compiled step where that is measured to pay; left: steps of all chains that are left."""
    if left < FEWEST_STEPS:
        return False, ""
    eager = _seconds_a_step(learner, x, settings)
    if eager * left * LARGEST_SAVING < COMPILE_SECONDS:
        whole = f"all chains of the run take about {eager * left:.0f} s, compiling up to {COMPILE_SECONDS:.0f} s"
        return False, f"the steps of chains are not compiled: {whole}"
    done, words = _compiled(learner, x, settings, left)
    if not done:
        return False, f"{words}; the run goes on without"
    fast = _seconds_a_step(learner, x, settings)
    figures = f"a step takes {1000 * fast:.3g} ms compiled and {1000 * eager:.3g} ms as it is"
    if fast >= eager:
        learner.step = langevin_step
        return False, f"the steps of chains are not compiled: {figures}"
    return True, f"{words}: {figures}, which saves the run {(eager - fast) * left / 60:.1f} min"


def _run_chains(learner: ChainLearner, x: Images, settings: TrainingConfig) -> None:
    """Run chains as an update does, from random numbers of their own."""
    with autocast(settings.precision, x.device):
        learner.infer(x, torch.Generator(x.device).manual_seed(0), steps=TIMED_STEPS)
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)


def _seconds_a_step(learner: ChainLearner, x: Images, settings: TrainingConfig) -> float:
    """Return the least time that a step has taken, starts and ends of chains included."""
    _run_chains(learner, x, settings)  # whatever is set up on first use
    times, begun = [], time.perf_counter()
    while not times or time.perf_counter() - begun < TIMING_SECONDS:
        started = time.perf_counter()
        _run_chains(learner, x, settings)
        times.append(time.perf_counter() - started)
    return min(times) / TIMED_STEPS
