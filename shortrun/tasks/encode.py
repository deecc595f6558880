"""The latents of images, flat and layer by layer."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from shortrun.learners import Learner
from shortrun.tasks.batches import BATCH_SIZE, infer


class Encoding(NamedTuple):
    """The latents of images, on the CPU."""

    z: Float[Tensor, "n d"]
    """What the chain moves, (n, d): standard normal under the prior."""
    layers: list[Float[Tensor, "n _"]]
    """(z_L, ..., z_1): the parts of z, or mu_l + sigma_l u_l where the parameterization is conditional."""
    failed: Bool[Tensor, "n"]
    """True where the chain stayed non-finite: the latents are then a draw from the prior."""


def encode(
    learner: Learner,
    x: Float[Tensor, "n c h w"],
    rng: torch.Generator,
    steps: int | None = None,
    noise: bool | None = None,
    batch_size: int = BATCH_SIZE,
    mask: Float[Tensor, "n _ h w"] | None = None,
) -> Encoding:
    """Return the latents of images, inferred as the learner does it: by one short run each for a learner of chains.

    With the conditional parameterization the chain moves u, and layer l is z_l = mu_l(h) + sigma_l(h) u_l with h the
    state of the layer above.

    learner: ready to use, as `load` returns it.
    x: (n, c, h, w) in [-1, 1], the images.
    rng: gives the random numbers.
    steps: K, at least 1, in place of the learner's; None keeps that.
    noise: False for plain gradient ascent, in place of what the learner does; None keeps that.
    batch_size: at least 1, images at a time.
    mask: (n, 1 or c, h, w), 1 = observed; None where all pixels are.

    Raises InputError for images of another shape than the model's and for counts below 1.

    >>> from shortrun import ModelConfig, ShortRun
    >>> learner = ShortRun.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8))
    >>> found = encode(learner, torch.zeros(6, 1, 4, 4), torch.Generator().manual_seed(0))
    >>> found.z.shape, [tuple(layer.shape) for layer in found.layers]
    (torch.Size([6, 5]), [(6, 2), (6, 3)])
    """
    z, failed = infer(learner, x, rng, mask=mask, steps=steps, noise=noise, batch_size=batch_size)
    parts = [[layer.float().cpu() for layer in learner.layers(part.to(learner.device))] for part in z.split(batch_size)]
    return Encoding(z, [torch.cat(layer) for layer in zip(*parts, strict=True)], failed)
