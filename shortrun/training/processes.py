"""One process, or several that torchrun started: they learn the same model."""

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from shortrun.errors import InputError, LostProcess
from shortrun.interruption import finishing

PATIENCE, PATIENT = 600.0, 6
"""Seconds that a process waits for the others in a step; and how often as long it waits for what the first does alone,
the report at the end for example."""
SYNC = "forward_sync_buffers"
"""What newer versions of PyTorch call it that buffers are sent around at each step."""


@dataclass(frozen=True)
class Processes:
    """This process among those of the run."""

    rank: int
    count: int
    device: torch.device
    patient: "dist.ProcessGroup | None" = None
    """All of them, for waiting; none where this is the only one."""

    @property
    def first(self) -> bool:
        """Whether this one writes files and speaks."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return the module with gradients averaged over the processes."""
        if self.count == 1:
            return module
        # the buffers (sigma, step sizes) follow from the schedule, alike everywhere
        known = signature(DistributedDataParallel).parameters
        alike: dict[str, Any] = {SYNC if SYNC in known else "broadcast_buffers": False}
        return DistributedDataParallel(module, **alike)

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
            dist.broadcast_object_list(agreed, group=self.patient)
        assert agreed[0] is not None
        return agreed[0]

    def wait(self) -> None:
        """Wait until all are here."""
        if self.count > 1:
            dist.barrier(group=self.patient)


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
    """Join the processes that torchrun started (gloo on CPU, NCCL on GPU), or be the only one.

    Where several end in the block with an InputError, with Interrupted or for want of one of them, the errors of all
    but one are marked as silent. Raises LostProcess where another process has ended, or does not answer in time.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = choose_device(device)
    if count == 1:
        yield Processes(0, 1, chosen)
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    longest = patience()
    store, rank, count = next(rendezvous("env://", timeout=longest))
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=longest)
        patient = dist.new_group(backend="gloo", timeout=PATIENT * longest)
        assert isinstance(patient, dist.ProcessGroup)
        yield Processes(rank, count, chosen, patient)
    except (InputError, KeyboardInterrupt, RuntimeError) as error:
        lost = lost_process(error)
        with finishing():  # torchrun sends SIGTERM as soon as another has ended
            said_once(lost or error, store, rank)
        if lost:
            raise lost from None
        raise
    finally:
        with finishing():
            if dist.is_initialized():
                dist.destroy_process_group()


def patience() -> datetime.timedelta:
    """Return how long a process waits for the others in a step: SHORTRUN_TIMEOUT, in seconds, or 10 minutes."""
    words = os.environ.get("SHORTRUN_TIMEOUT", str(PATIENCE))
    try:
        seconds = float(words)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 1e6:
        raise InputError("SHORTRUN_TIMEOUT", repr(words), "write seconds, 600 for example")
    return datetime.timedelta(seconds=seconds)


def lost_process(error: BaseException, instead: str = "begin again") -> LostProcess | None:
    """Return the error that another process is gone, or does not answer, where the backend's error says that.

    error: any. instead: what to do, for the line.
    """
    if isinstance(error, LostProcess):
        return error
    # gloo raises a plain RuntimeError, with a path of its own sources in it
    if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error)):
        return LostProcess(f"another process of the run has ended or does not answer; {instead}")
    return None


def said_once(error: BaseException, store: Store, rank: int) -> None:
    """Mark the error as silent in all processes but the first that calls this, and let them end with its exit code.

    store: what all processes can write to; it is torchrun's own, and outlives each of them.
    """
    code = error.code if isinstance(error, LostProcess) else 2 if isinstance(error, InputError) else 130
    mine = f"{rank} {code}"
    try:
        store.set_timeout(datetime.timedelta(seconds=5))
        first = store.compare_set("shortrun/said", "", mine).decode()
    except RuntimeError:  # nobody is left to ask
        first = mine
    if isinstance(error, InputError | KeyboardInterrupt | LostProcess):
        error.silent = first != mine  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(error, LostProcess):
        error.code = int(first.split()[1])
