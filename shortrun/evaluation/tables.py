"""Figures for reading: words of a number, conditions that are said once, and tables in a terminal, Markdown and CSV."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from shortrun.files import replacing
from shortrun.metrics.figure import Figure

Words = Mapping[str, Any]
"""Plain values by name."""


def number(value: Any) -> str:
    """Say a number with four digits, a list by its members, top down."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return " ".join(map(number, value))
    return "-" if value is None else str(value)


def with_error(value: float | int, error: float | None) -> str:
    """Say a number and how far it may be off."""
    return number(value) if error is None else f"{number(value)} ± {error:.2g}"


def spread(values: Sequence[float | int]) -> str:
    """Say mean ± standard deviation, with the digits that the deviation leaves."""
    if not values:
        return "-"
    centre = mean(values)
    if all(isinstance(value, int) for value in values):
        return f"{round(centre):,}"
    if len(values) == 1 or not math.isfinite(centre):
        return f"{centre:.4g}"
    deviation = stdev(values)
    digits = max(0, 1 - math.floor(math.log10(deviation))) if deviation > 0 else 4
    return f"{centre:.{min(digits, 5)}f} ± {deviation:.{min(digits, 5)}f}"


def listed(values: Words) -> str:
    """Say values by name in one line."""
    return ", ".join(f"{name} {number(value)}" for name, value in values.items())


def spaced(values: Words) -> dict[str, Any]:
    """Return values with names as they are written in a sentence."""
    return {name.replace("_", " "): value for name, value in values.items()}


def conditions(figure: Figure) -> dict[str, Any]:
    """Return what a figure has to quote: its conditions and, where the name does not say it, its unit."""
    return {**figure.conditions, "unit": figure.unit} if figure.unit else dict(figure.conditions)


def shared(each: Iterable[Words]) -> dict[str, Any]:
    """Return what all have alike; of none, nothing."""
    first, *others = list(each) or [{}]
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def without(values: Words, known: Words) -> dict[str, Any]:
    """Return what is not known yet."""
    return {name: value for name, value in values.items() if name not in known}


def sections(figures: Mapping[str, Figure]) -> list[str]:
    """Return figures in lines, under the titles of their groups; what holds for a group, and for all, is said once."""
    measured = [figure for figure in figures.values() if not figure.left_out]
    everywhere = _of_several(measured)
    width = max(map(len, figures), default=0)
    lines: list[str] = []
    for title in dict.fromkeys(figure.group for figure in figures.values()):
        there = [figure for figure in figures.values() if figure.group == title]
        of_group = without(_of_several([figure for figure in there if not figure.left_out]), everywhere)
        lines.append(f"{title}{': ' if of_group else ''}{listed(spaced(of_group))}")
        for figure in there:
            value, own = _said(figure, everywhere | of_group)
            lines.append(f"  {figure.name:<{width}}  {value}{f'  ({listed(spaced(own))})' if own else ''}")
    notes = dict.fromkeys(figure.note for figure in measured if figure.note)
    return [*lines, *notes, f"all: {listed(spaced(everywhere))}"]


def rows(figures: Mapping[str, Figure]) -> list[tuple[str, str]]:
    """Return a row for each measured figure, and a last one, `measured`, of what holds for all of them."""
    there = [figure for figure in figures.values() if not figure.left_out]
    everywhere = shared(map(conditions, there))
    found = []
    for figure in there:
        value, own = _said(figure, everywhere)
        found.append((figure.name, f"{value} ({listed(own)})" if own else value))
    return [*found, ("measured", listed(everywhere))] if everywhere else found


def markdown(head: Sequence[str], cells: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    body = [f"| {' | '.join(row)} |" for row in cells]
    return [f"| {' | '.join(head)} |", "| --- " * len(head) + "|", *body]


def write_csv(head: Sequence[str], cells: Iterable[Sequence[Any]], path: Path) -> None:
    """Write a table as CSV, whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(cells)


def _of_several(figures: Sequence[Figure]) -> dict[str, Any]:
    # the conditions of a single one are its own
    return shared(map(conditions, figures)) if len(figures) > 1 else {}


def _said(figure: Figure, known: Words) -> tuple[str, dict[str, Any]]:
    """Return the words of a figure's value, and what stands beside it: what is its own and not known yet."""
    if figure.left_out or figure.value is None:
        return f"left out: {figure.left_out}", {}
    own = {**without(figure.own, {"standard_error": None}), **without(conditions(figure), known)}
    return with_error(figure.value, figure.standard_error), own
