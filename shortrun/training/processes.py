"""One process, or several that torchrun started: they learn the same model."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from shortrun.errors import InputError


@dataclass(frozen=True)
class Processes:
    """This process among those of the run."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this one writes files and speaks."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return the module with gradients averaged over the processes."""
        if self.count == 1:
            return module
        # the buffers (sigma, step sizes) follow from the schedule, alike everywhere
        return DistributedDataParallel(module, broadcast_buffers=False)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of a vector over the processes."""
        if self.count > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.count
        return values

    def agree(self, path: Path | None) -> Path:
        """Return the first process's path in all of them."""
        agreed = [path]
        if self.count > 1:
            dist.broadcast_object_list(agreed)
        assert agreed[0] is not None
        return agreed[0]

    def wait(self) -> None:
        """Wait until all are here."""
        if self.count > 1:
            dist.barrier()


def choose_device(name: str | None) -> torch.device:
    """Return the device of a name such as cpu or cuda:1, or the best there is; raise InputError if it is not there."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError("device", repr(name), "write cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("device", f"{name!r}, but PyTorch sees no CUDA device here", "write cpu")
    return device


@contextmanager
def processes(device: str | None) -> Iterator[Processes]:
    """Join the processes that torchrun started (gloo on CPU, NCCL on GPU), or be the only one."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = choose_device(device)
    if count == 1:
        yield Processes(0, 1, chosen)
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), count, chosen)
    finally:
        dist.destroy_process_group()
