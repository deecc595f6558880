"""How far a long work is: a bar with rate and time left on a terminal; elsewhere nothing, or one line."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from tqdm import tqdm

LONG = 86_400.0
"""Seconds of work on a CPU from which a GPU is advised."""
Item = TypeVar("Item")
Shown = Callable[[Sequence[Any], str], Iterable[Any]]
"""Gives back the items of a sequence while it shows how far it is; the words say what is being done."""


_QUIET = ContextVar("quiet", default=False)
"""Of this thread: others may have something to say."""


@contextmanager
def quiet() -> Iterator[None]:
    """Show nothing of how far work is while the block runs."""
    before = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(before)


def is_quiet() -> bool:
    """Return whether nothing is to be shown here."""
    return _QUIET.get()


def silent(items: Sequence[Item], words: str) -> Iterable[Item]:
    """Return the items and show nothing."""
    return items


def shown(
    items: Iterable[Item], words: str, unit: str = "batch", total: int | None = None, unshown: int = 1
) -> Iterable[Item]:
    """Return the items with a bar while they are taken, on a terminal only.

    items: of the work.
    words: what is being done.
    unit: what an item is.
    total: how many there are, for items without a length.
    unshown: so many items or fewer, which are done soon, have no bar.
    """
    count = len(items) if total is None and isinstance(items, Sized) else total
    few = count is not None and count <= unshown
    # disable = None: tqdm looks for itself whether the output is a terminal
    return tqdm(
        items,
        desc=words,
        total=count,
        unit=unit,
        leave=False,
        dynamic_ncols=True,
        disable=True if few or is_quiet() else None,
    )


def announced(items: Sequence[Item], words: str) -> Iterable[Item]:
    """Return the items with a bar on a terminal; elsewhere print once what is being measured."""
    if sys.stderr.isatty():
        return shown(items, words, unit="it", unshown=0)
    print(f"measuring: {words}", flush=True)
    return items


def duration(seconds: float) -> str:
    """Say a number of seconds as a clock does below a day, and as days and hours from there on.

    seconds: at least 0.

    >>> duration(95.0), duration(7384.0), duration(3 * 86400.0 + 7200)
    ('1:35', '2:03:04', '3 days 2 h')
    """
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours >= 24:
        days = hours // 24
        return f"{days} day{'s' if days > 1 else ''} {hours % 24} h"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def advice(seconds: float, device: str) -> str:
    """Return the end of a line that says how long work takes: where a GPU is worth it, that; else nothing.

    seconds: of the work.
    device: cpu or cuda.
    """
    return "; such a run is made for a GPU" if seconds > LONG and device == "cpu" else ""
