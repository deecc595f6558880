"""The prior that tilts N(0, I) by a network: an energy, learned from latents against draws of its own short chain."""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from shortrun.errors import check_at_least
from shortrun.model.prior import Component, Draw, LogPrior, Normals, Parts, Prior, PriorSettings, Uniform
from shortrun.normals import Flat, PerImage, standard_normal
from shortrun.streams import Use, stream
from shortrun.sums import symmetric

BATCH = 100
"""Latents of one step of learning, and draws against them."""
DECAYS, SMALL = (0.9, 0.999), 1e-8
"""Adam's: of the moving averages of the gradient and of its square, and what keeps their quotient finite."""
FLOOR = 1e-3
"""Added to the variances of the draws, so that few of them have a covariance with a root too."""


class Energy(Prior):
    """The density p(z) = exp(-f(z)) N(z; 0, I) / Z, with f a network of a few linear layers and GELU between them.

    A draw is the end of a short chain, in learning as afterwards:

        z_0 ~ N(0, I);   z_{k+1} = z_k - (s^2 / 2) (z_k + d/dz f(z_k)) + s noise_k,   k = 0..K-1

    At each `learn` the latents z+ of the last updates meet as many draws z-, 100 at a time. A step of Adam goes down

        mean (f(z+) - f(z-)) + penalty mean (f(z+)^2 + f(z-)^2),

    whose first term has the gradient of -mean log p(z+). The penalty keeps f, which is free up to a constant, in
    bounds. A step whose gradient is not finite is left out. Until the first `learn` f = 0, and the prior is N(0, I).

    `log_prob` lacks the constant -log Z, which evaluations estimate. It is of the density above, and draws are of the
    chain, which follows that density only as far as K steps lead. The chains that infer latents start from N(0, I).

    dim: d, the number of latents.
    width: units of a layer, at least 1.
    depth: linear layers, at least 1, of which the last one gives f.
    steps: K, at least 1.
    step_size: s, positive.
    learning_rate: of Adam, positive.
    penalty: at least 0.
    seed: 0 or more, of the initial weights.

    Raises InputError for counts below 1.

    >>> prior, rng = Energy(dim=2, width=16, learning_rate=1e-2), torch.Generator().manual_seed(0)
    >>> for _ in range(10):
    ...     prior.learn(2 + torch.randn(500, 2, generator=rng), rng)
    >>> 1 < prior.sample(1000, rng).mean().item() < 3
    True

    Source: Pang, Han, Nijkamp, Zhu, Wu, "Learning Latent Space Energy-Based Prior Model", NeurIPS 2020, arXiv
    2006.08205; over the latents of all layers: Cui, Wu, Han, "Learning Joint Latent Space EBM Prior Model for
    Multi-layer Generator", CVPR 2023, arXiv 2306.06323.
    """

    learns = True
    allows_acceptance = False
    exact = False

    weights: Tensor
    average: Tensor
    average_square: Tensor
    taken: Tensor
    gap: Tensor
    left_out: Tensor
    mean: Tensor
    root: Tensor

    @classmethod
    def from_settings(cls, settings: PriorSettings, dim: int, seed: int, tuned: bool) -> "Energy":
        """Return the energy of the settings' network and chain."""
        own = settings.energy
        return cls(dim, own.width, own.depth, own.steps, own.step_size, own.learning_rate, own.penalty, seed)

    @classmethod
    def describe(cls, settings: PriorSettings) -> str:
        """Say what the network is of, and how it is drawn from."""
        own = settings.energy
        return (
            f"N(0, I) tilted by an energy of {own.depth} layers of width {own.width}, drawn by {own.steps} steps of "
            f"size {own.step_size:g}"
        )

    def __init__(
        self,
        dim: int,
        width: int = 200,
        depth: int = 3,
        steps: int = 40,
        step_size: float = 0.4,
        learning_rate: float = 1e-3,
        penalty: float = 1e-3,
        seed: int = 0,
    ) -> None:
        super().__init__(dim)
        check_at_least(1, width=width, depth=depth, steps=steps)
        self.sizes = (dim, *[width] * (depth - 1), 1)
        self.steps, self.step_size, self.learning_rate, self.penalty = steps, step_size, learning_rate, penalty
        # all weights in one row, no parameters: the optimizer of the generator is not to move them
        first = _initial_weights(self.sizes, seed)
        self.register_buffer("weights", first)
        self.register_buffer("average", torch.zeros_like(first))
        self.register_buffer("average_square", torch.zeros_like(first))
        self.register_buffer("taken", torch.zeros((), dtype=torch.long))
        for name in ("gap", "left_out"):
            self.register_buffer(name, torch.zeros(()))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("root", torch.eye(dim))

    @property
    def settled(self) -> bool:
        """Whether it has learned anything; f is 0 until then."""
        return bool(self.taken)

    def parts(self) -> Parts:
        """Return N(0, I), which is tilted and from which chains start."""
        identity = torch.eye(self.dim)[None]
        return Parts(torch.zeros(1), torch.zeros(1, self.dim), identity, identity)

    def energy(self, z: Flat, weights: Float[Tensor, "p"] | None = None) -> PerImage:
        """Return f(z), (n,).

        z: (n, d), latents.
        weights: of the network, in one row; the prior's own where not given.
        """
        weights, h = self.weights if weights is None else weights, z
        with torch.autocast(z.device.type, enabled=False):
            for layer, (matrix, shift) in enumerate(_layers(weights.to(z), self.sizes)):
                h = F.linear(F.gelu(h) if layer else h, matrix, shift)
        return h[:, 0]

    def log_prob(self, z: Flat) -> PerImage:
        """Return log p(z) + log Z = log N(z; 0, I) - f(z), (n,).

        z: (n, d), latents.
        """
        return standard_normal(z) - self.energy(z)

    def components(self, z: Flat) -> Float[Tensor, "n 1"]:
        """Return `log_prob` of what is the only component."""
        return self.log_prob(z)[:, None]

    def draw_component(self, z: Flat, uniform: Uniform) -> Component:
        """Return zeros: there is one component."""
        return torch.zeros(len(z), dtype=torch.long, device=z.device)

    def held(self, component: Component) -> LogPrior:
        """Return `log_prob`."""
        return self.log_prob

    def whole(self) -> tuple[Float[Tensor, "d"], Float[Tensor, "d d"]]:
        """Return mean and root of the covariance of the draws that it last learned against."""
        return self.mean, self.root

    def from_normal(self, noise: Flat, uniform: Uniform) -> Draw:
        """Return the standard normal numbers themselves, from which chains start."""
        return Draw(noise, self.draw_component(noise, uniform))

    @torch.no_grad()
    def sample(
        self, n: int, rng: torch.Generator, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> Flat:
        """Return where n chains end, (n, d); before it has learned anything, where they start.

        n: how many.
        rng: gives the random numbers; they come from its device.
        dtype: of the draws.
        device: where the draws are put.
        """

        def noise() -> Flat:
            return torch.randn(n, self.dim, generator=rng, device=rng.device, dtype=dtype).to(device)

        return self._chain(noise(), noise, slice(None))

    @torch.no_grad()
    def redraw(self, z: Flat, first: int, last: int, noise: Normals, uniform: Uniform) -> Flat:
        """Return latents where a chain of some of them ends, from N(0, I) and with the others held, (n, d)."""
        redrawn, varied = z.clone(), slice(first, last)
        redrawn[:, varied] = noise()[:, varied].to(z)
        return self._chain(redrawn, noise, varied)

    def _chain(self, z: Flat, noise: Callable[[], Flat], varied: slice) -> Flat:
        """Return where the chain from z ends; varied: the latents that it moves."""
        if not self.settled:
            return z
        s, z = self.step_size, z.clone()
        # the way back too: under autocast its products would be those of half precision
        with torch.autocast(z.device.type, enabled=False):
            for _ in range(self.steps):
                with torch.enable_grad():
                    at = z.detach().requires_grad_()
                    (score,) = torch.autograd.grad(self.log_prob(at).sum(), at)
                z[:, varied] += 0.5 * s**2 * score[:, varied] + s * noise()[:, varied].to(z)
        return z

    @torch.no_grad()
    def learn(self, z: Flat, rng: torch.Generator) -> None:
        """Take a step down for each 100 of the latents of the last updates.

        z: (n, d), latents; those that are not finite are left out.
        rng: gives the random numbers.
        """
        z = z[torch.isfinite(z).all(1)].to(self.weights)
        if not len(z):
            return
        order = torch.randperm(len(z), generator=rng, device=rng.device).to(z.device)
        made, gaps = [], []
        with torch.autocast(z.device.type, enabled=False):
            for real in z[order].split(BATCH):
                draws = self.sample(len(real), rng, z.dtype, z.device)
                made.append(draws[torch.isfinite(draws).all(1)])
                gaps.append(self._step(real, made[-1]))
        gap = torch.stack(gaps)
        self.left_out, self.gap = (~torch.isfinite(gap)).to(gap).mean(), gap.nanmean()
        self._remember(torch.cat(made))

    def _step(self, real: Flat, made: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
        """Take one step of Adam, and return mean f(z+) - mean f(z-) before it; NaN where it was left out."""
        weights = self.weights.detach().requires_grad_()
        with torch.enable_grad():
            up, down = self.energy(real, weights), self.energy(made, weights)
            gap = up.mean() - down.mean()
            loss = gap + self.penalty * ((up**2).mean() + (down**2).mean())
            (slope,) = torch.autograd.grad(loss, weights)
        if not (torch.isfinite(slope).all() and torch.isfinite(loss)):
            return torch.full_like(gap, math.nan)
        first, second = DECAYS
        # in new memory: a graph that was made with the old weights may not have been walked back yet
        self.taken = self.taken + 1
        self.average = first * self.average + (1 - first) * slope
        self.average_square = second * self.average_square + (1 - second) * slope**2
        count = self.taken.double()
        mean = self.average / (1 - first**count).to(slope)
        spread = (self.average_square / (1 - second**count).to(slope)).sqrt()
        self.weights = self.weights - self.learning_rate * mean / (spread + SMALL)
        return gap.detach()

    def _remember(self, made: Flat) -> None:
        """Keep mean and covariance of draws."""
        if len(made) < 2:
            return
        floor = FLOOR * torch.eye(self.dim, dtype=torch.float64, device=made.device)
        covariance = symmetric(torch.cov(made.double().T).view(self.dim, self.dim)) + floor
        self.mean, self.root = made.mean(0), torch.linalg.cholesky(covariance).to(made).contiguous()

    def statistics(self) -> dict[str, Tensor]:
        """Return how far the energies of latents lie above those of draws, and the share of steps that were left out.

        Both are of the last `learn`. The first is near 0 where the draws are like the latents, and is what grows where
        the energy runs away.
        """
        return {"energy_gap": self.gap, "energy_left_out": self.left_out}


def _layers(row: Float[Tensor, "p"], sizes: tuple[int, ...]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield matrix and shift of each linear layer, which lie one behind the other in a row."""
    at = 0
    for narrow, wide in pairwise(sizes):
        end = at + narrow * wide
        yield row[at:end].view(wide, narrow), row[end : end + wide]
        at = end + wide


def _initial_weights(sizes: tuple[int, ...], seed: int) -> Float[Tensor, "p"]:
    """Return the weights at first, uniform as in `torch.nn.Linear`; those of the last layer are 0, so that f = 0."""
    rng, pairs, parts = stream(seed, Use.ENERGY), list(pairwise(sizes)), []
    for layer, (narrow, wide) in enumerate(pairs):
        bound = 0.0 if layer == len(pairs) - 1 else 1 / math.sqrt(narrow)
        parts.append(bound * (2 * torch.rand(narrow * wide + wide, generator=rng) - 1))
    return torch.cat(parts)
