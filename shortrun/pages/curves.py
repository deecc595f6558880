"""The curves of metrics.jsonl, each a small chart."""

import json
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from shortrun.errors import InputError, undamaged
from shortrun.figures.charts import page

POINTS = 1000
"""Of a curve that are drawn; of more, every so many."""
MOST = 24
"""Curves of a run: its own are fewer than ten."""
KNOWN = ("step", "epoch")
"""What a record is placed by, and no curve of it."""


class Curves(NamedTuple):
    """What training said of itself on its way."""

    values: dict[str, list[tuple[float, float]]]
    """By name, (step, value) of each record that has a finite one."""
    unread: int
    """Lines that are no record."""


def read_curves(path: Path) -> Curves:
    """Return the curves of a file; what is damaged in it is left out and counted.

    path: of metrics.jsonl.
    """
    values: dict[str, list[tuple[float, float]]] = {}
    unread = 0
    with undamaged(path), path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                with undamaged(path):
                    record = json.loads(line)
                    step = float(record["step"])
                    found = {name: value for name, value in record.items() if _is_value(name, value)}
            except InputError:
                unread += 1
                continue
            for name, value in found.items():
                if name in values or len(values) < MOST:
                    values.setdefault(name, []).append((step, float(value)))
    return Curves(values, unread)


def _is_value(name: str, value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return name not in KNOWN and number and isfinite(float(value))


def constant(points: list[tuple[float, float]]) -> bool:
    """Return whether a curve says the same all along.

    points: of the curve.
    """
    return len({value for _, value in points}) == 1


def draw_curve(points: list[tuple[float, float]]) -> Image.Image:
    """Return a curve over the steps of training; its name is left to the caption.

    points: (step, value), at least one.
    """
    stride = -(-len(points) // POINTS)
    shown = [*points[::stride], points[-1]]
    with page(1, 1, (4.0, 2.4)) as sheet:
        (panel,) = sheet.panels
        panel.plot(*zip(*shown, strict=True), marker="." if len(shown) < 30 else "")
        panel.set_xlabel("update")
        return sheet.picture()
