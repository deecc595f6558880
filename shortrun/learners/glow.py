"""Learning by a normalizing flow: an exact density of images, and latents that are as many as the pixels.

Source: Kingma, Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", NeurIPS 2018, arXiv 1807.03039;
uniform noise of the width of a bin: Theis, van den Oord, Bethge, "A note on the evaluation of generative models", ICLR
2016, arXiv 1511.01844. The layers are those of the library normflows.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from shortrun.config import Config, GlowConfig, LearnerConfig
from shortrun.errors import InputError, in_one_line
from shortrun.learners.chain_store import everywhere
from shortrun.learners.learner import Flat, Inferred, Learner, Rows, Statistics
from shortrun.learners.weights import RETRAIN
from shortrun.metrics.figure import Figure
from shortrun.model.likelihood import Images, Mask, PerImage
from shortrun.normals import standard_normal
from shortrun.streams import initial_weights

BIN = 2 / 255
"""Width of the noise on images of floats, which have no levels: a step of 8-bit pixels in [-1, 1]."""
BOUND = 2.0
"""Of the logarithm of a coupling's scale."""
SMALLEST = 2
"""The fewest rows and columns at the coarsest scale."""


class Glow(
    Learner,
    library_name="shortrun",
    paper_url="https://arxiv.org/abs/1807.03039",
    tags=["generative-model", "normalizing-flow"],
):
    """An invertible map between images and standard normal latents of the same number, learned by likelihood.

        log p(x) = log N(f(x); 0, I) + log |det df/dx|

    At each scale the image is squeezed, (c, h, w) to (4c, h/2, w/2). It goes through steps of actnorm, invertible 1x1
    convolution and affine coupling. Half its channels are then split off as latents of that scale.

    image_shape: (c, h, w).
    levels: values that a pixel can take; None for floats.
    scales: resolutions, each half of the one before.
    flows: steps at each resolution.
    width: channels inside a coupling.
    description: what `save_pretrained` writes; `from_description` fills it.
    seed: 0 or more, of the initial weights.

    Raises InputError for sizes that so many scales do not divide, and without normflows.
    """

    has_density = True

    progress = ("bits_per_dim", "second_moment")
    initialized: Tensor

    @classmethod
    def describe_model(cls, settings: Config | LearnerConfig) -> str:
        """Say scales, flows and the width of the couplings."""
        flow = settings.glow
        return f"{flow.scales} scales of {flow.flows} flows, couplings of width {flow.width}"

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        levels: int | None = 256,
        scales: int = GlowConfig.scales,
        flows: int = GlowConfig.flows,
        width: int = GlowConfig.width,
        description: LearnerConfig | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.image_shape, self.description, self._levels = tuple(image_shape), description, levels
        self.shapes = latent_shapes(self.image_shape, scales)
        with initial_weights(seed):
            self.flow = build_flow(self.image_shape[0], scales, flows, width)
        self.register_buffer("initialized", torch.tensor(False))

    @classmethod
    def from_description(cls, description: LearnerConfig, decoder: nn.Module | None = None, seed: int = 0) -> "Glow":
        """Build the learner with new weights from `seed`; raise InputError for a decoder of the user's own."""
        if decoder is not None or description.own_decoder:
            raise InputError(
                "decoder", problem="glow has no decoder to put your own in place of", instead="leave the argument out"
            )
        glow = description.glow
        return cls(description.image_shape, description.levels, glow.scales, glow.flows, glow.width, description, seed)

    @property
    def latents(self) -> tuple[int, ...]:
        """The number of latents of each scale, the coarsest first."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def levels(self) -> int | None:
        """Values that a pixel can take; None where pixels are floats."""
        return self._levels

    @property
    def bin_width(self) -> float:
        """The width of the uniform noise that makes pixels continuous: the distance of two levels in [-1, 1]."""
        return 2 / (self.levels - 1) if self.levels else BIN

    def loss(
        self, x: Images, rng: torch.Generator, part: tuple[int, int] = (0, 1), rows: Rows | None = None
    ) -> tuple[Float[Tensor, ""], Statistics]:
        """Return -mean_i log p(x_i + noise_i) in nats, uniform noise of the width of a bin, and statistics.

        x: (n, c, h, w) in [-1, 1]; part: the noise of the whole batch is drawn and this part's kept. The first batch
        sets the actnorms so that each channel leaves them with mean 0 and deviation 1. Statistics: `second_moment` of z
        per dimension and, where pixels have levels, `bits_per_dim`.
        """
        noisy = x + self._noise(x, rng, part)
        if not self.initialized:
            self._initialize(noisy)
        z, log_density = self._density(noisy)
        loss = -log_density.mean()
        statistics = {"second_moment": (z.detach() ** 2).mean()}
        if self.levels:
            statistics["bits_per_dim"] = self._bits_per_dim(loss.detach())
        return loss, statistics

    def log_prob(self, x: Images) -> PerImage:
        """Return log p(x) in nats, the density at x (n, c, h, w) in [-1, 1] without any noise: (n,)."""
        return self._density(x)[1]

    @torch.no_grad()
    def infer(
        self,
        x: Images,
        rng: torch.Generator,
        *,
        mask: Mask | None = None,
        steps: int | None = None,
        noise: bool | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> Inferred:
        """Return z = f(x), exactly: decoding it gives x back.

        x: (n, c, h, w) in [-1, 1]. Raises InputError for a mask, steps or noise: there is no chain.
        """
        if mask is not None:
            raise InputError(
                "mask",
                problem="glow cannot infer latents from a part of an image",
                instead="use a learner with a generator",
            )
        for name, value in {"steps": steps, "noise": noise}.items():
            if value is not None:
                raise InputError(name, value, "leave it out", problem="glow has no chain, its latents are exact")
        z = self._density(x)[0]
        return Inferred(z, torch.zeros(len(x), dtype=torch.bool, device=x.device), 0)

    @torch.no_grad()
    def decode(self, z: Flat) -> Images:
        """Return the images of latents, the inverse of f: (n, c, h, w) in [-1, 1].

        Raises InputError where the weights are none of an f that has an inverse.
        """
        parts = [part.unflatten(1, shape) for part, shape in zip(self.layers(z), self.shapes, strict=True)]
        try:
            with torch.autocast(z.device.type, enabled=False):
                return self.flow.forward_and_log_det(parts)[0].clamp(-1, 1)
        except torch.linalg.LinAlgError as error:  # pyright: ignore[reportPrivateImportUsage]
            problem = f"its weights are of a flow without an inverse ({in_one_line(error)})"
            raise InputError("learner", problem=problem, instead=RETRAIN) from error

    def density_conditions(self) -> dict[str, Any]:
        """Return that the density is of pixels that uniform noise made continuous."""
        return {"of": "the density of pixels in [-1, 1] with uniform noise of one level"}

    def conditions(self) -> dict[str, Any]:
        """Return what a test figure has to quote: that latents are not approximate."""
        return {"inference": "exact"}

    def describe_inference(self, steps: int | None = None, noise: bool | None = None, masked: bool = False) -> str:
        """Say how latents are inferred."""
        return "exact latents"

    @torch.no_grad()
    def test_figures(self, x: Images, rng: torch.Generator, batch_size: int = 500) -> dict[str, Figure]:
        """Return the bits per dimension of images, an upper bound by one draw of the noise each; none for floats."""
        if not self.levels:
            return {}
        total = 0.0
        for part in x.split(batch_size):
            part = part.to(self.device)
            total -= float(self.log_prob(part + self._noise(part, rng)).double().sum())
        bits = float(self._bits_per_dim(torch.tensor(total / len(x), dtype=torch.float64)))
        return {"bits_per_dim": Figure("bits_per_dim", bits, conditions={"levels": self.levels, "noise_draws": 1})}

    def _density(self, x: Images) -> tuple[Flat, PerImage]:
        # half precision would spoil both the inverse and the density
        with torch.autocast(x.device.type, enabled=False):
            parts, log_det = self.flow.inverse_and_log_det(x)
            z = torch.cat([part.flatten(1) for part in parts], dim=1)
            log_prior = standard_normal(z)
        return z, log_prior + log_det

    def _bits_per_dim(self, nats: Float[Tensor, ""]) -> Float[Tensor, ""]:
        # a bin of width w holds the density times w in each dimension
        return (nats / self.dim - math.log(self.bin_width)) / math.log(2)

    def _noise(self, x: Images, rng: torch.Generator, part: tuple[int, int] = (0, 1)) -> Images:
        index, parts = part
        n = len(x)
        whole = torch.rand(n * parts, *x.shape[1:], generator=rng, device=rng.device)
        return (whole[index * n : (index + 1) * n].to(x) - 0.5) * self.bin_width

    @torch.no_grad()
    def _initialize(self, x: Images) -> None:
        """Set the actnorms by a batch; with several processes by the parts of all of them, alike in each."""
        norms = [module for module in self.flow.modules() if hasattr(module, "data_dep_init_done")]
        for norm in norms:
            norm.data_dep_init_done.zero_()  # pyright: ignore[reportCallIssue]
        self._density(everywhere(x))
        for norm in norms:
            # the library leaves a new tensor here, on the CPU
            norm.data_dep_init_done = torch.ones((), device=x.device)
        self.initialized.fill_(True)


def latent_shapes(image_shape: tuple[int, ...], scales: int) -> list[tuple[int, int, int]]:
    """Return the shapes (c, h, w) of the latents of each scale, the coarsest first.

    Raises InputError where an image cannot be halved so often, or would be of fewer than 2x2 pixels then.
    """
    c, h, w = image_shape
    most = 0
    while all(side % 2 ** (most + 1) == 0 and side >> (most + 1) >= SMALLEST for side in (h, w)):
        most += 1
    if most == 0:
        raise InputError(
            "learner",
            problem=f"glow halves images, and those of {h}x{w} cannot be",
            instead="take even sides of at least 4, by data.image_size for a folder of images",
        )
    if not 1 <= scales <= most:
        raise InputError("glow.scales", f"{scales} for images of {h}x{w}", f"write 1 to {most}")
    finer = [(c * 2**scale, h >> scale, w >> scale) for scale in range(1, scales)]
    return [(c * 2 ** (scales + 1), h >> scales, w >> scales), *reversed(finer)]


class Bounded(nn.Module):
    """The network of a coupling with log-scales in (-BOUND, BOUND), so that neither direction can run away.

    net: its output has a shift and a log-scale for each channel, in turn.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h w"]:
        """Return the output of the network with its log-scales bounded."""
        shift, log_scale = self.net(x).unflatten(1, (-1, 2)).unbind(2)
        return torch.stack([shift, BOUND * torch.tanh(log_scale / BOUND)], dim=2).flatten(1, 2)


def build_flow(channels: int, scales: int, flows: int, width: int) -> Any:
    """Return the layers of the flow, with new weights; raise InputError where normflows is not installed."""
    try:
        import normflows
    except ImportError:
        raise InputError(
            "learner", problem="glow needs the library normflows", instead="write pip install 'shortrun[glow]'"
        ) from None
    layers = normflows.flows
    levels = []
    for level in range(scales):  # the coarsest first, and in each from the latents to the image
        c = channels * 2 ** (scales - level + 1)
        steps: list[nn.Module] = []
        for _ in range(flows):
            net = normflows.nets.ConvNet2d((c // 2, width, width, c), (3, 1, 3), init_zeros=True)
            steps += [
                layers.AffineCouplingBlock(Bounded(net), scale_map="exp"),
                layers.Invertible1x1Conv(c, use_lu=False),
                layers.ActNorm((c, 1, 1)),
            ]
        levels.append([*steps, layers.Squeeze()])
    # the base is the standard normal throughout, and drawn by the learner: these only say how many there are
    flow = normflows.MultiscaleFlow(
        [nn.Identity() for _ in levels], levels, [layers.Merge() for _ in levels[1:]], class_cond=False
    )
    for parameter in flow.parameters():
        # the rotations come column by column: a checkpoint has them row by row, and the optimizer reads memory as it is
        parameter.data = parameter.data.contiguous()
    for module in flow.modules():
        if isinstance(module, layers.ActNorm):
            # else the first batch that comes by sets them, be it one to infer or to decode
            module.data_dep_init_done = torch.ones(())
    return flow
