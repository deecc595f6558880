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
from shortrun.progress import advice, duration, is_quiet
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


KNOWN_AFTER, KNOWN_SECONDS = 5, 4.0
"""Updates and seconds after which the rate is known well enough to say how long a run will take."""
WORTH_SAYING = 120.0
"""Seconds: of what is over sooner nothing is said in advance."""


class Progress:
    """A bar with rate and time left on a terminal; a plain line every ten seconds elsewhere.

    Once the rate is known, a line says how long a run of some length will take, and when there will be samples to look
    at.

    images: of an update; names: the statistics to show, of those that there are; shown: whether to say anything;
    picture: the step that ends in the next picture of samples; device: cpu or cuda.
    """

    def __init__(
        self, position: Position, images: int, names: Sequence[str], shown: bool, picture: int = 0, device: str = "cpu"
    ) -> None:
        shown = shown and not is_quiet()
        self.picture, self.device, self.silent = picture, device, not shown
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
        if not self.silent and step - self.first >= KNOWN_AFTER and now - self.started > KNOWN_SECONDS:
            self.silent = True  # it is said once
            self.expect(step, (now - self.started) / (step - self.first))
        if self.lines and (now - self.said > 10 or step == self.total):
            self.said = now
            rate = (step - self.first) / max(now - self.started, 1e-9)
            left = duration((self.total - step) / max(rate, 1e-9))
            print(
                f"epoch {epoch}  step {step}/{self.total}  {rate * self.images:.0f} images/s  {left} left  {words}",
                flush=True,
            )

    def expect(self, step: int, seconds: float) -> None:
        """Say how long the rest of the run takes, where that is long.

        seconds: of an update.
        """
        left = (self.total - step) * seconds
        if left < WORTH_SAYING:
            return
        words = f"the {self.total - step:,} updates left take about {duration(left)} at this rate"
        if step < self.picture <= self.total:
            words += f", to the next picture of samples about {duration((self.picture - step) * seconds)}"
        tqdm.write(words + advice(left, self.device))

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.bar.close()
