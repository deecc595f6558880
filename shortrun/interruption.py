"""Ctrl-C and polite kills: what is being done ends soon and leaves nothing half-written."""

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""Ctrl-C; what `kill` sends, and clusters at their limit; what clusters can send before it (Windows has none)."""


class Stop:
    """What the process does at these signals: it raises KeyboardInterrupt, or within `finishing` only notes them.

    A second Ctrl-C always raises. The other signals raise once: what cleans up after the first is left in peace.
    """

    def __init__(self) -> None:
        self.asked = False
        """Whether one of the signals came."""
        self.noting = False

    def __call__(self, number: int, frame: object) -> None:
        """Handle a signal."""
        again, self.asked = self.asked, True
        if (number == signal.SIGINT) if again else not self.noting:
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raise KeyboardInterrupt where a signal was noted."""
        if self.asked:
            raise KeyboardInterrupt


@contextmanager
def stoppable(last: bool = False) -> Iterator[None]:
    """Let the signals raise KeyboardInterrupt while the block runs, for a program that is a process of its own.

    last: the process ends after the block. What comes then is ignored: the work is done, and its exit code is known.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    stop = Stop()
    with handled_by(stop, SIGNALS, signal.SIG_IGN if last else None), asked_again(stop):
        yield


@contextmanager
def finishing() -> Iterator[Stop]:
    """Only note the signals while the block runs: it looks at `asked`, finishes its step and keeps what it did.

    In a process of the user's own SIGUSR1 is left to a handler of the user's.
    """
    stop: object = signal.getsignal(signal.SIGTERM)
    if isinstance(stop, Stop):
        handled = nullcontext()
    else:
        stop = Stop()
        in_main = threading.current_thread() is threading.main_thread()
        own = [number for number in SIGNALS if number in (signal.SIGINT, signal.SIGTERM) or _is_default(number)]
        handled = handled_by(stop, own if in_main else ())
    with handled:
        before, stop.noting = stop.noting, True
        try:
            yield stop
        finally:
            stop.noting = before


def _is_default(number: int) -> bool:
    return signal.getsignal(number) == signal.SIG_DFL


@contextmanager
def handled_by(stop: Stop, signals: Iterable[int], after: signal.Handlers | None = None) -> Iterator[None]:
    """Handle signals while the block runs; after: how they are handled then, as before it where not given."""
    before = {number: signal.signal(number, stop) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            # `before` has None for a handler of a library in C, which cannot be put back from Python
            signal.signal(number, after or handler or signal.SIG_DFL)


@contextmanager
def asked_again(stop: Stop) -> Iterator[None]:
    """Send the signal once more where Python has to drop what it raised: in a destructor or a callback from C."""
    before = sys.unraisablehook

    def hook(dropped: "sys.UnraisableHookArgs") -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            before(dropped)
            return
        stop.asked = False
        later = threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGTERM))
        later.daemon = True
        later.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
