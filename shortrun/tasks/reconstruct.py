"""Images through the latents and back."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from shortrun.learners import Learner
from shortrun.pixels import mse
from shortrun.tasks.batches import BATCH_SIZE, decode, infer


class Reconstruction(NamedTuple):
    """What the model makes of images, on the CPU."""

    images: Float[Tensor, "n c h w"]
    """Reconstructions, in [-1, 1]."""
    z: Float[Tensor, "n d"]
    """Inferred latents."""
    mse: Float[Tensor, "n"]
    """Mean squared error of each image, pixels in [0, 1]."""
    failed: Bool[Tensor, "n"]
    """True where the chain stayed non-finite: the image is then a draw from the prior."""


def reconstruct(
    learner: Learner,
    x: Float[Tensor, "n c h w"],
    rng: torch.Generator,
    steps: int | None = None,
    noise: bool | None = None,
    batch_size: int = BATCH_SIZE,
) -> Reconstruction:
    """Return images through their latents and back: x' = decode(z_K).

    learner: ready to use, as `load` returns it.
    x: (n, c, h, w) in [-1, 1], the images.
    rng: gives the random numbers.
    steps: K, at least 1, in place of the learner's; None keeps that.
    noise: False for plain gradient ascent, in place of what the learner does; None keeps that.
    batch_size: at least 1, images at a time.

    Raises InputError for images of another shape than the model's and for counts below 1.

    >>> from shortrun import ModelConfig, ShortRun
    >>> learner = ShortRun.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8))
    >>> found = reconstruct(learner, torch.zeros(6, 1, 4, 4), torch.Generator().manual_seed(0))
    >>> found.images.shape, found.mse.shape
    (torch.Size([6, 1, 4, 4]), torch.Size([6]))
    """
    z, failed = infer(learner, x, rng, steps=steps, noise=noise, batch_size=batch_size)
    images = decode(learner, z, batch_size)
    return Reconstruction(images, z, mse(images, x.cpu()), failed)
