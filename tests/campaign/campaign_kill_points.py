"""A command that is killed right before or after one of its operations on files."""

import builtins
import io
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

WRITING = set("wax+")


class KillPoints:
    """Counts the operations on files of a folder, two points for each, and ends the process at one of them.

    folder: the operations below it count. point: 2 k is right before operation k, 2 k + 1 right after it; -1 for none.
    """

    def __init__(self, folder: Path, point: int) -> None:
        self.folder, self.point, self.passed = os.path.abspath(folder), point, 0
        self.names: list[str] = []

    def here(self, label: str) -> None:
        """Pass a point, or end at it."""
        if self.passed == self.point:
            os.write(1, f"killed {label}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)
        self.passed += 1

    def counts(self, operation: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> bool:
        """Say whether a call is one of the operations: it writes, and below the folder."""
        if threading.current_thread() is not threading.main_thread() or not arguments:
            return False
        first = arguments[0]
        if operation == "fsync":
            return True
        if operation == "open" and not WRITING & set(str((*arguments, options.get("mode", "r"))[1])):
            return False
        if operation == "os.open" and not arguments[1] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return False
        return not isinstance(first, int) and os.path.abspath(os.fsdecode(first)).startswith(self.folder)

    def around(self, operation: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function with a point before and one after it."""

        def pointed(*arguments: Any, **options: Any) -> Any:
            if not self.counts(operation, arguments, options):
                return function(*arguments, **options)
            label = f"{operation} {arguments[0] if operation == 'fsync' else Path(os.fsdecode(_path(arguments))).name}"
            self.here(f"before {label}")
            result = function(*arguments, **options)
            self.here(f"after {label}")
            return result

        return pointed

    def install(self) -> None:
        """Put the points into Python's functions, for the rest of the process."""
        builtins.open = io.open = self.around("open", builtins.open)
        os.open = self.around("os.open", os.open)
        for name in ("replace", "rename", "mkdir", "unlink", "truncate", "fsync", "rmdir"):
            setattr(os, name, self.around(name, getattr(os, name)))


def _path(arguments: tuple[Any, ...]) -> Any:
    return next(each for each in arguments if isinstance(each, str | bytes | os.PathLike))


def command_killed_at(words: list[str], folder: str, point: int) -> int:
    """Run a command line that ends at a point, and say how many there are where it does not come so far."""
    from shortrun.cli import main

    points = KillPoints(Path(folder), point)
    points.install()
    code = main(words)
    print(f"points {points.passed}")
    return code
