"""Decoders and encoders as users write them, right and wrong, for the tests of what is said of them."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from shortrun.model.encoders import Moments


class Decoder(nn.Module):
    """A sound one: all latents through a hidden layer."""

    def __init__(
        self, image_shape: tuple[int, int, int] = (1, 8, 8), latents: tuple[int, ...] = (3, 5), width: int = 16
    ) -> None:
        super().__init__()
        self.shape = image_shape
        self.enter, self.leave = nn.Linear(sum(latents), width), nn.Linear(width, math.prod(image_shape))

    def middle(self, h: Tensor) -> Tensor:
        return F.silu(h)

    def forward(self, *z: Tensor) -> Tensor:
        return torch.tanh(self.leave(self.middle(self.enter(torch.cat(z, 1))))).unflatten(1, self.shape)


def decoder(
    image_shape: Any, latents: Any, *, parameterization: Any, width: int, depth: Any, skip: Any, activation: Any
):
    return Decoder(image_shape, latents, width)


class Flat(Decoder):
    def forward(self, *z: Tensor) -> Tensor:
        return super().forward(*z).flatten(1)


class Pair(Decoder):
    def forward(self, *z: Tensor) -> Any:
        return super().forward(*z), 1


class Double(Decoder):
    def forward(self, *z: Tensor) -> Tensor:
        return super().forward(*z).double()


class OneLayer(Decoder):
    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z)


class Raises(Decoder):
    def middle(self, h: Tensor) -> Tensor:
        raise KeyError("no such layer")


class DoubleWeights(Decoder):
    def __init__(self) -> None:
        super().__init__()
        self.double()


class With(Decoder):
    """One with a layer more."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def middle(self, h: Tensor) -> Tensor:
        return self.layer(h)


class Of(Decoder):
    """One with a function in the middle."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def middle(self, h: Tensor) -> Tensor:
        return self.function(h)


class Fixed(Decoder):
    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)


class Unused(Decoder):
    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)
        self.more = nn.Parameter(torch.zeros(1))


class Overlapping(Decoder):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Parameter(self.enter.weight.data)


class Counts(Decoder):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def middle(self, h: Tensor) -> Tensor:
        self.get_buffer("calls").add_(1)
        return F.silu(h)


class ModeDependent(Decoder):
    def middle(self, h: Tensor) -> Tensor:
        return F.silu(h) if self.training else h


class InPlace(Decoder):
    def forward(self, *z: Tensor) -> Tensor:
        z[0].mul_(2)
        return super().forward(*z)


class Unsaved(Decoder):
    """Its second matrix is a plain tensor, another one in each process."""

    def __init__(self, image_shape: Any, latents: Any, width: int) -> None:
        super().__init__(image_shape, latents, width)
        self.matrix = torch.randn(width, width) / width**0.5

    def middle(self, h: Tensor) -> Tensor:
        return F.silu(h) @ self.matrix


def unsaved(
    image_shape: Any, latents: Any, *, parameterization: Any, width: int, depth: Any, skip: Any, activation: Any
):
    return Unsaved(image_shape, latents, width)


def of_two_arguments(image_shape: Any, latents: Any) -> nn.Module:
    return Decoder(image_shape, latents)


def of_nothing(*arguments: Any, **keywords: Any) -> None:
    return None


class Sometimes(Decoder):
    """Gives NaN where the first latent is large."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self.most = most

    def forward(self, *z: Tensor) -> Tensor:
        made = super().forward(*z)
        return torch.where((z[0][:, 0] > self.most)[:, None, None, None], torch.nan, made)


class WeightNorm(Decoder):
    def __init__(self) -> None:
        super().__init__()
        parametrizations.weight_norm(self.enter)
        parametrizations.weight_norm(self.leave)


class Tied(Decoder):
    """Two hidden layers with the same matrix and the same bias, and a third that is the same module."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(16, 16), nn.Linear(16, 16)
        self.two.weight, self.two.bias = self.one.weight, self.one.bias
        self.three = self.one

    def middle(self, h: Tensor) -> Tensor:
        return F.silu(self.three(F.silu(self.two(F.silu(self.one(F.silu(h)))))))


class PartFrozen(Decoder):
    def __init__(self) -> None:
        super().__init__()
        self.enter.requires_grad_(False)


class Lazy(Decoder):
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.LazyLinear(16)


class WithBuffer(Decoder):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(0.5))

    def middle(self, h: Tensor) -> Tensor:
        return F.silu(h) * self.get_buffer("scale")


class Convolutions(Decoder):
    """One whose hidden layer is a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(1, 1, 3, padding=1)

    def bend(self, h: Tensor) -> Tensor:
        return F.silu(h)

    def middle(self, h: Tensor) -> Tensor:
        return self.bend(self.mix(h.unflatten(1, (1, 4, 4)))).flatten(1)


class ConvolutionsOfRelu(Convolutions):
    def bend(self, h: Tensor) -> Tensor:
        return F.relu(h)


class Encoder(nn.Module):
    """A sound one: moments of each layer, or of all latents."""

    def __init__(self, image_shape: Any, sizes: Any, width: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.enter, self.leave = nn.Linear(math.prod(image_shape), width), nn.Linear(width, 2 * sum(sizes))

    def middle(self, h: Tensor) -> Tensor:
        return F.relu(h)

    def forward(self, x: Tensor) -> Any:
        mu, log_sigma = self.leave(self.middle(self.enter(x.flatten(1)))).chunk(2, 1)
        parts = zip(mu.split(self.sizes, 1), log_sigma.split(self.sizes, 1), strict=True)
        return [Moments(one, other) for one, other in parts]


class PlainPairs(Encoder):
    def forward(self, x: Tensor) -> Any:
        return [tuple(each) for each in super().forward(x)]


class EachLayer(Encoder):
    """Moments of each layer, whoever asks."""


class Noisy(Encoder):
    def middle(self, h: Tensor) -> Tensor:
        return h + torch.randn_like(h)


class Centred(Encoder):
    def middle(self, h: Tensor) -> Tensor:
        return h - h.mean(0)


class Normed(Encoder):
    def __init__(self, image_shape: Any, sizes: Any, width: int) -> None:
        super().__init__(image_shape, sizes, width)
        self.norm = nn.BatchNorm1d(width)

    def middle(self, h: Tensor) -> Tensor:
        return self.norm(h)


def _maker(kind: type[Encoder]) -> Any:
    def make(image_shape: Any, latents: Any, *, width: int, depth: Any, heads: bool) -> Encoder:
        return kind(image_shape, latents if heads or kind is EachLayer else (sum(latents),), width)

    return make


encoder, plain_pairs, each_layer = _maker(Encoder), _maker(PlainPairs), _maker(EachLayer)
noisy, centred, normed = _maker(Noisy), _maker(Centred), _maker(Normed)
