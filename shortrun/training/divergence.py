"""Whether training has diverged, so that it ends early, in one line, with its last sound state kept."""

import math
from collections.abc import Mapping

from shortrun.errors import InputError
from shortrun.training.position import Position
from shortrun.training.run_folder import RunFolder

PATIENCE = 50
"""Updates in a row that go wrong before a run ends: a mishap mends itself sooner."""
FAR = 1e6
"""Mean square of the latents that no model has which learns anything; N(0, I) has 1."""
MISHAPS = 10
"""Updates in a row at the end of a short run that are more than a mishap."""
NOT_FINITE = "had no finite chain, gradient or size of the latents"
GONE = "had a gradient of exactly 0, from which nothing is learned"


class Streak:
    """Counts the last updates in a row that went wrong, by what numbers can hold or by a gradient that is gone.

    A gradient of exactly 0 means that all outputs lie where the decoder's last layer is flat, as weights that a large
    step has thrown far off bring about: finite, and without a way back.
    """

    def __init__(self, run: RunFolder, position: Position) -> None:
        self.run, self.length, self.dead = run, 0, 0
        self._skipped, self._failed = position.skipped, position.failed

    @property
    def sound(self) -> bool:
        """Whether the last update went well."""
        return self.length == self.dead == 0

    def follow(self, position: Position, means: Mapping[str, float], batch_size: int) -> None:
        """Look at the last update; raise InputError where so many in a row went wrong that the run is lost.

        means: of the update's statistics.
        """
        moment = means.get("second_moment", 0.0)
        lost = position.skipped > self._skipped or position.failed - self._failed >= batch_size
        lost = lost or not math.isfinite(moment) or moment > FAR
        self._skipped, self._failed = position.skipped, position.failed
        self.length = self.length + 1 if lost else 0
        # an update without any image has a gradient of 0 too, and is counted above
        self.dead = self.dead + 1 if means.get("grad_norm") == 0 and not lost else 0
        if self.length >= PATIENCE:
            raise self._lost(position, PATIENCE, NOT_FINITE)
        if self.dead >= PATIENCE:
            raise self._lost(position, PATIENCE, GONE)

    def end(self, position: Position) -> None:
        """Look at the end of a run, which may be too short for `follow` to lose patience.

        Raises InputError where half of its updates or more went wrong without a break up to here. Of those that are not
        finite it takes a few, since they may mend themselves; a gradient that is gone does not come back.
        """
        if self.length >= MISHAPS and 2 * self.length >= position.step:
            raise self._lost(position, self.length, NOT_FINITE)
        if self.dead and 2 * self.dead >= position.step:
            raise self._lost(position, self.dead, GONE)

    def _lost(self, position: Position, updates: int, what: str) -> InputError:
        return InputError(
            "training.learning_rate",
            problem=f"training diverged: the last {updates} updates up to {position.step} {what}",
            instead="write a smaller one, a smaller inference.step_size, or a larger model.sigma; the last sound "
            f"state is in {self.run.path}",
        )
