"""Where a run stands: its step, its time, and what it has counted."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

import torch

from shortrun.config.ranges import NOT_NEGATIVE
from shortrun.errors import InputError
from shortrun.learners.learner import Statistics
from shortrun.mapping import as_type
from shortrun.training.processes import Processes


@dataclass
class Window:
    """The statistics since the last line of metrics."""

    steps: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def means(self) -> dict[str, float]:
        """Return the mean of each statistic over the window's steps."""
        return {name: total / self.steps for name, total in self.sums.items()}


@dataclass
class Position:
    """Where a run stands; the noise and the order of the images follow from the seed and the step."""

    step: int = 0
    total: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    metrics_bytes: int = 0
    skipped: int = 0
    """Updates left out because their gradient was not finite."""
    tunings: int = 0
    tuning_seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=lambda: {"retried": 0, "failed": 0})
    """What the learner has counted since the start; the metrics of every learner name the chains retried and failed."""
    window: Window = field(default_factory=Window)
    compiled: bool | None = None
    """Whether the steps of chains are compiled, which is decided before the first update; None: not decided yet."""

    @property
    def retried(self) -> int:
        """Chains that were started again."""
        return self.counts["retried"]

    @property
    def failed(self) -> int:
        """Chains that stayed non-finite after all retries."""
        return self.counts["failed"]

    def tally(self, statistics: Statistics, here: Processes, stop: bool) -> tuple[bool, dict[str, float]]:
        """Add an update's statistics over all processes; return whether any process is to stop, and the update's means.

        Whole numbers are counts, which are added up; the others are means, whose sums go into the window.
        """
        # one transfer from the device, the only one of all statistics
        values = [*statistics.values(), torch.tensor(float(stop))]
        mine = torch.stack([value.detach().reshape(()).to(here.device, torch.float32) for value in values])
        *shared, asked = here.mean(mine).tolist()
        for (name, value), mean in zip(statistics.items(), shared, strict=True):
            if value.is_floating_point():
                self.window.sums[name] = self.window.sums.get(name, 0.0) + mean
            else:
                self.counts[name] = self.counts.get(name, 0) + round(mean * here.count)
        self.window.steps += 1
        return asked > 0, dict(zip(statistics, shared, strict=True))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "Position":
        """Return the position that a checkpoint holds, also one written by an earlier or a later version.

        values: what `asdict` made of the position then. Those that are absent keep their defaults, and those that this
        version does not know are left out.
        """
        values = dict(values)
        counts, window = values.pop("counts", {}), values.pop("window", {})
        if not (isinstance(counts, dict) and isinstance(window, dict)):
            raise InputError("position", "counts or a window that is no table")
        position = cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})
        # before there were counts, those of chains stood beside the window, and in it among the sums and its steps
        position.counts |= {name: values[name] for name in position.counts if name in values} | counts
        if "sums" in window:
            # JSON has null for a sum that is not finite; files from before that have NaN or Infinity
            sums = {name: math.nan if total is None else total for name, total in window["sums"].items()}
            position.window = Window(window["steps"], sums)
        else:
            sums = {name: total for name, total in window.items() if name not in ("steps", *position.counts)}
            position.window = Window(int(window.get("steps", 0)), sums)
        return position._checked()

    def _checked(self) -> "Position":
        """Return the position where each value is of its type and range; raise InputError."""
        for name, hint in get_type_hints(Position).items():
            setattr(self, name, as_type(getattr(self, name), hint, name))
        window = self.window
        window.steps = as_type(window.steps, int, "window.steps")
        window.sums = as_type(window.sums, dict[str, float], "window.sums")
        seconds = (self.seconds, self.cpu_seconds, self.tuning_seconds)
        counts = (self.step, self.total, self.metrics_bytes, self.skipped, self.tunings, window.steps)
        for number in (*seconds, *counts, *self.counts.values()):
            NOT_NEGATIVE.check("position", number)
        return self
