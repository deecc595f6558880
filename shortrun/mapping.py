"""Dataclasses from nested mappings, as TOML and JSON give them, and back; every key and every type is checked."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from shortrun.errors import InputError, did_you_mean

Record = TypeVar("Record")
EVERY = CollectionCheckStrategy.ALL_ITEMS  # typeguard looks at the first item of a list alone unless told


def from_mapping(kind: type[Record], values: object, where: str) -> Record:
    """Return a dataclass that is built from a nested mapping, with every key and every type checked.

    kind: the dataclass.
    values: the mapping.
    where: the path of the mapping, for errors; empty at the top.

    Raises InputError that names the key and suggests the right one, or the type that was wanted.
    """
    if not isinstance(values, Mapping):
        raise InputError(where, repr(values), f"write a table of {kind.__name__}")
    hints = get_type_hints(kind)
    built = {}
    for key, value in values.items():
        name = f"{where}.{key}" if where else key
        if key not in hints:
            raise InputError(name, problem="unknown key", instead=did_you_mean(key, hints))
        if dataclasses.is_dataclass(hints[key]):
            built[key] = from_mapping(hints[key], value, name)
        else:
            built[key] = as_type(value, hints[key], name)
    missing = [item.name for item in dataclasses.fields(kind) if item.name not in built and _required(item)]  # pyright: ignore
    if missing:
        raise InputError(where or kind.__name__, problem=f"has no {missing[0]!r}", instead="add it")
    return kind(**built)


def _required(item: dataclasses.Field) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def as_type(value: object, hint: Any, name: str) -> Any:
    """Return a value of TOML, of JSON or of Python as the type of its field.

    value: what was written.
    hint: the type of the field.
    name: of the field, for errors.

    Raises InputError where it is of another type.
    """
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, hint):  # pyright: ignore[reportArgumentType]
            raise InputError(name, repr(value), f"write a table of {getattr(hint, '__name__', hint)}")
        return value
    converted = _tupled(value)
    if Path in get_args(hint) and isinstance(converted, str):
        converted = Path(converted)
    if bool in (hint, *get_args(hint)) or not _holds_bool(converted):  # a bool is an int to Python, but not to a reader
        for floated in (True, False):  # a whole number will do for a float, and becomes one
            try:
                return check_type(_floated(converted) if floated else converted, hint, collection_check_strategy=EVERY)
            except TypeCheckError:
                continue
    raise InputError(name, repr(value), f"write {in_words(hint)}")


def _tupled(value: object) -> object:
    """Return lists as tuples, and numbers of NumPy, which know themselves as `item()`, as Python's."""
    if isinstance(value, list | tuple):
        return tuple(_tupled(item) for item in value)
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value  # pyright: ignore


def _holds_bool(value: object) -> bool:
    return any(map(_holds_bool, value)) if isinstance(value, tuple) else isinstance(value, bool)


def _floated(value: object) -> object:
    if isinstance(value, tuple):
        return tuple(_floated(item) for item in value)
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    try:
        return float(value)
    except OverflowError:
        return math.inf


def in_words(hint: Any) -> str:
    """Say in words what is of a type.

    hint: of a setting.

    >>> in_words(int | None), in_words(tuple[float, ...])
    ('a whole number', 'a list of numbers')
    """
    if get_origin(hint) is Annotated:
        return in_words(get_args(hint)[0])
    if hint == tuple[tuple[float, float], ...]:
        return "a list of pairs, [[0.0, 1.0], [1.0, 0.1]] for example"
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    if get_origin(hint) is tuple:
        return f"a list of {in_words(get_args(hint)[0]).removeprefix('a ')}s"
    if get_args(hint):
        return " or ".join(in_words(part) for part in get_args(hint) if part is not type(None))
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}.get(
        hint, "a table"
    )


def to_mapping(record: Any) -> dict[str, Any]:
    """Return a dataclass as nested dicts of plain values, for TOML and JSON; None and empty tables are left out."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items() if item is not None and item != {}}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    return plain(dataclasses.asdict(record))
