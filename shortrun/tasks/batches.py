"""Inference and decoding of any number of images, a batch at a time, with progress on a terminal."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from shortrun.errors import check_at_least
from shortrun.learners import Learner
from shortrun.learners.images import check_images, check_pixels, check_weights
from shortrun.model.likelihood import Images
from shortrun.modes import own_modes, plain
from shortrun.progress import shown

BATCH_SIZE = 100


class Latents(NamedTuple):
    """Latents of images, on the CPU."""

    z: Float[Tensor, "n d"]
    """(n, d), the layers (z_L, ..., z_1) side by side."""
    failed: Bool[Tensor, "n"]
    """True where the chain stayed non-finite: z is then a draw from the prior."""


def infer(
    learner: Learner,
    x: Images,
    rng: torch.Generator,
    *,
    mask: Float[Tensor, "n _ h w"] | None = None,
    steps: int | None = None,
    noise: bool | None = None,
    batch_size: int = BATCH_SIZE,
) -> Latents:
    """Return the latents of images, inferred as the learner does it.

    learner: ready to use.
    x: (n, c, h, w) in [-1, 1], the images.
    rng: gives the random numbers.
    mask: (n, 1 or c, h, w), 1 = observed; None where all pixels are.
    steps: K, at least 1, in place of the learner's; None keeps that.
    noise: in place of what the learner does; None keeps that.
    batch_size: at least 1, images at a time.

    Raises InputError for images of another shape than the model's, for pixels outside of [-1, 1] and for counts below
    1.
    """
    check_weights(learner)
    check_images(learner.description, x)
    check_pixels(x)
    check_at_least(1, batch_size=batch_size, steps=steps)
    parts = []
    for rows in shown(torch.arange(len(x)).split(batch_size), "inferring"):
        with own_modes():
            part = None if mask is None else plain(mask[rows].to(learner.device))
            inferred = learner.infer(plain(x[rows].to(learner.device)), rng, mask=part, steps=steps, noise=noise)
        parts.append((inferred.z.cpu(), inferred.failed.cpu()))
    return Latents(torch.cat([z for z, _ in parts]), torch.cat([failed for _, failed in parts]))


def decode(learner: Learner, z: Float[Tensor, "n d"], batch_size: int = BATCH_SIZE) -> Images:
    """Return the images of latents, (n, c, h, w) in [-1, 1], on the CPU.

    learner: ready to use.
    z: (n, d), latents.
    batch_size: at least 1, images at a time.
    """
    check_at_least(1, batch_size=batch_size)
    return torch.cat([learner.decode(part.to(learner.device)).cpu() for part in shown(z.split(batch_size), "decoding")])
