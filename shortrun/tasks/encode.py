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
) -> Encoding:
    """Infer the latents of images by one short run each.

    x: (n, c, h, w) in [-1, 1]; steps: K, noise: False for plain gradient ascent, both in place of the learner's.
    With the conditional parameterization the chain moves u, and layer l is z_l = mu_l(h) + sigma_l(h) u_l with h the
    state of the layer above. Raises InputError for images of another shape than the model's and for counts below 1.
    """
    z, failed = infer(learner, x, rng, steps=steps, noise=noise, batch_size=batch_size)
    parts = [[layer.float().cpu() for layer in learner.layers(part.to(learner.device))] for part in z.split(batch_size)]
    return Encoding(z, [torch.cat(layer) for layer in zip(*parts, strict=True)], failed)
