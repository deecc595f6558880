"""Missing pixels, filled in several times over."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from shortrun.errors import InputError, check_at_least
from shortrun.learners import Learner
from shortrun.tasks.batches import BATCH_SIZE, check_images, decode, infer


class Inpainting(NamedTuple):
    """Completions of images with missing pixels, on the CPU."""

    completions: Float[Tensor, "m n c h w"]
    """m completions of each image in [-1, 1]; observed pixels are as given."""
    mean: Float[Tensor, "n c h w"]
    """Their mean, in [-1, 1]."""
    uncertainty: Float[Tensor, "n 1 h w"]
    """Their standard deviation, pixels in [0, 1], averaged over channels; 0 where observed."""
    failed: Bool[Tensor, "m n"]
    """True where the chain stayed non-finite: the missing pixels are then those of a draw from the prior."""


def inpaint(
    learner: Learner,
    x: Float[Tensor, "n c h w"],
    mask: Float[Tensor, "_ _ _ _"],
    rng: torch.Generator,
    completions: int = 16,
    steps: int | None = None,
    noise: bool | None = None,
    batch_size: int = BATCH_SIZE,
) -> Inpainting:
    """Fill in missing pixels: each completion is a short run of its own from the prior, on log p(x_observed, z).

        completion = mask x + (1 - mask) E[x | z_K],   uncertainty = sqrt(mean_m (completion_m - mean)^2)

    x: (n, c, h, w) in [-1, 1], what it has at missing pixels is not looked at; mask: (n or 1, 1 or c, h, w), 1 =
    observed (see `shortrun.tasks.masks`). The spread is over z alone: pixel noise of the likelihood is not added, and
    one completion alone has no spread. Raises InputError for a mask or images of another shape and counts below 1.
    """
    check_at_least(1, completions=completions)
    check_images(learner, x)
    n, c, h, w = x.shape
    if len(mask) not in (1, n) or mask.shape[1] not in (1, c) or mask.shape[2:] != (h, w):
        raise InputError(
            "mask", f"{tuple(mask.shape)} for images {tuple(x.shape)}", f"write ({n} or 1, 1 or {c}, {h}, {w})"
        )
    x = x.cpu()
    mask = mask.cpu().expand(n, -1, -1, -1)
    seen = (mask > 0.5).expand_as(x)
    given = torch.where(seen, x, 0.0)  # a non-finite value under the mask would spoil gradients
    # all completions of all images are rows alike, so that one image with many completions fills a batch too
    rows = torch.arange(completions * n) % n
    if learner.shares_draws:
        batch_size = min(batch_size, n)  # each image once: completions are to differ as independent draws do
    z, failed = infer(learner, given[rows], rng, mask=mask[rows], steps=steps, noise=noise, batch_size=batch_size)
    filled = torch.where(seen, given, decode(learner, z, batch_size).unflatten(0, (completions, n)))
    mean = torch.where(seen, given, filled.mean(0))
    deviation = torch.where(seen, 0.0, filled.std(0, correction=0)) / 2
    return Inpainting(filled, mean, deviation.mean(1, keepdim=True), failed.unflatten(0, (completions, n)))
