"""The small modules a top-down decoder is made of. All are twice differentiable and treat samples apart."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

State = Float[Tensor, "n ..."]
THIN = 8
"""Channels between latents and a state of many positions."""


def thin_channels(channels: int, positions: int) -> int:
    """Return how many channels of a state its latents are mapped to linearly; a convolution makes all of them of these.

    A full linear map to 64 channels of 32x32 would have most of the model's weights; few channels keep every position
    within reach of every latent at a fraction of them.
    """
    return min(THIN, channels) if positions > 64 else channels


class Gelu(nn.Module):
    """GELU, at one speed in every memory layout.

    Maps of channels that come out of a convolution may lie channels last. On a CPU, PyTorch's GELU in bfloat16 takes
    twice as long for them as for the same numbers in a tensor that it calls contiguous, hence the other view of them.
    """

    def forward(self, h: State) -> State:
        if h.ndim == 4 and not h.is_contiguous() and h.is_contiguous(memory_format=torch.channels_last):
            return F.gelu(h.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return F.gelu(h)


class Pool(nn.Module):
    """A map of channels at a smaller resolution, row by row, (n, c, h' w'), as one product of matrices.

    Each value is a mean over its part of the map, as in `nn.AdaptiveAvgPool2d`. On a CPU that module takes two to
    twenty times as long, forward and backward, which made it as slow as a 3x3 convolution.

    here: height and width of the map.
    there: height and width of the result, none larger than the map's.
    """

    means: Tensor

    def __init__(self, here: tuple[int, int], there: tuple[int, int]) -> None:
        super().__init__()
        self.whole = here == there
        rows, columns = (
            F.adaptive_avg_pool1d(torch.eye(length)[None], shorter)[0]
            for length, shorter in zip(here, there, strict=True)
        )
        # follows from the shapes, so it is no part of a saved model
        self.register_buffer("means", torch.kron(rows, columns), persistent=False)

    def forward(self, h: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c _"]:
        return h.flatten(2) if self.whole else h.flatten(2) @ self.means.to(h.dtype)


class Inject(nn.Module):
    """A latent vector (n, d) as a state: a linear map, or one to a few channels and a convolution to all of them."""

    def __init__(self, latent: int, state: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = state
        if len(state) == 1:
            self.linear, self.spread = nn.Linear(latent, state[0]), nn.Identity()
        else:
            channels, height, width = state
            thin = thin_channels(channels, height * width)
            self.shape = (thin, height, width)
            self.linear = nn.Linear(latent, thin * height * width)
            self.spread = nn.Conv2d(thin, channels, 1) if thin < channels else nn.Identity()

    def forward(self, z: Float[Tensor, "n d"]) -> State:
        return self.spread(self.linear(z).unflatten(1, self.shape))


class Perceptron(nn.Sequential):
    """GELU and linear, `depth` times: the body of a dense block."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__(*[module for _ in range(depth) for module in (Gelu(), nn.Linear(width, width))])


class Convolutions(nn.Sequential):
    """GELU and 3x3 convolution, `depth` times: the body of a convolutional block."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__(
            *[module for _ in range(depth) for module in (Gelu(), nn.Conv2d(channels, channels, 3, padding=1))]
        )


class Grow(nn.Module):
    """The state of the layer above at this layer's resolution and channels: GELU, transposed convolution, crop."""

    def __init__(self, above: tuple[int, ...], here: tuple[int, ...]) -> None:
        super().__init__()
        self.size = here[1:]
        if above == here:
            self.up = nn.Identity()
        else:
            self.up = nn.Sequential(Gelu(), nn.ConvTranspose2d(above[0], here[0], 4, stride=2, padding=1))

    def forward(self, h: State) -> State:
        h = self.up(h)
        # an odd size is half of the next one rounded up, so twice of it is one row or column too many
        return h[..., : self.size[0], : self.size[1]] if self.size else h


class Conditional(nn.Module):
    """z_l = mu_l(h) + sigma_l(h) * u_l, with h the state of the layer above and u_l standard normal.

    Starts at mu = 0 and sigma = 1 (the prior of the ladder parameterization); log sigma is kept in (-2, 2), so that
    a layer can neither die nor explode within one update. A map of channels is pooled to at most 4x4 first.
    """

    def __init__(self, state: tuple[int, ...], latent: int) -> None:
        super().__init__()
        if len(state) == 1:
            self.features, size = Gelu(), state[0]
        else:
            channels, height, width = state
            side = (min(4, height), min(4, width))
            self.features = nn.Sequential(Gelu(), Pool((height, width), side), nn.Flatten())
            size = channels * side[0] * side[1]
        self.linear = nn.Linear(size, 2 * latent)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def moments(self, h: State) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
        """Return mu_l and log sigma_l, given the state of the layer above."""
        mu, raw = self.linear(self.features(h)).chunk(2, dim=1)
        return mu, 2 * torch.tanh(raw / 2)

    def forward(self, h: State, u: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        mu, log_sigma = self.moments(h)
        return mu.to(u.dtype) + torch.exp(log_sigma).to(u.dtype) * u


class ToPixels(nn.Sequential):
    """The last state of a dense decoder, a vector, as an image."""

    def __init__(self, width: int, image_shape: tuple[int, int, int], activation: nn.Module) -> None:
        channels, height, breadth = image_shape
        super().__init__(
            Gelu(), nn.Linear(width, channels * height * breadth), nn.Unflatten(1, image_shape), activation
        )


class ToImage(nn.Module):
    """The last state of a convolutional decoder, at half of the image's resolution, as an image."""

    def __init__(self, channels: int, image_shape: tuple[int, int, int], activation: nn.Module) -> None:
        super().__init__()
        self.size = image_shape[1:]
        self.gelu = Gelu()
        self.up = nn.ConvTranspose2d(channels, image_shape[0], 4, stride=2, padding=1)
        self.activation = activation

    def forward(self, h: State) -> Float[Tensor, "n c h w"]:
        return self.activation(self.up(self.gelu(h))[..., : self.size[0], : self.size[1]])
