"""The figures of a comparison as Markdown, for reading, and as CSV, for everything else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shortrun.compare.budget import Budget
from shortrun.compare.labels import labels
from shortrun.evaluation.measures import QUANTITIES
from shortrun.evaluation.quantity import FROM_FITTED, FROM_PRIOR, LATENTS, LOG_P, RECONSTRUCTIONS, Quantity
from shortrun.evaluation.reconstructions import MSE
from shortrun.evaluation.tables import conditions as conditions_of
from shortrun.evaluation.tables import listed, markdown, shared, spaced, spread, without, write_csv
from shortrun.files import write_text
from shortrun.metrics.figure import Figure, from_json

COST = "cost"
OF_TRAINING = (
    Quantity("updates", COST, "updates", 1),
    Quantity("cpu_seconds", COST, "training, CPU s", 2),
    Quantity("parameters", COST, "weights", 3),
)
TABLES = {
    "rebuilding, likelihood": (RECONSTRUCTIONS, LOG_P),
    "samples": (FROM_PRIOR, FROM_FITTED),
    "cost, latents": (COST, LATENTS),
}
"""Groups that share a table in Markdown; a group that is in none has one of its own."""

Assessments = Mapping[str, Sequence[Mapping[str, Any]]]
Runs = Mapping[str, Sequence[Mapping[str, Figure]]]


def write_table(assessments: Assessments, out: Path, budget: Budget) -> str:
    """Write out/table.md and out/table.csv and return the first.

    assessments: for each name one evaluation a seed, as evaluation.json holds it. The Markdown has mean ± standard
    deviation over the seeds and leaves out figures that no learner has; below its tables stand the conditions that all
    were measured under.
    """
    measured = {name: [figures_of(one) for one in runs] for name, runs in assessments.items()}
    label, lines = labels(measured), []
    shown: list[Quantity] = []
    for title, columns in tables().items():
        there = [column for column in columns if any(column.name in run for runs in measured.values() for run in runs)]
        if not there:
            continue
        head = [f"{title}, {budget}", "seeds", *(column.column for column in there)]
        cells = [
            [label[name], str(len(runs)), *(spread(values(runs, column.name)) for column in there)]
            for name, runs in measured.items()
        ]
        lines += [*markdown(head, cells), ""]
        shown += there
    said = [*conditions(measured, shown), *empty_columns(assessments, measured, shown)]
    words = "\n".join([*lines, *said]) + "\n"
    write_text(out / "table.md", words)
    names = list(dict.fromkeys(name for runs in measured.values() for run in runs for name in run))
    rows = [
        [name, seed, *(run[key].value if key in run else "" for key in names)]
        for name, runs in measured.items()
        for seed, run in enumerate(runs)
    ]
    write_csv(["learner", "seed", *names], rows, out / "table.csv")
    return words


def tables() -> dict[str, list[Quantity]]:
    """Return the columns of each table: all quantities that have one, in their places."""
    found: dict[str, list[Quantity]] = {title: [] for title in TABLES}
    for quantity in sorted((*QUANTITIES.values(), *OF_TRAINING), key=lambda quantity: quantity.place):
        if quantity.column:
            title = next((title for title, groups in TABLES.items() if quantity.group in groups), quantity.group)
            found.setdefault(title, []).append(quantity)
    return found


def figures_of(assessment: Mapping[str, Any]) -> dict[str, Figure]:
    """Return the numbers of an evaluation by name, and those of its training, which are figures without conditions."""
    measured = {name: figure for name, figure in from_json(assessment).items() if not figure.left_out}
    trained = {name: figure for name, figure in from_json(assessment["training"]).items() if name != "seed"}
    return {**measured, **trained}


def values(runs: Sequence[Mapping[str, Figure]], name: str) -> list[float | int]:
    """Return a figure of those runs that have it."""
    found = [run[name].value for run in runs if name in run]
    return [value for value in found if value is not None]


def conditions(measured: Runs, shown: Sequence[Quantity]) -> list[str]:
    """Say what the figures were measured under, where all learners agree: first what holds for all of them."""
    each: dict[Quantity, dict[str, Any]] = {}
    for quantity in shown:
        entries = [quoted(run[quantity.name]) for runs in measured.values() for run in runs if quantity.name in run]
        if quantity not in OF_TRAINING and entries:
            each[quantity] = shared(entries)
    if not each:
        return []
    everywhere = shared(each.values())
    alike: dict[str, list[str]] = {}
    for quantity, entry in each.items():
        alike.setdefault(said(without(entry, everywhere)), []).append(quantity.column)
    lines = [f"All: {said(everywhere)}.  "] if everywhere else []
    lines += [f"{'; '.join(columns)}: {own}.  " for own, columns in alike.items() if own]
    label = labels(measured)
    return lines + [f"{label[name]}: {words}.  " for name, words in inferences(measured).items() if words]


def empty_columns(assessments: Assessments, measured: Runs, shown: Sequence[Quantity]) -> list[str]:
    """Say why cells of the tables are empty, and why tables have no column of what was to be measured.

    assessments: as `write_table` takes them.
    measured: their figures that are numbers.
    shown: what has a column.
    """
    label, whole, single = labels(measured), {}, {}
    reasons = {name: reasons_of(runs) for name, runs in assessments.items()}
    for quantity in (column for columns in tables().values() for column in columns):
        lacking = {
            name: reasons[name].get(quantity.name, quantity.absent if quantity in shown else "")
            for name, runs in measured.items()
            if not values(runs, quantity.name)
        }
        if len(lacking) == len(measured) and len(set(lacking.values())) == 1:
            whole.setdefault(next(iter(lacking.values())), []).append(quantity.column)
        else:
            for name, reason in lacking.items():
                single.setdefault((label[name], reason), []).append(quantity.column)
    lines = [f"Left out: {'; '.join(columns)}: {reason}.  " for reason, columns in whole.items() if reason]
    return lines + [f"{name} without {'; '.join(columns)}: {why}.  " for (name, why), columns in single.items() if why]


def reasons_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return why figures of a learner are left out, by name, as the first of its runs says it that does."""
    found: dict[str, str] = {}
    for run in reversed(runs):
        found |= {name: figure.left_out for name, figure in from_json(run).items() if figure.left_out}
    return found


def inferences(measured: Runs) -> dict[str, str]:
    """Say of each learner what its error was measured under that is not the same for all: steps, noise."""
    entries = {
        name: [quoted(run[MSE.name]) if MSE.name in run else {} for run in runs] for name, runs in measured.items()
    }
    every = [entry for each in entries.values() for entry in each]
    return {name: said(without(shared(each), shared(every))) for name, each in entries.items()}


def quoted(figure: Figure) -> dict[str, Any]:
    """Return the conditions of a figure; its seed is that of the run, of which the table has several."""
    return without(conditions_of(figure), {"seed": None})


def said(words: Mapping[str, Any]) -> str:
    """Say conditions in words; on and off are True and False here, as in every table so far."""
    plain = {name: str(value) if isinstance(value, bool) else value for name, value in words.items()}
    return listed(spaced(plain))
