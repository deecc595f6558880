import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from torch import Tensor, nn

from shortrun.errors import InputError
from shortrun.metrics import frechet_distance


def gaussian_images(n: int, seed: int, spread: Tensor | None = None, mean: float = 0.0) -> Tensor:
    z = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (mean + (z if spread is None else z @ spread)).view(n, 1, 2, 3)


def whitened(n: int, seed: int) -> Tensor:
    """Return images whose pixels have exactly the mean 0 and the covariance I."""
    z = gaussian_images(n, seed).flatten(1)
    z = z - z.mean(0)
    return z @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(z.T))).T


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.integers(2, 40))
def test_equal_sets_are_at_no_distance(seed: int, n: int) -> None:
    x = gaussian_images(n, seed).float()
    assert 0 <= frechet_distance(nn.Flatten(), x, x) < 1e-5
    assert frechet_distance(nn.Flatten(), x, x.flip(0), batch_size=7) < 1e-5


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.floats(-3.0, 3.0), st.floats(0.1, 3.0))
def test_shifted_and_stretched_gaussians_have_the_closed_form(seed: int, shift: float, scale: float) -> None:
    real, made = whitened(50, seed), shift + scale * whitened(40, seed + 1)
    found = frechet_distance(nn.Flatten(), real.view(-1, 1, 2, 3), made.view(-1, 1, 2, 3))
    assert found == pytest.approx(6 * shift**2 + 6 * (1 - scale) ** 2, abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 17, 500])
def test_the_distance_is_that_of_scipys_matrix_root(batch_size: int) -> None:
    rng = torch.Generator().manual_seed(2)
    spreads = [torch.randn(6, 6, generator=rng, dtype=torch.float64) for _ in range(2)]
    real, made = gaussian_images(60, 3, spreads[0]), gaussian_images(45, 4, spreads[1], mean=0.3)
    a, b = (np.cov(x.flatten(1).numpy(), rowvar=False) for x in (real, made))
    between = (real.mean(0) - made.mean(0)).square().sum().item()
    wanted = between + np.trace(a + b - 2 * np.real(sqrtm(a @ b)))
    assert frechet_distance(nn.Flatten(), real, made, batch_size) == pytest.approx(wanted, rel=1e-9)


def test_float32_features_lose_no_small_distance() -> None:
    """Else 1e-4 on top of features near 30 would drown in the rounding of float32."""
    x = gaussian_images(200, 0).float()
    assert frechet_distance(nn.Flatten(), x + 32, x + 32 + 2**-8) == pytest.approx(6 * 2**-16, rel=1e-3)


def test_what_cannot_be_measured_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    x = gaussian_images(5, 0)
    with pytest.raises(InputError, match="made: got 1 images"):
        frechet_distance(nn.Flatten(), x, x[:1])
    with pytest.raises(InputError, match=r"made: images of \[1, 3, 2\]"):
        frechet_distance(nn.Flatten(), x, x.transpose(2, 3))
    with pytest.raises(InputError, match="made: some features are not finite"):
        frechet_distance(nn.Flatten(), x, x * math.nan)
    with pytest.raises(InputError, match="batch_size: got 0"):
        frechet_distance(nn.Flatten(), x, x, 0)
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(InputError, match=r"torchmetrics: not installed; pip install 'shortrun\[metrics\]'"):
        frechet_distance(nn.Flatten(), x, x)
