"""The step sizes of a chain: one number, or one for each layer, and how they decay along the chain."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from shortrun.errors import InputError


class StepSize(nn.Module):
    """s_k = s_0 r^(k / (K - 1)) for each latent, from one s_0 or one for each layer.

    Holds log s_0, so that what is positive stays positive however it is tuned; a buffer, so that it is part of every
    checkpoint. values: one step size, or L of them, top down; latents: the sizes (d_L, ..., d_1); decay: r in (0, 1]
    usually, 1 for a constant step.
    """

    log_values: Tensor
    log_decay: Tensor

    def __init__(self, values: float | Sequence[float], latents: Sequence[int], decay: float = 1.0) -> None:
        super().__init__()
        each = [float(values)] if isinstance(values, int | float) else [float(value) for value in values]
        if len(each) not in (1, len(latents)):
            raise InputError(
                "step_size",
                f"{len(each)} values for {len(latents)} layers",
                "write one, or one for each layer, top down",
            )
        if not all(0 < value < math.inf for value in each):
            raise InputError("step_size", each, "write positive numbers, 0.1 for example")
        if not 0 < decay < math.inf:
            raise InputError("step_decay", decay, "write a positive number, 1 for a constant step")
        self.latents = tuple(latents)
        self.register_buffer("log_values", torch.tensor(each).log())
        self.register_buffer("log_decay", torch.tensor(math.log(decay)))

    @property
    def values(self) -> list[float]:
        """s_0: one number, or one for each layer, top down."""
        return [float(value) for value in self.log_values.exp()]

    @property
    def decay(self) -> float:
        """r: the last step divided by the first."""
        return float(self.log_decay.exp())

    def scale_from(self, values: float | Sequence[float], factor: float) -> None:
        """Set s_0 to `factor` times the values given, as a schedule does."""
        given = torch.as_tensor(values, dtype=self.log_values.dtype, device=self.log_values.device)
        self.log_values.copy_(given.log() + math.log(factor))

    def forward(self, steps: int) -> Float[Tensor, "k 1 d"]:
        """Return the step sizes of a chain of K steps, (K, 1, d)."""
        return step_sizes(self.log_values, self.log_decay, self.latents, steps)


def step_sizes(
    log_values: Float[Tensor, "*n l"], log_decay: Float[Tensor, "*n"], latents: Sequence[int], steps: int
) -> Float[Tensor, "k n d"]:
    """Return s_k = s_0 r^(k / (K - 1)) for each latent, (K, 1, d), or (K, n, d) from settings for each image.

    log_values: log s_0, one or one for each of the layers of sizes `latents`, (1 or L,) or (n, 1 or L); log_decay:
    log r, () or (n,).
    """
    sizes = torch.tensor(latents, device=log_values.device)
    each = log_values.expand(*log_values.shape[:-1], len(latents)).repeat_interleave(sizes, dim=-1)
    along = torch.linspace(0, 1, steps, dtype=each.dtype, device=each.device) if steps > 1 else each.new_zeros(1)
    return torch.exp(each + log_decay[..., None] * along[:, None, None])
