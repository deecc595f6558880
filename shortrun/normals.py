"""Densities of normal distributions and their mixtures, row by row.

`torch.distributions` gives the same numbers, and takes one and a half to two times as long for a mixture of normals,
which a chain evaluates at every step: hence own lines.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

Flat = Float[Tensor, "n d"]
PerImage = Float[Tensor, "n"]
Roots = Float[Tensor, "m d d"]
"""Lower triangular matrices L with a positive diagonal: a covariance L L^T each."""


def standard_normal(z: Flat) -> PerImage:
    """Return log N(z; 0, I)."""
    return -0.5 * (z**2).sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)


def log_heights(roots: Roots) -> Float[Tensor, "m"]:
    """Return the logarithms of the largest values of normal densities, log N(mu; mu, L L^T), of their roots L."""
    return -roots.diagonal(dim1=-2, dim2=-1).log().sum(-1) - 0.5 * roots.shape[-1] * math.log(2 * math.pi)


def inverses(roots: Roots) -> Roots:
    """Return the inverses L^-1 of roots: they take (z - mu) to standard normal numbers."""
    identity = torch.eye(roots.shape[-1], dtype=roots.dtype, device=roots.device).expand_as(roots)
    return torch.linalg.solve_triangular(roots, identity, upper=False)


def full_components(
    z: Flat, log_weights: Float[Tensor, "m"], means: Float[Tensor, "m d"], roots: Roots, inverse: Roots | None = None
) -> Float[Tensor, "n m"]:
    """Return log w_c + log N(z; mu_c, L_c L_c^T) of each row and each component c.

    roots: L; inverse: L^-1 where it is known, by which this is faster.
    """
    return log_weights + log_heights(roots) - 0.5 * squares(z, means, roots, inverse)


def squares(z: Flat, means: Float[Tensor, "m d"], roots: Roots, inverse: Roots | None = None) -> Float[Tensor, "n m"]:
    """Return (z - mu_c)^T (L_c L_c^T)^-1 (z - mu_c) of each row and each component c.

    roots: L; inverse: L^-1 where it is known, by which this is faster.
    """
    away = (z - means[:, None]).mT
    white = torch.linalg.solve_triangular(roots, away, upper=False) if inverse is None else inverse @ away
    return (white**2).sum(1).T


def mixture(components: Float[Tensor, "n m"]) -> PerImage:
    """Return log sum_c exp(component c) of each row: the log density of a mixture from its weighted components."""
    return torch.logsumexp(components, 1)


def chi_square_bound(d: int) -> float:
    """Return what a chi-square variable of d degrees of freedom exceeds once in 10^9 (Wilson and Hilferty, 1931)."""
    return d * (1 - 2 / (9 * d) + 6 * math.sqrt(2 / (9 * d))) ** 3
