"""The words of a command line, looked at before tyro reads them: what is wrong with them is said in one line.

tyro answers --help and fills the dataclasses. Its own complaints are boxes of several lines, and it takes no 1e3 for a
whole number.
"""

import contextlib
import io
import math
import os
import re
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import tyro

from shortrun.commands.options import Option, options_of
from shortrun.config import is_folder, recipe_names
from shortrun.errors import InputError, did_you_mean, in_one_line, nearest
from shortrun.mapping import in_words

Arguments = TypeVar("Arguments")
HELP = ("-h", "--help")
NEGATIVE = re.compile(r"-(\.?\d|inf|nan)", re.IGNORECASE)
"""How a word begins that is a negative number and no option."""


def asks_for_help(words: Iterable[str]) -> bool:
    """Say whether one of the words is -h or --help."""
    return any(word in HELP for word in words)


def recipe_to_explain(words: Sequence[str]) -> str | None:
    """Return the recipe whose options --help can list: the first of the words, where it is one."""
    first = next((word for word in words if word not in HELP), "")
    known = first in recipe_names() or (first.endswith(".toml") and os.path.isfile(first)) or is_folder(first)
    return first if known else None


def parse(kind: type[Arguments], words: Sequence[str], prog: str, default: Arguments | None = None) -> Arguments:
    """Return a command's arguments; --help at any place prints the help and ends the program.

    kind: the dataclass of the arguments. words: what the user wrote. prog: the command, for the help. default: values
    in place of those of the class.

    Raises InputError for an option that there is not, a value of another type, a value that is missing or too many.
    """
    helped = asks_for_help(words)
    words = ["--help"] if helped else checked(kind, words, prog)
    defaults: dict[str, Any] = {} if default is None else {"default": default}
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(kind, args=words, prog=prog, **defaults)
    except SystemExit as end:
        if not end.code:
            raise
        said = re.sub(r"[─-╿]+", " ", complaint.getvalue())  # without the lines of its box
        raise InputError("options", problem=in_one_line(said), instead=f"see {prog} --help") from None


def checked(kind: type, words: Sequence[str], prog: str) -> list[str]:
    """Return the words with whole numbers written as such; raise InputError for the first that cannot be used."""
    options = list(options_of(kind))
    named = {name: option for option in options for name in option.names}
    places = [option for option in options if option.positional]
    found: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        key, equals, attached = word.partition("=")
        key = f"--{key[2:].replace('_', '-')}" if key.startswith("--") else key
        if _is_option(word) and key not in named:
            raise unknown(key, named, prog)
        if not _is_option(word):
            if not places:
                raise InputError(repr(word), problem="belongs to no option", instead=f"see {prog} --help")
            found.append(word)
            places.pop(0)
            continue
        option = named[key]
        found.append(key)
        if option.flag:
            if equals:
                raise InputError(option.path, repr(attached), f"write {key} alone")
            continue
        values = [attached] if equals else []
        while left and (option.many or not values) and not _is_option(left[0]):
            values.append(left.pop(0))
        found += checked_values(option, values)
    for place in places:
        raise InputError(place.path, problem="is missing", instead=f"{prog} {place.names[0]}")
    return found


def unknown(key: str, named: Iterable[str], prog: str) -> InputError:
    """Return the error of an option that there is not."""
    near = nearest(key, named) if key.startswith("--") else None
    return InputError(key, problem="no such option", instead=f"did you mean {near}?" if near else f"see {prog} --help")


def checked_values(option: Option, values: list[str]) -> list[str]:
    """Return the values of an option with whole numbers written as such; raise InputError for one that is none."""
    one = get_args(option.hint)[0] if get_origin(option.hint) is tuple else option.hint
    if get_origin(one) is tuple:
        wanted = "pairs of numbers, 0 1 1 0.1 for example"
    else:
        wanted = in_words(one) if one is option.hint else f"{in_words(one).removeprefix('a ')}s"
    if not values and not option.many:
        raise InputError(option.path, problem="has no value", instead=f"write {wanted} after it")
    if (accepted := _accepted(option.hint, values)) is not None:
        return accepted
    together = " ".join(values)  # where each alone is accepted, they are not to be written beside one another
    alone = () if get_origin(one) is tuple else values
    wrong = next((value for value in alone if _accepted(one, [value]) is None), together)
    choices = [str(choice) for choice in get_args(one)] if get_origin(one) is Literal else []
    raise InputError(option.path, repr(wrong), did_you_mean(wrong, choices) if choices else f"write {wanted}")


def _is_option(word: str) -> bool:
    return len(word) > 1 and word.startswith("-") and not NEGATIVE.match(word)


def _accepted(hint: Any, values: list[str]) -> list[str] | None:
    """Return values as a type takes them, or None where it does not; of types that are not known here all are taken."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _accepted(parts[0], values)
    if origin in (Union, types.UnionType):
        return next((found for part in parts if (found := _accepted(part, values)) is not None), None)
    if origin is tuple and len(parts) == 2 and parts[1] is Ellipsis:
        size = len(get_args(parts[0])) if get_origin(parts[0]) is tuple else 1
        each = get_args(parts[0])[0] if size > 1 else parts[0]
        found = [_accepted(each, [value]) for value in values]
        whole = len(values) % size == 0 and all(one is not None for one in found)
        return [one[0] for one in found if one] if whole else None
    if origin is Literal:
        return values if len(values) == 1 and values[0] in map(str, parts) else None
    if hint is type(None):
        return values if values == ["None"] else None
    if hint in (int, float, str, Path):
        return _of_type(hint, values[0]) if len(values) == 1 else None
    return values


def _of_type(kind: type, value: str) -> list[str] | None:
    """Return a value as a plain type takes it, 1e3 as 1000 for a whole number, or None."""
    if kind not in (int, float):
        return [value]
    try:
        if kind is int and not re.fullmatch(r"\s*[-+]?[\d_]+\s*", value):
            number = float(value)
            return [str(int(number))] if math.isfinite(number) and number == int(number) else None
        kind(value)
    except ValueError:
        return None
    return [value]
