"""Mean eigenvalue and mean logarithm of one, of the covariance beside a subspace, from few Hessian-vector products."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.inference.jacobian import Step
from shortrun.inference.products import Columns, eigh, half_square, products, signs, without
from shortrun.normals import Flat, PerImage

Coefficients = Float[Tensor, "n m"]
SMALL = 1e-12


def beside(steps: list[Step], basis: Columns, rng: torch.Generator, depth: int) -> tuple[PerImage, PerImage]:
    """Estimate the mean eigenvalue, and the mean logarithm of one, of the covariance in the complement of a subspace.

    M is the covariance of the ends of chains that start from N(0, I) and lose their part in the subspace at each step.
    One random vector u of the complement gives both. The mean eigenvalue is u^T M u. For u^T log(M) u there are two
    bounds: Gauss quadrature from above, and Gauss-Radau quadrature from below, with a node at the least eigenvalue that
    M can have, min s_{K-1}^2. Each bound moves by less with every product; the estimate is the value at which the two
    would meet if both went on by the ratio of their last changes.

    steps: of the chain, each with its Hessian products.
    basis: (n, d, r), of the subspace.
    rng: gives the signs of u.
    depth: products with M, of two Hessian products a step each.

    Source: Golub and Meurant, "Matrices, Moments and Quadrature with Applications", 2010.
    """
    start = without(basis, signs(steps[0].z, rng))
    lowest = steps[-1].step_size.double().amin(1) ** 2
    depth = min(depth, basis.shape[1] - basis.shape[2])
    return _mean_and_log(lambda v: _covariance(steps, basis, v), start, depth, lowest)


def _covariance(steps: list[Step], basis: Columns, v: Flat) -> Flat:
    """Return the covariance of what is beside the subspace times v, back along the chain and on; v is beside it."""
    sent = [v]
    for step in steps[::-1]:
        back = sent[-1] + products(step, (half_square(step)[..., 0] * sent[-1])[None])[0]
        sent.append(without(basis, back))
    on = sent.pop()
    for step in steps:
        on = on + half_square(step)[..., 0] * products(step, on[None])[0]
        on = without(basis, on + step.step_size.double() ** 2 * sent.pop())
    return on


def _mean_and_log(
    product: Callable[[Flat], Flat], start: Flat, depth: int, lowest: Float[Tensor, "#n"]
) -> tuple[PerImage, PerImage]:
    """Return u^T M u and, between its bounds by quadrature, u^T log(M) u, both over u^T u; M is at least `lowest`."""
    basis = [start / start.norm(dim=1, keepdim=True)]
    diagonal, off_diagonal = [], []
    for _ in range(depth):
        new = product(basis[-1])
        diagonal.append((new * basis[-1]).sum(1))
        for _ in range(2):  # once is not enough where the space ends early
            for old in basis:
                new = new - (new * old).sum(1, keepdim=True) * old
        off_diagonal.append(new.norm(dim=1).clamp(min=SMALL))
        basis.append(new / off_diagonal[-1][:, None])
    alpha, beta = torch.stack(diagonal, 1), torch.stack(off_diagonal, 1)
    above, below = _bounds(alpha, beta, lowest)
    if depth == 1:
        return alpha[:, 0], 0.5 * (above + below)
    higher, lower = _bounds(alpha[:, :-1], beta[:, :-1], lowest)
    # the bound that still moves more is the farther one
    fell, rose = (higher - above).clamp(min=SMALL), (below - lower).clamp(min=SMALL)
    return alpha[:, 0], (above * rose + below * fell) / (fell + rose)


def _bounds(alpha: Coefficients, beta: Coefficients, lowest: Float[Tensor, "#n"]) -> tuple[PerImage, PerImage]:
    """Return Gauss and Gauss-Radau quadrature of the logarithm from Lanczos coefficients, (n, m) each."""
    n, m = alpha.shape
    jacobi, node = _tridiagonal(alpha, beta[:, :-1]), lowest.expand(n) * (1 - SMALL)
    last_unit = torch.eye(m, dtype=alpha.dtype, device=alpha.device)[-1].expand(n, m)
    shifted = jacobi - torch.diag_embed(node[:, None].expand(n, m))
    last = node + beta[:, -1] ** 2 * torch.linalg.solve_ex(shifted, last_unit[..., None])[0][:, -1, 0]
    radau = _tridiagonal(torch.cat([alpha, last[:, None]], 1), beta)
    return _log_at_first(jacobi, node), _log_at_first(radau, node)


def _tridiagonal(diagonal: Coefficients, off_diagonal: Tensor) -> Float[Tensor, "n m m"]:
    return torch.diag_embed(diagonal) + torch.diag_embed(off_diagonal, 1) + torch.diag_embed(off_diagonal, -1)


def _log_at_first(matrix: Float[Tensor, "n m m"], lowest: PerImage) -> PerImage:
    theta, turn = eigh(matrix)
    return (turn[:, 0] ** 2 * theta.maximum(lowest[:, None]).log()).sum(1)
