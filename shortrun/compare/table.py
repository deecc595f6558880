"""The figures of a comparison as Markdown, for reading, and as CSV, for everything else."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from shortrun.compare.budget import Budget
from shortrun.files import replacing

COLUMNS = {
    "mse_draw": "MSE of a draw",
    "mse_point": "MSE of a point",
    "psnr": "PSNR",
    "ssim": "SSIM",
    "fid_prior": "FID, prior",
    "fid_fitted": "FID, fitted",
    "precision_prior": "precision",
    "recall_prior": "recall",
    "density_prior": "density",
    "coverage_prior": "coverage",
    "nats": "log p(x), nats",
    "importance_nats": "its own bound, nats",
    "bits_per_dim": "bits/dim",
    "second_moment": "second moment",
    "updates": "updates",
    "cpu_seconds": "training, CPU s",
    "parameters": "weights",
}
"""The columns of the table, in Markdown; the CSV has every figure that there is."""
Assessments = Mapping[str, Sequence[Mapping[str, Any]]]


def write_table(assessments: Assessments, out: Path, budget: Budget) -> str:
    """Write out/table.md and out/table.csv and return the first.

    assessments: for each name one evaluation a seed. The Markdown has mean ± standard deviation over the seeds and
    leaves out figures that no learner has; below it stand the conditions that all of them were measured under.
    """
    rows = {name: [plain(one) for one in runs] for name, runs in assessments.items()}
    there = [key for key in COLUMNS if any(key in run for runs in rows.values() for run in runs)]
    lines = [
        f"| learner, {budget} | seeds | {' | '.join(COLUMNS[key] for key in there)} |",
        "| --- " * (len(there) + 2) + "|",
    ]
    for name, runs in rows.items():
        cells = [spread([run[key] for run in runs if key in run]) for key in there]
        lines.append(f"| {name} | {len(runs)} | {' | '.join(cells)} |")
    words = "\n".join([*lines, "", *conditions(assessments, there)]) + "\n"
    with replacing(out / "table.md") as path:
        path.write_text(words, encoding="utf-8")
    names = list(dict.fromkeys(key for runs in rows.values() for run in runs for key in run))
    with replacing(out / "table.csv") as path, path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["learner", "seed", *names])
        for name, runs in rows.items():
            writer.writerows([name, seed, *(run.get(key, "") for key in names)] for seed, run in enumerate(runs))
    return words


def plain(assessment: Mapping[str, Any]) -> dict[str, float | int]:
    """Return the figures of an evaluation alone: name and number."""
    figures = {name: entry["value"] for name, entry in assessment.items() if "value" in entry}
    both = {**figures, **assessment["training"]}
    return {name: value for name, value in both.items() if isinstance(value, int | float) and name != "seed"}


def spread(values: Sequence[float | int]) -> str:
    """Say mean ± standard deviation, with the digits that the spread leaves."""
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


def conditions(assessments: Assessments, there: Sequence[str]) -> list[str]:
    """Say, a line for each figure, what it was measured under, where all learners agree."""
    lines = []
    for key in there:
        entries = [run[key] for runs in assessments.values() for run in runs if isinstance(run.get(key), Mapping)]
        if not entries:
            continue
        shared = {
            name: value
            for name, value in entries[0].items()
            if name != "value" and all(entry.get(name) == value for entry in entries)
        }
        if shared:
            said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in shared.items())
            lines.append(f"{COLUMNS[key]}: {said}.  ")
    return lines
