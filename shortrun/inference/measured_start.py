"""Where chains start that know of an image by linear measurements alone: the regression on images, carried over."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from shortrun.inference.start import MOST, Features, Pixels, Regression
from shortrun.sums import Sums, with_one


class MeasuredRegression(Regression):
    """The start q_0(z | y) = N(B^T psi(y), S) for y = A x + noise, from the sums that a regression on images has kept.

    Features psi are 1 and y, or the pooled A^T y where y has more than about a thousand numbers. They are a linear
    function of the features phi of images, and of what those leave out:

        psi = T phi + e;   C_y = T C;   A_y = T A T^T + m cov(e);   B = (A_y + I)^-1 C_y;   S = (Z - C_y^T B) / m

    e has the noise of the measurements. Where images are pooled for phi, it also has what A makes of their details,
    which are taken for white noise; else nothing is left out. Where log p(x, z) is quadratic, and nothing is, it is the
    posterior that chains on images have led the regression to, given y in place of x.

    images: the regression on images.
    matrix: A as a matrix, of one group of numbers, (q, p).
    groups: how many groups there are; all have the same matrix.
    sigma: the standard deviation of the noise.
    detail: the standard deviation of the details of images, the difference of each pixel from the mean of its square.

    >>> rng = torch.Generator().manual_seed(0)
    >>> images, x = Regression((1, 2, 2), dim=1), torch.randn(500, 1, 2, 2, generator=rng)
    >>> images.learn(images.features(x), x.sum((1, 2, 3))[:, None])
    >>> means = MeasuredRegression(images, torch.full((1, 4), 0.25), 1, sigma=0.01).starts(x.mean((2, 3), True)).means
    >>> abs(means - x.sum((1, 2, 3))[:, None]).max().item() < 0.1
    True
    """

    readout: Tensor

    def __init__(
        self, images: Regression, matrix: Float[Tensor, "q p"], groups: int, sigma: float, detail: float = 0.0
    ) -> None:
        a, pooling = matrix.double(), _pooling(images, groups).to(matrix.device).double()
        if groups * len(a) <= MOST:
            readout = torch.eye(len(a)).to(a)
        else:  # scaled so that the ridge weighs as little as it does for pixels
            readout = pooling @ a.T / torch.linalg.matrix_norm(a, 2) ** 2
        size = pooling.sum(1) ** 2 / pooling.square().sum(1)  # pixels of each square
        spread = a @ pooling.T * size  # A of images that are constant in each square
        left = a @ a.T - (spread / size) @ spread.T  # A of the details, its product with itself
        noise = readout @ (sigma**2 * torch.eye(len(a)).to(a) + detail**2 * left) @ readout.T
        super().__init__((1, groups * len(readout), 1), images.dim, most=groups * len(readout))
        self.to(images.weights)
        self.register_buffer("readout", readout.to(images.weights))
        transfer = torch.block_diag(torch.eye(1).to(a), *[readout @ spread] * groups, torch.eye(images.dim).to(a))
        total = transfer @ images.sums.total[0].double() @ transfer.T
        features = slice(1, 1 + groups * len(readout))
        total[features, features] += total[0, 0] * torch.block_diag(*[noise] * groups)
        self.sums = Sums(1, len(total), torch.float64).to(total.device)
        self.sums.total[0] = total
        self.solve()
        self.fits.fill_(images.fits)

    @torch.no_grad()
    def features(self, x: Pixels) -> Features:
        """Return 1 and what the latents are regressed on, (n, 1 + features).

        x: (n, groups, q, 1), measurements in groups.
        """
        return with_one((x[..., 0].to(self.readout) @ self.readout.T).flatten(1))


@torch.no_grad()
def detail_of(images: Regression, x: Pixels) -> float:
    """Return the standard deviation of the details that a regression on images does not see; 0 where it sees all.

    x: (n, c, h, w), images.
    """
    if images.pool == 1:
        return 0.0
    c, h, w = images.shape
    pooled = functional.avg_pool2d(x, images.pool, ceil_mode=True)
    away = x - pooled.repeat_interleave(images.pool, 2).repeat_interleave(images.pool, 3)[..., :h, :w]
    # as many directions as there are pixels beyond one in each square
    return float((away.square().flatten(1).sum(1) / (c * h * w - pooled[0].numel())).mean().sqrt())


def _pooling(images: Regression, groups: int) -> Float[Tensor, "f p"]:
    """Return the matrix that pools the pixels of a group as a regression on images does."""
    c, h, w = images.shape
    channels = c // groups
    basis = torch.eye(channels * h * w).reshape(-1, channels, h, w)
    return functional.avg_pool2d(basis, images.pool, ceil_mode=True).flatten(1).T
