"""One layer of latents varied, the others held: what does a layer hold?"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.errors import InputError, check_at_least
from shortrun.learners import Learner
from shortrun.tasks.batches import BATCH_SIZE, decode


class Traversal(NamedTuple):
    """Variations of images in one layer, on the CPU."""

    images: Float[Tensor, "n columns c h w"]
    """Decoded variations, in [-1, 1]."""
    z: Float[Tensor, "n columns d"]
    """Their latents: alike in all but the layer, or in all but one coordinate of it."""


def traverse(
    learner: Learner,
    z: Float[Tensor, "n d"],
    layer: int,
    rng: torch.Generator,
    columns: int = 10,
    coordinate: int | None = None,
    span: float = 2.5,
    batch_size: int = BATCH_SIZE,
) -> Traversal:
    """Vary one layer of latents and hold the others.

    z: (n, d), of images (`encode(...).z`) or drawn from the prior. layer: L is the top, 1 the lowest, as in the paper.
    The layer is redrawn from its prior for each column; or, with `coordinate` (0 is its first), that one number
    goes from -span to span and the rest of the layer is held too. What is held is what the chain moves: with the
    conditional parameterization that is u, and the layers below follow the one varied through mu_l and sigma_l.
    Raises InputError for a layer or a coordinate out of range and for counts below 1.
    """
    check_at_least(1, columns=columns)
    first, last = varied_range(learner, layer, coordinate)
    varied = z.cpu()[:, None].repeat(1, columns, 1)
    if coordinate is None:
        drawn = learner.draw_prior(len(z) * columns, rng).unflatten(0, (len(z), columns))
        varied[..., first:last] = drawn[..., first:last].cpu()
    else:
        varied[..., first] = torch.linspace(-span, span, columns)
    images = decode(learner, varied.flatten(0, 1), batch_size).unflatten(0, (len(z), columns))
    return Traversal(images, varied)


def varied_range(learner: Learner, layer: int, coordinate: int | None = None) -> tuple[int, int]:
    """Return the columns [first, last) of the flat z that a layer, or one coordinate of it, has.

    layer: L is the top, 1 the lowest; coordinate: 0 is its first. Raises InputError where there is none such.
    """
    latents = learner.latents
    if not 1 <= layer <= len(latents):
        raise InputError("layer", layer, f"write 1 (the lowest) to {len(latents)} (the top)")
    above = len(latents) - layer
    first, size = sum(latents[:above]), latents[above]
    if coordinate is None:
        return first, first + size
    if not 0 <= coordinate < size:
        raise InputError("coordinate", coordinate, f"layer {layer} has {size}: write 0 to {size - 1}")
    return first + coordinate, first + coordinate + 1
