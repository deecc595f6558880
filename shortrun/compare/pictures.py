"""What the learners of a comparison make, side by side, and how good they are after how much time."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from PIL import Image

from shortrun.compare.labels import labels
from shortrun.data import ImageSet
from shortrun.figures.charts import COLOURS, log_sizes, page
from shortrun.figures.images import captioned_rows
from shortrun.learners import Learner
from shortrun.streams import Use, stream

IMAGES = 12
ROUNDING = 1 / 255**2
"""Errors below one level of 256: of what rebuilds exactly, which has no place on a logarithmic axis."""


def draw_images(learners: Mapping[str, Learner], test: ImageSet) -> Image.Image:
    """Draw the same test images as each learner rebuilds them, and draws of each from prior and fitted density."""
    x = test.images(slice(0, min(IMAGES, len(test))))
    rows, label = [("test images", x)], labels(learners)
    for name, learner in learners.items():
        rows.append((f"{label[name]}: rebuilt", learner.reconstruct(x, stream(0, Use.PICTURE))))
    for name, learner in learners.items():
        for source in learner.sources:
            rows.append((f"{label[name]}: {source}", learner.sample(len(x), stream(0, Use.PICTURE), source)))
    return captioned_rows(rows)


def draw_curves(curves: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> Image.Image:
    """Draw error and Frechet distance against seconds of training, a thin line a seed.

    curves: for each name and seed the points, each with seconds, mse and, where images could be compared, fid_prior.
    """
    looks = _looks(curves)
    shown_as, lines = labels(curves), {}
    with page(1, 2, (5.5, 4.0)) as sheet:
        for panel, key, label in zip(
            sheet.panels,
            ("mse", "fid_prior"),
            ("test MSE of a draw", "FID of draws from the prior, own features"),
            strict=True,
        ):
            for name, runs in curves.items():
                for points in runs:
                    shown = [point for point in points if point.get(key, 0) > ROUNDING]
                    seconds, values = [point["seconds"] for point in shown], [point[key] for point in shown]
                    if shown:
                        (line,) = panel.plot(seconds, values, marker="o", linewidth=1, markersize=3, **looks[name])
                        lines.setdefault(shown_as[name], line)
            if not panel.lines:  # nothing to show, which has no place on a logarithmic axis
                panel.set_axis_off()
                continue
            panel.set(xscale="log", yscale="log", xlabel="training, seconds", ylabel=label)
        # below the panels: names with settings are too long to lie among the lines
        sheet.figure.legend(lines.values(), lines, loc="outside lower center", ncols=2, fontsize=7)
        return sheet.picture()


def draw_rates(rates: Mapping[str, Sequence[Sequence[tuple[float, float]]]]) -> Image.Image:
    """Draw the error of a draw against the nats that latents say of an image, a thin line a seed.

    rates: for each name and seed the points (rate, error).
    """
    looks, shown_as = _looks(rates), labels(rates)
    with page(1, 1, (6.5, 4.5)) as sheet:
        (panel,) = sheet.panels
        lines = {}
        for name, runs in rates.items():
            for points in runs:
                if points:
                    nats, errors = zip(*points, strict=True)
                    (line,) = panel.plot(nats, errors, marker="o", linewidth=1, markersize=3, **looks[name])
                    lines.setdefault(shown_as[name], line)
        log_sizes(panel, "y")
        panel.set(xlabel="rate, nats an image", ylabel="test MSE of a draw, pixels in [0, 1]")
        sheet.figure.legend(lines.values(), lines, loc="outside lower center", ncols=2, fontsize=7)
        return sheet.picture()


def _looks(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return how the lines of each name are drawn: a second round of the colours is dashed."""
    styles = itertools.product(("-", "--", ":"), COLOURS)
    return {name: {"linestyle": dash, "color": colour} for name, (dash, colour) in zip(names, styles, strict=False)}
