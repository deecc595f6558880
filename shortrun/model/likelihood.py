"""log p(x | z) given what the decoder says, image by image, with masks."""

import math
from abc import abstractmethod
from typing import Any, ClassVar, Protocol, runtime_checkable

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


@runtime_checkable
class LikelihoodSettings(Protocol):
    """What a configuration says of a likelihood; `shortrun.ModelConfig` does."""

    @property
    def sigma(self) -> float:
        """The standard deviation of the noise, of pixels in [-1, 1]."""
        ...

    @property
    def learn_sigma(self) -> bool:
        """Whether it is learned along with the weights."""
        ...


class Likelihood(nn.Module):
    """The distribution of an image given the decoder's output; images are in [-1, 1].

    A subclass defines `log_prob`, `mean` and `sample`, and declares what the rest of the package has to know of it.
    """

    has_sigma: ClassVar[bool] = False
    """Whether the settings sigma, learn_sigma and training.sigma_schedule are for it; it then has `set_sigma`."""
    is_density: ClassVar[bool] = False
    """Whether log_prob is the log of a density of pixels in [-1, 1], in place of a probability of pixel values."""

    @classmethod
    def from_settings(cls, settings: LikelihoodSettings, channels: int, levels: int | None) -> "Likelihood":
        """Return the likelihood that a configuration describes.

        settings: of the model; channels: of an image; levels: values that a pixel can take, None where pixels are
        floats. Raises InputError where it is not for such pixels.
        """
        return cls()

    @classmethod
    def check_images(cls, levels: int | None, name: str) -> None:
        """Raise InputError where the likelihood is not for the images of a data set; levels: of a pixel."""

    @classmethod
    def describe(cls, settings: LikelihoodSettings) -> str:
        """Say what settings make of it, after its name: `, sigma 0.3` for example."""
        return ""

    @classmethod
    def learns(cls, settings: LikelihoodSettings) -> bool:
        """Return whether it has parameters that are learned along with the decoder's weights."""
        return False

    def activation(self) -> nn.Module:
        """Return the last layer of a built-in decoder: tanh, for means of pixels in [-1, 1]."""
        return nn.Tanh()

    def values(self) -> dict[str, float]:
        """Return the numbers of its own that schedules or learning change, by the name of their setting."""
        return {}

    def conditions(self) -> dict[str, Any]:
        """Return what a figure of log p(x) has to quote: what it is the logarithm of, and the likelihood's numbers."""
        kind = type(self).__name__
        density, probability = f"the density of pixels in [-1, 1], {kind}", f"the probability of pixel values, {kind}"
        return {"of": density if self.is_density else probability, **self.values()}

    def set_sigma(self, sigma: float) -> None:
        """Set sigma, as a schedule does; for those that have one."""
        raise InputError("sigma", sigma, f"{type(self).__name__} has none")

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

    @classmethod
    def check_images(cls, levels: int | None, name: str) -> None:
        """Raise InputError for pixels that are not black or white."""
        if levels != 2:
            raise InputError(
                "model.likelihood",
                problem=f"bernoulli is for black and white pixels, {name} has grey ones",
                instead="set data.binarize, or choose gaussian",
            )

    def activation(self) -> nn.Module:
        """Return none: the decoder gives logits."""
        return nn.Identity()

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

    @classmethod
    def from_settings(cls, settings: LikelihoodSettings, channels: int, levels: int | None) -> "DiscretizedLogistic":
        """Return one with a scale for each channel; raise InputError where pixels are floats."""
        if levels is None:
            raise InputError(
                "model.likelihood",
                problem="logistic needs images of whole numbers, these are floats",
                instead="use gaussian",
            )
        return cls(channels, levels)

    @classmethod
    def learns(cls, settings: LikelihoodSettings) -> bool:
        """Return True: the scales are learned."""
        return True

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
