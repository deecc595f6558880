"""A Langevin step that a GPU replays: its kernels are recorded once and launched together from then on."""

import weakref
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.inference.langevin import LogDensity, Step, StepSizes, langevin_step

MOST = 8
"""Recordings that are kept; each has copies of the tensors that its density reads."""


Take = Callable[[Float[Tensor, "n d"], Tensor, Float[Tensor, "n d"]], Float[Tensor, "n d"]]
"""Takes a step from z, the step size and the noise."""


@runtime_checkable
class Relocatable(Protocol):
    """A log-density that is a function of z and of tensors which can be put elsewhere."""

    def movable(self) -> tuple[Hashable, Sequence[Tensor]] | None:
        """Return its kind, and all tensors that it reads which in other chains may be elsewhere or other values.

        Kinds are equal where densities are the same function of z and of their tensors. None where that is not known.
        """
        ...

    def on(self, tensors: Sequence[Tensor], step: Step) -> Take:
        """Return what takes steps of the same function of other tensors; step: takes them."""
        ...

    def __call__(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
        """Return the density's logarithm."""
        ...


class _Recording:
    """The kernels of one step, and the places that they read from and write to."""

    def __init__(self, take: Take, read: Sequence[Tensor] = (), before: "_Recording | None" = None) -> None:
        self.take, self.read = take, read
        self.before = before
        """Another recording, whose memory this one is to use as well; it has to be there until then."""
        self.graph: torch.cuda.CUDAGraph | None = None

    def record(self, inputs: Sequence[Tensor], warm_up: bool) -> None:
        """Record a step; inputs: z, the step size and the noise."""
        self.inputs = [value.clone(memory_format=torch.contiguous_format) for value in inputs]
        pool = None if self.before is None or self.before.graph is None else self.before.graph.pool()
        graph, now, aside = torch.cuda.CUDAGraph(), torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(now)
        # not torch.cuda.graph: it gives all cached memory back before it records
        with torch.cuda.stream(aside):
            if warm_up:  # whatever is set up on first use, which cannot be recorded
                self.take(*self.inputs)
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")  # pyright: ignore[reportArgumentType]
            try:
                self.end = self.take(*self.inputs)
            finally:
                graph.capture_end()
        now.wait_stream(aside)
        self.graph, self.before = graph, None

    def replay(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return where the step from these inputs ends."""
        assert self.graph is not None
        for place, value in zip(self.inputs, inputs, strict=True):
            place.copy_(value)
        self.graph.replay()
        return self.end.clone()  # the next replay writes there


class CapturedStep:
    """A Langevin step whose kernels are recorded in a CUDA graph.

    The host launches a few hundred kernels for a step, which takes it longer than the GPU needs to run them, unless
    the batch is large. A graph is launched at once. The kernels are those of the step that is recorded, and so are the
    numbers.

    A density that is `Relocatable` is recorded once for all chains of its kind: the tensors that it reads are copied to
    where the recording reads them. Any other density is recorded anew for each chain, at its second step. Steps that
    are differentiated, those with a step size that is a float, and those on a CPU are not recorded.

    step: what is recorded, `langevin_step` or a `CompiledStep`.

    A step that waits for the host cannot be recorded: PyTorch raises RuntimeError then.

    >>> z = torch.ones(1, 1)
    >>> CapturedStep()(lambda z: -(z**2).sum(1) / 2, z, 1.0, torch.zeros(1, 1)).item()
    0.5

    Source: NVIDIA, "CUDA C++ Programming Guide", CUDA Graphs.
    """

    def __init__(self, step: Step = langevin_step) -> None:
        self.step = step
        self._climbed: weakref.ref[LogDensity] | None = None
        self._current: _Recording | None = None
        self._kept: dict[Hashable, _Recording] = {}

    def __call__(
        self, log_density: LogDensity, z: Float[Tensor, "n d"], step_size: StepSizes, noise: Float[Tensor, "n d"]
    ) -> Float[Tensor, "n d"]:
        """Return z + (s^2 / 2) d/dz log_density(z) + s noise, (n, d); the arguments are those of `langevin_step`."""
        if not _can_record(z) or torch.is_grad_enabled() or not isinstance(step_size, Tensor):
            return self.step(log_density, z, step_size, noise)
        inputs = (z, step_size, noise)
        if self._climbed is None or self._climbed() is not log_density:
            self._climbed = weakref.ref(log_density)
            movable = log_density.movable() if isinstance(log_density, Relocatable) else None
            if movable is None:
                before = self._current
                if before is not None and before.graph is None:  # of a chain of one step, which was never recorded
                    before = before.before
                self._current = _Recording(partial(self.step, log_density), before=before)
                return self.step(log_density, *inputs)
            assert isinstance(log_density, Relocatable)
            self._current = self._found(log_density, *movable, inputs)
        assert self._current is not None
        if self._current.graph is None:
            self._current.record(inputs, warm_up=False)
        return self._current.replay(inputs)

    def _found(
        self, density: Relocatable, kind: Hashable, tensors: Sequence[Tensor], inputs: Sequence[Tensor]
    ) -> _Recording:
        """Return the recording of a kind of density, with the density's tensors in its places."""
        key = (kind, *((value.shape, value.dtype) for value in (*tensors, *inputs)))
        found = self._kept.get(key)
        if found is not None:
            torch._foreach_copy_([*found.read], [*tensors])  # pyright: ignore[reportPrivateImportUsage]
            return found
        if len(self._kept) == MOST:
            self._kept.clear()
        places = [value.clone() for value in tensors]
        # the same memory for all: what one leaves there is never read after another has run
        found = _Recording(density.on(places, self.step), places, next(iter(self._kept.values()), None))
        found.record(inputs, warm_up=True)
        self._kept[key] = found
        return found


def _can_record(z: Tensor) -> bool:
    return z.device.type == "cuda"


def _pool(recording: _Recording | None) -> tuple[int, int] | None:
    """Return the memory that a recording has, for the next one."""
    return None if recording is None or recording.graph is None else recording.graph.pool()
