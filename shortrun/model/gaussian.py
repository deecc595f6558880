"""The Gaussian likelihood: pixels are normal around what the decoder says."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from shortrun.errors import InputError
from shortrun.model.likelihood import (
    Images,
    Likelihood,
    LikelihoodSettings,
    Mask,
    PerImage,
    PerPair,
    observed,
)


class Gaussian(Likelihood):
    """The likelihood x ~ N(decoded, sigma^2): the decoder gives the mean.

        log p(x | z) = sum_j -(x_j - mean_j)^2 / (2 sigma^2) - log sigma - log(2 pi) / 2

    sigma: a positive number, the standard deviation of the noise, of pixels in [-1, 1].
    learned: whether sigma is a parameter that is learned; else it is fixed, or set from outside by a schedule.

    Raises InputError where sigma is not positive.

    >>> x = torch.zeros(2, 1, 4, 4)
    >>> [round(value, 3) for value in Gaussian(sigma=0.3).log_prob(x, x).tolist()]
    [4.561, 4.561]
    """

    has_sigma = True
    is_density = True

    log_sigma: Tensor

    @classmethod
    def from_settings(cls, settings: LikelihoodSettings, channels: int, levels: int | None) -> "Gaussian":
        """Return one with the settings' sigma, fixed or learned."""
        return cls(settings.sigma, settings.learn_sigma)

    @classmethod
    def describe(cls, settings: LikelihoodSettings) -> str:
        """Say its sigma."""
        return ", sigma learned" if settings.learn_sigma else f", sigma {settings.sigma:g}"

    @classmethod
    def learns(cls, settings: LikelihoodSettings) -> bool:
        """Return whether sigma is learned."""
        return settings.learn_sigma

    def __init__(self, sigma: float = 0.3, learned: bool = False) -> None:
        super().__init__()
        if not 0 < sigma < math.inf:
            raise InputError("sigma", sigma, "write a positive number, 0.3 for example")
        log_sigma = torch.tensor(math.log(sigma))
        if learned:
            self.log_sigma = nn.Parameter(log_sigma)
        else:
            self.register_buffer("log_sigma", log_sigma)

    @property
    def sigma(self) -> Tensor:
        """The standard deviation of the noise, a scalar tensor."""
        return self.log_sigma.exp()

    def values(self) -> dict[str, float]:
        """Return sigma."""
        return {"sigma": self.sigma.item()}

    def set_sigma(self, sigma: float) -> None:
        """Set sigma to a value, as a schedule does."""
        with torch.no_grad():
            self.log_sigma.fill_(math.log(sigma))

    def log_prob(self, x: Images, decoded: Images, mask: Mask | None = None) -> PerImage:
        """Return log p(x | decoded), summed over the observed entries of each image; mask: 1 = observed."""
        # Under bf16 autocast the decoder gives bf16: a sum over hundreds of pixels needs the images' precision.
        log_sigma, means = self.log_sigma.to(x.dtype), observed(decoded.to(x.dtype), mask)
        # one operation for the squares, forward and backward: a chain takes both at every step
        squared = functional.mse_loss(means, observed(x, mask), reduction="none").flatten(1).sum(1)
        shown = means.shape[1:].numel() if mask is None else observed(torch.ones_like(means), mask).flatten(1).sum(1)
        return -0.5 * torch.exp(-2 * log_sigma) * squared - shown * (log_sigma + 0.5 * math.log(2 * math.pi))

    def log_prob_pairs(self, x: Images, decoded: Float[Tensor, "m c h w"], mask: Mask | None = None) -> PerPair:
        """Return log p(x_i | decoded_j), (n, m), by products of matrices: as cheap as a layer of the decoder."""
        seen, means = observed(x, mask).flatten(1), decoded.to(x.dtype).flatten(1)
        shown = observed(torch.ones_like(x), mask).flatten(1)
        squared = (seen**2).sum(1, keepdim=True) - 2 * seen @ means.T + shown @ (means**2).T
        log_sigma = self.log_sigma.to(x.dtype)
        constant = shown.sum(1, keepdim=True) * (log_sigma + 0.5 * math.log(2 * math.pi))
        return -0.5 * squared * torch.exp(-2 * log_sigma) - constant

    def mean(self, decoded: Images) -> Images:
        """Return the decoder's output: it is the mean."""
        return decoded

    @torch.no_grad()
    def sample(self, decoded: Images, rng: torch.Generator) -> Images:
        """Draw x = decoded + sigma noise, detached; the values may leave [-1, 1], as the density has it."""
        noise = torch.randn(decoded.shape, generator=rng, device=rng.device, dtype=decoded.dtype)
        return decoded + self.sigma.to(decoded.dtype) * noise.to(decoded.device)
