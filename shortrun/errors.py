"""The one error that a user's input can cause, with its fields; and how long work is stopped."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

LONGEST = 100
"""Characters of a word that is shown whole."""


class InputError(ValueError):
    """What the user gave cannot be used: one line that names the argument, what it got and what to write instead.

        steps: got 0; write a whole number of at least 1

    argument: what the error is about, which stands before the colon: the argument's Python name, or its path in a
        configuration (`model.latents`). Where no argument of the caller is to blame, it is the file that cannot be
        used, the library that is not installed, or the environment variable.
    got: the value that it was given, or words for it; text that the user wrote stands in quotes, as `repr` gives it.
    instead: what to write or to do.
    problem: what is wrong, where "got ..." would not say it: of a file without a verb, "damaged (...)", "not a run".

    The fields stay readable on the error. The command line prints the option's name in place of the argument's,
    without a traceback, and exits with code 2; in Python the error is a `ValueError`.

    >>> InputError("steps", 0, "write a whole number of at least 1").argument
    'steps'
    """

    silent: bool | None = None
    """Whether another of several processes says it; None where they have not agreed on who does."""

    def __init__(self, argument: str, got: object = None, instead: str = "", *, problem: str = "") -> None:
        self.argument, self.got, self.instead = argument, got, instead
        self.problem = shortened(problem) or ("" if got is None else f"got {_quoted(shortened(str(got)))}")
        super().__init__(self.said_of(argument))

    def said_of(self, name: str) -> str:
        """Return the line with another name for the argument.

        name: an option of the command line, for example.
        """
        words = f"{name}: " + "; ".join(part for part in (self.problem, self.instead) if part)
        return cut(re.sub(r"\s*[\r\n]\s*", " ", words))  # a tensor, for example, shows itself in several lines

    def renamed(self, argument: str) -> "InputError":
        """Return the same error about an argument of the caller's own.

        argument: the name under which the value came in.
        """
        return InputError(argument, self.got, self.instead, problem=self.problem)


@contextmanager
def renaming(names: Mapping[str, str]) -> Iterator[None]:
    """Give errors of the block the names that the caller has for the arguments; names: theirs -> the caller's."""
    try:
        yield
    except InputError as error:
        if error.argument not in names:
            raise
        raise error.renamed(names[error.argument]) from None


@contextmanager
def reading(path: Path, what: str = "damaged or cannot be read", instead: str = "copy it again") -> Iterator[None]:
    """Turn whatever a library says of a file that it cannot read into an InputError about the `path`.

    What stands in a file is anybody's, and parsers fail on it in ways that none of them promises: TokenError,
    RecursionError, OverflowError and more. So every exception is caught here, and in `undamaged`, and nowhere else.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError("path", problem=f"{path} is {what} ({reason(error)})", instead=instead) from error


class Interrupted(KeyboardInterrupt):
    """Long work was asked to stop and has kept what it did; the words say how to go on."""

    silent: bool | None = None
    """As of an InputError."""


class LostProcess(RuntimeError):  # noqa: N818  (the process is lost, not the error)
    """Another process of the run has ended or does not answer; the words say how to go on."""

    silent: bool | None = None
    """As of an InputError."""
    code = 1
    """The exit code: that of the process which ended first and said why, where one did."""


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return the end of an error line: the nearest of the options, or all of them where none is near."""
    names = sorted(options)
    if near := nearest(word, names):
        return f"did you mean {near!r}?"
    return f"choose one of {', '.join(names)}"


def nearest(word: str, options: Iterable[str]) -> str | None:
    """Return the option that a word is nearest to; None where it is near to none."""
    near = difflib.get_close_matches(word[:LONGEST], sorted(options), n=1, cutoff=0.5)
    return near[0] if near else None


def reason(error: BaseException) -> str:
    """Return the first line of what an exception of a library says, or its name where it says nothing."""
    lines = str(error).strip().splitlines()
    return shortened(lines[0].strip().rstrip(".:"), 200) if lines else type(error).__name__


def shortened(words: str, most: int = 400) -> str:
    """Return words that a person can read in a line: the middle of what is longer is left out."""
    return words if len(words) <= most else f"{words[: most - 60]} ... {words[-50:]}"


def cut(words: str) -> str:
    """Return words with the middle left out of each that no person reads to its end; a path is one word a folder."""
    return re.sub(rf"[^\s/\\]{{{LONGEST},}}", lambda word: f"{word[0][:60]}...{word[0][-17:]}", words)


def _quoted(got: str) -> str:
    """Return what the user wrote, in its quotes, in at most 80 characters."""
    long = len(got) > LONGEST and got[0] == got[-1] and got[0] in "'\""
    return f"{got[:60]}...{got[-17:]}" if long else got


def in_one_line(error: object) -> str:
    """Return all that an exception of a library says in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200]


def damaged(path: Path, error: object, instead: str = "restore it from a copy") -> InputError:
    """Return the error of a file that does not hold what it should; error: what was said of it."""
    return InputError(str(path), problem=f"damaged ({in_one_line(error)})", instead=instead)


@contextmanager
def undamaged(path: Path, instead: str = "restore it from a copy") -> Iterator[None]:
    """Turn whatever fails in a block that reads a file of this package's own into the error that it is damaged."""
    try:
        yield
    except Exception as error:  # as in `reading`: what stands in a file is anybody's
        raise damaged(path, error, instead) from error


def check_at_least(least: int, /, **numbers: int | None) -> None:
    """Raise InputError for the first of the numbers that is given and smaller than it may be."""
    for name, number in numbers.items():
        if number is not None and number < least:
            raise InputError(name, number, f"write a whole number of at least {least}")


def installed(package: str) -> bool:
    """Return whether a library is there, without importing it."""
    return find_spec(package) is not None


def require_package(package: str, extra: str) -> None:
    """Raise InputError where a library is not installed; extra: what brings it along, `shortrun[extra]`."""
    if not installed(package):
        raise InputError(package, problem="not installed", instead=f"pip install 'shortrun[{extra}]'")
