"""Top-down decoders: from the layers (z_L, ..., z_1) to an image, in both parameterizations."""

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from shortrun.errors import InputError
from shortrun.model.blocks import Conditional, Convolutions, Grow, Inject, Perceptron, ToImage, ToPixels

Parameterization = Literal["ladder", "conditional"]
Latents = Float[Tensor, "n _"]


class Decoder(nn.Module):
    """A deterministic top-down path that layer l enters at its own depth.

        h_L = f_L(inject_L(z_L));   h_l = h_{l+1} + f_l(h_{l+1} + inject_l(z_l));   decoded = out(h_1)

    with z_l = u_l (`ladder`) or z_l = mu_l(h_{l+1}) + sigma_l(h_{l+1}) u_l (`conditional`), u_l the standard normal
    numbers that the chain moves. Without `skip` the sum h_{l+1} + is left out, and in `conditional` the state of the
    layer above reaches the image through z_l alone, as in the strict hierarchy p(x | z_1) p(z_1 | z_2) ... p(z_L).

    Build one with `dense_decoder` or `conv_decoder`.
    """

    def __init__(
        self,
        grow: Sequence[nn.Module],
        inject: Sequence[nn.Module],
        body: Sequence[nn.Module],
        conditional: Sequence[nn.Module] | None,
        out: nn.Module,
        skip: bool,
    ) -> None:
        super().__init__()
        self.grow, self.inject, self.body = nn.ModuleList(grow), nn.ModuleList(inject), nn.ModuleList(body)
        self.conditional = nn.ModuleList(conditional) if conditional is not None else None
        self.out = out
        self.skip = skip

    @property
    def parameterization(self) -> Parameterization:
        """How the layers of latents depend on one another."""
        return "ladder" if self.conditional is None else "conditional"

    def run(self, *u: Latents) -> tuple[list[Tensor], Tensor]:
        """Return the layers (z_L, ..., z_1) and the last state, given standard normal (u_L, ..., u_1)."""

        def entering(i: int, h: Tensor | None) -> Tensor:
            return u[i] if h is None or self.conditional is None else self.conditional[i - 1](h, u[i])

        return self.descend(len(u), entering)

    def descend(self, layers: int, entering: Callable[[int, Tensor | None], Tensor]) -> tuple[list[Tensor], Tensor]:
        """Return the layers (z_L, ..., z_1) and the last state, with each layer asked for when it is its turn.

        entering: called with 0, 1, ..., top down, and the state of the layer above, none at the top, it returns the
        layer's z, (n, d_l).
        """
        z = [entering(0, None)]
        h = self.body[0](self.inject[0](z[0]))
        for i in range(1, layers):
            z.append(entering(i, h))
            h = self.grow[i - 1](h)
            injected = self.inject[i](z[-1])
            if self.skip:
                h = h + self.body[i](h + injected)
            elif self.conditional is None:
                h = self.body[i](h + injected)
            else:
                h = self.body[i](injected)
        return z, h

    def layers(self, *u: Latents) -> list[Tensor]:
        """Return (z_L, ..., z_1): u itself in `ladder`, mu_l + sigma_l u_l in `conditional`."""
        return self.run(*u)[0]

    def forward(self, *u: Latents) -> Float[Tensor, "n c h w"]:
        return self.out(self.run(*u)[1])


def check_latents(latents: Sequence[int]) -> None:
    """Raise InputError unless there is a layer, and each has at least one latent."""
    if not latents or min(latents) < 1:
        raise InputError("latents", list(latents), "write one size of at least 1 for each layer, top down")


def dense_decoder(
    image_shape: tuple[int, int, int],
    latents: Sequence[int],
    *,
    parameterization: Parameterization = "ladder",
    width: int = 256,
    depth: int = 1,
    skip: bool = True,
    activation: nn.Module | None = None,
) -> Decoder:
    """Return a decoder of linear layers, for vectors and tiny images.

    image_shape: (c, h, w) of the output.
    latents: sizes of the layers, top down, (d_L, ..., d_1).
    parameterization: ladder, where all latents are independent, or conditional, where z_l given z_{l+1} is Gaussian.
    width: units of the state.
    depth: linear layers in each block.
    skip: whether to add the state of the layer above to each layer's.
    activation: of the output; tanh where none is given.

    Raises InputError where there is no layer, or one without latents.

    >>> import torch
    >>> decoder = dense_decoder((1, 4, 4), (2, 3), width=8)
    >>> decoder(torch.zeros(5, 2), torch.zeros(5, 3)).shape
    torch.Size([5, 1, 4, 4])
    """
    check_latents(latents)
    state = (width,)
    return Decoder(
        grow=[nn.Identity() for _ in latents[1:]],
        inject=[Inject(size, state) for size in latents],
        body=[Perceptron(width, depth) for _ in latents],
        conditional=[Conditional(state, size) for size in latents[1:]] if parameterization == "conditional" else None,
        out=ToPixels(width, image_shape, activation or nn.Tanh()),
        skip=skip,
    )


def conv_stages(image_shape: tuple[int, int, int], width: int) -> list[tuple[int, int, int]]:
    """Return the states (channels, height, width) that a convolutional decoder passes through, coarse to fine.

    Resolutions halve from half of the image down to 7x7 or less (28: 7, 14; 32: 4, 8, 16; 64: 4, 8, 16, 32).

    image_shape: (c, h, w) of the output.
    width: channels of the coarsest state; they halve as the resolution doubles, to a quarter of it at the least.

    >>> conv_stages((1, 28, 28), 64)
    [(64, 7, 7), (32, 14, 14)]
    """
    sizes = [((image_shape[1] + 1) // 2, (image_shape[2] + 1) // 2)]
    while max(sizes[0]) > 7 and min(sizes[0]) > 1:
        sizes.insert(0, ((sizes[0][0] + 1) // 2, (sizes[0][1] + 1) // 2))
    return [(max(width >> level, width // 4, 1), *size) for level, size in enumerate(sizes)]


def conv_decoder(
    image_shape: tuple[int, int, int],
    latents: Sequence[int],
    *,
    parameterization: Parameterization = "ladder",
    width: int = 128,
    depth: int = 1,
    skip: bool = True,
    activation: nn.Module | None = None,
) -> Decoder:
    """Return a decoder of convolutional layers, for images of 1x28x28 to 3x64x64 and beyond.

    image_shape: (c, h, w) of the output.
    latents: sizes of the layers, top down, (d_L, ..., d_1).
    parameterization: ladder, where all latents are independent, or conditional, where z_l given z_{l+1} is Gaussian.
    width: channels at the coarsest resolution.
    depth: 3x3 convolutions in each block.
    skip: whether to add the state of the layer above to each layer's.
    activation: of the output; tanh where none is given.

    Raises InputError where there is no layer, or one without latents.

    >>> import torch
    >>> decoder = conv_decoder((3, 16, 16), (2, 3), width=8)
    >>> decoder(torch.zeros(5, 2), torch.zeros(5, 3)).shape
    torch.Size([5, 3, 16, 16])
    """
    check_latents(latents)
    stages = conv_stages(image_shape, width)
    # the layers are spread over the stages evenly; where two share one, the coarse ones come first
    states = [stages[layer * len(stages) // len(latents)] for layer in range(len(latents))]

    def climb(above: tuple[int, int, int], here: tuple[int, int, int]) -> nn.Module:
        path = stages[stages.index(above) : stages.index(here) + 1]
        return nn.Sequential(*[Grow(low, high) for low, high in itertools.pairwise(path)])

    return Decoder(
        grow=[climb(above, here) for above, here in itertools.pairwise(states)],
        inject=[Inject(size, state) for size, state in zip(latents, states, strict=True)],
        body=[Convolutions(state[0], depth) for state in states],
        conditional=[Conditional(state, size) for state, size in zip(states, latents[1:], strict=False)]
        if parameterization == "conditional"
        else None,
        out=nn.Sequential(climb(states[-1], stages[-1]), ToImage(stages[-1][0], image_shape, activation or nn.Tanh())),
        skip=skip,
    )
