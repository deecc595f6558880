"""The Bernoulli likelihood of black and white pixels: the decoder gives logits."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from shortrun.errors import InputError
from shortrun.model.likelihood import (
    Images,
    Likelihood,
    Mask,
    PerImage,
    PerPair,
    observed,
    sum_observed,
)


class Bernoulli(Likelihood):
    """The likelihood of pixels that are -1 or 1, with probability sigmoid(decoded) of 1: the decoder gives logits.

        log p(x | z) = sum_j b_j log sigmoid(l_j) + (1 - b_j) log sigmoid(-l_j),   b = (x + 1) / 2

    For grey values in between it is the usual cross-entropy, which is no density; binarize such data.

    >>> logits = torch.zeros(2, 1, 4, 4)
    >>> [round(value, 3) for value in Bernoulli().log_prob(torch.ones(2, 1, 4, 4), logits).tolist()]
    [-11.09, -11.09]
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
