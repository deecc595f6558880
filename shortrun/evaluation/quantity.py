"""What can be measured of a model: quantities, each with its place in texts and tables, and the measures of them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from shortrun.errors import InputError
from shortrun.evaluation.assessment import Assessment
from shortrun.metrics.figure import Figure

RECONSTRUCTIONS = "reconstructions"
LATENTS = "latents"
FROM_PRIOR = "draws from the prior"
FROM_FITTED = "draws from the fitted density"
LOG_P = "log p(x)"


@dataclass(frozen=True)
class Quantity:
    """What a figure is a number of.

    name: of its figures. group: the title under which they stand. column: the head of its column in a comparison;
    none where it has none. place: columns of a table stand in rising place. unit, note: see `Figure`. absent: why a
    model may not have it, in words, where no figure says so itself.
    """

    name: str
    group: str
    column: str = ""
    place: int = 100
    unit: str = ""
    note: str = ""
    absent: str = "it was not measured"

    def figure(self, value: float | int, conditions: Mapping[str, Any], **own: Any) -> Figure:
        """Return a number of this quantity; own: what belongs to the number itself."""
        return Figure(
            self.name, value, unit=self.unit, group=self.group, note=self.note, conditions=conditions, own=own
        )

    def left_out(self, reason: str) -> Figure:
        """Return why there is no number."""
        return Figure(self.name, left_out=reason, group=self.group)


class Measure(NamedTuple):
    """A function that measures some quantities of a model, and what it needs."""

    part: str
    """The word by which a user asks for it."""
    quantities: tuple[Quantity, ...]
    """All that it can measure."""
    find: Callable[[Assessment], Iterable[Figure]]
    """It returns figures, without the conditions that all of an assessment have alike."""
    needs_torchmetrics: bool = False


def unless_refused(measure: Callable[[], Iterable[Figure]], quantities: Iterable[Quantity]) -> list[Figure]:
    """Return the figures, or for each quantity the reason why there is none."""
    try:
        return list(measure())
    except InputError as error:
        return [quantity.left_out(str(error)) for quantity in quantities]
