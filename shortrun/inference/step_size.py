"""The step sizes of a chain: one number, or one for each layer, and how they decay along the chain."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from shortrun.errors import InputError


class StepSize(nn.Module):
    """The step sizes of a chain for each latent, from one s_0 or one for each layer.

        s_k = s_0 r^(k / (K - 1)),   k = 0..K-1

    Its buffers hold log s_0 and log r: what is positive stays positive however it is tuned, and is part of every
    checkpoint.

    values: s_0, one positive number, or L of them, top down.
    latents: the sizes of the layers, top down, (d_L, ..., d_1).
    decay: r, a positive number, in (0, 1] usually; 1 for a constant step.

    Raises InputError where the values are not positive or do not fit the layers.

    >>> sizes = StepSize((0.2, 0.1), latents=(1, 2), decay=0.5)(steps=3)
    >>> [[round(value, 3) for value in row] for row in sizes[:, 0].tolist()]
    [[0.2, 0.1, 0.1], [0.141, 0.071, 0.071], [0.1, 0.05, 0.05]]
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
        """Set s_0 to a factor times the values given, as a schedule does.

        values: one positive number, or one for each layer, top down.
        factor: a positive number.
        """
        given = torch.as_tensor(values, dtype=self.log_values.dtype, device=self.log_values.device)
        self.log_values.copy_(given.log() + math.log(factor))

    def forward(self, steps: int) -> Float[Tensor, "k 1 d"]:
        """Return the step sizes of a chain, (K, 1, d).

        steps: K, at least 1.
        """
        return step_sizes(self.log_values, self.log_decay, self.latents, steps)


def step_sizes(
    log_values: Float[Tensor, "*n l"], log_decay: Float[Tensor, "*n"], latents: Sequence[int], steps: int
) -> Float[Tensor, "k n d"]:
    """Return s_k = s_0 r^(k / (K - 1)) for each latent, (K, 1, d), or (K, n, d) from settings for each image.

    log_values: log s_0, one or one for each layer, (1 or L,) or (n, 1 or L).
    log_decay: log r, () or (n,).
    latents: the sizes of the layers, top down, (d_L, ..., d_1).
    steps: K, at least 1.
    """
    sizes = torch.tensor(latents, device=log_values.device)
    each = log_values.expand(*log_values.shape[:-1], len(latents)).repeat_interleave(sizes, dim=-1)
    along = torch.linspace(0, 1, steps, dtype=each.dtype, device=each.device) if steps > 1 else each.new_zeros(1)
    return torch.exp(each + log_decay[..., None] * along[:, None, None])
