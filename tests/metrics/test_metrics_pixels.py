import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from shortrun.errors import InputError
from shortrun.metrics.pixels import mse, psnr, ssim


def images(seed: int, n: int = 3, c: int = 1, h: int = 8, w: int = 8) -> Tensor:
    return torch.rand(n, c, h, w, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_errors_by_hand() -> None:
    x = torch.zeros(3, 1, 2, 2)
    y = x.clone()
    y[1] = 1.0  # half of the range at each pixel
    y[2, 0, 0, 0] = -1.0  # half of it at one of four
    assert mse(x, y).tolist() == [0, 0.25, 0.0625]
    assert psnr(x, y).tolist() == [math.inf, pytest.approx(6.0206, abs=1e-4), pytest.approx(12.0412, abs=1e-4)]
    assert mse(torch.ones(1, 3, 4, 5), -torch.ones(1, 3, 4, 5)).tolist() == [1]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 3), st.integers(3, 20), st.integers(3, 20))
def test_each_image_is_measured_as_skimage_does(seed: int, c: int, h: int, w: int) -> None:
    x, y = images(seed, 4, c, h, w), images(seed + 1, 4, c, h, w)
    y = (0.7 * x + 0.3 * y).clamp(-1, 1)
    radius = (min(11, h, w) - 1) // 2
    for i in range(4):
        a, b = ((each[i].double().numpy() + 1) / 2 for each in (x, y))
        found = structural_similarity(
            a, b, channel_axis=0, gaussian_weights=True, sigma=0.3 * radius, use_sample_covariance=False, data_range=1
        )
        assert ssim(x, y)[i].item() == pytest.approx(float(found), abs=1e-9)  # type: ignore[arg-type]
        assert psnr(x, y)[i].item() == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1), abs=1e-9)


def test_the_similarity_of_even_images_is_that_of_their_means() -> None:
    # greys of 0.75 and 0.375 of pixels in [0, 1]
    x, y = torch.full((1, 1, 8, 8), 0.5), torch.full((1, 1, 8, 8), -0.25)
    c1 = 0.01**2
    assert ssim(x, y).item() == pytest.approx((2 * 0.75 * 0.375 + c1) / (0.75**2 + 0.375**2 + c1), abs=1e-9)
    # on either side of the middle grey, and all but alike
    assert ssim(torch.full((1, 1, 8, 8), 0.05), torch.full((1, 1, 8, 8), -0.05)).item() > 0.994


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.integers(1, 7))
def test_similarity_is_symmetric_bounded_and_free_of_batches(seed: int, batch_size: int) -> None:
    x, y = images(seed, 5), images(seed + 1, 5)
    found = ssim(x, y)
    assert found.dtype == torch.float64
    assert found.abs().max() <= 1
    assert torch.equal(found, ssim(x, y, batch_size))
    assert torch.allclose(found, ssim(y, x), atol=1e-12)
    assert torch.allclose(ssim(x, x), torch.ones(5, dtype=torch.float64), atol=1e-12)


def test_the_border_does_not_count() -> None:
    """Windows lie inside: 11x11 pixels hold one, whose weight of a corner is next to nothing."""
    x = images(0, 1, 1, 11, 11)
    y = x.clone()
    y[0, 0, 0, 0] = -y[0, 0, 0, 0]
    z = x.clone()
    z[0, 0, 5, 5] = -z[0, 0, 5, 5]
    assert 1 - ssim(x, y).item() < 1e-3 < 1 - ssim(x, z).item()


def test_what_cannot_be_measured_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    x = images(0)
    for measure in (mse, psnr, ssim):
        with pytest.raises(InputError, match=r"y: got images of \[2, 1, 8, 8\]"):
            measure(x, x[:2])
        with pytest.raises(InputError, match=r"x: got images of .*at least one"):
            measure(x[:0], x[:0])
        with pytest.raises(InputError, match=r"y: got pixels from 0 to 255; write images in \[-1, 1\]"):
            measure(x, torch.linspace(0, 255, 192).view(3, 1, 8, 8))
        with pytest.raises(InputError, match="y: got pixels from nan to nan"):
            measure(x, x * math.nan)
    with pytest.raises(InputError, match=r"x: got images of \[2, 8\] pixels"):
        ssim(x[:, :, :2], x[:, :, :2])
    with pytest.raises(InputError, match="batch_size: got 0"):
        ssim(x, x, 0)
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(InputError, match=r"torchmetrics: not installed; pip install 'shortrun\[metrics\]'"):
        ssim(x, x)
