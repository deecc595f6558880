"""What every experiment asks of its user: a recipe, where to write, how many seeds."""

import datetime
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

from shortrun.config import Config
from shortrun.errors import InputError
from shortrun.learners import learner_class
from shortrun.training.machine import machine
from shortrun.version import __version__

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True)
class Options(Config):
    """Train and measure, for several seeds; the defaults shown are the recipe's."""

    recipe: ClassVar[str] = "digits"
    """Taken where the user names none."""
    reduced: ClassVar[tuple[str, ...]] = ()
    """The options that `--small` stands for."""

    out: Path | None = None
    """Folder to write to; runs/NAME_RECIPE where not given."""
    small: Flag = False
    """So few updates and images that two cores take minutes; options beside it still count."""
    as_published: Flag = False
    """The inference of Nijkamp et al. 2020 in place of the recipe's: start and prior N(0, I), 25 steps of one size that
    is tuned by the paper's estimator."""
    seeds: int = 3
    """Models of each kind: seeds 0, 1, ..."""
    device: str | None = None
    """cpu or cuda; the best there is where not given."""


@dataclass(frozen=True)
class Experiment(Options, ABC):
    """An experiment on one configuration."""

    @abstractmethod
    def run(self, config: Config, out: Path) -> str:
        """Run the experiment on a configuration, write to a folder, and return its table in Markdown."""


@dataclass(frozen=True)
class Several(Options, ABC):
    """An experiment on models of several learners."""

    learners: tuple[str, ...] = ()
    """Which, each with settings of its own, as `compare` takes them; those of the experiment where not given."""
    budget: str | None = None
    """Of each training: seconds of this machine, 60s, or epochs, 20epochs; the recipe's epochs where not given."""

    @abstractmethod
    def compete(self, configs: Mapping[str, Config], out: Path) -> str:
        """Run the experiment on the configurations of its learners, by name, and return its table in Markdown."""


@dataclass(frozen=True)
class Comparison(Several, ABC):
    """An experiment whose models are trained by `compare`, and another such experiment finds them there."""

    recipe: ClassVar[str] = "coloured_digits"
    reduced: ClassVar[tuple[str, ...]] = (
        *("--budget", "90s", "--seeds", "1", "--samples", "2000"),
        *("--training.fit-images", "1000", "--data.test-limit", "500"),
    )

    models: Path | None = None
    """Folder of the models, a comparison; OUT/models where not given. Experiments on the same recipe may share it."""
    samples: int = 10_000
    """Draws that the distances between sets of images are measured on."""


def check_short_run(config: Config) -> None:
    """Raise InputError unless the recipe's learner infers by short runs: the experiment is about their chain."""
    if not learner_class(config.learner).short_runs:
        raise InputError(
            "learner", repr(config.learner), "this experiment is about the chains of learners such as short_run"
        )


def check_whole(configs: Mapping[str, Config], what: str) -> None:
    """Raise InputError where training images have hidden pixels, in an experiment that fits more to them than models.

    configs: of the experiment's learners, by name.
    what: is fitted to training images.
    """
    if any(config.data.incomplete for config in configs.values()):
        raise InputError(
            "data.missing",
            problem=f"{what} wants whole training images",
            instead="see shortrun experiment incomplete",
        )


def circumstances() -> dict[str, Any]:
    """Return what the figures of an experiment have to quote beside their own conditions."""
    return {"machine": machine(), "date": datetime.date.today().isoformat(), "shortrun": __version__}
