"""How well a learner rebuilds images it has not seen, and whether its latents stay with the prior."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.learners import Learner
from shortrun.pixels import difference


@torch.no_grad()
def reconstruction_figures(
    learner: Learner, x: Float[Tensor, "n c h w"], rng: torch.Generator, batch_size: int = 500
) -> dict[str, Any]:
    """Return mean squared error and second moment of one short run for each image.

    x: (n, c, h, w) in [-1, 1]. `mse` is over all pixels in [0, 1]; `second_moment` is the mean square of the inferred
    latents per dimension, 1 for latents that follow the prior; `second_moment_layers` the same for each layer, top
    down; `failed` counts images whose chain stayed non-finite (they are in `mse` with a draw from the prior).
    """
    error, square, failed = 0.0, torch.zeros(learner.dim, dtype=torch.float64), 0
    for part in x.split(batch_size):
        part = part.to(learner.device)
        inferred = learner.infer(part, rng)
        rebuilt = learner.decode(inferred.z)
        error += float((difference(rebuilt, part).double() ** 2).sum())
        square += (inferred.z.double() ** 2).sum(0).cpu()
        failed += int(inferred.failed.sum())
    square /= len(x)
    layers = square.split(learner.latents)
    return {
        "mse": error / x.numel(),
        "second_moment": float(square.mean()),
        "second_moment_layers": [float(layer.mean()) for layer in layers],
        "failed": failed,
    }
