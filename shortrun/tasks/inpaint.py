"""Missing pixels, filled in several times over."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from shortrun.errors import InputError, check_at_least
from shortrun.learners import Learner
from shortrun.learners.images import check_images
from shortrun.learners.learner import Stage
from shortrun.tasks.batches import BATCH_SIZE, decode, infer, watch


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
    """Return images with their missing pixels filled in: each completion is a run of its own, on log p(x_observed, z).

        completion = mask x + (1 - mask) decode(z_K),   uncertainty = sqrt(mean_m (completion_m - mean)^2)

    The spread is over z alone: pixel noise of the likelihood is not added, and one completion alone has no spread.

    learner: ready to use, as `load` returns it.
    x: (n, c, h, w) in [-1, 1], the images; what they have at missing pixels is not looked at.
    mask: (n or 1, 1 or c, h, w), 1 = observed; `shortrun.tasks.masks` makes some.
    rng: gives the random numbers.
    completions: at least 1, of each image.
    steps: K, at least 1, in place of the learner's; None keeps that.
    noise: False for plain gradient ascent, in place of what the learner does; None keeps that.
    batch_size: at least 1, completions at a time.

    Raises InputError for a mask or images of another shape and counts below 1.

    >>> from shortrun import ModelConfig, ShortRun
    >>> from shortrun.tasks.masks import half
    >>> learner = ShortRun.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8))
    >>> x, rng = torch.zeros(6, 1, 4, 4), torch.Generator().manual_seed(0)
    >>> found = inpaint(learner, x, half(6, 4, 4, keep="left"), rng, completions=3)
    >>> found.completions.shape, float(found.uncertainty[..., :2].max())
    (torch.Size([3, 6, 1, 4, 4]), 0.0)
    """
    rows = _rows(learner, x, mask, completions, batch_size)
    z, failed = infer(learner, rows.x, rng, mask=rows.mask, steps=steps, noise=noise, batch_size=rows.batch_size)
    return _filled(learner, z, failed, rows)


def watch_inpainting(
    learner: Learner,
    x: Float[Tensor, "n c h w"],
    mask: Float[Tensor, "_ _ _ _"],
    rng: torch.Generator,
    every: int,
    completions: int = 16,
    steps: int | None = None,
    noise: bool | None = None,
    batch_size: int = BATCH_SIZE,
) -> Iterator[Stage[Inpainting]]:
    """Yield images with their missing pixels filled in by chains on their way, and last what `inpaint` returns.

    A learner without chains yields the end alone.

    learner: ready to use, as `load` returns it.
    x: (n, c, h, w) in [-1, 1], the images; what they have at missing pixels is not looked at.
    mask: (n or 1, 1 or c, h, w), 1 = observed.
    rng: gives the random numbers; more than one batch draws them in another order than `inpaint` does.
    every: at least 1, the steps from one stage to the next.
    completions: at least 1, of each image.
    steps: K, at least 1, in place of the learner's; None keeps that.
    noise: False for plain gradient ascent, in place of what the learner does; None keeps that.
    batch_size: at least 1, completions at a time.

    Raises InputError as `inpaint` does.

    >>> from shortrun import InferenceConfig, ModelConfig, ShortRun
    >>> from shortrun.tasks.masks import half
    >>> learner = ShortRun.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8), InferenceConfig(steps=5))
    >>> x, rng = torch.zeros(6, 1, 4, 4), torch.Generator().manual_seed(0)
    >>> [stage.step for stage in watch_inpainting(learner, x, half(6, 4, 4), rng, every=2)]
    [0, 2, 4, 5]
    """
    rows = _rows(learner, x, mask, completions, batch_size)
    stages = watch(learner, rows.x, rng, every, mask=rows.mask, steps=steps, noise=noise, batch_size=rows.batch_size)
    for step, steps, (z, failed) in stages:
        yield Stage(step, steps, _filled(learner, z, failed, rows))


class _Rows(NamedTuple):
    """Completions of images as rows alike, so that one image with many completions fills a batch too."""

    given: Float[Tensor, "n c h w"]
    """The images; 0 where a pixel is missing."""
    seen: Bool[Tensor, "n c h w"]
    x: Float[Tensor, "rows c h w"]
    mask: Float[Tensor, "rows _ h w"]
    batch_size: int


def _rows(learner: Learner, x: Tensor, mask: Tensor, completions: int, batch_size: int) -> _Rows:
    """Return the rows that are inferred; InputError for a mask or images of another shape."""
    check_at_least(1, completions=completions)
    check_images(learner.description, x)
    n, c, h, w = x.shape
    if len(mask) not in (1, n) or mask.shape[1] not in (1, c) or mask.shape[2:] != (h, w):
        raise InputError(
            "mask", f"{tuple(mask.shape)} for images {tuple(x.shape)}", f"write ({n} or 1, 1 or {c}, {h}, {w})"
        )
    x = x.cpu()
    mask = mask.cpu().expand(n, -1, -1, -1)
    seen = (mask > 0.5).expand_as(x)
    given = torch.where(seen, x, 0.0)  # a non-finite value under the mask would spoil gradients
    rows = torch.arange(completions * n) % n
    if learner.shares_draws:
        batch_size = min(batch_size, n)  # each image once: completions are to differ as independent draws do
    return _Rows(given, seen, given[rows], mask[rows], batch_size)


def _filled(learner: Learner, z: Tensor, failed: Tensor, rows: _Rows) -> Inpainting:
    """Return the completions that latents are decoded to, (m n, d)."""
    given, seen, shape = rows.given, rows.seen, (-1, len(rows.given))
    filled = torch.where(seen, given, decode(learner, z, rows.batch_size).unflatten(0, shape))
    mean = torch.where(seen, given, filled.mean(0))
    deviation = torch.where(seen, 0.0, filled.std(0, correction=0)) / 2
    return Inpainting(filled, mean, deviation.mean(1, keepdim=True), failed.unflatten(0, shape))
