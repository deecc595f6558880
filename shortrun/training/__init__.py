"""The one training loop, its checkpoints and its run folder, and what is said and tuned of a run."""

from shortrun.errors import Interrupted
from shortrun.training.info import info
from shortrun.training.loop import resume, train
from shortrun.training.run_folder import RunFolder, load, open_run
from shortrun.training.tuning import Curves, divergence_curves, tune

__all__ = [
    "Curves",
    "Interrupted",
    "RunFolder",
    "divergence_curves",
    "info",
    "load",
    "open_run",
    "resume",
    "train",
    "tune",
]
