"""Chains whose best step size is known: a linear generator with the exact divergence, and a small network."""

import math

import torch
from torch import Tensor

from shortrun.inference.divergence import follow, named
from shortrun.inference.langevin import LogDensity
from shortrun.inference.tuning import Objective, Settings, Space
from shortrun.model import Gaussian, TopDown, dense_decoder

LATENTS = (1, 3)
D, STEPS = sum(LATENTS), 8
STARTS = (0.001, 0.1, 10.0)
NEAR = math.log(1.1)
"""Distance of two logarithms that are 10% apart."""


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def logs(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).log()


class LinearGaussian:
    """n images x ~ N(W z, sigma^2 I): log p(x, z) is -1/2 z' P z + h' z but for a constant."""

    def __init__(self, n: int, seed: int = 0) -> None:
        w, self.sigma = 0.6 * normal(6, D, seed=seed) * torch.tensor([2.0, 1.0, 1.0, 0.5]), 0.5
        x = normal(n, D, seed=seed + 1) @ w.T + self.sigma * normal(n, 6, seed=seed + 2)
        self.n, self.precision = n, torch.eye(D, dtype=torch.float64) + w.T @ w / self.sigma**2
        self.pull = x @ w / self.sigma**2

    def log_density(self, z: Tensor) -> Tensor:
        return -0.5 * ((z @ self.precision) * z).sum(1) + (z * self.pull).sum(1)

    def exact(self, space: Space) -> Objective:
        """KL(q_s(z | x) || p(z | x)) of each image from the moments of the chain, no draws."""

        def divergence(settings: Settings) -> Tensor:
            gap, covariance = -self.pull @ torch.linalg.inv(self.precision), torch.eye(D, dtype=torch.float64)
            for s in space.sizes(settings, STEPS)[:, 0]:
                a = torch.eye(D, dtype=torch.float64) - (s**2 / 2)[:, None] * self.precision
                gap, covariance = gap @ a.T, a @ covariance @ a.T + torch.diag(s**2)
            square = ((gap @ self.precision) * gap).sum(1)
            constant = (self.precision * covariance).sum() - D - torch.logdet(self.precision @ covariance)
            return 0.5 * (square + constant)

        return divergence

    def estimate(self, space: Space, estimator: str, seed: int) -> Objective:
        """What an estimator says of one chain of each image."""
        return estimate(self.log_density, self.n, D, space, estimator, seed)

    def best(self) -> float:
        """The logarithm of the constant step size of least exact divergence, by a dense scan."""
        scan = torch.linspace(math.log(1e-3), math.log(10), 2000, dtype=torch.float64)
        values = torch.stack([self.exact(Space("one", LATENTS))(at[None]).mean() for at in scan])
        return float(scan[values.nan_to_num(torch.inf).argmin()])


def estimate(log_density: LogDensity, n: int, d: int, space: Space, estimator: str, seed: int) -> Objective:
    z, noise = normal(n, d, seed=seed), normal(STEPS, n, d, seed=seed + 1)

    def objective(settings: Settings) -> Tensor:
        return follow([named(estimator)()], log_density, z, space.sizes(settings, STEPS), noise)[0].kl

    return objective


def network(n: int) -> LogDensity:
    """A generator that bends, and n images of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        decoder = dense_decoder((1, 4, 4), (1, 2), width=16)
        for parameter in decoder.parameters():
            parameter.data.normal_(std=0.28)
    generator = TopDown(decoder.requires_grad_(False), Gaussian(0.3), (1, 2)).double()
    x = generator.decode(normal(n, 3, seed=4)) + 0.3 * normal(n, 1, 4, 4, seed=5)
    return lambda z: generator.log_joint(x, z)
