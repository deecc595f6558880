"""p(y | z) of measurements with the image integrated out, against the multivariate normal in float64."""

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from shortrun.model import Gaussian
from shortrun.model.linear_map import LinearMap
from shortrun.model.measured import Measured

S, SIGMA, SHAPE = 0.3, 0.2, (2, 3, 4)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixing(x: Tensor) -> Tensor:
    """Return running sums along rows: its noise is correlated."""
    return x.cumsum(3) / 4


def halves(x: Tensor) -> Tensor:
    """Return means of pairs: A A^T is diagonal."""
    return (x[..., ::2] + x[..., 1::2]) / 2


def across(x: Tensor) -> Tensor:
    """Return what no channel gives alone."""
    return x.mean(1) + x[:, 0]


@pytest.mark.parametrize(("operator", "diagonal"), [(mixing, False), (halves, True), (across, True)])
def test_density_and_image_given_measurements_are_exact(operator, diagonal: bool) -> None:
    linear = LinearMap(operator, SHAPE)
    measured = Measured(linear, SIGMA, Gaussian(S))
    assert measured.diagonal == diagonal
    assert linear.groups == (1 if operator is across else 2)
    g, x = torch.randn(2, 5, *SHAPE, generator=rng())
    y = linear(x)
    a = torch.block_diag(*[linear.matrix] * linear.groups).double()
    v = S**2 * a @ a.T + SIGMA**2 * torch.eye(len(a)).double()
    flat, means = y.flatten(1).double(), g.flatten(1).double() @ a.T
    expected = MultivariateNormal(means, v).log_prob(flat)
    torch.testing.assert_close(measured.log_prob(y, g).double(), expected, rtol=1e-4, atol=1e-3)
    pairs = MultivariateNormal(means[None], v).log_prob(flat[:, None])
    torch.testing.assert_close(measured.log_prob_pairs(y, g).double(), pairs, rtol=1e-4, atol=1e-3)
    gain = S**2 * a.T @ torch.linalg.inv(v)
    image = g.flatten(1).double() + (flat - means) @ gain.T
    torch.testing.assert_close(measured.expected(y, g).flatten(1).double(), image, rtol=1e-4, atol=1e-4)
    left = (S**2 * (1 - (gain * a.T).sum(1))).sqrt()
    torch.testing.assert_close(measured.open_deviation().flatten().double(), left, rtol=1e-4, atol=1e-4)


def test_draws_of_measurements_have_its_mean_and_covariance() -> None:
    linear = LinearMap(mixing, (1, 1, 4))
    measured = Measured(linear, SIGMA, Gaussian(S))
    decoded = torch.tensor([0.1, -0.2, 0.3, 0.0]).reshape(1, 1, 1, 4).expand(40_000, -1, -1, -1)
    y = measured.sample(decoded, rng()).flatten(1)
    torch.testing.assert_close(y.mean(0), measured.mean(decoded[:1]).flatten(), atol=0.01, rtol=0)
    a = linear.matrix
    torch.testing.assert_close(torch.cov(y.T), S**2 * a @ a.T + SIGMA**2 * torch.eye(4), atol=0.005, rtol=0.03)
