"""Which figures and tables of docs/ are older than the code behind them.

    python -m benchmarks.docs --check

The table of what was made by what is benchmarks/docs.toml. Ages are those of commits, so this is coarse: a change of a
comment counts like one of a number, and a page counts as new when a word of it has changed. What is named may be as it
should be; what is not named was made, or read again, after the last change of its code.
"""

import argparse
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
TABLE = Path("benchmarks") / "docs.toml"


class Old(NamedTuple):
    """A file of docs/ that is older than its code."""

    file: str
    made: int
    """Seconds since 1970 of the last commit that touched the file."""
    code: str
    """The newest part of the code behind it."""
    changed: int
    """Seconds since 1970 of the last commit that touched that."""
    command: str
    """What makes the file anew."""


def committed(root: Path, path: str) -> int:
    """Return when a file or a folder was last touched by a commit, in seconds since 1970; 0 if never.

    root: of the repository.
    path: from there.
    """
    words = ["git", "-C", str(root), "log", "-1", "--format=%ct", "--", path]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout or 0)


def older(root: Path, made: list[dict]) -> list[Old]:
    """Return which files are older than the code behind them.

    root: of the repository.
    made: the entries of the table: files, command and code of each.
    """
    found = []
    for entry in made:
        changes = {path: committed(root, path) for path in entry["code"]}
        newest = max(changes, key=lambda path: changes[path], default=None)
        for file in entry["files"]:
            age = committed(root, file)
            if newest and 0 < age < changes[newest]:
                found.append(Old(file, age, newest, changes[newest], entry["command"]))
    return found


def lost(root: Path, made: list[dict]) -> list[str]:
    """Return what is wrong with the table: files or code that are not there, and figures that no entry has.

    root: of the repository.
    made: the entries of the table.
    """
    listed = [file for entry in made for file in entry["files"]]
    paths = [*listed, *(path for entry in made for path in entry["code"])]
    figures = {path.relative_to(root).as_posix() for path in (root / "docs" / "figures").iterdir()}
    return [
        *(f"{path}: in the table, and not there" for path in paths if not (root / path).exists()),
        *(f"{path}: in no entry of the table" for path in sorted(figures - set(listed))),
        *(f"{path}: in two entries of the table" for path in sorted({one for one in listed if listed.count(one) > 1})),
    ]


def day(seconds: int) -> str:
    """Return a time as a date."""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def main(words: list[str] | None = None) -> int:
    """Print what is older; return 1 with --check where the table itself is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.docs", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="end with 1 where the table is wrong")
    arguments = parser.parse_args(words)
    made = tomllib.loads((ROOT / TABLE).read_text(encoding="utf-8"))["made"]
    wrong = lost(ROOT, made)
    print(*wrong, sep="\n", end="\n" if wrong else "")
    rows = older(ROOT, made)
    print("| older than its code | made | code | changed | made anew by |\n| --- | --- | --- | --- | --- |")
    for one in rows:
        print(f"| {one.file} | {day(one.made)} | {one.code} | {day(one.changed)} | `{one.command}` |")
    files = sum(len(entry["files"]) for entry in made)
    print(f"\n{len(rows)} of {files} figures and pages are older than the code behind them, by the dates of commits")
    return 1 if wrong and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
