"""What every experiment asks of its user: a recipe, where to write, how many seeds."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from shortrun.config import Config
from shortrun.errors import InputError
from shortrun.learners import learner_class


@dataclass(frozen=True)
class Experiment(Config, ABC):
    """Train and measure, for several seeds; the defaults shown are the recipe's."""

    out: Path | None = None
    """Folder to write to; runs/NAME_RECIPE where not given."""
    as_published: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The inference of Nijkamp et al. 2020 in place of the recipe's: start and prior N(0, I), 25 steps of one size that
    is tuned by the paper's estimator."""
    seeds: int = 3
    """Models of each kind: seeds 0, 1, ..."""
    device: str | None = None
    """cpu or cuda; the best there is where not given."""

    @abstractmethod
    def run(self, config: Config, out: Path) -> str:
        """Run the experiment on a configuration, write to a folder, and return its table in Markdown."""


def check_short_run(config: Config) -> None:
    """Raise InputError unless the recipe's learner infers by short runs: the experiment is about their chain."""
    if not learner_class(config.learner).short_runs:
        raise InputError(
            "learner", repr(config.learner), "this experiment is about the chains of learners such as short_run"
        )
