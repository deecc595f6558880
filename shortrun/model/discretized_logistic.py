"""The discretized logistic likelihood: a probability of whole-number pixels, so that bits/dim are exact."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from shortrun.errors import InputError
from shortrun.model.likelihood import (
    Images,
    Likelihood,
    LikelihoodSettings,
    Mask,
    PerImage,
    observed,
    sum_observed,
)


class DiscretizedLogistic(Likelihood):
    """The likelihood of pixels of equally spaced values in [-1, 1]: a logistic density summed over each value's bin.

        p(x | z) = sigmoid((x + w/2 - decoded) / scale) - sigmoid((x - w/2 - decoded) / scale),  w = 2 / (levels - 1),

    with the outermost bins open-ended. One scale per channel is learned. It is a proper probability of whole numbers,
    so -log p / (c h w log 2) is bits/dim.

    channels: of an image.
    levels: at least 2, values that a pixel can take.
    scale: a positive number, at which the scale of each channel starts, of pixels in [-1, 1].

    Raises InputError for fewer than two levels.

    >>> likelihood = DiscretizedLogistic(channels=1, levels=2)
    >>> zero = torch.zeros(1, 1, 1, 1)
    >>> black, white = likelihood.log_prob(zero - 1, zero), likelihood.log_prob(zero + 1, zero)
    >>> round((black.exp() + white.exp()).item(), 6)
    1.0

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
        """Return the location of the logistic within [-1, 1].

        It is the expected pixel but for the rounding to levels and the outermost bins: these gather what a logistic has
        beyond the range, so that E[x | z] lies nearer to the middle of the range, by scale log 2 for a location of 1.
        """
        return decoded.clamp(-1, 1)

    @torch.no_grad()
    def sample(self, decoded: Images, rng: torch.Generator) -> Images:
        """Draw one of the `levels` values for each pixel, detached: a logistic number, rounded to its bin."""
        uniform = torch.rand(decoded.shape, generator=rng, device=rng.device, dtype=decoded.dtype).to(decoded.device)
        # a uniform number of exactly 0 gives -inf, which belongs to the lowest bin
        drawn = decoded + self.log_scale.to(decoded.dtype).exp() * torch.logit(uniform)
        level = ((drawn + 1) / 2 * (self.levels - 1)).round().clamp(0, self.levels - 1)
        return level / (self.levels - 1) * 2 - 1
