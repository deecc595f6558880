"""Bottom-up encoders that mirror the decoders: from an image to a normal distribution for each layer of latents."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from shortrun.model.blocks import Convolutions, Perceptron, State, thin_channels
from shortrun.model.decoders import check_latents, conv_stages
from shortrun.model.likelihood import Images


class Moments(NamedTuple):
    """A normal distribution of latents with independent coordinates."""

    mu: Float[Tensor, "n d"]
    """Its mean, (n, d)."""
    log_sigma: Float[Tensor, "n d"]
    """The logarithm of its standard deviation, (n, d)."""

    def log_prob(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
        """Return log N(z; mu, sigma^2) of each row."""
        scaled = (z - self.mu) * torch.exp(-self.log_sigma)
        return (-0.5 * scaled**2 - self.log_sigma).sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)

    def divergence(self) -> Float[Tensor, "n d"]:
        """Return KL(N(mu, sigma^2) || N(0, 1)) of each coordinate: (mu^2 + sigma^2 - 1) / 2 - log sigma."""
        return 0.5 * (self.mu**2 + torch.expm1(2 * self.log_sigma)) - self.log_sigma


class Shrink(nn.Module):
    """The state of the finer layer at this layer's resolution and channels: the mirror of `Grow`."""

    def __init__(self, below: int, here: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(below, here, 4, stride=2, padding=1)

    def forward(self, h: State) -> State:
        # an odd size is halved and rounded up, as `conv_stages` has it: that takes one more row or column
        return self.down(F.pad(h, (0, h.shape[-1] % 2, 0, h.shape[-2] % 2)))


class Head(nn.Module):
    """Mean and log sigma of a layer's latents from its state: the mirror of `Inject`, twice as wide.

    log sigma = 5 tanh(raw / 5 + log 2) - 3 is 0 at raw = 0 and stays in (-8, 2): no single update can make it explode.
    """

    def __init__(self, state: tuple[int, ...], latent: int) -> None:
        super().__init__()
        channels, positions = state[0], math.prod(state[1:])
        thin = thin_channels(channels, positions)
        self.gather = nn.Conv2d(channels, thin, 1) if thin < channels else nn.Identity()
        self.linear = nn.Linear(thin * positions, 2 * latent)

    def forward(self, h: State, dtype: torch.dtype) -> Moments:
        # under bf16 autocast the products are bf16; what is summed over latents needs the images' precision
        mu, raw = self.linear(self.gather(F.gelu(h)).flatten(1)).to(dtype).chunk(2, dim=1)
        return Moments(mu, 5 * torch.tanh(raw / 5 + math.log(2)) - 3)


class Encoder(nn.Module):
    """A deterministic bottom-up path with a state for each layer, and heads that read the states.

        h_1 = e_1 + g_1(e_1),  e_1 = stem(x);   h_l = e_l + g_l(e_l),  e_l = shrink_l(h_{l-1});   (mu_l, sigma_l) of h_l

    With one head instead of one for each layer, that reads the last state h_L alone. Build one with `dense_encoder`
    or `conv_encoder`.
    """

    def __init__(
        self, stem: nn.Module, shrink: Sequence[nn.Module], body: Sequence[nn.Module], heads: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        self.stem, self.shrink, self.body = stem, nn.ModuleList(shrink), nn.ModuleList(body)
        self.heads = nn.ModuleList(heads)

    def forward(self, x: Images) -> list[Moments]:
        """Return the moments of (z_L, ..., z_1), or with one head those of all latents."""
        h, states = self.stem(x), []
        for i, body in enumerate(self.body):
            h = self.shrink[i - 1](h) if i else h
            h = h + body(h)
            states.append(h)
        read = reversed(states[-len(self.heads) :])
        return [head(state, x.dtype) for head, state in zip(self.heads, read, strict=True)]


def dense_encoder(
    image_shape: tuple[int, int, int],
    latents: Sequence[int],
    *,
    width: int = 256,
    depth: int = 1,
    heads: bool = True,
) -> Encoder:
    """Return an encoder of linear layers, for vectors and tiny images.

    image_shape: (c, h, w) of the input.
    latents: sizes of the layers, top down, (d_L, ..., d_1).
    width: units of the states.
    depth: linear layers in each block.
    heads: whether there is a head for each layer, in place of one for all latents on top.

    Raises InputError for a size below 1.
    """
    check_latents(latents)
    sizes = list(latents) if heads else [sum(latents)]
    return Encoder(
        stem=nn.Sequential(nn.Flatten(), nn.Linear(math.prod(image_shape), width)),
        shrink=[nn.Identity() for _ in latents[1:]],
        body=[Perceptron(width, depth) for _ in latents],
        heads=[Head((width,), size) for size in sizes],
    )


def conv_encoder(
    image_shape: tuple[int, int, int],
    latents: Sequence[int],
    *,
    width: int = 128,
    depth: int = 1,
    heads: bool = True,
) -> Encoder:
    """Return an encoder of convolutional layers, for images of 1x28x28 to 3x64x64 and beyond.

    image_shape: (c, h, w) of the input.
    latents: sizes of the layers, top down, (d_L, ..., d_1).
    width: channels at the coarsest resolution.
    depth: 3x3 convolutions in each block.
    heads: whether there is a head for each layer, in place of one for all latents on top.

    Raises InputError for a size below 1.
    """
    check_latents(latents)
    stages = conv_stages(image_shape, width)[::-1]
    # as the decoder spreads its layers over the stages, read from below
    states = [stages[-1 - layer * len(stages) // len(latents)] for layer in reversed(range(len(latents)))]

    def fall(below: tuple[int, int, int], here: tuple[int, int, int]) -> nn.Module:
        path = stages[stages.index(below) : stages.index(here) + 1]
        return nn.Sequential(
            *[part for fine, coarse in itertools.pairwise(path) for part in (nn.GELU(), Shrink(fine[0], coarse[0]))]
        )

    sizes = list(latents) if heads else [sum(latents)]
    return Encoder(
        stem=nn.Sequential(Shrink(image_shape[0], stages[0][0]), fall(stages[0], states[0])),
        shrink=[fall(below, here) for below, here in itertools.pairwise(states)],
        body=[Convolutions(state[0], depth) for state in states],
        heads=[Head(state, size) for state, size in zip(reversed(states), sizes, strict=False)],
    )
