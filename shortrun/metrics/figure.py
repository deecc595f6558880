"""A measured number as a record: what it is, what it was measured under, and why it is missing where it is."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

OWN_BEFORE = ("layers", "standard_error", "acceptance", "std_of_subsets", "effective_samples", "lower", "upper")
"""What belongs to a number itself, in files that were written before they said so."""
FIELDS = ("value", "left_out", "unit", "group", "note", "own")
"""Keys of an entry in a file that are no condition."""


@dataclass(frozen=True)
class Figure:
    """One measured number, or the reason why it is left out.

    name: its key in files and tables.
    value: the number; None where it is left out.
    left_out: the reason, in words; empty where there is a number.
    unit: what the value counts, where the name does not say so.
    group: the title under which it stands.
    note: a sentence that a reader needs with it.
    conditions: what it was measured under, plain values by name.
    own: what belongs to the number itself, such as its standard error or its layers, plain values by name.

    >>> Figure("mse", 0.02, conditions={"images": 100}).value
    0.02
    """

    name: str
    value: float | int | None = None
    left_out: str = ""
    unit: str = ""
    group: str = ""
    note: str = ""
    conditions: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)

    @property
    def standard_error(self) -> float | None:
        """The standard error of the value, where it has one."""
        return self.own.get("standard_error")

    def under(self, conditions: Mapping[str, Any]) -> "Figure":
        """Return the figure with more conditions; one that is left out stays as it is.

        conditions: plain values by name.
        """
        return self if self.left_out else dataclasses.replace(self, conditions={**self.conditions, **conditions})


def to_json(figures: Iterable[Figure]) -> dict[str, dict[str, Any]]:
    """Return figures as files hold them: by name, {"value": ..., own and conditions} or {"left_out": ...}.

    figures: any number of them.

    >>> to_json([Figure("mse", 0.02, conditions={"images": 100})])
    {'mse': {'value': 0.02, 'images': 100}}
    """
    return {figure.name: _entry(figure) for figure in figures}


def from_json(file: Mapping[str, Any]) -> dict[str, Figure]:
    """Return the figures of a file by name; what else it holds is passed over.

    file: what `to_json` wrote. Files from before that say neither group nor own are read too, and flat ones, {"mse":
        0.1}.

    >>> from_json({"mse": 0.1, "learner": "vae"})["mse"].value
    0.1
    """
    found = {name: _figure(name, entry) for name, entry in file.items()}
    return {name: figure for name, figure in found.items() if figure is not None}


def _entry(figure: Figure) -> dict[str, Any]:
    words = {"unit": figure.unit, "group": figure.group, "note": figure.note}
    said = {key: value for key, value in words.items() if value}
    if figure.left_out:
        return {"left_out": figure.left_out, **said}
    own = {"own": list(figure.own)} if figure.own else {}
    return {"value": figure.value, **figure.own, **figure.conditions, **said, **own}


def _figure(name: str, entry: Any) -> Figure | None:
    if isinstance(entry, int | float) and not isinstance(entry, bool):
        return Figure(name, entry)
    if not isinstance(entry, Mapping) or not {"value", "left_out"} & set(entry):
        return None
    belongs = entry.get("own", OWN_BEFORE)
    return Figure(
        name,
        entry.get("value"),
        **{key: entry.get(key, "") for key in ("left_out", "unit", "group", "note")},
        conditions={key: value for key, value in entry.items() if key not in (*FIELDS, *belongs)},
        own={key: entry[key] for key in belongs if key in entry},
    )
