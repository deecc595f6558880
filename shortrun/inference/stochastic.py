"""The conditional estimator from few Hessian-vector products a step: for latents too many for a dense Hessian.

`LanczosConditional` stands in for `Conditional`; `follow` runs both.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.errors import check_at_least
from shortrun.inference.divergence import ChainDensity
from shortrun.inference.initial import Initial
from shortrun.inference.jacobian import Linearized, Step
from shortrun.inference.products import LARGE, Columns, eigh, hessian_times
from shortrun.normals import Flat, PerImage

Square = Float[Tensor, "n m m"]
Product = Callable[[Columns], Columns]


class LanczosConditional(ChainDensity):
    """log q = log q(z_0) - sum_k log |det A_k|, the log-determinants by stochastic Lanczos quadrature.

        log |det A_k| = tr f(M),   f(M) = log |I + M|,   M = S H_k S,   S = diag(s_k / sqrt 2)
        tr f(M) ~= mean_i [d u_i^T f(M) u_i - d u_i^T C_i u_i + tr C_i]

    with u_i the directions of b random probes. u^T f(M) u is Gauss quadrature in the block Krylov space of all probes.
    C_i is a control variate of low rank, f(M) - c as the Krylov space of the other probes knows it. It holds the few
    stiff eigenvalues, which are most of the variance of d u^T f(M) u. C_i does not depend on u_i, and its trace is
    known. It therefore adds no bias, whatever has converged, and it takes no products of its own. c, the value of most
    directions, is the median of f over the Ritz values, weighted by the other probes' shares.

    What remains is the error of Gauss quadrature. It is small where no step overshoots (s^2 lambda < 4, lambda the
    largest curvature), since f is smooth there, and may be some per cent beyond, where f has a pole among the
    eigenvalues. Values only: Ritz pairs that all but coincide make derivatives unreliable.

    rng: of probes and draws; from the same state, estimates at nearby step sizes share them.
    probes: b.
    depth: blocks of products for each log-determinant, exact where probes * depth reaches d.
    every: of so many steps one, drawn at random for each image, speaks for all. The draws of images are independent, so
        that the standard error over images contains what they add.
    first: so many steps, which change most, speak for themselves.

    Source: Ubaru, Chen, Saad, "Fast Estimation of tr(f(A)) via Stochastic Lanczos Quadrature", 2017, SIAM J. Matrix
    Anal. Appl. 38(4), there with one probe a time and no control variate. To hold a probe against what the others have
    found is from Epperly, Tropp, Webber, "XTrace: Making the Most of Every Sample in Stochastic Trace Estimation",
    2024, SIAM J. Matrix Anal. Appl. 45(1), arXiv 2301.07825; the Krylov space for it from Chen, Hallman, "Krylov-Aware
    Stochastic Trace Estimation", 2023, SIAM J. Matrix Anal. Appl. 44(3), arXiv 2205.01736.
    """

    def __init__(self, rng: torch.Generator, probes: int = 6, depth: int = 7, every: int = 2, first: int = 1) -> None:
        check_at_least(1, probes=probes, depth=depth, every=every)
        self.rng, self.probes, self.depth, self.every, self.first = rng, probes, depth, every, first

    @classmethod
    def at_a_tenth(cls, rng: torch.Generator, d: int, **changes: int) -> "LanczosConditional":
        """Return it with the settings for d latents, about a tenth of the dense one's cost or less, and the changes."""
        return cls(rng, **({"every": 1 if d >= LARGE else 2} | changes))

    def start(self, z: Flat, initial: Initial) -> None:
        """Take in where the chain starts, z_0, and the density that it was drawn from."""
        self.value, self.seen = initial.log_prob(z), 0
        self.block: list[Step] = []

    def follow(self, step: Step) -> None:
        """See a step of the chain."""
        self.block.append(step)
        self.seen += 1
        if len(self.block) == self.every or self.seen <= self.first:
            self._speak()

    def log_q(self, end: Linearized) -> PerImage:
        """Return log q_s(z_K)."""
        if self.block:
            self._speak()
        return self.value

    def products_per_step(self, steps: int) -> float:
        """Return the Hessian-vector products that a chain of K steps takes, over K."""
        alone = min(self.first, steps)
        return self.probes * self.depth * (alone + math.ceil((steps - alone) / self.every)) / steps

    def _speak(self) -> None:
        size = len(self.block)
        step = self.block[0] if size == 1 else one_of_each(self.block, self.rng)
        self.value = self.value - size * log_det(step, self.probes, self.depth, self.rng)
        self.block = []


def one_of_each(steps: list[Step], rng: torch.Generator) -> Step:
    """Return where each image is at one of the steps, drawn for each image by itself, with that step's size."""
    n = len(steps[0].z)
    rows = torch.arange(n, device=steps[0].z.device)
    drawn = torch.randint(len(steps), (n,), generator=rng, device=rng.device).to(rows.device)
    z = torch.stack([step.z for step in steps])[drawn, rows]
    sizes = torch.stack([step.step_size.expand_as(z) for step in steps])[drawn, rows]
    return Step(steps[0].log_density, z, sizes, None)


def log_det(step: Step, probes: int, depth: int, rng: torch.Generator) -> PerImage:
    """Estimate log |det A| of a step, float64, from probes * depth products with its Hessian; see the class."""
    n, d = step.z.shape
    root = step.step_size / math.sqrt(2)

    def product(v: Columns) -> Columns:
        return root[..., None] * hessian_times(step, root[..., None] * v).to(root.dtype)

    if probes * depth >= d:
        whole = product(torch.eye(d, dtype=root.dtype, device=root.device).expand(n, d, d)).double()
        return _log_of(eigh(0.5 * (whole + whole.mT))[0]).sum(1)
    drawn = torch.randn(n, d, probes, generator=rng, device=rng.device, dtype=torch.float64)
    start, shares = torch.linalg.qr(drawn.to(root))
    matrix = krylov(product, start, depth)
    unit = shares.double() / shares.double().norm(dim=1, keepdim=True)
    theta, turn = eigh(matrix)
    plain = d * ((turn[:, :probes].mT @ unit) ** 2 * _log_of(theta)[..., None]).sum(1)
    return (plain - _controls(matrix, unit, depth, d) if probes > 1 else plain).mean(1)


def krylov(product: Product, start: Columns, depth: int) -> Square:
    """Return Q^T M Q, float64, with Q an orthonormal basis of start, M start, .., M^(depth - 1) start; M is symmetric.

    The first columns of Q are start, (n, d, b), whose columns are orthonormal.
    """
    basis, curved = start, product(start)
    for _ in range(depth - 1):
        new = curved[..., -start.shape[2] :]
        for _ in range(2):  # once is not enough in float32, nor where the space ends early
            new = torch.linalg.qr(new - basis @ (basis.mT @ new))[0]
        basis, curved = torch.cat([basis, new], dim=2), torch.cat([curved, product(new)], dim=2)
    small = (basis.mT @ curved).double()
    return 0.5 * (small + small.mT)


def _controls(matrix: Square, unit: Float[Tensor, "n b b"], depth: int, d: int) -> Float[Tensor, "n b"]:
    """Return d u_i^T C_i u_i - tr C_i for each probe: 0 on average.

    matrix: M in the Krylov space of all probes, whose first b directions `unit` refers to; its columns are the u_i.
    """
    n, m, b = *matrix.shape[:2], unit.shape[2]
    keep = torch.tensor([[other for other in range(b) if other != one] for one in range(b)], device=unit.device)
    start = unit.new_zeros(n, b, m, b - 1)
    start[:, :, :b] = unit[:, :, keep].transpose(1, 2)
    start, matrix = torch.linalg.qr(start.flatten(0, 1))[0], matrix.repeat_interleave(b, 0)
    # M^k times a probe lies in the large space for k < depth, so that the others' Krylov space is that of `matrix`
    basis = orthonormal(matrix, start, depth)
    theta, turn = eigh(basis.mT @ matrix @ basis)
    values = _log_of(theta)
    excess = values - weighted_median(values, (turn[:, : b - 1] ** 2).sum(1))[:, None]
    own = (basis[:, :b].mT @ unit.mT.flatten(0, 1)[..., None])[..., 0]
    share = (turn.mT @ own[..., None])[..., 0] ** 2
    return ((d * share - 1) * excess).sum(1).view(n, b)


def orthonormal(matrix: Square, start: Float[Tensor, "n m b"], depth: int) -> Float[Tensor, "n m r"]:
    """Return an orthonormal basis of start, M start, .., M^(depth - 1) start for a matrix that is held."""
    basis = new = start
    for _ in range(depth - 1):
        new = matrix @ new
        for _ in range(2):
            new = torch.linalg.qr(new - basis @ (basis.mT @ new))[0]
        basis = torch.cat([basis, new], dim=2)
    return basis


def weighted_median(values: Float[Tensor, "n m"], weights: Float[Tensor, "n m"]) -> PerImage:
    """Return the least value of each row at which half of the row's weight lies at it or below.

    values: (n, m).
    weights: (n, m), not negative.
    """
    values, order = values.sort(dim=1)
    below = weights.gather(1, order).cumsum(1)
    at = (below >= 0.5 * below[:, -1:]).double().argmax(1)
    return values.gather(1, at[:, None])[:, 0]


def _log_of(theta: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    return (1 + theta).abs().clamp(min=1e-12).log()
