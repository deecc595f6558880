"""Files that are either old or new, never half-written; and JSON that is always valid."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shortrun.errors import undamaged


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well, rename it to `path`, else remove it.

    A reader, or a run that is killed in between, sees the old file or the new one. The temporary name is always the
    same for a path, so that what a kill leaves is taken up by the next write; it keeps the suffix, since image
    writers choose their format by it. The temporary file is a new one: a link of that name, which a run folder of
    somebody else's may hold, would lead the write out of the folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    temporary.unlink(missing_ok=True)
    try:
        temporary.open("xb").close()
        rights = temporary.stat().st_mode  # those that the user's umask gives, whatever a writer would choose
        yield temporary
        temporary.chmod(rights)
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, words: str) -> None:
    """Write words as UTF-8, whole or not at all; folders that are not there are made."""
    with replacing(path) as temporary:
        temporary.write_text(words, encoding="utf-8")


def write_json(path: Path, values: Any, indent: int | None = 2) -> None:
    """Write plain values as JSON, whole or not at all, as `to_text` gives them; indent: as there."""
    write_text(path, to_text(values, indent) + "\n")


def to_text(values: Any, indent: int | None = None) -> str:
    """Return plain values as JSON; indent: of nested lines, None for a single one.

    JSON has no word for a number that is not finite: it becomes null. A path becomes its words. No other function of
    the package makes JSON, so that all of it is valid.

    >>> to_text({"loss": float("inf"), "steps": (1, 2)})
    '{"loss": null, "steps": [1, 2]}'
    """
    return json.dumps(finite(values), indent=indent, allow_nan=False, default=os.fspath)


def finite(values: Any) -> Any:
    """Return plain nested values with None for each number that is not finite."""
    if isinstance(values, Mapping):
        return {key: finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def read_json(path: Path) -> Any:
    """Return the values of a JSON file; raise InputError where it is damaged."""
    with undamaged(path):
        return json.loads(path.read_text(encoding="utf-8"))
