"""p(z): standard normal, or a mixture of normals that is learned along with the generator."""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from shortrun.errors import check_at_least
from shortrun.normals import Flat, PerImage, diagonal_components, mixture, standard_normal
from shortrun.streams import Use, stream

Uniform = Callable[[], Float[Tensor, "n"]]
"""Draws one number in [0, 1) for each row, when it is called."""

SPREAD = 0.1
"""Standard deviation of the first means: the components have to differ from one another to part."""
LEAST_SCALE = 0.1
"""Smallest standard deviation of a component: one that shrank around a single image would raise its density for ever.
"""
RATE = 10.0
"""How many times as fast as the generator's weights the mixture learns: its numbers are kept divided by this."""


def choose(weights: Float[Tensor, "m"], uniform: Float[Tensor, "n"]) -> Int64[Tensor, "n"]:
    """Return the component of each row: uniform numbers in [0, 1) against the running sum of the weights."""
    # the sum of all weights may be rounded to less than 1
    return torch.searchsorted(weights.cumsum(0), uniform, right=True).clamp(max=len(weights) - 1)


@runtime_checkable
class PriorSettings(Protocol):
    """What a configuration says of a prior; `shortrun.ModelConfig` does."""

    @property
    def components(self) -> int:
        """Normals of a mixture."""
        ...


class Prior(nn.Module):
    """The distribution p(z) of the flat latents, (n, d), before an image is seen.

    A subclass defines the abstract methods. It declares in the class variables what the rest of the package has to know
    of it.

    dim: d, the number of latents.

    >>> class Wide(Prior):
    ...     @classmethod
    ...     def from_settings(cls, settings, dim, seed, tuned):
    ...         return cls(dim)
    ...     @classmethod
    ...     def describe(cls, settings):
    ...         return "N(0, 4 I)"
    ...     def log_prob(self, z):
    ...         return -(z**2).sum(1) / 8 - z.shape[1] * math.log(2 * math.sqrt(2 * math.pi))
    ...     def over_normal(self, z):
    ...         return self.log_prob(z) - standard_normal(z)
    ...     def moments(self):
    ...         return torch.zeros(self.dim), 4 * torch.ones(self.dim)
    ...     def parts(self):
    ...         return torch.zeros(1), torch.zeros(1, self.dim), 2 * torch.ones(1, self.dim)
    ...     def from_normal(self, noise, uniform):
    ...         return 2 * noise
    >>> z = Wide(3).sample(5, torch.Generator().manual_seed(0))
    >>> z.shape, Wide(3).log_prob(z).shape
    (torch.Size([5, 3]), torch.Size([5]))
    """

    standard: ClassVar[bool] = False
    """Whether it is N(0, I) whatever is learned; an encoder's divergence from it then has a closed form."""
    allows_acceptance: ClassVar[bool] = True
    """Whether steps can be tuned by acceptance while it is learned: a prior that follows the steps leads them on."""

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
    def log_prob(self, z: Flat) -> PerImage:
        """Return log p(z), (n,).

        z: (n, d), latents.
        """

    @abstractmethod
    def over_normal(self, z: Flat) -> PerImage:
        """Return log p(z) - log N(z; 0, I), (n,): what an importance weight takes where z was drawn from N(0, I).

        z: (n, d), latents.
        """

    @abstractmethod
    def moments(self) -> tuple[Float[Tensor, "d"], Float[Tensor, "d"]]:
        """Return the mean and the variance of each latent."""

    @abstractmethod
    def parts(self) -> tuple[Float[Tensor, "m"], Float[Tensor, "m d"], Float[Tensor, "m d"]]:
        """Return the logarithms of the weights, the means and the standard deviations of the normals p(z) is of."""

    @abstractmethod
    def from_normal(self, noise: Flat, uniform: Uniform) -> Flat:
        """Return draws of z, (n, d), made out of random numbers that are given.

        noise: (n, d), standard normal.
        uniform: called for n numbers in [0, 1), which are drawn only where they are needed.
        """

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
        return self.from_normal(noise, lambda: torch.rand(n, generator=rng, device=rng.device, dtype=dtype).to(device))


class Normal(Prior):
    """p(z) = N(z; 0, I), which has nothing to learn."""

    standard = True

    @classmethod
    def from_settings(cls, settings: PriorSettings, dim: int, seed: int, tuned: bool) -> "Normal":
        """Return N(0, I) of so many latents."""
        return cls(dim)

    @classmethod
    def describe(cls, settings: PriorSettings) -> str:
        """Return N(0, I)."""
        return "N(0, I)"

    def log_prob(self, z: Flat) -> PerImage:
        """Return log N(z; 0, I)."""
        return standard_normal(z)

    def over_normal(self, z: Flat) -> PerImage:
        """Return zeros."""
        return z.new_zeros(len(z))

    def moments(self) -> tuple[Float[Tensor, "d"], Float[Tensor, "d"]]:
        """Return zeros and ones."""
        return torch.zeros(self.dim), torch.ones(self.dim)

    def parts(self) -> tuple[Float[Tensor, "m"], Float[Tensor, "m d"], Float[Tensor, "m d"]]:
        """Return those of N(0, I) alone."""
        return torch.zeros(1), torch.zeros(1, self.dim), torch.ones(1, self.dim)

    def from_normal(self, noise: Flat, uniform: Uniform) -> Flat:
        """Return the standard normal numbers themselves."""
        return noise


class Mixture(Prior):
    """The mixture p(z) = sum_k w_k N(z; mu_k, diag sigma_k^2), learned by maximum likelihood of the inferred latents.

        w = softmax(logits),   sigma_k^2 = least^2 + exp(2 log_scales_k)

    It starts near N(0, I): equal weights, scales of 1, means around 0. The inferred latents are detached, so the
    gradient of -log p(x, z) with respect to the mixture's numbers is that of -log p(z).

    dim: d, the number of latents.
    components: number of normals, m, at least 1.
    seed: of the first means.
    unit: whether to hold E[|z|^2] = d by one common factor of means and scales. Without it the scale of the latents is
        free, since the generator can undo any scale. A tuned step size needs it: with a free scale, longer steps widen
        the inferred latents, the mixture widens to fit them, and a wider prior makes still longer steps best.

    Raises InputError for fewer than one component.

    >>> Mixture(dim=2, components=3).sample(5, torch.Generator().manual_seed(0)).shape
    torch.Size([5, 2])

    Source: Nalisnick, Hertel, Smyth, "Approximate Inference for Deep Latent Gaussian Mixtures", 2016 NeurIPS workshop
    on Bayesian deep learning; Tomczak, Welling, "VAE with a VampPrior", 2018, arXiv 1705.07120.
    """

    allows_acceptance = False

    @classmethod
    def from_settings(cls, settings: PriorSettings, dim: int, seed: int, tuned: bool) -> "Mixture":
        """Return a mixture of the settings' components, of unit scale where step sizes are tuned."""
        return cls(dim, settings.components, seed, unit=tuned)

    @classmethod
    def describe(cls, settings: PriorSettings) -> str:
        """Say how many normals it is of."""
        return f"a mixture of {settings.components} normals learned with the generator"

    def __init__(self, dim: int, components: int, seed: int = 0, unit: bool = False) -> None:
        super().__init__(dim)
        check_at_least(1, components=components)
        self.unit = unit
        rng = stream(seed, Use.MIXTURE)
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(SPREAD / RATE * torch.randn(components, dim, generator=rng))
        self.log_scales = nn.Parameter(torch.full((components, dim), 0.5 * math.log(1 - LEAST_SCALE**2) / RATE))

    def parts(self) -> tuple[Float[Tensor, "m"], Float[Tensor, "m d"], Float[Tensor, "m d"]]:
        """Return the logarithms of the weights, the means and the standard deviations of the components."""
        log_weights, means = torch.log_softmax(RATE * self.logits, 0), RATE * self.means
        variances = torch.exp(2 * RATE * self.log_scales)
        if self.unit:
            # what the floor leaves of the unit, so that no scale falls below it
            moment = log_weights.exp() @ (variances + means**2).mean(1)
            factor = (1 - LEAST_SCALE**2) / moment
            means, variances = factor.sqrt() * means, factor * variances
        return log_weights, means, (LEAST_SCALE**2 + variances).sqrt()

    def log_prob(self, z: Flat) -> PerImage:
        """Return log p(z) = logsumexp_k (log w_k + log N(z; mu_k, diag sigma_k^2))."""
        return mixture(diagonal_components(z, *self.parts()))

    def over_normal(self, z: Flat) -> PerImage:
        """Return log p(z) - log N(z; 0, I)."""
        return self.log_prob(z) - standard_normal(z)

    def moments(self) -> tuple[Float[Tensor, "d"], Float[Tensor, "d"]]:
        """Return sum_k w_k mu_k, and sum_k w_k (sigma_k^2 + (mu_k - mean)^2)."""
        log_weights, means, scales = self.parts()
        weights = log_weights.exp()[:, None]
        mean = (weights * means).sum(0)
        return mean, (weights * (scales**2 + (means - mean) ** 2)).sum(0)

    def from_normal(self, noise: Flat, uniform: Uniform) -> Flat:
        """Return mu_k + sigma_k noise, the component k of each row chosen by its uniform number."""
        log_weights, means, scales = self.parts()
        chosen = choose(log_weights.exp(), uniform())
        return means[chosen] + scales[chosen] * noise
