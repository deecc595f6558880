"""What every experiment asks of its user: a recipe, where to write, how many seeds."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from shortrun.config import Config
from shortrun.errors import InputError


@dataclass(frozen=True)
class Experiment(Config, ABC):
    """Train and measure, for several seeds; the defaults shown are the recipe's."""

    out: Path | None = None
    """Folder to write to; runs/NAME_RECIPE where not given."""
    seeds: int = 3
    """Models of each kind: seeds 0, 1, ..."""
    device: str | None = None
    """cpu or cuda; the best there is where not given."""

    @abstractmethod
    def run(self, config: Config, out: Path) -> str:
        """Run the experiment on a configuration, write to a folder, and return its table in Markdown."""


def check_short_run(config: Config) -> None:
    """Raise InputError unless the recipe's learner is short_run: the experiment is about its chain."""
    if config.learner != "short_run":
        raise InputError("learner", config.learner, "this experiment is about the chain of short_run")
