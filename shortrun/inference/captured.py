"""A Langevin step that a GPU replays: its kernels are recorded once and launched together from then on."""

import weakref
from collections.abc import Hashable, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.inference.langevin import LogDensity, Step, StepSizes, langevin_step

MOST = 8
"""Recordings that are kept; each has copies of the tensors that its density reads."""


@runtime_checkable
class Relocatable(Protocol):
    """A log-density that is a function of z and of tensors which can be put elsewhere."""

    @property
    def kind(self) -> Hashable:
        """Equal for densities that are the same function of z and of their tensors; None where that is not known."""
        ...

    @property
    def tensors(self) -> Sequence[Tensor]:
        """All that it reads and that may lie elsewhere, or be another value, in the next chain."""
        ...

    def on(self, tensors: Sequence[Tensor]) -> LogDensity:
        """Return the same function of other tensors."""
        ...

    def __call__(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
        """Return the density's logarithm."""
        ...


class _Recording:
    """The kernels of one step, and the places that they read from and write to."""

    def __init__(self, step: Step, density: LogDensity, read: Sequence[Tensor], pool: tuple[int, int] | None) -> None:
        self.step, self.density, self.read, self.pool = step, density, read, pool
        self.graph: torch.cuda.CUDAGraph | None = None

    def record(self, inputs: Sequence[Tensor], warm_up: bool) -> None:
        """Record a step; inputs: z, the step size and the noise."""
        self.inputs = [value.clone(memory_format=torch.contiguous_format) for value in inputs]
        graph, now, aside = torch.cuda.CUDAGraph(), torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(now)
        # not torch.cuda.graph: it gives all cached memory back before it records
        with torch.cuda.stream(aside):
            if warm_up:  # whatever is set up on first use, which cannot be recorded
                self.step(self.density, *self.inputs)
            graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")  # pyright: ignore[reportArgumentType]
            try:
                self.end = self.step(self.density, *self.inputs)
            finally:
                graph.capture_end()
        now.wait_stream(aside)
        self.graph = graph

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
            if not isinstance(log_density, Relocatable) or log_density.kind is None:
                # the graph before is kept until the next is recorded, which takes its memory over
                self._current = _Recording(self.step, log_density, (), _pool(self._current))
                return self.step(log_density, *inputs)
            self._current = self._found(log_density, inputs)
        assert self._current is not None
        if self._current.graph is None:
            self._current.record(inputs, warm_up=False)
        return self._current.replay(inputs)

    def _found(self, density: Relocatable, inputs: Sequence[Tensor]) -> _Recording:
        """Return the recording of the kind of a density, with the density's tensors in its places."""
        tensors = density.tensors
        key = (density.kind, *((value.shape, value.dtype) for value in (*tensors, *inputs)))
        if key not in self._kept:
            if len(self._kept) == MOST:
                self._kept.clear()
            places = [value.clone() for value in tensors]
            # the same memory for all: what one leaves there is never read after another has run
            before = next(iter(self._kept.values()), None)
            recording = _Recording(self.step, density.on(places), places, _pool(before))
            recording.record(inputs, warm_up=True)
            self._kept[key] = recording
        else:
            torch._foreach_copy_([*self._kept[key].read], [*tensors])  # pyright: ignore[reportPrivateImportUsage]
        return self._kept[key]


def _can_record(z: Tensor) -> bool:
    return z.device.type == "cuda"


def _pool(recording: _Recording | None) -> tuple[int, int] | None:
    """Return the memory that a recording has, for the next one."""
    return None if recording is None or recording.graph is None else recording.graph.pool()
