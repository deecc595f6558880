"""The machine that training runs on: what it is, and how its memory is used."""

import ctypes
import os
import platform
from pathlib import Path

import torch

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""The numbers by which glibc's mallopt knows the two."""
LARGEST = 2**31 - 1
"""The largest number that mallopt takes."""


def keep_freed_memory() -> None:
    """Let the C library of Linux keep memory that is freed for the tensors that come next, in this process.

    By default glibc gives buffers of megabytes back to the system when they are freed. The next operation gets new
    ones, whose pages the system fills with zeros one by one: thousands of page faults at each step of a chain. Does
    nothing where there is no glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, LARGEST)
        mallopt(TRIM_THRESHOLD, LARGEST)


def machine() -> dict[str, str | int]:
    """Say what machine this is, for the figures measured on it."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    if torch.cuda.is_available():
        name += f", {torch.cuda.get_device_name()}"
    return {
        "processor": name,
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }
