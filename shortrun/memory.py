"""How much memory there is, and what is refused because it would not fit: a line before it, not a kill after it."""

import os
from pathlib import Path

from shortrun.errors import InputError

SHARE = 0.5
"""What one thing that is read or built may take of the machine's memory; the rest is for working with it."""
PACKED = 200
"""Times that a large file may be larger unpacked than packed. Images pack 2 to 20 times, blank ones 1,000 times."""
LARGE = 2**28
"""Bytes from which on the packing is looked at."""


def memory() -> int:
    """Return the bytes of memory that this process may use: the machine's, or fewer where its control group says so."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else []
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return min(found, default=2**63)


def check_fits(size: int, argument: str, what: str, instead: str) -> None:
    """Raise InputError about an argument where `size` bytes are more than a share of the machine's memory.

    what: takes this much, for the error. instead: what to do.
    """
    if size > SHARE * memory():
        problem = f"{what} would take {in_gib(size)}, more than half of this machine's {in_gib(memory())} of memory"
        raise InputError(argument, problem=problem, instead=instead)


def check_packing(size: int, packed: int, path: Path) -> None:
    """Raise InputError where a file of `packed` bytes unpacks to far more than images do."""
    if size > LARGE and size > PACKED * max(packed, 1):
        raise InputError(
            "path",
            problem=f"{path} unpacks {packed:,} bytes to {in_gib(size)} or more, as no images do",
            instead="save it unpacked where its images really are that empty",
        )


def in_gib(size: int) -> str:
    """Say a number of bytes in GiB."""
    return f"{size / 2**30:,.1f} GiB"
