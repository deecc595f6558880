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

CONVERGED = 0.1
"""A Ritz value counts as an eigenvalue where its residual is below this share of its distance from the prior's value.
Chosen by trial on trained generators, whose stiff eigenvalues fall off geometrically."""


class LanczosConditional(ChainDensity):
    """log q = log q(z_0) - sum_k log |det A_k|, the log-determinants by stochastic Lanczos quadrature.

        log |det A_k| = tr log |I + S H_k S|,  S = diag(s_k / sqrt 2);   tr f(M) ~= (d / b) sum_j |tau_j|^2 f(theta_j)

    with theta_j the Ritz values of the block Krylov space of b random probes, tau_j (b,) their vectors' shares of the
    probes. A Ritz value that has converged to an eigenvalue counts as one in place of its (d / b) |tau_j|^2, and the
    others share what is left in proportion to theirs: most of the variance came from the few stiff ones. Eigenvalues
    apart from the prior's are taken to be simple. Values only: Ritz pairs that all but coincide make derivatives
    unreliable.

    rng: of probes and draws; from the same state, estimates at nearby step sizes share them.
    probes: b.
    depth: blocks of products for each log-determinant, exact where probes * depth reaches d.
    every: of so many steps one, drawn at random, speaks for all.
    first: so many steps, which change most, speak for themselves.

    Source: Ubaru, Chen, Saad, "Fast Estimation of tr(f(A)) via Stochastic Lanczos Quadrature", 2017, SIAM J. Matrix
    Anal. Appl. 38(4), there with one probe a time and no count of converged values.
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
        one = 0 if size == 1 else int(torch.randint(size, (), generator=self.rng, device=self.rng.device))
        self.value = self.value - size * log_det(self.block[one], self.probes, self.depth, self.rng)
        self.block = []


def log_det(step: Step, probes: int, depth: int, rng: torch.Generator) -> PerImage:
    """Estimate log |det A| of a step, float64, from probes * depth products with its Hessian."""
    n, d = step.z.shape
    root = step.step_size / math.sqrt(2)
    if probes * depth >= d:
        depth, start = 1, torch.eye(d, dtype=root.dtype, device=root.device).expand(n, d, d)
    else:
        drawn = torch.randn(n, d, probes, generator=rng, device=rng.device, dtype=torch.float64)
        start = torch.linalg.qr(drawn.to(root))[0]
    theta, weight, residual = ritz(
        lambda v: root[..., None] * hessian_times(step, root[..., None] * v).to(root.dtype), start, depth
    )
    prior = -(root.double() ** 2).mean(1, keepdim=True)
    distance = (theta - prior).abs()
    found = (residual < CONVERGED * distance) & (distance > 0.1 * prior.abs())  # the prior's has many directions
    # a weight too large for one direction is a cluster's, not told apart yet
    found = (found & (d * weight < start.shape[2] * (1 + 5 * (2 / start.shape[2]) ** 0.5))).double()
    values = (1 + theta).abs().clamp(min=1e-12).log()
    rest = weight * (1 - found)
    mean_of_rest = (rest * values).sum(1) / rest.sum(1).clamp(min=1e-300)
    return (found * values).sum(1) + (d - found.sum(1)) * mean_of_rest


def ritz(
    product: Callable[[Columns], Columns], start: Columns, depth: int
) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"], Float[Tensor, "n m"]]:
    """Return Ritz values of a symmetric matrix M, squared shares of their vectors in the start, and residual norms.

    The space is that of start, M start, .., M^(depth - 1) start; start, (n, d, b), has orthonormal columns.
    """
    basis, curved = start, product(start)
    for _ in range(depth - 1):
        new = curved[..., -start.shape[2] :]
        for _ in range(2):  # once is not enough in float32, nor where the space ends early
            new = torch.linalg.qr(new - basis @ (basis.mT @ new))[0]
        basis, curved = torch.cat([basis, new], dim=2), torch.cat([curved, product(new)], dim=2)
    small = (basis.mT @ curved).double()
    theta, turn = eigh(0.5 * (small + small.mT))
    turned = turn.to(basis.dtype)
    residual = (curved @ turned - (basis @ turned) * theta[:, None].to(basis.dtype)).norm(dim=1).double()
    return theta, (turn[:, : start.shape[2]] ** 2).sum(1), residual
