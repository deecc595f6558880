"""The figures of a comparison as Markdown, for reading, and as CSV, for everything else."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from shortrun.compare.budget import Budget
from shortrun.compare.labels import labels
from shortrun.files import replacing, write_text

GROUPS = {
    "rebuilding, likelihood": {
        "mse_draw": "MSE of a draw",
        "mse_point": "MSE of a point",
        "psnr": "PSNR",
        "ssim": "SSIM",
        "nats": "log p(x), nats",
        "importance_nats": "its own bound, nats",
        "bits_per_dim": "bits/dim",
        "second_moment": "second moment",
    },
    "samples": {
        "fid_prior": "FID, prior",
        "fid_fitted": "FID, fitted",
        "precision_prior": "precision",
        "recall_prior": "recall",
        "density_prior": "density",
        "coverage_prior": "coverage",
        "precision_fitted": "precision, fitted",
        "coverage_fitted": "coverage, fitted",
    },
    "cost, latents": {
        "updates": "updates",
        "cpu_seconds": "training, CPU s",
        "parameters": "weights",
        "probe": "linear probe",
    },
}
"""The columns of the tables in Markdown; the CSV has every figure that there is."""
COLUMNS = {key: words for group in GROUPS.values() for key, words in group.items()}
OWN = ("value", "layers", "seed", "standard_error", "acceptance", "std_of_subsets", "effective_samples")
"""What an entry holds of its own: the number and what belongs to it, no condition."""
Assessments = Mapping[str, Sequence[Mapping[str, Any]]]


def write_table(assessments: Assessments, out: Path, budget: Budget) -> str:
    """Write out/table.md and out/table.csv and return the first.

    assessments: for each name one evaluation a seed. The Markdown has mean ± standard deviation over the seeds and
    leaves out figures that no learner has; below its tables stand the conditions that all were measured under.
    """
    rows = {name: [plain(one) for one in runs] for name, runs in assessments.items()}
    label = labels(rows)
    lines, shown = [], []
    for title, columns in GROUPS.items():
        there = [key for key in columns if any(key in run for runs in rows.values() for run in runs)]
        if not there:
            continue
        lines.append(f"| {title}, {budget} | seeds | {' | '.join(columns[key] for key in there)} |")
        lines.append("| --- " * (len(there) + 2) + "|")
        for name, runs in rows.items():
            cells = [spread([run[key] for run in runs if key in run]) for key in there]
            lines.append(f"| {label[name]} | {len(runs)} | {' | '.join(cells)} |")
        lines.append("")
        shown += there
    words = "\n".join([*lines, *conditions(assessments, shown)]) + "\n"
    write_text(out / "table.md", words)
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


def conditions(assessments: Assessments, shown: Sequence[str]) -> list[str]:
    """Say what the figures were measured under, where all learners agree: first what holds for all of them."""
    each: dict[str, dict[str, Any]] = {}
    for key in shown:
        entries = [run[key] for runs in assessments.values() for run in runs if "value" in run.get(key, {})]
        if entries:
            first = {name: value for name, value in entries[0].items() if name not in OWN}
            each[key] = {k: v for k, v in first.items() if all(entry.get(k) == v for entry in entries)}
    if not each:
        return []
    first, *others = each.values()
    shared = {k: v for k, v in first.items() if all(other.get(k) == v for other in others)}
    alike: dict[str, list[str]] = {}
    for key, entry in each.items():
        own = said({name: value for name, value in entry.items() if name not in shared})
        alike.setdefault(own, []).append(COLUMNS[key])
    lines = [f"All: {said(shared)}.  "] if shared else []
    lines += [f"{'; '.join(names)}: {own}.  " for own, names in alike.items() if own]
    label = labels(assessments)
    return lines + [f"{label[name]}: {words}.  " for name, words in inferences(assessments).items() if words]


def inferences(assessments: Assessments) -> dict[str, str]:
    """Say of each learner what its error was measured under that is not the same for all: steps, noise."""
    entries = {name: [run.get("mse", {}) for run in runs] for name, runs in assessments.items()}
    every = [entry for each in entries.values() for entry in each]
    words = {}
    for name, (first, *others) in entries.items():
        mine = {k: v for k, v in first.items() if k not in OWN and all(other.get(k) == v for other in others)}
        words[name] = said({k: v for k, v in mine.items() if any(entry.get(k) != v for entry in every)})
    return words


def said(conditions: Mapping[str, Any]) -> str:
    """Say conditions in words."""
    return ", ".join(f"{name.replace('_', ' ')} {_word(value)}" for name, value in conditions.items())


def _word(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_word, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
