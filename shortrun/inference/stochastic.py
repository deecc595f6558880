"""Estimators of log q_s(z_K) from few Hessian-vector products a step: for latents too many for a dense Hessian.

`LanczosConditional` stands in for `Conditional`, `SubspaceMarginal` for `Marginal`; `follow` runs all four.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.errors import InputError
from shortrun.inference.divergence import Density, PerImage, chi_square_bound, standard_normal
from shortrun.inference.jacobian import Flat, Linearized, Step

Columns = Float[Tensor, "n d r"]
Square = Float[Tensor, "n r r"]
Inside = Float[Tensor, "n r"]

CONVERGED = 0.1
"""A Ritz value counts as an eigenvalue where its residual is below this share of its distance from the prior's value.
Chosen by trial on trained generators, whose stiff eigenvalues fall off geometrically."""


class LanczosConditional(Density):
    """log q = log N(z_0; 0, I) - sum_k log |det A_k|, the log-determinants by stochastic Lanczos quadrature.

        log |det A_k| = tr log |I + S H_k S|,  S = diag(s_k / sqrt 2);   tr f(M) ~= (d / b) sum_j |tau_j|^2 f(theta_j)

    with theta_j the Ritz values of the block Krylov space of b random probes, tau_j (b,) their vectors' shares of the
    probes. A Ritz value that has converged to an eigenvalue counts as one in place of its (d / b) |tau_j|^2, and the
    others share what is left in proportion to theirs: most of the variance came from the few stiff ones. Eigenvalues
    apart from the prior's are taken to be simple. probes: b; depth: blocks of products for each log-determinant, exact
    where probes * depth reaches d. every: of so many steps one, drawn at random, speaks for all; the `first` steps,
    which change most, speak for themselves. rng: of probes and draws; from the same state, estimates at nearby step
    sizes share them. Values only: Ritz pairs that all but coincide make derivatives unreliable.

    Source: Ubaru, Chen, Saad, "Fast Estimation of tr(f(A)) via Stochastic Lanczos Quadrature", 2017, SIAM J. Matrix
    Anal. Appl. 38(4), there with one probe a time and no count of converged values.
    """

    def __init__(self, rng: torch.Generator, probes: int = 6, depth: int = 6, every: int = 2, first: int = 1) -> None:
        at_least_one(probes=probes, depth=depth, every=every)
        self.rng, self.probes, self.depth, self.every, self.first = rng, probes, depth, every, first

    def start(self, z: Flat) -> None:
        """See z_0."""
        self.value, self.seen = standard_normal(z), 0
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
    theta, share, residual = ritz(
        lambda v: root[..., None] * images(step, root[..., None] * v).to(root.dtype), start, depth
    )
    prior = -(root.double() ** 2).mean(1, keepdim=True)
    distance = (theta - prior).abs()
    found = (residual < CONVERGED * distance) & (distance > 0.1 * prior.abs())  # the prior's has many directions
    # a share too large for one direction is a cluster's, not told apart yet
    found = (found & (d * share < start.shape[2] * (1 + 5 * (2 / start.shape[2]) ** 0.5))).double()
    values = (1 + theta).abs().clamp(min=1e-12).log()
    rest = share * (1 - found)
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
    theta, turn = torch.linalg.eigh(0.5 * (small + small.mT))
    turned = turn.to(basis.dtype)
    residual = (curved @ turned - (basis @ turned) * theta[:, None].to(basis.dtype)).norm(dim=1).double()
    return theta, (turn[:, : start.shape[2]] ** 2).sum(1), residual


class SubspaceMarginal(Density):
    """log q = log N(delta_K; 0, Sigma_K), as `Marginal`, in a subspace of stiff directions and one number beside it.

        P (d, r): the leading left singular vectors of (I + H_k) delta_k and g_{k+1} - g_k + z_{k+1} - z_k, k = 0..K-1
        inside: Sigma' = B_k Sigma B_k^T + s_k^2 I + C_k C_k^T;  B_k = P^T A_k P,  C_k = P^T A_k (I - P P^T)
        outside: Sigma = c I, c the mean of w^T Sigma_K w over the outside, by one random w sent back along the chain

    C_k C_k^T is what the outside, at its prior variance, adds to the inside. The last `late` steps know all of B_k;
    before them only the rows and columns of its `stiff` stiffest directions are taken at each step, the rest from the
    mean of the late ones: stiff directions forget, the others average. delta^T Sigma^-1 delta is that of the two
    blocks uncoupled, as is delta itself there, and is cut as in `Marginal`. rank: r. Products: see
    `products_per_step`. rng: of w, and of probes for P where r exceeds 2 K - 1. Exact where log p(x, z) is
    quadratic and the outside is at the prior's curvature. Differentiable in the step size, with P held fixed.

    Source: none known; the subspace is in the manner of Halko, Martinsson, Tropp, "Finding structure with randomness",
    2011, arXiv 0909.4061.
    """

    needs_noise = True

    def __init__(self, rng: torch.Generator, rank: int = 48, stiff: int = 10, late: int = 7) -> None:
        at_least_one(rank=rank, late=late)
        self.rng, self.rank, self.stiff, self.late = rng, rank, min(stiff, rank), late

    def start(self, z: Flat) -> None:
        """See z_0."""
        self.delta, self.steps = z.double(), []
        self.sketch: list[Tensor] = []

    def follow(self, step: Step) -> None:
        """See a step of the chain."""
        curved = products(step, self.delta[None])[0]
        self.sketch.append(unit(self.delta, self.delta + curved))
        if self.steps:
            moved, turned = step.z - self.steps[-1].z, step.score - self.steps[-1].score
            self.sketch.append(unit(moved, moved + turned))
        s = step.step_size.double()
        self.delta = self.delta + 0.5 * s**2 * curved + s * step.noise
        self.steps.append(step)

    def log_q(self, end: Linearized) -> PerImage:
        """Return log q_s(z_K)."""
        d = self.delta.shape[1]
        basis, known = self._late_blocks(self._subspace())
        root, alone, inside, outside = self._walk(basis, known)
        log_det = 2 * root.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
        white = torch.linalg.solve_triangular(alone.mT, inside[..., None], upper=False)
        squared = (white**2).sum((-2, -1))
        if (others := d - basis.shape[2]) > 0:
            variance = self._variance_outside(basis)
            log_det = log_det + others * variance.log()
            squared = squared + (outside**2).sum(1) / variance
        return -0.5 * (log_det + squared.clamp(max=chi_square_bound(d)) + d * math.log(2 * math.pi))

    def products_per_step(self, steps: int) -> float:
        """Return the Hessian-vector products that a chain of K steps takes, over K."""
        late = min(self.late, steps)
        completing = max(0, self.rank - (2 * steps - 1))
        return 3 + (self.rank * late + self.stiff * (steps - late) + completing) / steps

    def _subspace(self) -> Columns:
        d = self.delta.shape[1]
        rank = min(self.rank, d)
        missing = rank - len(self.sketch)
        for number in range(missing):
            step, probe = self.steps[-1 - number % len(self.steps)], signs(self.delta, self.rng)
            self.sketch.append(unit(probe, probe + products(step, probe[None])[0]))
        # the derivative of a truncated decomposition is unbounded, and the estimate does not depend on P to first order
        return torch.linalg.svd(torch.stack(self.sketch, dim=2).detach(), full_matrices=False)[0][..., :rank]

    def _late_blocks(self, basis: Columns) -> tuple[Columns, dict[int, Columns]]:
        """Turn the basis so that the stiffest direction comes first; return it and H (s^2/2 P) of each late step."""
        steps, known, square = self.steps, {}, torch.zeros((), dtype=torch.float64, device=basis.device)
        for k in range(max(0, len(steps) - self.late), len(steps)):
            known[k] = images(steps[k], half_square(steps[k]) * basis)
            block = (known[k].mT @ basis + half_square(steps[k]).mean((1, 2), keepdim=True) * eye_like(basis)).detach()
            square = square + block @ block.mT
        turn = torch.linalg.eigh(square)[1].flip(-1)
        return basis @ turn, {k: curved @ turn for k, curved in known.items()}

    def _walk(self, basis: Columns, known: dict[int, Columns]) -> tuple[Square, Square, Inside, Flat]:
        """Return roots of Sigma_K inside, with and without what the outside adds, and delta_K inside and outside."""
        identity, first = eye_like(basis), min(known)
        scale = {k: half_square(self.steps[k]).mean((1, 2), keepdim=True) for k in known}
        mean = torch.stack([known[k].mT @ basis / scale[k] for k in known]).mean(0)
        root = alone = identity.expand(len(self.delta), -1, -1)
        z = self.steps[0].z.double()
        inside, outside = project(basis, z), without(basis, z)
        for k, step in enumerate(self.steps):
            s, size = step.step_size.double(), half_square(step)
            if k in known:
                curved, added = known[k], products(step, outside[None])[0]
                block = curved.mT @ basis
            else:
                stiff = min(self.stiff, basis.shape[2])
                both = torch.cat([size * basis[..., :stiff], outside[..., None]], dim=2)
                few, added = images(step, both).split([stiff, 1], dim=2)
                added, rows = added[..., 0], few.mT @ basis
                now = size.mean((1, 2), keepdim=True)
                corner = torch.cat([rows[..., stiff:].mT, (mean * now)[:, stiff:, stiff:]], dim=2)
                curved = torch.cat([few, (known[first] * (now / scale[first]))[..., stiff:]], dim=2)
                block = torch.cat([rows, corner], dim=1)
            noise = s[..., None] * basis
            leak = curved - basis @ (basis.mT @ curved)
            fresh = noise.mT @ noise
            root = next_root(root, identity + block, fresh + leak.mT @ leak)
            alone = next_root(alone, identity + block, fresh)
            inside = inside + (block @ inside[..., None])[..., 0] + project(basis, s * step.noise)
            outside = without(basis, outside + size[..., 0] * added + s * step.noise)
        return root, alone, inside, outside

    def _variance_outside(self, basis: Columns) -> PerImage:
        probe = without(basis, signs(self.delta, self.rng))
        back, total = probe, torch.zeros_like(probe[:, 0])
        for step in self.steps[::-1]:
            total = total + ((step.step_size.double() * back) ** 2).sum(1)
            back = without(basis, back + products(step, (half_square(step)[..., 0] * back)[None])[0])
        return (total + (back**2).sum(1)) / (probe**2).sum(1)


def products(step: Linearized, v: Float[Tensor, "m n d"]) -> Float[Tensor, "m n d"]:
    """Return H v in float64; v is scaled to length 1 on the way, so that what overshoots stays in the model's range."""
    size = v.detach().norm(dim=2, keepdim=True).clamp(min=1e-300)
    scaled = (v / size).to(step.z.dtype)
    curved = step.product(scaled[0])[None] if len(v) == 1 else torch.func.vmap(step.product)(scaled)
    return curved.double() * size


def images(step: Linearized, columns: Columns) -> Columns:
    """Return H times each column."""
    return products(step, columns.permute(2, 0, 1)).permute(1, 2, 0)


def half_square(step: Step) -> Float[Tensor, "#n d 1"]:
    """Return s^2 / 2 as a column, float64."""
    return 0.5 * step.step_size.double()[..., None] ** 2


def next_root(root: Square, block: Square, added: Square) -> Square:
    """Return the root of B Sigma B^T + added by QR: see `Marginal` for why not Sigma itself."""
    fresh = torch.linalg.cholesky(added).mT
    return torch.linalg.qr(torch.cat([root @ block.mT, fresh], dim=1))[1]


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


def at_least_one(**numbers: int) -> None:
    """Raise InputError where a count is none."""
    for name, number in numbers.items():
        if number < 1:
            raise InputError(f"{name}: got {number}; write a whole number of at least 1")
