"""Chains on problems where the dense estimators are exact or cheap: quadratics, and a decoder curved as if trained."""

import torch
from torch import Tensor, nn

from shortrun.inference.divergence import ChainDensity, Estimate, follow

IMAGES, STEPS = 3, 12
SIZES: dict[str, float | Tensor] = {
    "one for all": 0.3,
    "one for each step": torch.linspace(0.4, 0.2, STEPS, dtype=torch.float64)[:, None, None],
    "one for each latent": torch.linspace(0.2, 0.4, 9, dtype=torch.float64),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quadratic(eigenvalues: Tensor, seed: int = 1):
    """Return -1/2 z' P z + h' z for P of these eigenvalues in random directions, the same for all rows."""
    d, rng = len(eigenvalues), seeded(seed)
    turn = torch.linalg.qr(torch.randn(d, d, generator=rng, dtype=torch.float64))[0]
    precision = turn @ torch.diag(eigenvalues.double()) @ turn.T
    pull = torch.randn(d, generator=rng, dtype=torch.float64)
    return lambda z: -0.5 * ((z @ precision) * z).sum(1) + z @ pull


def chain(d: int, steps: int = STEPS, rows: int = IMAGES, seed: int = 2) -> tuple[Tensor, Tensor]:
    rng = seeded(seed)
    z = torch.randn(rows, d, generator=rng, dtype=torch.float64)
    return z, torch.randn(steps, rows, d, generator=rng, dtype=torch.float64)


def estimate(density: ChainDensity, log_density, step_size, z: Tensor, noise: Tensor) -> Estimate:
    return follow([density], log_density, z, step_size, noise)[0]


class Decoder(nn.Module):
    """Much curved in few directions, as a trained one: a layer whose weights decay from one latent to the next."""

    def __init__(self, d: int, pixels: int = 80, hidden: int = 60) -> None:
        super().__init__()
        rng = seeded(5)
        decay = 0.9 ** torch.arange(d, dtype=torch.float64)
        turn = torch.linalg.qr(torch.randn(d, d, generator=rng, dtype=torch.float64))[0]
        self.inner = 0.6 * torch.randn(hidden, d, generator=rng, dtype=torch.float64) * decay @ turn
        self.outer = torch.randn(pixels, hidden, generator=rng, dtype=torch.float64) / hidden**0.5
        self.image = torch.tanh(
            self.outer @ torch.tanh(self.inner @ torch.randn(d, generator=rng, dtype=torch.float64))
        )

    def log_density(self, z: Tensor) -> Tensor:
        residual = self.image - torch.tanh(torch.tanh(z @ self.inner.T) @ self.outer.T)
        return -0.5 * (residual**2).sum(1) / 0.3**2 - 0.5 * (z**2).sum(1)
