"""What a setting may be besides its type. Each range stands in the annotation of the setting that it is for."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from shortrun.errors import InputError
from shortrun.registry import Names, check_name


@runtime_checkable
class Range(Protocol):
    """Says which values a setting may have."""

    def check(self, name: str, value: Any) -> None:
        """Raise InputError where the value of the setting `name` is outside."""
        ...


@dataclass(frozen=True)
class Numbers:
    """Holds for each number of a value, be it one or a list of them; words: what to write instead."""

    holds: Callable[[Any], bool]
    words: str

    def check(self, name: str, value: Any) -> None:
        """Raise InputError for the first number that is outside."""
        for number in _numbers(value):
            if not self.holds(number):
                raise InputError(name, number, f"write {self.words}")


@dataclass(frozen=True)
class Progress:
    """Holds for schedules, pairs of a share of the training done and a value; values: which these may be."""

    values: Callable[[float], bool]
    words: str

    def check(self, name: str, value: Any) -> None:
        """Raise InputError for a value that is outside, and for shares that are, or do not rise."""
        for _, number in value:
            if not self.values(number):
                raise InputError(name, number, f"write {self.words}")
        shares = [share for share, _ in value]
        if shares != sorted(shares) or any(not 0 <= share <= 1 for share in shares):
            raise InputError(name, f"shares {shares}", "write them in [0, 1] and in rising order")


@dataclass(frozen=True, eq=False)  # hashed by identity: what stands in an annotation must have a hash
class Named:
    """Holds for the names of a registry, and for module:Name."""

    names: Names

    def check(self, name: str, value: Any) -> None:
        """Raise InputError for a word that cannot be a name."""
        check_name(self.names, value, name)


def at_least(least: int, words: str = "") -> Numbers:
    """Return the range of whole numbers from `least` on; words: what to write instead, where there is more to say."""
    return Numbers(lambda number: number >= least, words or f"a whole number of at least {least}")


def between(least: int, most: int, words: str = "") -> Numbers:
    """Return the range of whole numbers from `least` to `most`: more would be no model that anybody trains.

    words: what to write instead, where there is more to say.
    """
    return Numbers(lambda number: least <= number <= most, words or f"a whole number from {least} to {most:,}")


POSITIVE = Numbers(lambda number: 0 < number < math.inf, "a positive number")
NOT_NEGATIVE = Numbers(lambda number: 0 <= number < math.inf, "0 or more")
SHARE = Numbers(lambda number: 0 < number < 1, "a number between 0 and 1")
MISSING = Numbers(lambda number: 0 <= number <= 0.95, "a share from 0 to 0.95")
DECAY = Numbers(lambda number: 0 <= number < 1, "a number from 0 up to, not including, 1")
SEED = Numbers(lambda number: 0 <= number < 2**63, "a whole number from 0 up to, not including, 2^63")
POSITIVE_SCHEDULE = Progress(lambda value: 0 < value < math.inf, "a positive number")
SCHEDULE = Progress(lambda value: 0 <= value < math.inf, "0 or more")


def _numbers(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int | float):  # neither None nor a word such as `tuned` has a range
        yield value
