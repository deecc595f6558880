"""What a run says of itself while it goes on: metrics as JSON lines and TensorBoard, progress on the terminal."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from shortrun.files import to_text
from shortrun.training.position import Position


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
        values = {**position.window.means(), **settings, **position.counts, "skipped": position.skipped}
        self.file.write(to_text({"step": position.step, "epoch": epoch, **values}) + "\n")
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

    images: of an update; names: the statistics to show, of those that there are; shown: whether to say anything.
    """

    def __init__(self, position: Position, images: int, names: Sequence[str], shown: bool) -> None:
        self.total, self.images, self.names, self.first = position.total, images, names, position.step
        self.started = self.said = time.monotonic()
        terminal = sys.stderr.isatty()
        hidden = not (shown and terminal)
        self.bar = tqdm(total=self.total, initial=self.first, unit="step", dynamic_ncols=True, disable=hidden)
        self.lines = shown and not terminal

    def advance(self, position: Position, epoch: int) -> None:
        """Say how far the run is."""
        step, means = position.step, position.window.means()
        words = "  ".join(f"{name} {means[name]:.4f}" for name in self.names if name in means)
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
