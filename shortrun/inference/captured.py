"""A Langevin step that a GPU replays: its kernels are recorded once a chain and launched together from then on."""

import weakref

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.inference.langevin import LogDensity, Step, StepSizes, langevin_step


class CapturedStep:
    """A Langevin step whose kernels are recorded in a CUDA graph at the second step of a chain.

    The host launches a few hundred kernels for a step, which takes it longer than the GPU needs to run them, unless
    the batch is large. A graph is launched at once. The kernels are those of the step that is recorded, and so are the
    numbers. The first step of a chain runs as it is: whatever is set up on first use is set up outside of the graph.

    Steps that are differentiated, those with a step size that is a float, and those on a CPU are not recorded.

    step: what is recorded, `langevin_step` or a `CompiledStep`.

    A step that waits for the host cannot be recorded: PyTorch raises RuntimeError then, at the second step.

    >>> z = torch.ones(1, 1)
    >>> CapturedStep()(lambda z: -(z**2).sum(1) / 2, z, 1.0, torch.zeros(1, 1)).item()
    0.5

    Source: NVIDIA, "CUDA C++ Programming Guide", CUDA Graphs.
    """

    def __init__(self, step: Step = langevin_step) -> None:
        self.step = step
        self._climbed: weakref.ref[LogDensity] | None = None
        self._recorded = False
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._end: Tensor | None = None

    def __call__(
        self, log_density: LogDensity, z: Float[Tensor, "n d"], step_size: StepSizes, noise: Float[Tensor, "n d"]
    ) -> Float[Tensor, "n d"]:
        """Return z + (s^2 / 2) d/dz log_density(z) + s noise, (n, d); the arguments are those of `langevin_step`."""
        if z.device.type != "cuda" or torch.is_grad_enabled() or not isinstance(step_size, Tensor):
            return self.step(log_density, z, step_size, noise)
        if self._climbed is None or self._climbed() is not log_density:
            # a graph reads the memory of the density that it was recorded with
            self._climbed, self._recorded = weakref.ref(log_density), False
            return self.step(log_density, z, step_size, noise)
        if not self._recorded:
            self._record(log_density, z, step_size, noise)
        for place, value in zip(self._inputs, (z, step_size, noise), strict=True):
            place.copy_(value)
        assert self._graph is not None
        assert self._end is not None
        self._graph.replay()
        return self._end.clone()  # the next replay writes there

    def _record(self, log_density: LogDensity, z: Tensor, step_size: Tensor, noise: Tensor) -> None:
        """Record a step of this density."""
        before, self._end = self._graph, None
        self._inputs = tuple(value.clone(memory_format=torch.contiguous_format) for value in (z, step_size, noise))
        graph, now, aside = torch.cuda.CUDAGraph(), torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(now)
        # not torch.cuda.graph: it gives all cached memory back before it records, once an update here
        with torch.cuda.stream(aside):
            # the graph before is kept until then, and its memory with it, which this one takes over
            pool = None if before is None else before.pool()
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")  # pyright: ignore[reportArgumentType]
            try:
                self._end = self.step(log_density, *self._inputs)
            finally:
                graph.capture_end()
        now.wait_stream(aside)
        self._graph, self._recorded = graph, True
