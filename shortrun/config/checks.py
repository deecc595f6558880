"""One check of settings for a recipe, the command line, a `Config` built in Python and the config.json of a model.

What a setting may be stands where it is declared: its type, a range in its annotation, and a method `check` of its
table for what settings say of one another. What only a learner knows, its class says:
`shortrun.learners.checked_for_learner`.
"""

import dataclasses
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from shortrun.config.ranges import Range
from shortrun.config.whole import Config, LearnerConfig
from shortrun.mapping import as_type

Table = TypeVar("Table")
Settings = TypeVar("Settings", Config, LearnerConfig)


def checked_settings(settings: Settings) -> Settings:
    """Return the settings with each value as the type of its field, after all checks that need no learner.

    Whole numbers stand for floats, lists for tuples, numbers of NumPy for Python's. Raises InputError for the first
    value, in the order of the tables, that is of another type or out of its range, and for settings that contradict
    one another.
    """
    return checked_table(settings, "")


def checked_table(table: Table, where: str) -> Table:
    """Return a table of settings as `checked_settings` returns the whole.

    table: a dataclass.
    where: its path, for errors; empty at the top.
    """
    kind = type(table)
    values: dict[str, Any] = {}
    annotations = get_type_hints(kind, include_extras=True)
    for name, hint in get_type_hints(kind).items():
        path = f"{where}.{name}" if where else name
        values[name] = as_type(getattr(table, name), hint, path)
        if dataclasses.is_dataclass(hint):
            values[name] = checked_table(values[name], path)
        for each in ranges(annotations[name]):
            if values[name] is not None:
                each.check(path, values[name])
    made = kind(**values)
    if hasattr(made, "check"):
        made.check()  # pyright: ignore[reportAttributeAccessIssue]
    return made


def ranges(hint: Any) -> list[Range]:
    """Return the ranges in an annotation, those of `Annotated[...] | None` too."""
    if get_origin(hint) is Annotated:
        kind, *others = get_args(hint)
        return [*ranges(kind), *(each for each in others if isinstance(each, Range))]
    return [each for part in get_args(hint) for each in ranges(part)]
