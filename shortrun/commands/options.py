"""Which option of a command stands for an argument's Python name, spelled as tyro spells it."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, get_type_hints

import tyro

NAMING = type(tyro.conf.arg())
"""What `tyro.conf.arg` leaves in an annotation: a name, a metavar, and whether the table's name stands before it."""


def option_names(arguments: Iterable[type]) -> dict[str, str]:
    """Return the options of a command: {Python name, or path in the configuration: option}.

    arguments: the command's dataclasses; those nested in them are the tables of a configuration.

    >>> from shortrun.commands.train import ARGUMENTS
    >>> names = option_names(ARGUMENTS)
    >>> names["inference.step_size"], names["training.seed"], names["out"]
    ('--inference.step-size', '--seed', '--out')
    """
    return dict(pair for kind in arguments for pair in _options_of(kind, ()))


def _options_of(kind: type, tables: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    hints = get_type_hints(kind, include_extras=True)
    for item in dataclasses.fields(kind):
        hint, path = hints[item.name], (*tables, item.name)
        if tyro.conf.Suppress in getattr(hint, "__metadata__", ()):
            continue
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from _options_of(hint, path)
        else:
            yield ".".join(path), _spelled(path, getattr(hint, "__metadata__", ()))


def _spelled(path: tuple[str, ...], marks: tuple[Any, ...]) -> str:
    """Return the option of an argument; path: its tables and its name; marks: what stands beside its type."""
    *tables, name = path
    naming: Any = next((mark for mark in marks if isinstance(mark, NAMING)), tyro.conf.arg())
    if tyro.conf.Positional in marks:
        return naming.metavar or name
    before = [] if naming.prefix_name is False else tables
    return f"--{'.'.join([*before, naming.name or name]).replace('_', '-')}"
