"""What fills in missing pixels without a learned model: a Gaussian of train images, and a smooth continuation."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from shortrun.model.likelihood import Images
from shortrun.pixels import to_unit
from shortrun.progress import shown

RIDGES = (1e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
HELD_OUT = 200
"""Images that the ridge is chosen on, and the Gaussian is not fitted to meanwhile."""
Flat = Float[Tensor, "n d"]


class Gaussian(NamedTuple):
    """A normal density of all pixels of an image, in [0, 1], in float64."""

    mean: Float[Tensor, "d"]
    covariance: Float[Tensor, "d d"]
    ridge: float = 0.0
    """What was added to the variances."""

    @classmethod
    def of(cls, x: Flat) -> "Gaussian":
        """Return the density of images with their mean and covariance.

        x: (n, d), n at least 2, float64.
        """
        return cls(x.mean(0), torch.cov(x.T))

    def with_ridge(self, ridge: float) -> "Gaussian":
        """Return the density with larger variances.

        ridge: 0 or more, added to each of them.
        """
        eye = torch.eye(len(self.mean), dtype=self.mean.dtype)
        return self._replace(covariance=self.covariance + ridge * eye, ridge=ridge)

    def conditional(self, x: Flat, seen: Bool[Tensor, "d"]) -> tuple[Float[Tensor, "n h"], Float[Tensor, "h"]]:
        """Return the mean of the missing pixels of each image, (n, h), and their variance, (h,), given the others.

            E[h | o] = m_h + C_ho C_oo^-1 (x_o - m_o),   var[h | o] = diag(C_hh - C_ho C_oo^-1 C_oh)

        x: (n, d), the images; what they have at missing pixels is not looked at.
        seen: (d,), True where a pixel is observed, in all images.

        >>> pair = Gaussian(torch.zeros(2).double(), torch.tensor([[1.0, 0.5], [0.5, 1.0]]).double())
        >>> mean, variance = pair.conditional(torch.tensor([[1.0, 9.0]]).double(), torch.tensor([True, False]))
        >>> mean.item(), variance.item()
        (0.5, 0.75)
        """
        cross = self.covariance[~seen][:, seen]
        weights = torch.cholesky_solve(cross.T, torch.linalg.cholesky(self.covariance[seen][:, seen]))
        mean = self.mean[~seen] + (x[:, seen] - self.mean[seen]) @ weights
        return mean, self.covariance.diagonal()[~seen] - (cross * weights.T).sum(1)


def fitted_gaussian(x: Flat, seen: Bool[Tensor, "d"]) -> Gaussian:
    """Return the Gaussian of train images with the ridge that fills in 200 of them best, fitted to the others.

    x: (n, d) in [0, 1], float64, the train images.
    seen: (d,), True where a pixel is observed.
    """
    count = min(HELD_OUT, len(x) // 2)
    held, rest = x[:count], Gaussian.of(x[count:])

    def error(ridge: float) -> float:
        mean, _ = rest.with_ridge(ridge).conditional(held, seen)
        return float(((mean.clamp(0, 1) - held[:, ~seen]) ** 2).mean())

    return Gaussian.of(x).with_ridge(min(RIDGES, key=error))


def biharmonic(x: Images, mask: Float[Tensor, "1 1 h w"]) -> Images:
    """Return images with missing pixels by scikit-image's biharmonic inpainting, cut to [-1, 1].

    x: (n, c, h, w) in [-1, 1], the images.
    mask: 1 = observed, for all of them.

    Source: Damelin, Hoang, "On surface completion and image inpainting by biharmonic functions: numerical aspects",
    2018, International Journal of Mathematics and Mathematical Sciences.
    """
    from skimage.restoration import inpaint_biharmonic

    missing = (mask[0, 0] <= 0.5).numpy()
    filled = [
        torch.from_numpy(np.asarray(inpaint_biharmonic(image.permute(1, 2, 0).numpy(), missing, channel_axis=2)))
        for image in shown(to_unit(x).double(), "biharmonic", "image")
    ]
    return (torch.stack(filled).permute(0, 3, 1, 2).clamp(0, 1) * 2 - 1).to(x)
