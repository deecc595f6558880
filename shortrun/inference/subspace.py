"""The marginal estimator from few Hessian-vector products a step, where the latents are too many for a dense Hessian.

`SubspaceMarginal` is used in place of `Marginal`: the same function, `follow`, runs either along a chain.
"""

import math

import torch
from torch import Tensor

from shortrun.errors import InputError, check_at_least
from shortrun.inference.divergence import ChainDensity
from shortrun.inference.initial import Initial
from shortrun.inference.jacobian import Linearized, Step
from shortrun.inference.langevin import langevin_update
from shortrun.inference.products import (
    LARGE,
    Columns,
    Inside,
    Square,
    eye_like,
    half_square,
    hessian_times,
    next_root,
    products,
    project,
    signs,
    unit,
    without,
)
from shortrun.inference.quadrature import beside
from shortrun.normals import Flat, PerImage, chi_square_bound

FAR = 5 / 6
"""The share of a chain, counted back from its end, over which the whole steps are spread."""


def whole_steps(steps: int, whole: int) -> list[int]:
    """Return the whole steps, in rising order: those of the K whose Hessian is multiplied with all of the basis P.

    They are dense at the end of the chain and grow rarer towards its beginning, over FAR of the chain. The last steps
    decide where the chain ends. The Hessians of the first steps, far from the posterior, resemble no others.
    """
    if whole >= steps:
        return list(range(steps))
    found = [steps - 1]
    for index in range(1, whole):
        back = round((steps - 1) * FAR * (index / (whole - 1)) ** 2)
        found.append(min(found[-1] - 1, steps - 1 - back))
    return found[::-1]


def _between(known: dict[int, Columns], step: int) -> Columns:
    """Interpolate linearly between the nearest known steps before and after one; before the first, return the first."""
    before, after = (k for k in known if k < step), min(k for k in known if k > step)
    last = max(before, default=after)
    way = (step - last) / (after - last) if after > last else 0.0
    return torch.lerp(known[last], known[after], way)


class SubspaceMarginal(ChainDensity):
    """log q = log N(delta_K; 0, Sigma_K) as in `Marginal`, with Sigma_K approximated by two diagonal blocks.

    `Marginal` carries the covariance of the linearized chain as a dense (d, d) matrix, H_k the Hessian of log p(x, z):

        Sigma_{k+1} = A_k Sigma_k A_k^T + s_k^2 I,   A_k = I + (s_k^2 / 2) H_k

    Here only a subspace of r dimensions, fixed along the chain, has a dense block. Of the block of its orthogonal
    complement only the mean eigenvalue and the mean logarithm of an eigenvalue are estimated. That is enough if the
    subspace holds the stiff directions, those of large curvature, and the complement has nearly the prior's curvature.

    Subspace: the basis P (d, r) holds the leading left singular vectors of products with I + H_k, k = 0..K-1, which
    is zero where the curvature is the prior's. They are (I + H_k) delta_k, and the differences along the chain
    g_{k+1} - g_k + z_{k+1} - z_k with the score g, which cost no product. This is a randomized range finder whose
    probes are the chain's own vectors; random probes fill up where r exceeds 2 K - 1. The block is carried along:

        Sigma' = B_k Sigma B_k^T + s_k^2 I + C_k C_k^T;   B_k = P^T A_k P,   C_k = P^T A_k (I - P P^T)

    C_k C_k^T is the variance that the complement adds to the subspace in step k, if it has the prior's variance. The
    log determinant takes it into account; the quadratic form does not, see below.

    Complement: `beside` estimates the mean eigenvalue of the covariance there and its mean logarithm, by Lanczos
    quadrature from one random vector. Its log determinant is d - r times the mean logarithm.

    Quadratic form: delta^T Sigma^-1 delta is the sum over the two blocks. The blocks of A_k that couple subspace and
    complement are left out both of delta and of Sigma: an exact delta with an approximate Sigma gives huge values. In
    the complement Sigma is the mean eigenvalue. The sum is cut off as in `Marginal`.

    Hessian products: of the whole steps (see `whole_steps`) all of H_k P is computed. Of the others only the `stiff`
    leading columns are; the rest is interpolated between whole steps. H_k is symmetric, so that these columns give as
    many rows of B_k.

    Limits: the start is N(0, I), tilted or not; another raises InputError. Exact where log p(x, z) is quadratic and the
    complement has the prior's curvature. Differentiable in the step size, with P held fixed. At steps far beyond the
    best size the growing directions turn away from the fixed P; the estimate is then off by more than a tenth of its
    value.

    rng: of the random vector of the complement and of random probes.
    rank: r, at least 1; all of the space, and no complement, where r is d or more.
    stiff: leading columns of P that are multiplied with every Hessian.
    whole: number of whole steps, at least 1.
    outside: depth of the quadrature in the complement, at least 1; two Hessian products a step each.

    Source: none known for the whole; for the subspace Halko, Martinsson, Tropp, "Finding structure with randomness",
    2011, arXiv 0909.4061; for the quadrature see `beside`.
    """

    needs_noise = True

    def __init__(self, rng: torch.Generator, rank: int = 44, stiff: int = 12, whole: int = 6, outside: int = 2) -> None:
        check_at_least(1, rank=rank, whole=whole, outside=outside)
        self.rng, self.rank, self.stiff, self.whole, self.outside = rng, rank, min(stiff, rank), whole, outside

    @classmethod
    def at_a_tenth(cls, rng: torch.Generator, d: int, **changes: int) -> "SubspaceMarginal":
        """Return one whose settings, for d latents and with the changes, cost at most about a tenth of `Marginal`."""
        more = {"rank": 64, "stiff": 16, "whole": 10} if d >= LARGE else {}
        return cls(rng, **(more | changes))

    def start(self, z: Flat, initial: Initial) -> None:
        """Take z_0 and the density that it was drawn from."""
        if not initial.standard:
            raise InputError("initial", "another density than N(0, I)", "take Marginal, which is dense")
        self.tilt, self.delta, self.steps = initial.tilt, z.double(), []
        self.sketch: list[Tensor] = []

    def follow(self, step: Step) -> None:
        """Take the next step of the chain."""
        curved = products(step, self.delta[None])[0]
        self.sketch.append(unit(self.delta, self.delta + curved))
        if self.steps:
            moved, turned = step.z - self.steps[-1].z, step.score - self.steps[-1].score
            self.sketch.append(unit(moved, moved + turned))
        # delta takes the step of the chain with H delta in place of the score
        self.delta = langevin_update(self.delta, curved, step.step_size.double(), step.noise)
        self.steps.append(step)

    def log_q(self, end: Linearized) -> PerImage:
        """Return log q_s(z_K)."""
        log_det, squared = self._log_det_and_squared()
        d = self.delta.shape[1]
        squared = squared.clamp(max=chi_square_bound(d))
        return self.tilt - 0.5 * (log_det + squared + d * math.log(2 * math.pi))

    def _log_det_and_squared(self) -> tuple[PerImage, PerImage]:
        """Return log det Sigma_K and delta_K^T Sigma_K^-1 delta_K."""
        d = self.delta.shape[1]
        basis = self._subspace()
        root, alone, inside, outside = self._walk(basis)
        log_det = 2 * root.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
        white = torch.linalg.solve_triangular(alone.mT, inside[..., None], upper=False)
        squared = (white**2).sum((-2, -1))
        if (others := d - basis.shape[2]) > 0:
            variance, mean_log = beside(self.steps, basis, self.rng, self.outside)
            log_det = log_det + others * mean_log
            squared = squared + (outside**2).sum(1) / variance
        return log_det, squared

    def products_per_step(self, steps: int) -> float:
        """Return the number of Hessian-vector products for each step of a chain of K steps, the mean over the steps."""
        whole = min(self.whole, steps)
        completing = max(0, self.rank - (2 * steps - 1))
        return 2 * (1 + self.outside) + (self.rank * whole + self.stiff * (steps - whole) + completing) / steps

    def _subspace(self) -> Columns:
        rank = min(self.rank, self.delta.shape[1])
        missing = rank - len(self.sketch)
        for number in range(missing):
            step, probe = self.steps[-1 - number % len(self.steps)], signs(self.delta, self.rng)
            self.sketch.append(unit(probe, probe + products(step, probe[None])[0]))
        # P is detached: the derivative of a truncated decomposition is unbounded, and P hardly changes the estimate.
        # The order of the singular vectors stays: to order them by curvature at the whole steps would mislead, since
        # what is stiffest there is softer at the other steps.
        # A lost chain's NaN becomes zero, or the decomposition of all chains would fail; its products are NaN again.
        sketch = torch.stack(self.sketch, dim=2).detach().nan_to_num(0, 0, 0)
        return torch.linalg.svd(sketch, full_matrices=False)[0][..., :rank]

    def _walk(self, basis: Columns) -> tuple[Square, Square, Inside, Flat]:
        """Carry Sigma and delta along the chain, in the subspace ("inside") and in its complement ("outside").

        Return the square roots of Sigma_K in the subspace, with C_k C_k^T and without, and delta_K in either.
        """
        identity = eye_like(basis)
        whole = {k: self.steps[k] for k in whole_steps(len(self.steps), self.whole)}
        known = {k: hessian_times(step, half_square(step) * basis) for k, step in whole.items()}
        # H P without the factor s^2 / 2, so that it can be interpolated where step sizes differ along the chain
        bare = {k: known[k] / half_square(step).mean((1, 2), keepdim=True) for k, step in whole.items()}
        root = alone = identity.expand(len(self.delta), -1, -1)
        z = self.steps[0].z.double()
        inside, outside = project(basis, z), without(basis, z)
        for k, step in enumerate(self.steps):
            s, size = step.step_size.double(), half_square(step)
            if k in known:
                curved, added = known[k], products(step, outside[None])[0]
                block = seen = curved.mT @ basis
            else:
                stiff = min(self.stiff, basis.shape[2])
                both = torch.cat([size * basis[..., :stiff], outside[..., None]], dim=2)
                few, added = hessian_times(step, both).split([stiff, 1], dim=2)
                added, rows = added[..., 0], few.mT @ basis
                rest = size.mean((1, 2), keepdim=True) * _between(bare, k)[..., stiff:]
                others = rest.mT @ basis
                corner = torch.cat([rows[..., stiff:].mT, others[..., stiff:]], dim=2)
                curved, block = torch.cat([few, rest], dim=2), torch.cat([rows, corner], dim=1)
                seen = torch.cat([rows, others], dim=1)
            noise = s[..., None] * basis
            fresh = noise.mT @ noise
            leak = curved.mT @ curved - seen @ seen.mT
            root = next_root(root, identity + block, fresh + leak)
            alone = next_root(alone, identity + block, fresh)
            inside = inside + (block @ inside[..., None])[..., 0] + project(basis, s * step.noise)
            outside = without(basis, outside + size[..., 0] * added + s * step.noise)
        return root, alone, inside, outside
