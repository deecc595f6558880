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
    """Return values with zeros in place of the entries that are not observed.

    This is a where, not a product: a non-finite value under the mask must not leak through 0 * inf. For the same reason
    x and decoded go through it before the log-probability is formed, since the gradient of a where is a product again.

    values: (n, c, h, w).
    mask: (n or 1, c or 1, h, w), 1 = observed; None where all entries are.
    """
    return values if mask is None else torch.where(mask > 0.5, values, torch.zeros_like(values))


def sum_observed(log_prob: Images, mask: Mask | None) -> PerImage:
    """Return the sum of an entry-wise log-probability over the observed entries of each image, (n,).

    log_prob: (n, c, h, w).
    mask: (n or 1, c or 1, h, w), 1 = observed; None where all entries are.
    """
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
    """The distribution p(x | z) of an image given the decoder's output; images are in [-1, 1].

    A subclass defines `log_prob`, `mean` and `sample`. It declares in the class variables and in the other methods what
    the rest of the package has to know of it.

    >>> from shortrun.model.likelihood import sum_observed
    >>> class Laplace(Likelihood):
    ...     is_density = True
    ...     def log_prob(self, x, decoded, mask=None):
    ...         return sum_observed(-(x - decoded).abs() - torch.tensor(2.0).log(), mask)
    ...     def mean(self, decoded):
    ...         return decoded
    ...     def sample(self, decoded, rng):
    ...         uniform = torch.rand(decoded.shape, generator=rng) - 0.5
    ...         return decoded - uniform.sign() * torch.log1p(-2 * uniform.abs())
    >>> x = torch.zeros(2, 1, 4, 4)
    >>> [round(value, 3) for value in Laplace().log_prob(x, x).tolist()]
    [-11.09, -11.09]
    """

    has_sigma: ClassVar[bool] = False
    """Whether the settings sigma, learn_sigma and training.sigma_schedule are for it; it then has `set_sigma`."""
    is_density: ClassVar[bool] = False
    """Whether log_prob is the log of a density of pixels in [-1, 1], in place of a probability of pixel values."""

    @classmethod
    def from_settings(cls, settings: LikelihoodSettings, channels: int, levels: int | None) -> "Likelihood":
        """Return the likelihood that a configuration describes.

        settings: of the model.
        channels: of an image.
        levels: values that a pixel can take; None where pixels are floats.

        Raises InputError where the likelihood is not for such pixels.
        """
        return cls()

    @classmethod
    def check_images(cls, levels: int | None, name: str) -> None:
        """Raise InputError where the likelihood is not for the images of a data set.

        levels: values that a pixel can take; None where pixels are floats.
        name: of the data set, for the error.
        """

    @classmethod
    def describe(cls, settings: LikelihoodSettings) -> str:
        """Return what settings make of the likelihood, after its name: `, sigma 0.3` for example.

        settings: of the model.
        """
        return ""

    @classmethod
    def learns(cls, settings: LikelihoodSettings) -> bool:
        """Return whether the likelihood has parameters that are learned along with the decoder's weights.

        settings: of the model.
        """
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
        """Set sigma, as a schedule does; for likelihoods that have one.

        sigma: a positive number, of pixels in [-1, 1].

        Raises InputError where the likelihood has none.
        """
        raise InputError("sigma", sigma, f"{type(self).__name__} has none")

    @abstractmethod
    def log_prob(self, x: Images, decoded: Images, mask: Mask | None = None) -> PerImage:
        """Return log p(x | decoded), (n,), summed over the observed entries of each image.

        x: (n, c, h, w) in [-1, 1], the images.
        decoded: (n, c, h, w), the decoder's output.
        mask: (n or 1, c or 1, h, w), 1 = observed; None where all pixels are.
        """

    def log_prob_pairs(self, x: Images, decoded: Float[Tensor, "m c h w"], mask: Mask | None = None) -> PerPair:
        """Return log p(x_i | decoded_j) of each image for each output of the decoder, (n, m).

        x: (n, c, h, w) in [-1, 1], the images.
        decoded: (m, c, h, w), outputs of the decoder.
        mask: (n or 1, c or 1, h, w), 1 = observed; None where all pixels are.
        """
        whole = None if mask is None else mask.expand_as(x)
        rows = [
            self.log_prob(x[i].expand_as(decoded), decoded, None if whole is None else whole[i].expand_as(decoded))
            for i in range(len(x))
        ]
        return torch.stack(rows) if rows else x.new_zeros(0, len(decoded))

    @abstractmethod
    def mean(self, decoded: Images) -> Images:
        """Return the image that stands for p(x | decoded), (n, c, h, w), in [-1, 1] if the decoder keeps to its range.

        It is the expected image where that is in closed form, as of a Gaussian or a Bernoulli likelihood, and else what
        the likelihood says.

        decoded: (n, c, h, w), the decoder's output.
        """

    @abstractmethod
    def sample(self, decoded: Images, rng: torch.Generator) -> Images:
        """Return draws x ~ p(x | decoded), (n, c, h, w), detached.

        decoded: (n, c, h, w), the decoder's output.
        rng: gives the random numbers; they come from its device, whatever decoded's is.
        """
