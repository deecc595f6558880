"""The options of the campaign against faults, and the tables of its counts, which pytest prints at its end."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Counted = Callable[[str, Mapping[str, object]], None]
"""Takes the name of a table and a row of it."""
OPTIONS = {
    "cases": (3000, "mutated files, over all readers"),
    "kills": (60, "runs that are killed at random moments, twice each or more often"),
    "points": (0, "points to kill a command at, spread evenly; 0 for all that there are"),
    "seed": (0, "of the mutations and of the moments"),
}
"""Name -> default and what it says; on the command line --campaign-NAME."""


def add_options(parser: Any) -> None:
    """Add the campaign's options to pytest's."""
    group = parser.getgroup("campaign", "campaign against faults (pytest -m campaign)")
    for name, (default, words) in OPTIONS.items():
        group.addoption(f"--campaign-{name}", type=int, default=default, help=f"{words} (default {default})")


def print_tables(terminal: Any) -> None:
    """Print the rows that tests have counted, a table for each name."""
    tables: dict[str, list[Mapping[str, object]]] = {}
    reports = (report for kind in ("passed", "failed") for report in terminal.stats.get(kind, []))
    for report in reports:
        for name, value in getattr(report, "user_properties", []):
            if name == "campaign":
                table, row = value
                tables.setdefault(table, []).append(row)
    for name, rows in tables.items():
        terminal.section(f"campaign: {name}")
        for line in table_of(rows):
            terminal.write_line(line)


def table_of(rows: Iterable[Mapping[str, object]]) -> list[str]:
    """Return rows as the lines of a Markdown table, with the sums of what is counted."""
    rows = list(rows)
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *([str(row.get(head, "")) for head in heads] for row in rows)]
    if len(rows) > 1:
        lines.append(["all", *(_total([row.get(head) for row in rows], head) for head in heads[1:])])
    return [f"| {' | '.join(line)} |" for line in lines]


def _total(values: list[object], head: str) -> str:
    """Return the sum of whole numbers, or the largest where the head says that of its column."""
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(numbers) < len(values):
        return ""
    return str(max(numbers)) if "most" in head or "slowest" in head else str(sum(numbers))
