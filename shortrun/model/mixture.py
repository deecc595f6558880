"""The prior that is a mixture of normals with full covariances, kept by sums of the latents that are inferred."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from shortrun.errors import check_at_least
from shortrun.model.prior import Parts, Prior, PriorSettings
from shortrun.normals import Flat, inverses
from shortrun.sums import Sums, symmetric, with_one

FORGET = 0.9
"""The factor of the sums at each fit: with one in 20 updates they tell of the last 200."""
WAIT = 3
"""The fit, counted from 1, that is the first: latents of the first updates are still on their way."""
SHRINK = 20.0
"""Latents that the covariance of all components counts for in that of each, and a round one in it."""
FLOOR = 1e-3
"""Added to each variance: a component that shrank around a single image would raise its density for ever."""
STARVED = 0.05
"""A component with less than this share of an equal weight is born again elsewhere."""
NEWBORN = 0.2
"""The share of an equal weight that it then has."""
REMEMBERED = 2000.0
"""Latents that a mixture counts for whose sums were not kept with it."""


class Mixture(Prior):
    """The mixture p(z) = sum_c w_c N(z; mu_c, C_c) of normals with full covariances, fitted to latents by sums.

    At each `learn`, with the latents z_n of the last updates, counts N, sums S and sums of outer products Q are kept:

        c_n ~ p(c | z_n);   (N_c, S_c, Q_c) <- 0.9 (N_c, S_c, Q_c) + sum over n with c_n = c of (1, z_n, z_n z_n^T)
        mu_c = S_c / N_c,   V_c = Q_c / N_c - mu_c mu_c^T,   V = sum_c N_c V_c / sum_c N_c
        C_c = (N_c V_c + 20 V) / (N_c + 20) + 0.001 I,   w_c = (N_c + 1) / sum_c (N_c + 1)

    This is maximum likelihood by stochastic expectation maximization, with nothing to choose. Until the third `learn`
    it is N(0, I). Then k-means on the latest latents gives the first sums. A component with next to no weight is born
    again at a random latent.

    dim: d, the number of latents.
    components: number of normals, m, at least 1.
    unit: only for weights of earlier versions, whose mixture was held to E[|z|^2] = d where step sizes were tuned.

    Raises InputError for fewer than one component.

    >>> prior, rng = Mixture(dim=2, components=3), torch.Generator().manual_seed(0)
    >>> for _ in range(20):
    ...     prior.learn(5 + torch.randn(200, 2, generator=rng), rng)
    >>> 4 < prior.sample(100, rng).mean().item() < 6
    True

    Source: Celeux, Diebolt, "The SEM algorithm", 1985, Computational Statistics Quarterly 2; with forgetting: Cappe,
    Moulines, "Online EM algorithm for latent data models", 2009, arXiv 0712.4273; as the prior of a generator: Tomczak,
    Welling, "VAE with a VampPrior", 2018, arXiv 1705.07120.
    """

    learns = True
    allows_acceptance = False

    log_weights: Tensor
    means: Tensor
    roots: Tensor
    inverse: Tensor
    fits: Tensor

    @classmethod
    def from_settings(cls, settings: PriorSettings, dim: int, seed: int, tuned: bool) -> "Mixture":
        """Return a mixture of the settings' components."""
        return cls(dim, settings.components, unit=tuned)

    @classmethod
    def describe(cls, settings: PriorSettings) -> str:
        """Say how many normals it is of."""
        return f"a mixture of {settings.components} normals fitted to the latents"

    def __init__(self, dim: int, components: int, unit: bool = False) -> None:
        super().__init__(dim)
        check_at_least(1, components=components)
        self.unit = unit
        # float64: the latents' mean is free, and their covariance is what is left of squares less its square
        self.sums = Sums(components, dim + 1, torch.float64)
        identity = torch.eye(dim).expand(components, dim, dim)
        self.register_buffer("log_weights", torch.full((components,), -math.log(components)))
        self.register_buffer("means", torch.zeros(components, dim))
        self.register_buffer("roots", identity.clone())
        self.register_buffer("inverse", identity.clone())
        self.register_buffer("fits", torch.zeros((), dtype=torch.long))
        self.register_load_state_dict_pre_hook(Mixture._of_earlier_version)

    @property
    def settled(self) -> bool:
        """Whether it has been fitted."""
        return bool(self.fits >= WAIT)

    def parts(self) -> Parts:
        """Return the normals."""
        return Parts(self.log_weights, self.means, self.roots, self.inverse)

    @torch.no_grad()
    def learn(self, z: Flat, rng: torch.Generator) -> None:
        """Fit the normals to the latents of the last updates, once more.

        z: (n, d), latents; those that are not finite are left out.
        rng: gives the random numbers.
        """
        z = z[torch.isfinite(z).all(1)].to(self.means)
        if not len(z):
            return
        self.fits += 1
        if self.fits < WAIT:
            return
        draw = torch.rand(2, max(len(z), len(self.means)), generator=rng, device=rng.device).to(z)
        if self.fits == WAIT:
            group = nearest_means(z, len(self.means), int(draw[1, 0] * 2**31))
        else:
            group = self.draw_component(z, lambda: draw[0, : len(z)])
        self.sums.add(with_one(z), FORGET, group)
        self._revive(z, draw[1, : len(self.means)])
        self._solve()

    def _moments(self) -> tuple[Float[Tensor, "m"], Float[Tensor, "m d"], Float[Tensor, "m d d"], Float[Tensor, "d d"]]:
        """Return N, mu, V of each component and V of all, float64."""
        total = self.sums.total.double()
        counts, firsts = total[:, 0, 0], total[:, 0, 1:]
        means = firsts / counts.clamp(min=1e-12)[:, None]
        covariances = symmetric(total[:, 1:, 1:]) / counts.clamp(min=1e-12)[:, None, None]
        covariances = covariances - means[:, :, None] * means[:, None]
        shared = torch.einsum("c,cij->ij", counts, covariances) / counts.sum()
        round_one = shared.trace() / self.dim * torch.eye(self.dim, dtype=shared.dtype, device=shared.device)
        return counts, means, covariances, (counts.sum() * shared + SHRINK * round_one) / (counts.sum() + SHRINK)

    def _revive(self, z: Flat, uniform: Float[Tensor, "m"]) -> None:
        """Put a component with next to no weight at a random latent, with the covariance of all."""
        counts, _, _, shared = self._moments()
        equal = counts.sum() / len(counts)
        places = with_one(z[(uniform * len(z)).long().clamp(max=len(z) - 1)].double())
        own = places[:, :, None] * places[:, None]
        own[:, 1:, 1:] += shared
        newborn = (NEWBORN * equal * own).to(self.sums.total)
        self.sums.total.copy_(torch.where((counts < STARVED * equal)[:, None, None], newborn, self.sums.total))

    def _solve(self) -> None:
        """Put in place what the sums say."""
        counts, means, covariances, shared = self._moments()
        share = (counts / (counts + SHRINK))[:, None, None]
        floor = FLOOR * torch.eye(self.dim, dtype=shared.dtype, device=shared.device)
        roots = torch.linalg.cholesky(share * covariances + (1 - share) * shared + floor)
        self._put(((counts + 1) / (counts + 1).sum()).log(), means, roots)

    def _put(self, log_weights: Tensor, means: Tensor, roots: Tensor) -> None:
        # in new memory: a graph that was made with the old ones may not have been walked back yet; laid out as they are
        # when they are loaded, so that products of both are the same to the last bit
        for name, value in {
            "log_weights": log_weights,
            "means": means,
            "roots": roots,
            "inverse": inverses(roots),
        }.items():
            setattr(self, name, value.to(getattr(self, name)).contiguous())

    @staticmethod
    def _of_earlier_version(module: nn.Module, state: dict[str, Any], prefix: str, *more: Any) -> None:
        earlier = ("logits", "means", "log_scales")
        if all(prefix + name in state for name in earlier):
            logits, means, log_scales = (state.pop(prefix + name).double() for name in earlier)
            found = diagonal_mixture(logits, means, log_scales, bool(module.unit))
            state.update({prefix + name: value for name, value in found.items()})


def diagonal_mixture(
    logits: Float[Tensor, "m"], means: Float[Tensor, "m d"], log_scales: Float[Tensor, "m d"], unit: bool
) -> dict[str, Tensor]:
    """Return the state of the mixture that an earlier version learned by gradient, with diagonal covariances.

        w = softmax(10 logits),   mu = 10 means,   variances = 0.01 + exp(20 log_scales)

    logits: (m,).
    means: (m, d).
    log_scales: (m, d).
    unit: whether one common factor of means and scales held E[|z|^2] = d.
    """
    floor, rate = 0.01, 10.0
    log_weights, means, variances = torch.log_softmax(rate * logits, 0), rate * means, torch.exp(2 * rate * log_scales)
    if unit:
        factor = (1 - floor) / (log_weights.exp() @ (variances + means**2).mean(1))
        means, variances = factor.sqrt() * means, factor * variances
    roots = torch.diag_embed((floor + variances).sqrt())
    rows = with_one(means)
    total = rows[:, :, None] * rows[:, None]
    total[:, 1:, 1:] += roots**2
    found = {
        "log_weights": log_weights,
        "means": means,
        "roots": roots,
        "inverse": inverses(roots),
        "sums.total": REMEMBERED * log_weights.exp()[:, None, None] * total,
    }
    return {**found, "fits": torch.tensor(WAIT)}


def nearest_means(z: Flat, groups: int, seed: int) -> Tensor:
    """Return the group of each row by k-means, (n,), 0 to groups - 1; where there are fewer rows than groups, fewer.

    z: (n, d), at least one row.
    groups: at most so many.
    seed: of the first means.

    Source: Arthur, Vassilvitskii, "k-means++: the advantages of careful seeding", 2007, SODA.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    # several threads add up in an order of their own, and the sums would differ from run to run
    with threadpool_limits(1):
        kmeans = KMeans(min(groups, len(z)), n_init="auto", random_state=seed)
        found = kmeans.fit(z.double().cpu().numpy())
    return torch.as_tensor(found.labels_, dtype=torch.long, device=z.device)
