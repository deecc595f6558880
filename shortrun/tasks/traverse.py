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
    """Return variations of images in one layer of latents, with the others held.

    The layer is redrawn for each column from the prior, or from the density fitted to latents where the learner has no
    prior, given the other layers. Where a coordinate is given, that one number goes through the span instead, and the
    rest of the layer is held too. What is held is what the chain moves: with the conditional parameterization that is
    u, and the layers below follow the one varied through mu_l and sigma_l.

    learner: ready to use, as `load` returns it.
    z: (n, d), of images (`encode(...).z`) or drawn from the prior.
    layer: 1 (the lowest) to L (the top), as in the paper.
    rng: gives the random numbers.
    columns: at least 1, variations of each image.
    coordinate: 0 to d_l - 1, the one number of the layer that is varied; None for the whole layer.
    span: a coordinate goes from -span to span standard deviations of the prior, or of the fitted density, around its
        mean.
    batch_size: at least 1, images at a time.

    Raises InputError for a layer or a coordinate out of range and for counts below 1.

    >>> from shortrun import ModelConfig, ShortRun
    >>> learner = ShortRun.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8))
    >>> rng = torch.Generator().manual_seed(0)
    >>> found = traverse(learner, learner.draw_prior(6, rng), layer=2, rng=rng, columns=4)
    >>> found.images.shape, found.z.shape
    (torch.Size([6, 4, 1, 4, 4]), torch.Size([6, 4, 5]))
    """
    check_at_least(1, columns=columns)
    first, last = varied_range(learner, layer, coordinate)
    varied = z.cpu()[:, None].repeat(1, columns, 1)
    if coordinate is None:
        varied = learner.redraw(varied.flatten(0, 1), first, last, rng).unflatten(0, (len(z), columns))
    else:
        varied[..., first] = torch.linspace(-span, span, columns)
        if (spread := learner.spread()) is not None:
            mean, root = (part.cpu() for part in spread)
            varied[..., first] = mean[first] + root[first].norm() * varied[..., first]
    images = decode(learner, varied.flatten(0, 1), batch_size).unflatten(0, (len(z), columns))
    return Traversal(images, varied)


def varied_range(learner: Learner, layer: int, coordinate: int | None = None) -> tuple[int, int]:
    """Return the columns [first, last) of the flat z that a layer, or one coordinate of it, has.

    learner: whose latents they are.
    layer: 1 (the lowest) to L (the top).
    coordinate: 0 to d_l - 1; None for the whole layer.

    Raises InputError where there is none such.
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
