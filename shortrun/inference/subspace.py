"""The marginal estimator from few Hessian-vector products a step: for latents too many for a dense Hessian.

`SubspaceMarginal` stands in for `Marginal`; `follow` runs both.
"""

import math

import torch
from torch import Tensor

from shortrun.errors import at_least_one
from shortrun.inference.divergence import ChainDensity, chi_square_bound
from shortrun.inference.initial import Initial
from shortrun.inference.jacobian import Linearized, Scaled, Step
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
from shortrun.normals import Flat, PerImage

FAR = 5 / 6
"""How far back from its end steps of a chain are known wholly."""


def whole_steps(steps: int, whole: int) -> list[int]:
    """Return the steps of K whose Hessian is known in the whole subspace, in rising order.

    They grow rarer from the last one back, over FAR of the chain: the last steps decide where it ends, and the first
    ones, where it is still far from the posterior, stand for none of the others.
    """
    if whole >= steps:
        return list(range(steps))
    found = [steps - 1]
    for index in range(1, whole):
        back = round((steps - 1) * FAR * (index / (whole - 1)) ** 2)
        found.append(min(found[-1] - 1, steps - 1 - back))
    return found[::-1]


def _between(known: dict[int, Columns], step: int) -> Columns:
    """Return what lies at a step on the line between the nearest known ones; beyond the first, the first itself."""
    before, after = (k for k in known if k < step), min(k for k in known if k > step)
    last = max(before, default=after)
    way = (step - last) / (after - last) if after > last else 0.0
    return torch.lerp(known[last], known[after], way)


class SubspaceMarginal(ChainDensity):
    """log q = log N(delta_K; 0, Sigma_K), as `Marginal`, in a subspace of stiff directions, and what is outside.

        P (d, r): the leading left singular vectors of (I + H_k) delta_k and g_{k+1} - g_k + z_{k+1} - z_k, k = 0..K-1
        inside: Sigma' = B_k Sigma B_k^T + s_k^2 I + C_k C_k^T;  B_k = P^T A_k P,  C_k = P^T A_k (I - P P^T)
        outside: Sigma's mean eigenvalue and its log det by quadrature from one random vector sent back along the
                 chain and on, as `beside` does it

    C_k C_k^T is what the outside, at its prior variance, adds to the inside. Of `whole` steps all of B_k is known, see
    `whole_steps`; of the others only the rows and columns of the `stiff` leading directions, the rest from a line
    between the whole ones. delta^T Sigma^-1 delta is that of the two blocks uncoupled, as is delta itself there, and is
    cut as in `Marginal`. rank: r; outside: depth of the quadrature; products: see `products_per_step`. rng: of the
    random vector, and of probes for P where r exceeds 2 K - 1. From a mixture of m normals the component of z_0 is
    drawn and held, and z is in its units: the mean is then above that of the whole mixture, by log m at most. Exact
    where log p(x, z) is quadratic and the outside is at the prior's curvature. Differentiable in the step size, with P
    held fixed. Where steps overshoot by much, far beyond the best step size, directions that grow turn faster than P
    follows, and it is some tenths off.

    Source: none known; the subspace is in the manner of Halko, Martinsson, Tropp, "Finding structure with randomness",
    2011, arXiv 0909.4061.
    """

    needs_noise = True

    def __init__(self, rng: torch.Generator, rank: int = 44, stiff: int = 12, whole: int = 6, outside: int = 2) -> None:
        at_least_one(rank=rank, whole=whole, outside=outside)
        self.rng, self.rank, self.stiff, self.whole, self.outside = rng, rank, min(stiff, rank), whole, outside

    @classmethod
    def at_a_tenth(cls, rng: torch.Generator, d: int, **changes: int) -> "SubspaceMarginal":
        """Return it with the settings for d latents, about a tenth of the dense one's cost or less, and the changes."""
        more = {"rank": 64, "stiff": 16, "whole": 10} if d >= LARGE else {}
        return cls(rng, **(more | changes))

    def start(self, z: Flat, initial: Initial) -> None:
        """See z_0, and what it was drawn from."""
        component = torch.zeros(len(z), dtype=torch.long, device=z.device)
        if len(initial.log_weights) > 1:
            chances = torch.softmax(initial.components(z), 1).to(self.rng.device)
            component = torch.multinomial(chances, 1, generator=self.rng)[:, 0].to(z.device)
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
        # delta takes the step of the chain with H delta in place of the score
        self.delta = langevin_update(self.delta, curved, step.step_size.double(), step.noise)
        self.steps.append(step)

    def log_q(self, end: Linearized) -> PerImage:
        """Return log q_s(z_K)."""
        log_det, squared = self._log_det_and_squared()
        d = self.delta.shape[1]
        squared = squared.clamp(max=chi_square_bound(d))
        return self.initial - 0.5 * (log_det + squared + d * math.log(2 * math.pi))

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
        """Return the Hessian-vector products that a chain of K steps takes, over K."""
        whole = min(self.whole, steps)
        completing = max(0, self.rank - (2 * steps - 1))
        return 2 * (1 + self.outside) + (self.rank * whole + self.stiff * (steps - whole) + completing) / steps

    def _subspace(self) -> Columns:
        rank = min(self.rank, self.delta.shape[1])
        missing = rank - len(self.sketch)
        for number in range(missing):
            step, probe = self.steps[-1 - number % len(self.steps)], signs(self.delta, self.rng)
            self.sketch.append(unit(probe, probe + products(step, probe[None])[0]))
        # the derivative of a truncated decomposition is unbounded, and the estimate does not depend on P to first order
        # its order stays: what is stiffest at the whole steps is softer at the others, and the rest is stiffer there
        # zero in place of a lost chain's NaN, which would lose the others: its products are NaN again
        sketch = torch.stack(self.sketch, dim=2).detach().nan_to_num(0, 0, 0)
        return torch.linalg.svd(sketch, full_matrices=False)[0][..., :rank]

    def _walk(self, basis: Columns) -> tuple[Square, Square, Inside, Flat]:
        """Return roots of Sigma_K inside, with and without what the outside adds, and delta_K inside and outside."""
        identity = eye_like(basis)
        whole = {k: self.steps[k] for k in whole_steps(len(self.steps), self.whole)}
        known = {k: hessian_times(step, half_square(step) * basis) for k, step in whole.items()}
        # H P of the whole steps without the step size, which may fall along the chain
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
