"""How far images are from others pixel by pixel: squared error, signal-to-noise ratio and structural similarity."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from shortrun import pixels
from shortrun.errors import InputError, check_at_least, require_package

WINDOW, SIGMA = 11, 1.5
"""The window of Wang et al. and the standard deviation of its weights, both in pixels."""

SLACK = 1e-3
"""How far a pixel may lie outside [-1, 1]: rounding does that, another range does not."""


def mse(x: Float[Tensor, "n c h w"], y: Float[Tensor, "_ _ _ _"]) -> Float64[Tensor, "n"]:
    """Return the mean squared error of each image, (n,) in [0, 1], over all its pixels and for pixels in [0, 1].

        mean_j ((x_j - y_j) / 2)^2

    x: (n, c, h, w) in [-1, 1], images.
    y: (n, c, h, w) in [-1, 1], image i beside image i of the other.

    Raises InputError for unlike shapes, for no image, and for pixels that are not in [-1, 1].

    >>> mse(torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)).tolist()
    [0.25, 0.25]
    """
    _check(x, y)
    return pixels.mse(x.double(), y.double())


def psnr(x: Float[Tensor, "n c h w"], y: Float[Tensor, "_ _ _ _"]) -> Float64[Tensor, "n"]:
    """Return the peak signal-to-noise ratio of each image in decibels, (n,), 0 or more, infinite for equal images.

        -10 log10 mse(x, y)      (the peak is 1, for pixels in [0, 1])

    A mean of ratios is not the ratio of the mean error: say which one you quote.

    x: (n, c, h, w) in [-1, 1], images.
    y: (n, c, h, w) in [-1, 1], image i beside image i of the other.

    Raises InputError as `mse` does.

    >>> round(psnr(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)).item(), 2)
    6.02
    """
    return -10 * torch.log10(mse(x, y))


def ssim(x: Float[Tensor, "n c h w"], y: Float[Tensor, "_ _ _ _"], batch_size: int = 500) -> Float64[Tensor, "n"]:
    """Return the structural similarity of each image, (n,) in [-1, 1], 1 for equal ones.

        mean over windows and channels of
        (2 m_x m_y + C1) (2 s_xy + C2) / ((m_x^2 + m_y^2 + C1) (s_x^2 + s_y^2 + C2))

    of pixels in [0, 1], with means m, variances s^2 and covariance s_xy under Gaussian weights in the window, C1 =
    0.01^2 and C2 = 0.03^2. The range matters: m_x m_y is another number for pixels in [-1, 1]. The window is the
    largest odd one of at most 11 pixels that the image holds. The standard deviation of its weights shrinks with it: 11
    and 1.5 as in the paper from 11x11 pixels on, 7 and 0.9 for 8x8. So compare only images of the same size. Only
    windows that lie inside the image count, as in the paper.
    Needs the extra shortrun[metrics].

    x: (n, c, h, w) in [-1, 1], images of at least 3x3 pixels.
    y: (n, c, h, w) in [-1, 1], image i beside image i of the other.
    batch_size: at least 1, images at a time.

    Raises InputError without the extra, for images below 3x3, and as `mse` does.

    >>> x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> [round(value, 6) for value in ssim(x, x).tolist()]
    [1.0, 1.0]

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004, IEEE
    Transactions on Image Processing 13(4).
    """
    require_package("torchmetrics", "metrics")
    from torchmetrics.functional.image import structural_similarity_index_measure

    _check(x, y)
    check_at_least(1, batch_size=batch_size)
    least = min(WINDOW, *x.shape[2:])
    border = (least - 1) // 2
    if border < 1:
        raise InputError("x", f"images of {list(x.shape[2:])} pixels", "a window needs at least 3x3")
    # torchmetrics takes no size for a Gaussian window, but makes it of 2 int(3.5 sigma + 0.5) + 1 pixels: this sigma
    # gives the wanted size, 2 border + 1, for each border from 1 to 5
    sigma = SIGMA * 2 * border / (WINDOW - 1)
    found = []
    for part, other in zip(_unit(x).split(batch_size), _unit(y).split(batch_size), strict=True):
        # its own mean counts windows over the border in some versions and not in others: here the mean is taken of
        # its map
        _, places = structural_similarity_index_measure(
            part, other, sigma=sigma, reduction="none", data_range=1.0, return_full_image=True
        )
        found.append(places[..., border:-border, border:-border].flatten(1).mean(1))
    return torch.cat(found)


def _unit(x: Tensor) -> Tensor:
    return (x.double() + 1) / 2


def _check(x: Tensor, y: Tensor) -> None:
    if x.shape != y.shape:
        raise InputError("y", f"images of {list(y.shape)}, but x has {list(x.shape)}", "write pairs of equal shape")
    if not x.numel():
        raise InputError("x", f"images of {list(x.shape)}", "write at least one")
    for name, images in (("x", x), ("y", y)):
        low, high = (float(end) for end in images.aminmax())
        if not (low >= -1 - SLACK and high <= 1 + SLACK):
            raise InputError(name, f"pixels from {low:.4g} to {high:.4g}", "write images in [-1, 1]")
