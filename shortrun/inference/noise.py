"""Standard normal numbers from one explicit generator, drawn when it is their turn."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor


class DrawnNoise:
    """The noise of a chain, K matrices (n, d) drawn one by one, so that a long chain takes no memory for it.

    Numbers are drawn on the generator's device. The numbers of the whole batch are drawn and those of this part are
    kept, so that m processes with equal generators draw what one process would.

    rng: gives the random numbers.
    steps: K.
    size: (n, d).
    part: (i, m), these n images are the i-th of m equal parts of a batch.
    device: where the matrices are put.
    dtype: of the numbers.

    >>> noise = DrawnNoise(torch.Generator().manual_seed(0), steps=3, size=(2, 5))
    >>> len(noise), [tuple(each.shape) for each in noise]
    (3, [(2, 5), (2, 5), (2, 5)])
    """

    def __init__(
        self,
        rng: torch.Generator,
        steps: int,
        size: tuple[int, int],
        part: tuple[int, int] = (0, 1),
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.rng, self.steps, self.size, self.part, self.device, self.dtype = rng, steps, size, part, device, dtype

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Tensor]:
        for _ in range(self.steps):
            yield self.draw()

    def draw(self) -> Float[Tensor, "n d"]:
        """Draw the next matrix (n, d)."""
        n, d = self.size
        kind = {"device": self.rng.device, "dtype": self.dtype}
        return self._own(torch.randn(n * self.part[1], d, generator=self.rng, **kind))

    def uniform(self) -> Float[Tensor, "n"]:
        """Draw one number in [0, 1) for each image, in the same way."""
        kind = {"device": self.rng.device, "dtype": self.dtype}
        return self._own(torch.rand(self.size[0] * self.part[1], generator=self.rng, **kind))

    def _own(self, whole: Tensor) -> Tensor:
        """Return the rows of this part of the batch."""
        n, index = self.size[0], self.part[0]
        return whole[index * n : (index + 1) * n].to(self.device)
