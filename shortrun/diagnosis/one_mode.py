"""Chains on the normal that the model's own start from: what R-hat is where there is one mode and steps are slow."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.inference.initial import Initial


def one_mode_chains(
    initial: Initial,
    step_size: Float[Tensor, "d"],
    *,
    chains: int,
    draws: int,
    every: int,
    sets: int,
    rng: torch.Generator,
) -> Float[np.ndarray, "chains draws sets d"]:
    """Return Langevin chains on the normals that chains start from, which start there, in sets that share a normal.

        z_{t+1} = z_t - (S^2 / 2) C^-1 (z_t - mu) + S noise,   S = diag(s)

    The mean is left out, since R-hat does not depend on it. Each eigendirection of S C^-1 S is an autoregression. Its
    variance is kept at that of the normal, as the Metropolis test does.

    initial: of images, one after the other for the sets: of the prior (from a mixture a component) or the regression.
    step_size: s, of each latent.
    chains: in a set.
    draws: that are kept of each chain.
    every: steps from one draw to the next.
    sets: how many.
    rng: gives the random numbers.
    """
    which = initial.which.cpu()[torch.arange(sets) % len(initial.which)]
    s, found = step_size.double().cpu(), np.empty((chains, draws, sets, len(step_size)))
    for index in which.unique():
        root = initial.roots[index].double().cpu()
        scaled = torch.linalg.solve_triangular(root, torch.diag(s), upper=False)
        curvature, turn = torch.linalg.eigh(scaled.mT @ scaled)
        curvature = curvature.clamp(min=1e-12)
        # a step may be longer than a narrow direction bears: draws are then independent
        keeps = (1 - curvature / 2).clamp(min=0) ** every
        to_latents = s[:, None] * turn * curvature.rsqrt()
        size, own = (chains, int((which == index).sum()), len(s)), (which == index).numpy()
        w = torch.randn(size, generator=rng, dtype=torch.float64)
        for draw in range(draws):
            if draw:
                w = keeps * w + (1 - keeps**2).sqrt() * torch.randn(size, generator=rng, dtype=torch.float64)
            found[:, draw, own] = (w @ to_latents.T).numpy()
    return found
