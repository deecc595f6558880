"""How long each learner may learn: so many epochs, or so many seconds of this machine."""

import dataclasses
import math
import re
import shutil
import tempfile
from pathlib import Path
from typing import Literal, NamedTuple

from shortrun.config import Config
from shortrun.data import Dataset
from shortrun.errors import InputError
from shortrun.progress import quiet
from shortrun.training import train
from shortrun.training.watching import Moment, Watch

PATTERN = re.compile(r"(\d+(?:\.\d+)?) ?(s|epochs?)")
WARM_UP, WINDOWS, WINDOW_SECONDS = 5, 4, 1.5
"""Updates left out first, and all before everything that is fitted to latents was fitted once; then windows of time of
which the fastest counts: other work can only slow one down."""
FEW = 3
"""Updates that a first estimate takes."""


class Budget(NamedTuple):
    """An amount of training.

    amount: a positive number, whole where the unit is epochs.
    unit: s, seconds, or epochs.

    >>> Budget.parse("20epochs")
    Budget(amount=20.0, unit='epochs')
    """

    amount: float
    unit: Literal["s", "epochs"]

    @classmethod
    def parse(cls, words: str) -> "Budget":
        """Return the budget that words say.

        words: 60s or 20epochs, for example; raises InputError for anything else.
        """
        found = PATTERN.fullmatch(words.strip())
        amount = float(found[1]) if found else 0.0
        unit = "s" if found and found[2] == "s" else "epochs"
        if not 0 < amount < math.inf or (unit == "epochs" and amount != int(amount)):
            raise InputError("budget", repr(words), "write seconds or whole epochs, 60s or 20epochs for example")
        return cls(amount, unit)

    def __str__(self) -> str:
        return f"{self.amount:g}{self.unit}"

    def updates(self, rate: float, steps_an_epoch: int) -> int:
        """Return how many updates the budget buys, at least 1.

        rate: updates a second.
        steps_an_epoch: updates of an epoch.
        """
        whole = self.amount * (rate if self.unit == "s" else steps_an_epoch)
        return max(1, round(whole))


class _EnoughError(Exception):
    """The rate is known."""


def updates_a_second(config: Config, dataset: Dataset, device: str | None = None) -> float:
    """Return how fast a configuration learns here: the fastest of four windows of 1.5 seconds of a run thrown away.

    config: of the learner.
    dataset: what it learns from.
    device: cpu or cuda; the best there is where not given.
    """
    moments: list[tuple[int, float]] = []
    rates: list[float] = []

    def watch(moment: Moment) -> None:
        if moment.step < WARM_UP or not moment.learner.settled:
            return
        moments.append((moment.step, moment.seconds))
        (first, since), (last, now) = moments[0], moments[-1]
        if now - since >= WINDOW_SECONDS and last > first:
            rates.append((last - first) / (now - since))
            del moments[:-1]
            if len(rates) == WINDOWS:
                raise _EnoughError

    watched(config, dataset, device, watch)
    return max(rates)


def first_updates_a_second(config: Config, dataset: Dataset, device: str | None = None) -> float:
    """Return how fast the first updates of a configuration are here, the very first left out: for what may take weeks.

    config: of the learner.
    dataset: what it learns from.
    device: cpu or cuda; the best there is where not given.
    """
    seconds: list[float] = []

    def watch(moment: Moment) -> None:
        seconds.append(moment.seconds)
        if len(seconds) == FEW:
            raise _EnoughError

    watched(config, dataset, device, watch)
    return (FEW - 1) / max(seconds[-1] - seconds[0], 1e-9)


def watched(config: Config, dataset: Dataset, device: str | None, watch: Watch) -> None:
    """Train in a folder that is thrown away, until `watch` raises `_EnoughError`."""
    never = 10**9
    compiled = "never" if config.training.compile == "auto" else config.training.compile
    training = dataclasses.replace(
        config.training, updates=never, picture_epochs=never, checkpoint_seconds=1e9, compile=compiled
    )
    endless = dataclasses.replace(config, training=training)
    folder = Path(tempfile.mkdtemp(prefix="shortrun-"))
    try:
        with quiet():  # of a run that never ends nobody wants to know how long it takes
            train(endless, folder / "run", device=device, dataset=dataset, watch=watch)
    except _EnoughError:
        pass
    finally:
        shutil.rmtree(folder, ignore_errors=True)
