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
    """Infer the latents of images by one short run each and decode them: x' = E[x | z_K].

    x: (n, c, h, w) in [-1, 1]; steps: K, noise: False for plain gradient ascent, both in place of the learner's.
    Raises InputError for images of another shape than the model's and for counts below 1.
    """
    z, failed = infer(learner, x, rng, steps=steps, noise=noise, batch_size=batch_size)
    images = decode(learner, z, batch_size)
    return Reconstruction(images, z, mse(images, x.cpu()), failed)
