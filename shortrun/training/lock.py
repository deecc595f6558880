"""One process at a time works on a run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from shortrun.errors import InputError
from shortrun.files import write_text
from shortrun.training.run_folder import RunFolder


@contextmanager
def locked(run: RunFolder) -> Iterator[None]:
    """Hold a run for this process while the block runs; raise InputError where another process holds it.

    The system gives the lock back when its holder ends, however it ends, so that none is left by a kill.
    """
    holder = run.path / ".holder"
    lock = FileLock(run.path / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        who = holder.read_text() if holder.is_file() else "another process"
        raise InputError(
            str(run.path), problem=f"{who} is training this run", instead="wait until it ends, or stop it"
        ) from None
    try:
        write_text(holder, f"process {os.getpid()}")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
