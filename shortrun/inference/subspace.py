"""The marginal estimator from few Hessian-vector products a step: for latents too many for a dense Hessian.

`SubspaceMarginal` stands in for `Marginal`; `follow` runs both.
"""

import math

import torch
from torch import Tensor

from shortrun.errors import at_least_one
from shortrun.inference.divergence import Density, chi_square_bound
from shortrun.inference.initial import Initial, PerImage
from shortrun.inference.jacobian import Flat, Linearized, Scaled, Step
from shortrun.inference.moving_frame import beside, log_det_covariance
from shortrun.inference.products import (
    LARGE,
    Columns,
    Inside,
    Square,
    eye_like,
    half_square,
    images,
    next_root,
    products,
    project,
    signs,
    unit,
    without,
)

GROWN = 1000.0
"""|delta|^2 / d is about 1 where steps forget, and grows by orders of magnitude along a chain that overshoots."""
POWERS = 2
"""Products with A_0 before the first step, for where the moving frame starts."""


class SubspaceMarginal(Density):
    """log q = log N(delta_K; 0, Sigma_K), as `Marginal`, in a subspace of stiff directions, and what is outside.

        P (d, r): the leading left singular vectors of (I + H_k) delta_k and g_{k+1} - g_k + z_{k+1} - z_k, k = 0..K-1
        inside: Sigma' = B_k Sigma B_k^T + s_k^2 I + C_k C_k^T;  B_k = P^T A_k P,  C_k = P^T A_k (I - P P^T)
        outside: Sigma's mean eigenvalue and its log det by quadrature from one random vector sent back along the
                 chain and on, as `beside` does it

    C_k C_k^T is what the outside, at its prior variance, adds to the inside. The last `late` steps know all of B_k;
    before them only the rows and columns of its `stiff` stiffest directions are taken at each step, the rest from the
    mean of the late ones: stiff directions forget, the others average. delta^T Sigma^-1 delta is that of the two
    blocks uncoupled, as is delta itself there, and is cut as in `Marginal`. rank: r. Products: see
    `products_per_step`. rng: of that vector, and of probes for P where r exceeds 2 K - 1. From a mixture of m normals
    the component of z_0 is drawn and held, and z is in its units: the mean is then above that of the whole mixture, by
    log m at most. Exact where log p(x, z) is
    quadratic and the outside is at the prior's curvature. Differentiable in the step size, with P held fixed.

    Where the geometric mean of |delta_K|^2 over the images exceeds GROWN d, steps overshoot, P cannot follow, and
    log det Sigma comes from `log_det_covariance` in place of it, delta^T Sigma^-1 delta from the last step's Hessian
    in place of every step's, in `frame` directions of P. frame: also the columns of the moving frame; depth: of its
    quadrature; outside: depth of the one outside of P.

    Source: none known; the subspace is in the manner of Halko, Martinsson, Tropp, "Finding structure with randomness",
    2011, arXiv 0909.4061.
    """

    needs_noise = True

    def __init__(
        self,
        rng: torch.Generator,
        rank: int = 40,
        stiff: int = 12,
        late: int = 7,
        frame: int = 18,
        depth: int = 4,
        outside: int = 2,
    ) -> None:
        at_least_one(rank=rank, late=late, frame=frame, depth=depth, outside=outside)
        self.rng, self.rank, self.stiff, self.late = rng, rank, min(stiff, rank), late
        self.frame, self.depth, self.outside, self.overshot = frame, depth, outside, False

    @classmethod
    def at_a_tenth(cls, rng: torch.Generator, d: int, **changes: int) -> "SubspaceMarginal":
        """Return it with the settings for d latents, about a tenth of the dense one's cost or less, and the changes."""
        more = {"rank": 64, "stiff": 16, "late": 10, "frame": 32, "depth": 5} if d >= LARGE else {}
        return cls(rng, **(more | changes))

    def start(self, z: Flat, initial: Initial) -> None:
        """See z_0, and what it was drawn from."""
        component = torch.zeros(len(z), dtype=torch.long, device=z.device)
        if len(initial.log_weights) > 1:
            share = torch.softmax(initial.components(z), 1).to(self.rng.device)
            component = torch.multinomial(share, 1, generator=self.rng)[:, 0].to(z.device)
        self.mean, self.scale = initial.means[component].to(z.dtype), initial.scales[component].to(z.dtype)
        self.initial = initial.tilt - self.scale.double().log().sum(1)
        self.delta, self.steps = ((z - self.mean) / self.scale).double(), []
        self.sketch: list[Tensor] = []

    def follow(self, step: Step) -> None:
        """See a step of the chain."""
        step = Scaled(step, self.mean, self.scale)
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
        growth = 2 * self.delta.detach().norm(dim=1).log().mean() - math.log(d)
        # a subspace that is the whole space follows anything
        self.overshot = self.rank < d and bool(growth > math.log(GROWN))
        log_det, squared = self._beside_a_moving_frame() if self.overshot else self._in_a_subspace()
        squared = squared.clamp(max=chi_square_bound(d))
        return self.initial - 0.5 * (log_det + squared + d * math.log(2 * math.pi))

    def _beside_a_moving_frame(self) -> tuple[PerImage, PerImage]:
        log_det = log_det_covariance(self.steps, self.rng, self.frame, POWERS, self.depth)
        return log_det, self._squared_by_the_last_hessian(self._subspace(self.frame))

    def _in_a_subspace(self) -> tuple[PerImage, PerImage]:
        d = self.delta.shape[1]
        basis, known = self._late_blocks(self._subspace(self.rank))
        root, alone, inside, outside = self._walk(basis, known)
        log_det = 2 * root.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
        white = torch.linalg.solve_triangular(alone.mT, inside[..., None], upper=False)
        squared = (white**2).sum((-2, -1))
        if (others := d - basis.shape[2]) > 0:
            variance, mean_log = beside(self.steps, [basis] * (len(self.steps) + 1), self.rng, self.outside)
            log_det = log_det + others * mean_log
            squared = squared + (outside**2).sum(1) / variance
        return log_det, squared

    def products_per_step(self, steps: int) -> float:
        """Return the Hessian-vector products that a chain of K steps takes, over K; after a run, of that run."""
        if self.overshot:
            frame = min(self.frame, self.delta.shape[1])
            completing = max(0, frame - (2 * steps - 1))
            return 1 + frame + 2 * self.depth + (frame * POWERS + frame + completing) / steps
        late = min(self.late, steps)
        completing = max(0, self.rank - (2 * steps - 1))
        return 2 * (1 + self.outside) + (self.rank * late + self.stiff * (steps - late) + completing) / steps

    def _squared_by_the_last_hessian(self, basis: Columns) -> PerImage:
        """Return delta^T Sigma^-1 delta of a chain whose every Hessian is the last one inside, the prior's outside."""
        curved = images(self.steps[-1], basis)
        z = self.steps[0].z.double()
        # as `Marginal` does it: delta itself would lose all digits
        white, root = project(basis, z), eye_like(basis).expand(len(z), -1, -1)
        outside, variance = without(basis, z), torch.ones_like(z)
        for step in self.steps:
            s = step.step_size.double()
            noise, size = s[..., None] * basis, half_square(step)
            block = eye_like(basis) + (size * basis).mT @ curved
            fresh = torch.linalg.cholesky(noise.mT @ noise)
            drawn = torch.linalg.solve_triangular(fresh, project(basis, s * step.noise)[..., None], upper=False)
            rotation, root = torch.linalg.qr(torch.cat([root @ block.mT, fresh.mT.expand_as(root)], dim=1))
            white = (rotation.mT @ torch.cat([white[..., None], drawn], dim=1))[..., 0]
            keep = 1 - size[..., 0]
            outside, variance = without(basis, keep * outside + s * step.noise), keep**2 * variance + s**2
        return (white**2).sum(1) + (outside**2 / variance).sum(1)

    def _subspace(self, rank: int) -> Columns:
        d = self.delta.shape[1]
        rank = min(rank, d)
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
