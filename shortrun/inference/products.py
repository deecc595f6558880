"""Products of a step's Hessian with a few columns, and the algebra of the subspace that they span.

Everything is float64: chains that overshoot multiply many of these.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.inference.jacobian import Linearized, Step
from shortrun.normals import Flat

Columns = Float[Tensor, "n d r"]
Square = Float[Tensor, "n r r"]
Inside = Float[Tensor, "n r"]
LARGE = 512
"""Latents from which a tenth of the dense products holds as many as the stochastic estimators have use for."""


def products(step: Linearized, v: Float[Tensor, "m n d"]) -> Float[Tensor, "m n d"]:
    """Return H v in float64; v is scaled to length 1 on the way, so that what overshoots stays in the model's range."""
    size = v.detach().norm(dim=2, keepdim=True).clamp(min=1e-300)
    scaled = (v / size).to(step.z.dtype)
    curved = step.product(scaled[0])[None] if len(v) == 1 else torch.func.vmap(step.product)(scaled)
    return curved.double() * size


def hessian_times(step: Linearized, columns: Columns) -> Columns:
    """Return H times each column."""
    return products(step, columns.permute(2, 0, 1)).permute(1, 2, 0)


def half_square(step: Step) -> Float[Tensor, "#n d 1"]:
    """Return s^2 / 2 as a column, float64."""
    return 0.5 * step.step_size.double()[..., None] ** 2


def next_root(root: Square, block: Square, added: Square) -> Square:
    """Return the root of B Sigma B^T + added by QR, NaN where it has none: see `Marginal` for why not Sigma itself."""
    fresh, failed = torch.linalg.cholesky_ex(added)
    fresh = fresh.masked_fill((failed > 0)[:, None, None], torch.nan).mT
    return torch.linalg.qr(torch.cat([root @ block.mT, fresh], dim=1))[1]


def eigh(matrix: Float[Tensor, "n m m"]) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m m"]]:
    """Return eigenvalues and eigenvectors, NaN for a matrix that is not finite: a lost chain must not lose the rest."""
    lost = ~torch.isfinite(matrix).all(2).all(1)
    values, vectors = torch.linalg.eigh(torch.where(lost[:, None, None], torch.zeros_like(matrix), matrix))
    return values.masked_fill(lost[:, None], torch.nan), vectors


def project(basis: Columns, v: Flat) -> Inside:
    """Return P^T v."""
    return (basis.mT @ v.double()[..., None])[..., 0]


def without(basis: Columns, v: Flat) -> Flat:
    """Return (I - P P^T) v."""
    return v - (basis @ project(basis, v)[..., None])[..., 0]


def unit(by: Flat, v: Flat) -> Flat:
    """Return v in units of the length of `by`."""
    return v.double() / by.double().norm(dim=1, keepdim=True).clamp(min=1e-300)


def eye_like(basis: Columns) -> Float[Tensor, "r r"]:
    """Return the identity of the subspace."""
    return torch.eye(basis.shape[2], dtype=torch.float64, device=basis.device)


def signs(like: Flat, rng: torch.Generator) -> Flat:
    """Draw a probe of +1 and -1 for each row, float64."""
    drawn = torch.randint(2, like.shape, generator=rng, device=rng.device)
    return (2.0 * drawn.double() - 1.0).to(like.device)
