"""The likelihood of linear measurements y = A x + noise of an image x that the model explains."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.errors import InputError
from shortrun.model.gaussian import Gaussian
from shortrun.model.likelihood import Images, Likelihood, Mask, PerImage, PerPair
from shortrun.model.linear_map import LinearMap, Measurements


class Measured(Likelihood):
    """The likelihood of y = A x + e, e ~ N(0, sigma^2 I), with the image x integrated out.

        x | z ~ N(g(z), s^2 I):   y | z ~ N(A g(z), V),   V = s^2 A A^T + sigma^2 I
        E[x | z, y] = g(z) + G (y - A g(z)),   var[x | z, y] = s^2 diag(I - G A),   G = s^2 A^T V^-1

    It is exact where the likelihood of an image is Gaussian with one s for all pixels, whatever A is: V is diagonal for
    noise alone, masks and means of disjoint squares, and else it is factorized once. Of another likelihood only the
    expected image counts, s = 0.

    linear: A.
    sigma: a positive number, the standard deviation of the noise, of pixels in [-1, 1].
    likelihood: p(x | z) of whole images.

    Raises InputError where sigma is not positive.

    >>> from shortrun.model import Gaussian
    >>> pairs = LinearMap(lambda x: x.mean(3), (1, 1, 2))
    >>> measured = Measured(pairs, sigma=0.3, likelihood=Gaussian(sigma=0.4))
    >>> y, decoded = pairs.grouped(torch.ones(1, 1, 1)), torch.zeros(1, 1, 1, 2)
    >>> [round(value, 3) for value in measured.expected(y, decoded).flatten().tolist()]
    [0.471, 0.471]
    """

    is_density = True

    deviation: Tensor
    white: Tensor
    gain: Tensor
    left: Tensor

    def __init__(self, linear: LinearMap, sigma: float, likelihood: Likelihood) -> None:
        super().__init__()
        if not 0 < sigma < math.inf:
            raise InputError("sigma", sigma, "write a positive number, the standard deviation of the noise")
        self.linear, self.sigma, self.likelihood = linear, sigma, likelihood
        self.pixel_sigma = float(likelihood.sigma) if isinstance(likelihood, Gaussian) else 0.0
        variance = self.pixel_sigma**2
        a = linear.matrix.double()
        covariance = variance * a @ a.T
        covariance.diagonal().add_(sigma**2)
        root = torch.linalg.cholesky(covariance)
        gain = variance * torch.cholesky_solve(a, root).T
        diagonal = covariance.diagonal()
        self.diagonal = bool((covariance - torch.diag(diagonal)).abs().max() <= 1e-6 * diagonal.min())
        if self.diagonal:  # a product with a matrix at every step of a chain would cost as much as the decoder
            white = torch.zeros_like(covariance[:0])
        else:
            white = torch.linalg.solve_triangular(root, torch.eye(len(root)).to(root), upper=False)
        left = variance * (1 - (gain * a.T).sum(1)).clamp(min=0)
        self.height = -linear.groups * float(root.diagonal().log().sum() + 0.5 * len(root) * math.log(2 * math.pi))
        named = {"deviation": diagonal.sqrt()[:, None], "white": white, "gain": gain, "left": left.sqrt()}
        for name, value in named.items():
            self.register_buffer(name, value.float(), persistent=False)

    def whitened(self, away: Measurements) -> Measurements:
        """Return V^-1/2 of differences of measurements: standard normal where they are noise.

        away: in groups.
        """
        return away / self.deviation if self.diagonal else (away[..., 0] @ self.white.T)[..., None]

    def log_prob(self, x: Measurements, decoded: Images, mask: Mask | None = None) -> PerImage:
        """Return log p(y | decoded), (n,).

        x: y, the measurements, in groups.
        decoded: (n, c, h, w), the decoder's output.
        mask: None; the operator leaves out what is not measured.
        """
        away = x - self.linear(self.likelihood.mean(decoded).to(x.dtype))
        return self.height - 0.5 * self.whitened(away).square().flatten(1).sum(1)

    def log_prob_pairs(self, x: Measurements, decoded: Float[Tensor, "m c h w"], mask: Mask | None = None) -> PerPair:
        """Return log p(y_i | decoded_j), (n, m).

        x: y, the measurements, in groups.
        decoded: (m, c, h, w), outputs of the decoder.
        mask: None.
        """
        expected = self.linear(self.likelihood.mean(decoded).to(x.dtype))
        one, other = (self.whitened(part).flatten(1) for part in (x, expected))
        squared = one.square().sum(1, keepdim=True) - 2 * one @ other.T + other.square().sum(1)
        return self.height - 0.5 * squared

    def mean(self, decoded: Images) -> Measurements:
        """Return A g(z), the expected measurements in groups.

        decoded: (n, c, h, w), the decoder's output.
        """
        return self.linear(self.likelihood.mean(decoded))

    @torch.no_grad()
    def sample(self, decoded: Images, rng: torch.Generator) -> Measurements:
        """Return draws of measurements in groups.

        decoded: (n, c, h, w), the decoder's output.
        rng: gives the random numbers.
        """

        def noise(like: Tensor) -> Tensor:
            return torch.randn(like.shape, generator=rng, device=rng.device, dtype=like.dtype).to(like.device)

        x = self.likelihood.mean(decoded)
        y = self.linear(x + self.pixel_sigma * noise(x))
        return y + self.sigma * noise(y)

    @torch.no_grad()
    def expected(self, y: Measurements, x: Images) -> Images:
        """Return E[x | z, y], (n, c, h, w).

        y: the measurements, in groups.
        x: (n, c, h, w), the expected images of latents before y is seen, g(z).
        """
        return x + ((y - self.linear(x))[..., 0] @ self.gain.T).reshape(x.shape)

    def open_deviation(self) -> Float[Tensor, "c h w"]:
        """Return the standard deviation of pixels given latents and measurements, (c, h, w)."""
        c, h, w = self.linear.shape
        return self.left.reshape(-1, h, w).expand(c, h, w)
