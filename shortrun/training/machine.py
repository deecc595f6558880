"""What machine this is, for the figures measured on it."""

import os
import platform
from pathlib import Path

import torch


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
