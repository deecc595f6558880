"""Children that may be killed, starved or lie: forked from a process that has imported the package once.

As a program, this module is that process. It reads one request a line from its standard input, forks a child that
calls what the request names, and answers with how the child ended. A command line of its own would take five seconds
of imports for each of some hundred kills.
"""

import importlib
import json
import os
import pkgutil
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from campaign_runs import train

HANG = "hang"


@dataclass(frozen=True)
class Request:
    """What a child does, and what it has for it.

    call: module:function. arguments: given to it by name; what it returns is the exit code, None for 0.
    log: file that takes both outputs. kill_after: seconds to SIGKILL. timeout: seconds after which the child hangs.
    memory: bytes of address space beyond that of the process it is forked from. file_size: most bytes of a file.
    """

    call: str
    arguments: dict[str, Any]
    log: str
    kill_after: float | None = None
    timeout: float = 300.0
    memory: int | None = None
    file_size: int | None = None


@dataclass(frozen=True)
class Ending:
    """How a child ended: its exit code (negative for a signal, or "hang"), its seconds, what it said."""

    code: int | str
    seconds: float
    said: str = field(repr=False)


class Children:
    """The process that forks; ended by `close`."""

    def __init__(self, work: Path) -> None:
        self.log = work / "child.log"
        paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, call: str, arguments: dict[str, Any], **limits: Any) -> Ending:
        """Return how a child ended; limits: those of `Request`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asdict(Request(call, arguments, str(self.log), **limits))) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return Ending(answer["code"], answer["seconds"], self.log.read_text(errors="replace"))

    def command(self, *words: str, **limits: Any) -> Ending:
        """Return how a command line ended."""
        return self.run("campaign_children:command_line", {"words": list(words)}, **limits)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def command_line(words: list[str]) -> int:
    from shortrun.cli import main

    return main(words)


def warm_up() -> None:
    """Import what commands import, also late, and leave no thread: a fork would not take it along."""
    import torch
    import tqdm

    import shortrun

    torch.set_num_threads(1)
    tqdm.tqdm.monitor_interval = 0
    for module in pkgutil.walk_packages(shortrun.__path__, "shortrun."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("PIL.Image", "sklearn.datasets", "scipy.io", "torch.utils.tensorboard.writer", "matplotlib.pyplot"):
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:  # PyTorch imports much of itself with the first update
        command_line(train("short_run", Path(folder) / "run", 3600))


def fork(request: Request) -> int:
    """Start a child and return its number."""
    child = os.fork()
    if child:
        return child
    code: Any = 1
    try:
        for output in (1, 2):
            os.dup2(os.open(request.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), output)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if request.memory is not None:
            own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (own + request.memory, own + request.memory))
        if request.file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (request.file_size, request.file_size))
        module, _, function = request.call.partition(":")
        code = getattr(importlib.import_module(module), function)(**request.arguments)
    except SystemExit as stop:
        code = stop.code
    except BaseException:  # noqa: BLE001  (the child ends here, whatever it was)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def wait(child: int, request: Request) -> tuple[int | str, float]:
    """Wait until a child ends, kill it where that is asked for, and return its exit code and seconds."""
    began = time.monotonic()
    end = min(request.timeout, request.kill_after if request.kill_after is not None else request.timeout)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        seconds = time.monotonic() - began
        if done:
            return os.waitstatus_to_exitcode(status), seconds
        if seconds > end:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            code = os.waitstatus_to_exitcode(status)
            return (HANG if request.kill_after is None else code), seconds
        time.sleep(0.002)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    warm_up()
    for line in sys.stdin:
        request = Request(**json.loads(line))
        Path(request.log).write_bytes(b"")
        code, seconds = wait(fork(request), request)
        print(json.dumps({"code": code, "seconds": seconds}), file=answers, flush=True)


if __name__ == "__main__":
    main()
