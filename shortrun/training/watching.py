"""A run as it is seen from outside: after each update, and its time."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from shortrun.learners import Learner
from shortrun.training.position import Position


class Moment(NamedTuple):
    """What the loop shows to whoever watches, after each update."""

    step: int
    """Updates done."""
    epoch: int | None
    """Epochs done where this update ended one."""
    learner: Learner
    average: Learner
    """The moving average of the weights, which is what the run leaves behind."""
    seconds: float
    """Of training so far, watching left out."""
    statistics: Mapping[str, float]
    """What the update measured, by the names that metrics.jsonl has: `mse`, `second_moment` and the learner's own."""


Watch = Callable[[Moment], None]


class Clock:
    """Counts a run's seconds into its position, and its seconds of processor time."""

    def __init__(self, position: Position) -> None:
        self.position = position
        self.start()

    def start(self) -> None:
        """Count from now."""
        self.since = time.monotonic(), time.process_time()

    def stop(self) -> None:
        """Count what has passed since the last start or stop."""
        before, self.since = self.since, (time.monotonic(), time.process_time())
        self.position.seconds += self.since[0] - before[0]
        self.position.cpu_seconds += self.since[1] - before[1]

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Count nothing while the block runs."""
        self.stop()
        yield
        self.start()
