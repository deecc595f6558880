"""log p(x | z) given what the decoder says, image by image, with masks."""

from abc import abstractmethod
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from shortrun.errors import InputError
from shortrun.normals import PerImage

Images = Float[Tensor, "n c h w"]
Mask = Float[Tensor, "#n #c h w"]
PerPair = Float[Tensor, "n m"]


def observed(values: Images, mask: Mask | None) -> Images:
    """Return values with zeros in place of the entries that are not observed (mask 0).

    A where, not a product: a non-finite value under the mask must not leak through 0 * inf. For the same reason x and
    decoded go through it before the log-probability is formed, since the gradient of a where is a product again.
    """
    return values if mask is None else torch.where(mask > 0.5, values, torch.zeros_like(values))


def sum_observed(log_prob: Images, mask: Mask | None) -> PerImage:
    """Sum an entry-wise log-probability over the observed entries (mask 1) of each image."""
    return observed(log_prob, mask).flatten(1).sum(1)


@runtime_checkable
class LikelihoodSettings(Protocol):
    """What a configuration says of a likelihood; `shortrun.ModelConfig` does."""

    @property
    def sigma(self) -> float:
        """The standard deviation of the noise, of pixels in [-1, 1]."""
        ...

    @property
    def learn_sigma(self) -> bool:
        """Whether it is learned along with the weights."""
        ...


class Likelihood(nn.Module):
    """The distribution of an image given the decoder's output; images are in [-1, 1].

    A subclass defines `log_prob`, `mean` and `sample`, and declares what the rest of the package has to know of it.
    """

    has_sigma: ClassVar[bool] = False
    """Whether the settings sigma, learn_sigma and training.sigma_schedule are for it; it then has `set_sigma`."""
    is_density: ClassVar[bool] = False
    """Whether log_prob is the log of a density of pixels in [-1, 1], in place of a probability of pixel values."""

    @classmethod
    def from_settings(cls, settings: LikelihoodSettings, channels: int, levels: int | None) -> "Likelihood":
        """Return the likelihood that a configuration describes.

        settings: of the model; channels: of an image; levels: values that a pixel can take, None where pixels are
        floats. Raises InputError where it is not for such pixels.
        """
        return cls()

    @classmethod
    def check_images(cls, levels: int | None, name: str) -> None:
        """Raise InputError where the likelihood is not for the images of a data set; levels: of a pixel."""

    @classmethod
    def describe(cls, settings: LikelihoodSettings) -> str:
        """Say what settings make of it, after its name: `, sigma 0.3` for example."""
        return ""

    @classmethod
    def learns(cls, settings: LikelihoodSettings) -> bool:
        """Return whether it has parameters that are learned along with the decoder's weights."""
        return False

    def activation(self) -> nn.Module:
        """Return the last layer of a built-in decoder: tanh, for means of pixels in [-1, 1]."""
        return nn.Tanh()

    def values(self) -> dict[str, float]:
        """Return the numbers of its own that schedules or learning change, by the name of their setting."""
        return {}

    def conditions(self) -> dict[str, Any]:
        """Return what a figure of log p(x) has to quote: what it is the logarithm of, and the likelihood's numbers."""
        kind = type(self).__name__
        density, probability = f"the density of pixels in [-1, 1], {kind}", f"the probability of pixel values, {kind}"
        return {"of": density if self.is_density else probability, **self.values()}

    def set_sigma(self, sigma: float) -> None:
        """Set sigma, as a schedule does; for those that have one."""
        raise InputError("sigma", sigma, f"{type(self).__name__} has none")

    @abstractmethod
    def log_prob(self, x: Images, decoded: Images, mask: Mask | None = None) -> PerImage:
        """Return log p(x | decoded), summed over the observed entries of each image; mask: 1 = observed."""

    def log_prob_pairs(self, x: Images, decoded: Float[Tensor, "m c h w"], mask: Mask | None = None) -> PerPair:
        """Return log p(x_i | decoded_j) of each image for each of m outputs of the decoder, (n, m)."""
        whole = None if mask is None else mask.expand_as(x)
        rows = [
            self.log_prob(x[i].expand_as(decoded), decoded, None if whole is None else whole[i].expand_as(decoded))
            for i in range(len(x))
        ]
        return torch.stack(rows) if rows else x.new_zeros(0, len(decoded))

    @abstractmethod
    def mean(self, decoded: Images) -> Images:
        """Return the expected image, in [-1, 1] when the decoder keeps to its range."""

    @abstractmethod
    def sample(self, decoded: Images, rng: torch.Generator) -> Images:
        """Draw x ~ p(x | decoded), detached; numbers come from the generator's device, whatever decoded's is."""
