"""The regression carried over to measurements, against closed forms in float64."""

import pytest
import torch
from torch import Tensor

from shortrun.inference import Regression
from shortrun.inference.curvature import largest_curvature
from shortrun.inference.measured_start import MeasuredRegression, detail_of

N = 60_000


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear_setting(pixels: int, d: int, s: float) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, latents and images x = W z + s noise, float64."""
    weights = torch.randn(pixels, d, generator=rng(1)).double() / pixels**0.5
    z = torch.randn(N, d, generator=rng(2)).double()
    return weights, z, z @ weights.T + s * torch.randn(N, pixels, generator=rng(3)).double()


def exact(weights: Tensor, a: Tensor, s: float, sigma: float) -> tuple[Tensor, Tensor]:
    """Return the matrix that takes y to E[z | y], and the covariance of z given y."""
    aw = a @ weights
    inner = torch.linalg.inv(aw @ aw.T + s**2 * a @ a.T + sigma**2 * torch.eye(len(a)).double())
    return inner @ aw, torch.eye(weights.shape[1]).double() - aw.T @ inner @ aw


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("measured", [3, 6, 9])
@pytest.mark.parametrize("many", [False, True])
def test_it_is_the_posterior_of_the_linear_gaussian_model(
    groups: int, measured: int, many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    s, sigma = 0.3, 0.5
    shape = (2, 1, 6) if groups == 2 else (1, 2, 6)
    weights, z, x = linear_setting(12, 4, s)
    images = Regression(shape, 4).double()
    images.learn(images.features(x.reshape(N, *shape).float()).double(), z)
    matrix = torch.randn(measured, 12 // groups, generator=rng(4)).double()
    if many:  # as many numbers that the pooled A^T y stands in for them
        monkeypatch.setattr("shortrun.inference.measured_start.MOST", 1)
    a = torch.block_diag(*[matrix] * groups)
    regression = MeasuredRegression(images, matrix, groups, sigma)
    y = torch.randn(5, len(a), generator=rng(5)).double()
    starts = regression.starts(y.reshape(5, groups, measured, 1))
    means, covariance = exact(weights, a, s, sigma)
    torch.testing.assert_close(starts.means, y @ means, atol=0.05, rtol=0.03)
    torch.testing.assert_close(starts.roots[0] @ starts.roots[0].T, covariance, atol=0.02, rtol=0.02)


def test_where_images_are_pooled_their_details_count_as_noise() -> None:
    """Latents that squares of pixels alone tell of, and details that are white: exact again."""
    sigma, detail = 0.2, 0.4
    images = Regression((1, 4, 4), 2, most=4).double()
    assert images.pool == 2
    squares = torch.randn(4, 2, generator=rng(1)).double()
    z = torch.randn(N, 2, generator=rng(2)).double()
    up = torch.zeros(16, 4).double()
    for pixel in range(16):
        up[pixel, 2 * (pixel // 8) + pixel % 4 // 2] = 1
    white = torch.randn(N, 16, generator=rng(3)).double()
    own = 0.3 * torch.randn(N, 4, generator=rng(6)).double()
    x = (z @ squares.T + own) @ up.T + detail * (white - white @ up @ up.T / 4)
    images.learn(images.features(x.reshape(N, 1, 4, 4).float()).double(), z)
    assert detail_of(images, x[:2000].reshape(-1, 1, 4, 4)) == pytest.approx(detail, rel=0.02)
    matrix = torch.randn(7, 16, generator=rng(4)).double()
    regression = MeasuredRegression(images, matrix, 1, sigma, detail)
    noise = detail**2 * (torch.eye(16).double() - up @ up.T / 4) + 0.09 * up @ up.T
    inner = matrix @ (up @ squares @ squares.T @ up.T + noise) @ matrix.T + sigma**2 * torch.eye(7).double()
    y = torch.randn(5, 7, generator=rng(5)).double()
    means = y @ torch.linalg.solve(inner, matrix @ up @ squares)
    torch.testing.assert_close(regression.starts(y.reshape(5, 1, 7, 1)).means, means, atol=0.03, rtol=0.03)


def test_the_largest_curvature_is_that_of_the_hessian() -> None:
    root = torch.randn(3, 6, 6, generator=rng(7))
    precision = root @ root.mT

    def log_density(z: Tensor) -> Tensor:
        return -0.5 * torch.einsum("ni,nij,nj->n", z, precision, z)

    z, direction = torch.randn(2, 3, 6, generator=rng(8))
    found = largest_curvature(log_density, z, direction, rounds=200)
    torch.testing.assert_close(found, torch.linalg.eigvalsh(precision)[:, -1], rtol=1e-3, atol=1e-3)
