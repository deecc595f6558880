"""log det of the covariance that `Marginal` keeps, for chains that overshoot, from few Hessian-vector products.

Directions in which A_k stretches grow by many orders of magnitude and turn faster than a fixed subspace follows. A
frame that moves with the chain holds them; beside it little grows, and quadrature from one random vector is enough.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.inference.divergence import PerImage
from shortrun.inference.jacobian import Flat, Step
from shortrun.inference.products import (
    Columns,
    eye_like,
    half_square,
    images,
    next_root,
    products,
    signs,
    without,
)

Coefficients = Float[Tensor, "n m"]
SMALL = 1e-12


def log_det_covariance(steps: list[Step], rng: torch.Generator, columns: int, powers: int, depth: int) -> PerImage:
    """Estimate log det Sigma_K, Sigma_0 = I, Sigma_{k+1} = A_k Sigma_k A_k^T + diag(s_k^2), without any of its rows.

        frame: P_{k+1} R_k = A_k P_k by QR, as for Lyapunov exponents; Sigma there: R Sigma R^T + N^T N + w_k C C^T
        noise: N = diag(s_k) P_{k+1}
        leak:  C = P_{k+1}^T A_k (I - P_k P_k^T), of which w_k = 1 - prod_{j >= k} (1 - s_j^2 / 2)^2 is not seen any
               more beside the frame at the end; A_{k+1} P_{k+1}, which is known, stands in for A_k P_{k+1}
        rest:  tr log M, M the covariance of chains that lose their part in P_k at each step, from one random vector:
               between Gauss quadrature, an upper bound, and Gauss-Radau's with a node at the least eigenvalue that M
               can have, min s_{K-1}^2, a lower one: where both would meet if each went on as in its last product

    P_0 is random, times A_0 `powers` times. columns: of P; depth: products with M, two Hessian products a step each.
    All at once: columns * (K + powers) + 2 * depth * K. Exact where the columns are as many as the latents.

    Source: none known; for the frame Benettin et al., "Lyapunov characteristic exponents for smooth dynamical systems",
    1980, Meccanica 15; for the bounds Golub and Meurant, "Matrices, Moments and Quadrature with Applications", 2010.
    """
    d = steps[0].z.shape[1]
    inside, frames = _follow(steps, rng, min(columns, d), powers)
    if d == frames[0].shape[2]:
        return inside
    return inside + (d - frames[0].shape[2]) * beside(steps, frames, rng, depth)[1]


def beside(steps: list[Step], frames: list[Columns], rng: torch.Generator, depth: int) -> tuple[PerImage, PerImage]:
    """Estimate the mean eigenvalue, and the mean logarithm of one, of the covariance of what is beside the frames.

    Of the covariance of chains that lose their part in P_k, k = 0..K, at each step, by the quadrature of
    `log_det_covariance` from one random vector.
    """
    start = without(frames[-1], signs(steps[0].z, rng))
    lowest = steps[-1].step_size.double().amin(1) ** 2
    depth = min(depth, frames[0].shape[1] - frames[0].shape[2])
    return _mean_and_log(lambda v: _covariance(steps, frames, v), start, depth, lowest)


def _follow(steps: list[Step], rng: torch.Generator, columns: int, powers: int) -> tuple[PerImage, list[Columns]]:
    n, d = steps[0].z.shape
    drawn = torch.randn(n, d, columns, generator=rng, device=rng.device, dtype=torch.float64).to(steps[0].z.device)
    basis = torch.linalg.qr(drawn)[0]
    for _ in range(powers):
        basis = torch.linalg.qr(_moved(steps[0], basis).detach())[0]
    frames, moved = [basis], []
    for step in steps:
        moved.append(_moved(step, frames[-1]))
        # where the frame points is a choice: derivatives are those of a frame that is held
        frames.append(torch.linalg.qr(moved[-1].detach())[0])
    root, forgotten = eye_like(basis).expand(n, -1, -1), _forgotten(steps)
    for k, step in enumerate(steps):
        noise = step.step_size.double()[..., None] * frames[k + 1]
        added = noise.mT @ noise
        if k + 1 < len(steps):  # the last leak is all seen in the rest
            leak = moved[k + 1] - frames[k] @ (frames[k].mT @ moved[k + 1])
            added = added + forgotten[k] * (leak.mT @ leak)
        root = next_root(root, frames[k + 1].mT @ moved[k], added)
    return 2 * root.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1), frames


def _moved(step: Step, columns: Columns) -> Columns:
    return columns + half_square(step) * images(step, columns)


def _forgotten(steps: list[Step]) -> list[Tensor]:
    """Return for each step how much of a soft direction's state there the noise after it has replaced, (#n, 1, 1)."""
    kept, shares = torch.ones((), dtype=torch.float64, device=steps[0].z.device), []
    for step in steps[::-1]:
        kept = kept * (1 - half_square(step).mean((1, 2), keepdim=True)) ** 2
        shares.append((1 - kept).clamp(min=0))
    return shares[::-1]


def _covariance(steps: list[Step], frames: list[Columns], v: Flat) -> Flat:
    """Return the covariance of what is beside the frames times v, back along the chain and on; v is beside the last."""
    sent = [v]
    for k in range(len(steps) - 1, -1, -1):
        after = sent[-1]
        back = after + products(steps[k], (half_square(steps[k])[..., 0] * after)[None])[0]
        sent.append(without(frames[k], back))
    on = sent.pop()
    for k, step in enumerate(steps):
        on = on + half_square(step)[..., 0] * products(step, on[None])[0]
        on = without(frames[k + 1], on + step.step_size.double() ** 2 * sent.pop())
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
    last = node + beta[:, -1] ** 2 * torch.linalg.solve(shifted, last_unit[..., None])[:, -1, 0]
    radau = _tridiagonal(torch.cat([alpha, last[:, None]], 1), beta)
    return _log_at_first(jacobi, node), _log_at_first(radau, node)


def _tridiagonal(diagonal: Coefficients, off_diagonal: Tensor) -> Float[Tensor, "n m m"]:
    return torch.diag_embed(diagonal) + torch.diag_embed(off_diagonal, 1) + torch.diag_embed(off_diagonal, -1)


def _log_at_first(matrix: Float[Tensor, "n m m"], lowest: PerImage) -> PerImage:
    theta, turn = torch.linalg.eigh(matrix)
    return (turn[:, 0] ** 2 * theta.maximum(lowest[:, None]).log()).sum(1)
