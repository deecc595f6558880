"""The options of a command and what they take, which follow from its dataclasses; spelled as tyro spells them."""

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro

NAMING = type(tyro.conf.arg())
"""What `tyro.conf.arg` leaves in an annotation: a name, a metavar, and whether the table's name stands before it."""


@dataclass(frozen=True)
class Option:
    """One option, or a value that stands alone."""

    path: str
    """Python name of the argument, or its path in the configuration."""
    names: tuple[str, ...]
    """As it is written; of a flag all spellings."""
    hint: Any
    """Its type."""
    positional: bool = False

    @property
    def flag(self) -> bool:
        """Whether no value follows."""
        return self.hint is bool

    @property
    def many(self) -> bool:
        """Whether any number of values may follow."""
        return any(get_origin(part) is tuple for part in (self.hint, *get_args(self.hint)))


def option_names(arguments: Iterable[type]) -> dict[str, str]:
    """Return the options of a command: {Python name, or path in the configuration: option}.

    arguments: the command's dataclasses; those nested in them are the tables of a configuration.

    >>> from shortrun.commands.train import ARGUMENTS
    >>> names = option_names(ARGUMENTS)
    >>> names["inference.step_size"], names["training.seed"], names["out"]
    ('--inference.step-size', '--seed', '--out')
    """
    return {option.path: option.names[0] for kind in arguments for option in options_of(kind)}


def options_of(kind: type, tables: tuple[str, ...] = ()) -> Iterator[Option]:
    """Give the options of a dataclass and of those nested in it; tables: the names of those around it."""
    hints = get_type_hints(kind, include_extras=True)
    for item in dataclasses.fields(kind):
        hint, path = hints[item.name], (*tables, item.name)
        marks = getattr(hint, "__metadata__", ())
        if tyro.conf.Suppress in marks:
            continue
        bare = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if isinstance(bare, type) and dataclasses.is_dataclass(bare):
            yield from options_of(bare, path)
        else:
            name = _spelled(path, marks)
            names = _both(name) if bare is bool and tyro.conf.FlagCreatePairsOff not in marks else (name,)
            yield Option(".".join(path), names, bare, tyro.conf.Positional in marks)


def _both(name: str) -> tuple[str, str]:
    """Return the option that says yes and the one that says no."""
    table, dot, last = name.removeprefix("--").rpartition(".")
    return name, f"--{table}{dot}no-{last}"


def _spelled(path: tuple[str, ...], marks: tuple[Any, ...]) -> str:
    """Return the option of an argument; path: its tables and its name; marks: what stands beside its type."""
    *tables, name = path
    naming: Any = next((mark for mark in marks if isinstance(mark, NAMING)), tyro.conf.arg())
    if tyro.conf.Positional in marks:
        return naming.metavar or name
    before = [] if naming.prefix_name is False else tables
    return f"--{'.'.join([*before, naming.name or name]).replace('_', '-')}"
