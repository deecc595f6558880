"""p(z), the distribution of latents before an image is seen: what every prior has, and the standard normal one."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from shortrun.normals import Flat, PerImage, full_components, inverses, log_heights, mixture, squares, standard_normal
from shortrun.sums import symmetric

Uniform = Callable[[], Float[Tensor, "n"]]
"""Draws one number in [0, 1) for each row, when it is called."""
Normals = Callable[[], Flat]
"""Draws standard normal numbers, (n, d), when it is called."""
LogPrior = Callable[[Flat], PerImage]
Component = Int64[Tensor, "n"]
"""For each row the normal of the prior that it belongs to, 0 to m - 1."""


def choose(weights: Float[Tensor, "m"], uniform: Float[Tensor, "n"]) -> Component:
    """Return the component of each row: uniform numbers in [0, 1) against the running sum of the weights."""
    # the sum of all weights may be rounded to less than 1
    return torch.searchsorted(weights.cumsum(0), uniform, right=True).clamp(max=len(weights) - 1)


def choose_each(weights: Float[Tensor, "n m"], uniform: Float[Tensor, "n"]) -> Component:
    """Return the component of each row, where each row has weights of its own, which sum to 1."""
    shares = weights.cumsum(1)
    return torch.searchsorted(shares, uniform[:, None].to(shares), right=True)[:, 0].clamp(max=shares.shape[1] - 1)


class Parts(NamedTuple):
    """The m normals that a prior is a mixture of."""

    log_weights: Float[Tensor, "m"]
    means: Float[Tensor, "m d"]
    roots: Float[Tensor, "m d d"]
    """Lower triangular, L_c with the covariance L_c L_c^T."""
    inverse: Float[Tensor, "m d d"]
    """L_c^-1."""

    @classmethod
    def of(cls, log_weights: Float[Tensor, "m"], means: Float[Tensor, "m d"], roots: Float[Tensor, "m d d"]) -> "Parts":
        """Return the normals with these logarithms of weights, means and roots."""
        return cls(log_weights, means, roots, inverses(roots))

    def to(self, like: Tensor) -> "Parts":
        """Return the normals in the precision of a tensor and on its device."""
        return Parts(*(part.to(like) for part in self))


class Held:
    """z -> log w_c + log N(z; mu_c, L_c L_c^T), (n, d) -> (n,), each row with its component c held.

    tensors: the heights of each row's normal, (n,); all means, (m, d), and inverse roots, (m, d, d); the component of
        each row, (n,); and its place when the rows of a component lie side by side, `most` for each, (n,).
    most: rows of a component, at most.
    """

    def __init__(self, tensors: Sequence[Tensor], most: int) -> None:
        self.tensors, self.most = tuple(tensors), most

    @classmethod
    def of(cls, parts: Parts, component: Component) -> "Held":
        """Return the density of components of a prior's parts.

        parts: of the prior.
        component: (n,), of each row.
        """
        n, heights = len(component), (parts.log_weights + log_heights(parts.roots))[component]
        # the rows of a component side by side, so that one product takes all of them: a matrix for each row would
        # take n d^2 numbers at every step
        order = component.argsort(stable=True)
        counts = torch.bincount(component, minlength=len(parts.means))
        first = counts.cumsum(0) - counts
        # a power of two, so that few shapes occur: a compiled or recorded step is made anew for each
        most = 1 << (int(counts.max()) - 1).bit_length() if n else 0
        place = torch.empty_like(component)
        place[order] = component[order] * most + torch.arange(n, device=component.device) - first[component[order]]
        return cls((heights, parts.means, parts.inverse, component, place), most)

    def on(self, tensors: Sequence[Tensor]) -> "Held":
        """Return the same function of other tensors."""
        return Held(tensors, self.most)

    def __call__(self, z: Flat) -> PerImage:
        """Return the density's logarithm at latents, (n,).

        z: (n, d).
        """
        heights, means, inverse, component, place = self.tensors
        with torch.autocast(z.device.type, enabled=False):
            means, inverse, m = means.to(z), inverse.to(z), len(means)
            spread = z.new_zeros(m * self.most, z.shape[1]).index_copy(0, place, z - means[component])
            white = (spread.view(m, self.most, z.shape[1]) @ inverse.mT).flatten(0, 1)
            return heights.to(z) - 0.5 * (white**2).sum(1)[place]


class Draw(NamedTuple):
    """Draws of latents, and the normal that each came from."""

    z: Flat
    component: Component


@runtime_checkable
class EnergySettings(Protocol):
    """What a configuration says of an energy, its network, its chain and its learning."""

    @property
    def width(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def step_size(self) -> float: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def penalty(self) -> float: ...


@runtime_checkable
class PriorSettings(Protocol):
    """What a configuration says of a prior; `shortrun.ModelConfig` does."""

    @property
    def components(self) -> int:
        """Normals of a mixture."""
        ...

    @property
    def energy(self) -> EnergySettings:
        """Of the energy that tilts N(0, I)."""
        ...


class Prior(nn.Module):
    """The distribution p(z) = sum_c w_c N(z; mu_c, L_c L_c^T) of the flat latents, (n, d), before an image is seen.

    A subclass defines the abstract methods. It declares in the class variables what the rest of the package has to know
    of it. One that learns from inferred latents defines `learn` as well. One that is no mixture says so in `exact`, and
    defines what stands on `parts` here: densities, draws, and mean and covariance.

    dim: d, the number of latents.

    >>> class Wide(Prior):
    ...     @classmethod
    ...     def from_settings(cls, settings, dim, seed, tuned):
    ...         return cls(dim)
    ...     @classmethod
    ...     def describe(cls, settings):
    ...         return "N(0, 4 I)"
    ...     def parts(self):
    ...         return Parts.of(torch.zeros(1), torch.zeros(1, self.dim), 2 * torch.eye(self.dim)[None])
    >>> z = Wide(3).sample(5, torch.Generator().manual_seed(0))
    >>> z.shape, Wide(3).log_prob(z).shape
    (torch.Size([5, 3]), torch.Size([5]))
    """

    standard: ClassVar[bool] = False
    """Whether it is N(0, I) whatever is learned; an encoder's divergence from it then has a closed form."""
    learns: ClassVar[bool] = False
    """Whether `learn` fits it to the latents that are inferred while the model learns."""
    allows_acceptance: ClassVar[bool] = True
    """Whether steps can be tuned by acceptance while it is learned: a prior that follows the steps leads them on."""
    exact: ClassVar[bool] = True
    """Whether p(z) is the mixture of `parts`. Else `parts` are the normals that chains start from, `log_prob` lacks a
    constant, and what is drawn from it follows p(z) only as far as a chain does."""

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: PriorSettings, dim: int, seed: int, tuned: bool) -> "Prior":
        """Return the prior that a configuration describes.

        settings: of the model.
        dim: d, the number of latents.
        seed: of what is drawn at first.
        tuned: whether step sizes are tuned while the model learns.
        """

    @classmethod
    @abstractmethod
    def describe(cls, settings: PriorSettings) -> str:
        """Return what the prior is in words, for a line that describes a model.

        settings: of the model.
        """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @abstractmethod
    def parts(self) -> Parts:
        """Return the normals that p(z) is a mixture of."""

    @property
    def settled(self) -> bool:
        """Whether it has been fitted, where it learns: an update costs more from then on."""
        return True

    def learn(self, z: Flat, rng: torch.Generator) -> None:
        """Fit the prior to the latents of the last updates, where it `learns`.

        z: (n, d), latents.
        rng: gives the random numbers.
        """

    def statistics(self) -> dict[str, Tensor]:
        """Return numbers about how it was last learned, by name, for the log of a training."""
        return {}

    def log_prob(self, z: Flat) -> PerImage:
        """Return log p(z), (n,).

        z: (n, d), latents.
        """
        return mixture(self.components(z))

    def log_prob_and_fit(self, z: Flat) -> tuple[PerImage, PerImage]:
        """Return log p(z), and how far latents are from the normals that they are of; see `fit`, both (n,).

        z: (n, d), latents.
        """
        components, parts = self.components(z), self.parts().to(z)
        with torch.no_grad():
            away = -2 * (components - parts.log_weights - log_heights(parts.roots))
            fit = (torch.softmax(components, 1) * away).sum(1) / self.dim
        return mixture(components), fit

    @torch.no_grad()
    def fit(self, z: Flat, latents: tuple[int, ...]) -> Float[Tensor, "n layers"]:
        """Return how far each layer of latents is from the normals that they are of, a number: 1 on average under p(z).

            E_{c ~ p(c | z)} (z_l - mu_cl)^T C_cl^-1 (z_l - mu_cl) / d_l

        mu_cl and C_cl are of the layer alone. Under N(0, I) it is |z_l|^2 / d_l.

        z: (n, d), latents.
        latents: the sizes of the layers, top down; (d,) for all latents as one.
        """
        share, parts, found = torch.softmax(self.components(z), 1), self.parts().to(z), []
        layers = zip(z.split(latents, 1), parts.means.split(latents, 1), parts.roots.split(latents, 1), strict=True)
        for layer, means, rows in layers:
            away = squares(layer, means, torch.linalg.cholesky(rows @ rows.mT))
            found.append((share * away).sum(1) / layer.shape[1])
        return torch.stack(found, 1)

    def components(self, z: Flat) -> Float[Tensor, "n m"]:
        """Return log w_c + log N(z; mu_c, L_c L_c^T) of each row and each component.

        z: (n, d), latents.
        """
        with torch.autocast(z.device.type, enabled=False):
            return full_components(z, *self.parts().to(z))

    def draw_component(self, z: Flat, uniform: Uniform) -> Component:
        """Return a draw c ~ p(c | z) for each row, (n,).

        z: (n, d), latents.
        uniform: called for n numbers in [0, 1), which are drawn only where they are needed.
        """
        return choose_each(torch.softmax(self.components(z), 1), uniform())

    def held(self, component: Component) -> LogPrior:
        """Return z -> log w_c + log N(z; mu_c, L_c L_c^T), (n, d) -> (n,), each row with its component held.

        A chain that draws c ~ p(c | z_0) and then moves z alone makes a Gibbs step on p(z, c | x), whose marginal is
        p(z | x). Its score is one product with a matrix, not one for each component.

        component: (n,), of each row.
        """
        return Held.of(self.parts(), component)

    def whole(self) -> tuple[Float[Tensor, "d"], Float[Tensor, "d d"]]:
        """Return the mean of p(z) and the lower triangular root of its covariance.

        mean = sum_c w_c mu_c,   covariance = sum_c w_c (L_c L_c^T + (mu_c - mean) (mu_c - mean)^T)
        """
        parts = self.parts()
        weights, means, roots = parts.log_weights.double().exp(), parts.means.double(), parts.roots.double()
        mean = weights @ means
        away = means - mean
        covariance = torch.einsum("c,cij->ij", weights, roots @ roots.mT) + (weights[:, None] * away).T @ away
        return mean.to(parts.means), torch.linalg.cholesky(symmetric(covariance)).to(parts.means)

    def from_normal(self, noise: Flat, uniform: Uniform) -> Draw:
        """Return draws of z made out of random numbers that are given: mu_c + L_c noise.

        noise: (n, d), standard normal.
        uniform: called for n numbers in [0, 1), which are drawn only where they are needed.
        """
        parts = self.parts().to(noise)
        component = choose(parts.log_weights.exp(), uniform())
        z = torch.empty_like(noise)
        with torch.autocast(noise.device.type, enabled=False):
            for c in component.unique().tolist():
                rows = component == c
                z[rows] = parts.means[c] + noise[rows] @ parts.roots[c].T
        return Draw(z, component)

    @torch.no_grad()
    def sample(
        self, n: int, rng: torch.Generator, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> Flat:
        """Return draws of z, (n, d).

        n: how many.
        rng: gives the random numbers; they come from its device.
        dtype: of the draws.
        device: where the draws are put.
        """
        noise = torch.randn(n, self.dim, generator=rng, device=rng.device, dtype=dtype).to(device)

        def uniform() -> Float[Tensor, "n"]:
            return torch.rand(n, generator=rng, device=rng.device, dtype=dtype).to(device)

        return self.from_normal(noise, uniform).z

    @torch.no_grad()
    def redraw(self, z: Flat, first: int, last: int, noise: Normals, uniform: Uniform) -> Flat:
        """Return latents with some of them drawn anew given the others, (n, d), in closed form.

        Given c, the latents v = first..last-1 are normal given the others o, with C_c = L_c L_c^T:

            z_v | z_o, c ~ N(mu_v + C_vo C_oo^-1 (z_o - mu_o), C_vv - C_vo C_oo^-1 C_ov),   c ~ p(c | z_o)

        z: (n, d), latents.
        first: 0 to d - 1.
        last: first + 1 to d.
        noise: called for (n, d) standard normal numbers.
        uniform: called for n numbers in [0, 1), which are drawn only where they are needed.
        """
        parts, drawn = self.parts().to(z.double()), noise()
        covariance = parts.roots @ parts.roots.mT
        varied = torch.arange(first, last, device=z.device)
        others = torch.tensor([i for i in range(self.dim) if not first <= i < last], dtype=torch.long, device=z.device)
        given = z.double()[:, others]
        root = torch.linalg.cholesky(covariance[:, others[:, None], others])
        component = choose_each(
            torch.softmax(full_components(given, parts.log_weights, parts.means[:, others], root), 1), uniform()
        )
        redrawn = z.clone()
        for c in component.unique().tolist():
            rows = component == c
            across = covariance[c][others[:, None], varied]
            gain = torch.cholesky_solve(across, root[c])
            left = symmetric(covariance[c][varied[:, None], varied] - across.T @ gain)
            mean = parts.means[c][varied] + (given[rows] - parts.means[c][others]) @ gain
            fresh = drawn[rows][:, first:last].double() @ torch.linalg.cholesky(left).T
            redrawn[rows, first:last] = (mean + fresh).to(z)
        return redrawn


class Normal(Prior):
    """The prior p(z) = N(z; 0, I), which has nothing to learn.

    dim: d, the number of latents.

    >>> import math
    >>> round(Normal(dim=2).log_prob(torch.zeros(1, 2)).item() + math.log(2 * math.pi), 6)
    0.0
    """

    standard = True

    @classmethod
    def from_settings(cls, settings: PriorSettings, dim: int, seed: int, tuned: bool) -> "Normal":
        """Return N(0, I) of so many latents."""
        return cls(dim)

    @classmethod
    def describe(cls, settings: PriorSettings) -> str:
        """Return N(0, I)."""
        return "N(0, I)"

    def parts(self) -> Parts:
        """Return N(0, I) alone."""
        identity = torch.eye(self.dim)[None]
        return Parts(torch.zeros(1), torch.zeros(1, self.dim), identity, identity)

    def log_prob(self, z: Flat) -> PerImage:
        """Return log N(z; 0, I)."""
        return standard_normal(z)

    def draw_component(self, z: Flat, uniform: Uniform) -> Component:
        """Return zeros: there is one component."""
        return torch.zeros(len(z), dtype=torch.long, device=z.device)

    def held(self, component: Component) -> LogPrior:
        """Return `log_prob`."""
        return standard_normal

    def whole(self) -> tuple[Float[Tensor, "d"], Float[Tensor, "d d"]]:
        """Return zeros and the identity."""
        return torch.zeros(self.dim), torch.eye(self.dim)

    def from_normal(self, noise: Flat, uniform: Uniform) -> Draw:
        """Return the standard normal numbers themselves."""
        return Draw(noise, self.draw_component(noise, uniform))

    def redraw(self, z: Flat, first: int, last: int, noise: Normals, uniform: Uniform) -> Flat:
        """Return latents with some of them replaced by the standard normal numbers: the others say nothing of them."""
        redrawn = z.clone()
        redrawn[:, first:last] = noise()[:, first:last]
        return redrawn
