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


class Streak:
    """Counts the last updates in a row whose gradient, chains or latents were not what numbers can hold."""

    def __init__(self, run: RunFolder, position: Position) -> None:
        self.run, self.length = run, 0
        self._skipped, self._failed = position.skipped, position.failed

    @property
    def sound(self) -> bool:
        """Whether the last update went well."""
        return self.length == 0

    def follow(self, position: Position, means: Mapping[str, float], batch_size: int) -> None:
        """Look at the last update; raise InputError where so many in a row went wrong that the run is lost.

        means: of the update's statistics.
        """
        moment = means.get("second_moment", 0.0)
        lost = position.skipped > self._skipped or position.failed - self._failed >= batch_size
        lost = lost or not math.isfinite(moment) or moment > FAR
        self._skipped, self._failed = position.skipped, position.failed
        self.length = self.length + 1 if lost else 0
        if self.length >= PATIENCE:
            raise InputError(
                "training.learning_rate",
                problem=f"training diverged: the last {PATIENCE} updates up to {position.step} had no finite chain, "
                "gradient or size of the latents",
                instead="write a smaller one, a smaller inference.step_size, or a larger model.sigma; the last sound "
                f"state is in {self.run.path}",
            )
