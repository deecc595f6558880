"""How images are degraded, and what restores them without a learned model: bicubic, Wiener, total variation."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from shortrun.errors import InputError
from shortrun.evaluation.tables import listed
from shortrun.metrics.pixels import mse, psnr, ssim
from shortrun.model.likelihood import Images
from shortrun.model.linear_map import Operator
from shortrun.tasks import operators

Given = Float[Tensor, "n c rows columns"]
"""What is left of images: as large, or smaller."""
Restorer = Callable[[Tensor], Tensor]
"""What was given -> whole images."""
WEIGHTS = (0.003, 0.01, 0.03, 0.06, 0.1, 0.2)
"""Of the total variation, from which the one that restores the training images best is taken."""
BALANCES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 0.03, 0.1)
"""Of the Wiener filter, in the same way."""


@dataclass(frozen=True)
class Degradation:
    """What became of images: a blur, if any, then means of squares, then noise."""

    blur: float | None
    """Its width in pixels; None for no blur."""
    factor: int
    """Pixels of a side of the squares; 1 for none."""
    sigma: float
    """Standard deviation of the noise, of pixels in [-1, 1]."""

    @property
    def operator(self) -> Operator:
        """What was done to the images before noise was added."""
        blurred = [] if self.blur is None else [operators.blur(self.blur)]
        return operators.chained(*blurred, operators.downsample(self.factor))

    @property
    def words(self) -> str:
        """What it is, in words; the noise in pixels of [0, 1]."""
        parts = {} if self.blur is None else {"blur": self.blur}
        if self.factor > 1:
            parts["downsample"] = self.factor
        return listed({**parts, "noise": self.sigma / 2})

    def shape(self, whole: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the shape of degraded images; raise InputError where it cannot be applied to whole ones.

        whole: (c, h, w).
        """
        if not 0 < self.sigma < float("inf"):
            raise InputError("sigma", self.sigma / 2, "write a positive number, the standard deviation of the noise")
        c, h, w = self.operator(torch.zeros(1, *whole)).shape[1:]
        return c, h, w

    def applied(self, x: Images, rng: torch.Generator) -> Given:
        """Return degraded images.

        x: (n, c, h, w) in [-1, 1].
        rng: gives the noise.
        """
        y = self.operator(x)
        return y + self.sigma * torch.randn(y.shape, generator=rng)


def scores(made: Images, x: Images) -> dict[str, float]:
    """Return MSE, mean PSNR and, where torchmetrics is installed, mean SSIM of restored images.

    made: (n, c, h, w) in [-1, 1].
    x: (n, c, h, w) in [-1, 1], the true ones.
    """
    found = {"MSE": float(mse(made, x).mean()), "PSNR": float(psnr(made, x).mean())}
    if importlib.util.find_spec("torchmetrics") is not None:
        found["SSIM"] = float(ssim(made, x).mean())
    return found


def enlarged(y: Given, size: Sequence[int]) -> Images:
    """Return images in a larger size, bicubic, within [-1, 1]; those that have it are only cut.

    y: (n, c, h, w).
    size: height and width.
    """
    if tuple(y.shape[2:]) != tuple(size):
        y = functional.interpolate(y, size=tuple(size), mode="bicubic", align_corners=False)
    return y.clamp(-1, 1)


def wiener(y: Images, width: float | None, balance: float) -> Images:
    """Return images without a blur and with less noise, by scikit-image's Wiener filter, within [-1, 1].

    Images go on as their reflections beyond the border, as `operators.blur` has it.

    y: (n, c, h, w).
    width: of the blur; None for none.
    balance: a positive number, larger for smoother images.

    Source: Orieux, Giovannelli, Rodet, "Bayesian estimation of regularization and point spread function parameters for
    Wiener-Hunt deconvolution", 2010, J. Opt. Soc. Am. A 27(7).
    """
    from skimage.restoration import wiener as filtered

    reach = 1 if width is None else int(np.ceil(operators.REACH * width))
    reach = min(reach, y.shape[2] - 1, y.shape[3] - 1)
    offsets = np.arange(-reach, reach + 1)
    line = (offsets == 0).astype(float) if width is None else np.exp(-0.5 * (offsets / width) ** 2)
    psf = np.outer(line, line) / line.sum() ** 2
    padded = functional.pad(y, (reach,) * 4, mode="reflect").double().flatten(0, 1)
    planes = [np.asarray(filtered((plane.numpy() + 1) / 2, psf, balance, clip=False)) for plane in padded]
    inner = torch.from_numpy(np.stack(planes))[:, reach : reach + y.shape[2], reach : reach + y.shape[3]]
    return (2 * inner - 1).clamp(-1, 1).reshape(y.shape).to(y)


def total_variation(y: Images, weight: float) -> Images:
    """Return images with less noise, by scikit-image's total variation denoising, within [-1, 1].

    y: (n, c, h, w).
    weight: a positive number, larger for smoother images.

    Source: Chambolle, "An Algorithm for Total Variation Minimization and Applications", 2004, J. Math. Imaging and
    Vision 20.
    """
    from skimage.restoration import denoise_tv_chambolle

    images = [denoise_tv_chambolle((image.double().numpy() + 1) / 2, weight, channel_axis=0) for image in y]
    return (2 * torch.from_numpy(np.stack(images)) - 1).clamp(-1, 1).to(y)


def unlearned(made_by: Degradation, train: Images) -> dict[str, Restorer]:
    """Return the methods of scikit-image that are for a degradation, by name; none where it is not installed.

    made_by: the degradation.
    train: whole images, on which the weights of the methods are chosen.
    """
    if importlib.util.find_spec("skimage") is None:
        return {}
    found: dict[str, Restorer] = {}
    if made_by.factor == 1:
        found["Wiener"] = tuned(lambda y, balance: wiener(y, made_by.blur, balance), BALANCES, made_by, train)
    sharp = found["Wiener"] if made_by.blur is not None and made_by.factor == 1 else None

    def smoothed(y: Given, weight: float) -> Images:
        size = [side * made_by.factor for side in y.shape[2:]]
        return total_variation(enlarged(y, size) if sharp is None else sharp(y), weight)

    name = "total variation" if sharp is None else "Wiener, then total variation"
    return {**found, name: tuned(smoothed, WEIGHTS, made_by, train)}


def tuned(
    method: Callable[[Tensor, float], Tensor], values: Sequence[float], made_by: Degradation, train: Images
) -> Restorer:
    """Return a method with the one of some values that restores degraded training images best."""
    y = made_by.applied(train, torch.Generator().manual_seed(1))
    best = min(values, key=lambda value: float(mse(method(y, value), train).mean()))
    return lambda y: method(y, best)


class LinearEstimate:
    """The best linear estimate of images: E[x | y] and var[x | y] under a normal density of all pixels of images.

    train: (n, c, h, w) in [-1, 1], the images whose mean and covariance it has; n above the number of pixels.
    """

    def __init__(self, train: Images) -> None:
        self.shape = train.shape[1:]
        flat = train.flatten(1)
        self.mean = flat.mean(0).double()
        self.covariance = torch.cov(flat.T).double()

    def __call__(
        self, y: Float[Tensor, "n m"], a: Float[Tensor, "m d"], sigma: float
    ) -> tuple[Images, Float[Tensor, "c h w"]]:
        """Return the mean of images given measurements, within [-1, 1], and the standard deviation of each pixel.

            E[x | y] = m + C A^T (A C A^T + sigma^2 I)^-1 (y - A m),   var[x | y] = diag(C - C A^T (...)^-1 A C)

        y: (n, m), the measurements.
        a: (m, d), A as a matrix.
        sigma: the standard deviation of the noise, of pixels in [-1, 1].
        """
        a, y = a.double(), y.double()
        cross = a @ self.covariance
        inner = cross @ a.T
        inner.diagonal().add_(sigma**2)
        gain = torch.cholesky_solve(cross, torch.linalg.cholesky(inner))
        x = self.mean + (y - a @ self.mean) @ gain
        variance = (self.covariance.diagonal() - (cross * gain).sum(0)).clamp(min=0)
        return x.clamp(-1, 1).float().reshape(-1, *self.shape), variance.sqrt().float().reshape(self.shape)
