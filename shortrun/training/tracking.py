"""What a run says of itself while it goes on: metrics as JSON lines and TensorBoard, progress on the terminal."""

import json
import math
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from shortrun.training.checkpoint import Position


def means(position: Position) -> dict[str, float]:
    """Return the means of the statistics since the last line of metrics."""
    steps = position.window["steps"]
    counts = ("steps", "retried", "failed")
    return {name: total / steps for name, total in position.window.items() if name not in counts}


class Metrics:
    """metrics.jsonl, one line a record, and TensorBoard's event files where it is installed.

    What an interrupted run wrote after its checkpoint is cut off: it will be written again.
    """

    def __init__(self, run: Path, position: Position) -> None:
        self.path = run / "metrics.jsonl"
        self.path.touch()
        os.truncate(self.path, min(position.metrics_bytes, self.path.stat().st_size))
        self.file = self.path.open("a", encoding="utf-8")
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:
            self.board = None
        else:
            self.board = SummaryWriter(run / "tensorboard", purge_step=position.step or None)

    def write(self, position: Position, epoch: int, settings: dict[str, float]) -> None:
        """Write one record: means of the statistics since the last one, settings in force, counts since the start."""
        counts = {"retried": position.retried, "failed": position.failed, "skipped": position.skipped}
        values = {**means(position), **settings, **counts}
        # JSON has no word for a number that is not finite
        plain = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self.file.write(json.dumps({"step": position.step, "epoch": epoch, **plain}) + "\n")
        self.file.flush()
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, position.step)

    def picture(self, picture: Image.Image, name: str, epoch: int) -> None:
        """Show a picture in TensorBoard."""
        if self.board is not None:
            self.board.add_image(name, np.asarray(picture), epoch, dataformats="HWC")

    def length(self) -> int:
        """Return the bytes written so far, after forcing them to disk."""
        self.file.flush()
        os.fsync(self.file.fileno())
        return self.path.stat().st_size

    def close(self) -> None:
        """Close the files."""
        self.file.close()
        if self.board is not None:
            self.board.close()


class Progress:
    """A bar with rate and time left on a terminal; a plain line every ten seconds elsewhere.

    Its own, beside `shortrun.progress`: training goes on from a step, says statistics beside the bar, and has a log.
    """

    def __init__(self, total: int, done: int, images: int, shown: bool) -> None:
        self.total, self.images, self.first, self.shown = total, images, done, shown
        self.started = self.said = time.monotonic()
        terminal = sys.stderr.isatty()
        self.bar = tqdm(total=total, initial=done, unit="step", dynamic_ncols=True, disable=not (shown and terminal))
        self.lines = shown and not terminal

    def advance(self, position: Position, epoch: int) -> None:
        """Say how far the run is."""
        step, shown = position.step, ("mse", "second_moment")
        words = "  ".join(f"{name} {value:.4f}" for name, value in means(position).items() if name in shown)
        self.bar.set_postfix_str(words, refresh=False)
        self.bar.update(step - self.bar.n)
        now = time.monotonic()
        if self.lines and (now - self.said > 10 or step == self.total):
            self.said = now
            rate = (step - self.first) / max(now - self.started, 1e-9)
            left = clock((self.total - step) / max(rate, 1e-9))
            print(
                f"epoch {epoch}  step {step}/{self.total}  {rate * self.images:.0f} images/s  {left} left  {words}",
                flush=True,
            )

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.bar.close()


def clock(seconds: float) -> str:
    """Say a number of seconds as minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def machine() -> dict[str, str | int]:
    """Say what machine this is, for the figures measured on it."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    if torch.cuda.is_available():
        name += f", {torch.cuda.get_device_name()}"
    return {
        "processor": name,
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }
