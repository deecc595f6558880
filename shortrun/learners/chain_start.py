"""Where chains start, and how a start is drawn among several."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from shortrun.inference import Initial
from shortrun.model.prior import Component, choose_each
from shortrun.normals import Flat


class Start(NamedTuple):
    """Where chains start."""

    z: Flat
    component: Component
    """The normal of the prior that the chain of each image holds, (n,)."""
    initial: Initial
    """The density that z was drawn from, and the component with it."""


def draw_by(
    log_weights: Float[Tensor, "n m"], uniform: Float[Tensor, "n"]
) -> tuple[Int64[Tensor, "n"], Float[Tensor, "n"]]:
    """Return for each row one of m, drawn in proportion to its weight, and its tilt.

    The tilt is the logarithm of the weight less that of the mean weight, float64. Weights that are not finite count as
    none; where no weight is finite, all are equal.

    log_weights: (n, m), the logarithms of the weights.
    uniform: (n,) in [0, 1), the number that each row is drawn by.
    """
    finite = torch.where(torch.isfinite(log_weights), log_weights, -torch.inf).double()
    hopeless = torch.isinf(finite).all(1, keepdim=True)
    finite, m = torch.where(hopeless, 0.0, finite), log_weights.shape[1]
    picked = choose_each(torch.softmax(finite, 1), uniform)
    return picked, torch.log_softmax(finite, 1).gather(1, picked[:, None])[:, 0] + math.log(m)


def chosen(first: Bool[Tensor, "n"], one: Start, other: Start) -> Start:
    """Return the start of one where `first` says so, of the other elsewhere."""
    n, (a, b) = len(first), (one.initial, other.initial)
    initial = Initial(
        torch.where(first[:, None], a.means, b.means.to(a.means)),
        torch.cat([a.roots, b.roots.to(a.roots)]),
        torch.where(first, a.which, len(a.roots) + b.which.expand(n)),
        torch.where(first, a.tilt.expand(n), b.tilt.expand(n)),
    )
    return Start(
        torch.where(first[:, None], one.z, other.z), torch.where(first, one.component, other.component), initial
    )
