"""The one training loop, its checkpoints and its run folder."""

from shortrun.errors import Interrupted
from shortrun.training.loop import resume, train
from shortrun.training.run_folder import RunFolder, load, open_run

__all__ = ["Interrupted", "RunFolder", "load", "open_run", "resume", "train"]
