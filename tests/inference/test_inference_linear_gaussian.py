"""x ~ N(W z + b, sigma^2 I): the posterior and every step of a chain are Gaussian, with moments in closed form."""

import math

import pytest
import torch
from torch import Tensor, nn

from shortrun.inference import DrawnNoise, StepSize, no_noise, short_run
from shortrun.model import Gaussian, TopDown

LATENTS, PIXELS, SIGMA = (1, 2), 5, 0.6


class Linear(nn.Module):
    def __init__(self, rng: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.7 * torch.randn(PIXELS, sum(LATENTS), generator=rng, dtype=torch.float64))
        self.bias = nn.Parameter(torch.randn(PIXELS, generator=rng, dtype=torch.float64))

    def forward(self, *z: Tensor) -> Tensor:
        return (torch.cat(z, dim=1) @ self.weight.T + self.bias)[:, None, None, :]


class Problem:
    """A linear generator, one image, a mask, and -1/2 z' P z + h' z, which is log p(x, z) but for a constant."""

    def __init__(self, mask: list[float] | None) -> None:
        rng = torch.Generator().manual_seed(3)
        decoder = Linear(rng)
        likelihood = Gaussian(SIGMA).double()
        self.generator = TopDown(decoder, likelihood, LATENTS)
        self.x = torch.randn(1, 1, 1, PIXELS, generator=rng, dtype=torch.float64)
        self.mask = None if mask is None else torch.tensor(mask, dtype=torch.float64)[None, None, None]
        seen = torch.tensor([i for i in range(PIXELS) if mask is None or mask[i] == 1], dtype=torch.long)
        w = decoder.weight.detach()[seen]
        residual = (self.x.flatten() - decoder.bias.detach())[seen]
        variance = likelihood.sigma.item() ** 2
        self.precision = torch.eye(self.generator.dim, dtype=torch.float64) + w.T @ w / variance
        self.pull = w.T @ residual / variance

    def log_density(self, z: Tensor) -> Tensor:
        return self.generator.log_joint(self.x.expand(len(z), -1, -1, -1), z, self.mask)

    def posterior(self) -> tuple[Tensor, Tensor]:
        return torch.linalg.solve(self.precision, self.pull), torch.linalg.inv(self.precision)

    def moments(self, step_size: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and covariance of z_K, z_{k+1} = A_k z_k + (s_k^2 / 2) h + s_k eps_k, z_0 ~ N(0, I)."""
        d = self.generator.dim
        identity = torch.eye(d, dtype=torch.float64)
        mean, covariance = torch.zeros(d, dtype=torch.float64), identity
        for s in step_size[:, 0].double():
            a = identity - (s**2 / 2)[:, None] * self.precision
            mean, covariance = a @ mean + s**2 / 2 * self.pull, a @ covariance @ a.T + torch.diag(s**2)
        return mean, covariance


def run(problem: Problem, step_size: Tensor, rows: int, seed: int = 0, noisy: bool = True) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    noise = DrawnNoise(rng, len(step_size), (rows, problem.generator.dim))
    z = noise.draw().double()
    with torch.no_grad():
        return short_run(problem.log_density, z, step_size, noise if noisy else no_noise(len(step_size), z))


def assert_moments(z: Tensor, mean: Tensor, covariance: Tensor, bias: float = 0.0) -> None:
    """Hold the moments of rows to 4.5 standard errors, and a share `bias` of the standard deviation or variance."""
    n, variance = len(z), covariance.diagonal()
    assert ((z.mean(0) - mean).abs() <= 4.5 * (variance / n).sqrt() + bias * variance.sqrt()).all()
    scale = torch.outer(variance, variance)
    error = ((scale + covariance**2) / n).sqrt()
    assert ((torch.cov(z.T) - covariance).abs() <= 4.5 * error + bias * scale.sqrt()).all()


MASKS = {
    "whole image": None,
    "some pixels": [1.0, 0.0, 1.0, 0.0, 0.0],
    "one pixel": [0.0, 0.0, 0.0, 0.0, 1.0],
    "no pixel": [0.0] * PIXELS,
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize(
    "chosen", [StepSize(0.3, LATENTS), StepSize(0.5, LATENTS, 0.2), StepSize((0.6, 0.2), LATENTS)], ids=str
)
@pytest.mark.parametrize("steps", [1, 2, 5, 12, 25])
def test_a_short_chain_has_the_moments_of_its_recursion(mask: list[float] | None, chosen: StepSize, steps: int) -> None:
    problem = Problem(mask)
    step_size = chosen.double()(steps)
    mean, covariance = problem.moments(step_size)
    z = run(problem, step_size, rows=20_000)
    assert_moments(z, mean, covariance)
    skewness = (((z - mean) / covariance.diagonal().sqrt()) ** 3).mean(0)
    assert (skewness.abs() < 5 * math.sqrt(15 / len(z))).all()


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_a_long_chain_has_the_moments_of_the_posterior(mask: list[float] | None) -> None:
    problem = Problem(mask)
    # long steps forget the start, short ones leave a bias below 1%: lambda s^2 / 4 for curvature lambda
    step_size = torch.cat([torch.full((100, 1, 1), 0.3), torch.full((600, 1, 1), 0.07)]).expand(-1, 1, 3).double()
    assert torch.linalg.eigvalsh(problem.precision).max() * 0.07**2 / 4 < 0.02
    z = run(problem, step_size, rows=10_000)
    assert_moments(z, *problem.posterior(), bias=0.02)


def test_masked_posteriors_differ() -> None:
    """Else the tests above could pass with a mask that is ignored."""
    whole = Problem(None).posterior()
    assert (Problem(MASKS["some pixels"]).posterior()[0] - whole[0]).abs().max() > 0.1
    prior = Problem(MASKS["no pixel"]).posterior()
    torch.testing.assert_close(prior, (torch.zeros(3).double(), torch.eye(3).double()))


def test_log_joint_is_the_quadratic() -> None:
    problem = Problem(MASKS["some pixels"])
    z = torch.randn(7, 3).double()
    quadratic = -0.5 * (z @ problem.precision * z).sum(1) + z @ problem.pull
    gap = problem.log_density(z) - quadratic
    torch.testing.assert_close(gap, gap[:1].expand(7))


def test_without_noise_the_chain_ends_at_the_mode() -> None:
    problem = Problem(None)
    z = run(problem, torch.full((400, 1, 3), 0.4).double(), rows=5, noisy=False)
    torch.testing.assert_close(z, problem.posterior()[0].expand(5, -1))
