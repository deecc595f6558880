"""log p(x | z) given what the decoder says, image by image, with masks."""

import math
from abc import abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from shortrun.errors import InputError

Images = Float[Tensor, "n c h w"]
Mask = Float[Tensor, "#n #c h w"]
PerImage = Float[Tensor, "n"]
PerPair = Float[Tensor, "n m"]


def observed(values: Images, mask: Mask | None) -> Images:
    """Return values with zeros in place of the entries that are not observed (mask 0).

    A where, not a product: a non-finite value under the mask must not leak through 0 * inf. For the same reason x and
    decoded go through it before the log-probability is formed, since the gradient of a where is a product again.
    """
    return values if mask is None else torch.where(mask > 0.5, values, torch.zeros_like(values))


def sum_observed(log_prob: Images, mask: Mask | None) -> PerImage:
    """Sum an entry-wise log-probability over the observed entries (mask 1) of each image."""
    return observed(log_prob, mask).flatten(1).sum(1)


class Likelihood(nn.Module):
    """The distribution of an image given the decoder's output; images are in [-1, 1]."""

    @abstractmethod
    def log_prob(self, x: Images, decoded: Images, mask: Mask | None = None) -> PerImage:
        """Return log p(x | decoded), summed over the observed entries of each image; mask: 1 = observed."""

    def log_prob_pairs(self, x: Images, decoded: Float[Tensor, "m c h w"], mask: Mask | None = None) -> PerPair:
        """Return log p(x_i | decoded_j) of each image for each of m outputs of the decoder, (n, m)."""
        whole = None if mask is None else mask.expand_as(x)
        rows = [
            self.log_prob(x[i].expand_as(decoded), decoded, None if whole is None else whole[i].expand_as(decoded))
            for i in range(len(x))
        ]
        return torch.stack(rows) if rows else x.new_zeros(0, len(decoded))

    @abstractmethod
    def mean(self, decoded: Images) -> Images:
        """Return the expected image, in [-1, 1] when the decoder keeps to its range."""

    @abstractmethod
    def sample(self, decoded: Images, rng: torch.Generator) -> Images:
        """Draw x ~ p(x | decoded), detached; numbers come from the generator's device, whatever decoded's is."""


class Gaussian(Likelihood):
    """x ~ N(decoded, sigma^2): the decoder gives the mean.

        log p(x | z) = sum_j -(x_j - mean_j)^2 / (2 sigma^2) - log sigma - log(2 pi) / 2

    `sigma` is in units of the [-1, 1] scale. It is fixed, or set from outside (a schedule), or, with `learned`,
    a parameter that the likelihood itself trains.
    """

    log_sigma: Tensor

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

    def set_sigma(self, sigma: float) -> None:
        """Set sigma to a value, as a schedule does."""
        with torch.no_grad():
            self.log_sigma.fill_(math.log(sigma))

    def log_prob(self, x: Images, decoded: Images, mask: Mask | None = None) -> PerImage:
        """Return log p(x | decoded), summed over the observed entries of each image; mask: 1 = observed."""
        # Under bf16 autocast the decoder gives bf16: a sum over hundreds of pixels needs the images' precision.
        log_sigma = self.log_sigma.to(x.dtype)
        scaled = (observed(x, mask) - observed(decoded.to(x.dtype), mask)) * torch.exp(-log_sigma)
        return sum_observed(-0.5 * scaled**2 - log_sigma - 0.5 * math.log(2 * math.pi), mask)

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


class Bernoulli(Likelihood):
    """Pixels are -1 or 1, with probability sigmoid(decoded) of 1: the decoder gives logits.

        log p(x | z) = sum_j b_j log sigmoid(l_j) + (1 - b_j) log sigmoid(-l_j),   b = (x + 1) / 2

    For grey values in between it is the usual cross-entropy, which is no density; binarize such data.
    """

    def log_prob(self, x: Images, decoded: Images, mask: Mask | None = None) -> PerImage:
        """Return log p(x | decoded), summed over the observed entries of each image; mask: 1 = observed."""
        bits, logits = (observed(x, mask) + 1) / 2, observed(decoded.to(x.dtype), mask)
        return sum_observed(-F.binary_cross_entropy_with_logits(logits, bits, reduction="none"), mask)

    def log_prob_pairs(self, x: Images, decoded: Float[Tensor, "m c h w"], mask: Mask | None = None) -> PerPair:
        """Return log p(x_i | decoded_j), (n, m), by products of matrices."""
        shown = observed(torch.ones_like(x), mask).flatten(1)
        bits, logits = observed((x + 1) / 2, mask).flatten(1), decoded.to(x.dtype).flatten(1)
        return bits @ logits.T - shown @ F.softplus(logits).T

    def mean(self, decoded: Images) -> Images:
        """Return 2 sigmoid(decoded) - 1, the expected pixel."""
        return 2 * torch.sigmoid(decoded) - 1

    @torch.no_grad()
    def sample(self, decoded: Images, rng: torch.Generator) -> Images:
        """Draw pixels that are -1 or 1, detached."""
        uniform = torch.rand(decoded.shape, generator=rng, device=rng.device, dtype=decoded.dtype).to(decoded.device)
        return 2 * (uniform < torch.sigmoid(decoded)).to(decoded.dtype) - 1


class DiscretizedLogistic(Likelihood):
    """Pixels take `levels` equally spaced values in [-1, 1]; a logistic density is summed over each one's bin.

        p(x | z) = sigmoid((x + w/2 - decoded) / scale) - sigmoid((x - w/2 - decoded) / scale),  w = 2 / (levels - 1),

    with the outermost bins open-ended. One scale per channel is learned. A proper probability of the integers, so
    -log p / (c h w log 2) is bits/dim.

    Source: Kingma et al., "Improved Variational Inference with Inverse Autoregressive Flow", 2016, arXiv 1606.04934.
    """

    def __init__(self, channels: int, levels: int = 256, scale: float = 0.1) -> None:
        super().__init__()
        if levels < 2:
            raise InputError("levels", levels, "write how many values a pixel can take, at least 2")
        self.levels = levels
        self.log_scale = nn.Parameter(torch.full((channels, 1, 1), math.log(scale)))

    def log_prob(self, x: Images, decoded: Images, mask: Mask | None = None) -> PerImage:
        """Return log P(x | decoded), summed over the observed entries of each image; mask: 1 = observed."""
        half = 1 / (self.levels - 1)
        rate = torch.exp(-self.log_scale.to(x.dtype))
        x = observed(x, mask)
        centred = x - observed(decoded.to(x.dtype), mask)
        upper, lower = (centred + half) * rate, (centred - half) * rate
        # log(sigmoid(a) - sigmoid(b)) without cancellation: log sigmoid(a) + log sigmoid(-b) + log(1 - exp(b - a))
        inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-2 * half * rate))
        log_prob = torch.where(
            x < -1 + half, F.logsigmoid(upper), torch.where(x > 1 - half, F.logsigmoid(-lower), inside)
        )
        return sum_observed(log_prob, mask)

    def mean(self, decoded: Images) -> Images:
        """Return the location of the logistic: its mean, but for the open ends."""
        return decoded.clamp(-1, 1)

    @torch.no_grad()
    def sample(self, decoded: Images, rng: torch.Generator) -> Images:
        """Draw one of the `levels` values for each pixel, detached: a logistic number, rounded to its bin."""
        uniform = torch.rand(decoded.shape, generator=rng, device=rng.device, dtype=decoded.dtype).to(decoded.device)
        # a uniform number of exactly 0 gives -inf, which belongs to the lowest bin
        drawn = decoded + self.log_scale.to(decoded.dtype).exp() * torch.logit(uniform)
        level = ((drawn + 1) / 2 * (self.levels - 1)).round().clamp(0, self.levels - 1)
        return level / (self.levels - 1) * 2 - 1
