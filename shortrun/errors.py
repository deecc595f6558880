"""The one error that a user's input can cause, and the words it is said in; and how long work is stopped."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """What the user gave cannot be used: one line that names the argument, what it got and what to write instead.

    The command line prints it without a traceback and exits with code 2; in Python it is a `ValueError`.
    """


class Interrupted(Exception):  # noqa: N818  (an event, not an error)
    """Long work was asked to stop and has kept what it did; the words say how to go on."""


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return the end of an error line: the nearest of the options, or all of them where none is near."""
    names = sorted(options)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"choose one of {', '.join(names)}"


def at_least_one(**numbers: int) -> None:
    """Raise InputError where a count is below one."""
    for name, number in numbers.items():
        if number < 1:
            raise InputError(f"{name}: got {number}; write a whole number of at least 1")
