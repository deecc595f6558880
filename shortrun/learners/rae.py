"""The regularized autoencoder: deterministic, without a prior or a likelihood; new images come from a fitted density.

Source: Ghosh, Sajjadi, Vergari, Black, Schoelkopf, "From Variational to Deterministic Autoencoders", ICLR 2020, arXiv
1903.12436.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from shortrun.config import Config, EncoderConfig, LearnerConfig, ModelConfig
from shortrun.config.ranges import NOT_NEGATIVE
from shortrun.errors import InputError, check_at_least
from shortrun.inference import DrawnNoise
from shortrun.learners.declared import checked_for_learner
from shortrun.learners.encoder import ROUNDS, build_encoder
from shortrun.learners.generator import build_generator
from shortrun.learners.latent_density import LatentDensity
from shortrun.learners.learner import Flat, Inferred, Learner, Rows, Statistics
from shortrun.mapping import to_mapping
from shortrun.model.decoders import Decoder
from shortrun.model.likelihood import Images, Mask, PerImage
from shortrun.pixels import difference, squared_error
from shortrun.registry import LEARNERS, name_of


@dataclass(frozen=True)
class RaeSettings:
    """Settings that only this learner has."""

    beta: Annotated[float, NOT_NEGATIVE] = 1e-4
    """Weight of |z|^2 / 2."""
    regularizer: Literal["l2", "gradient", "none"] = "l2"
    """Of the decoder: l2 is the sum of its squared weights, gradient the squared norm of its Jacobian."""
    regularizer_weight: Annotated[float, NOT_NEGATIVE] = 1e-7
    """Of the regularizer in the loss: lambda."""


class Rae(
    Learner,
    library_name="shortrun",
    paper_url="https://arxiv.org/abs/1903.12436",
    tags=["generative-model", "autoencoder"],
):
    """A deterministic encoder E and decoder D, and a density fitted to the latents of the training images afterwards.

        loss = mean_i |x_i - D(z_i)|^2 + (beta / 2) |z_i|^2 + lambda R(D, z_i),   z_i = E(x_i),   pixels in [0, 1]

    R is one of the paper's: the sum of the squares of the decoder's weights (l2), the squared norm of its Jacobian at
    z_i (gradient), or none; its spectral norm is left out. There is no prior and no likelihood, and so no log p(x),
    no annealing and no draw from a posterior. All draws of its own are those of the fitted density.

    The error is summed over pixels in [0, 1], as the paper writes it and as pythae has it, whose beta = 1e-4 and
    lambda = 1e-7 are the defaults. It is sigma^2 / 2 times the Gaussian -log p(x|z) of the other learners, but for a
    constant. Adam's updates do not depend on the scale of a loss, so learning rates mean here what they mean there.

    Decoder and encoder are those of the learner vae, with the same initial weights for a seed. Of what the encoder
    says, the means are the latents; its standard deviations are not used. `build` makes a learner from its settings.

    decoder: called with the layers (z_L, ..., z_1), each (n, d_l), returns images in [-1, 1].
    encoder: gives the moments of all latents at once.
    latents: sizes of the layers, top down.
    settings: of the loss; the defaults where not given.
    description: what `save_pretrained` writes; `build` fills it.

    >>> from shortrun import ModelConfig
    >>> learner = Rae.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8))
    >>> learner.infer(torch.zeros(2, 1, 4, 4), torch.Generator().manual_seed(0)).z.shape
    torch.Size([2, 5])
    """

    has_prior = False
    Settings = RaeSettings

    def __init__(
        self,
        decoder: nn.Module,
        encoder: nn.Module,
        latents: Sequence[int],
        settings: RaeSettings | None = None,
        description: LearnerConfig | None = None,
    ) -> None:
        super().__init__()
        self.decoder, self.encoder, self._latents = decoder, encoder, tuple(latents)
        self.own, self.description = settings or RaeSettings(), description

    @classmethod
    def build(
        cls,
        image_shape: tuple[int, int, int],
        model: ModelConfig | None = None,
        encoder: EncoderConfig | None = None,
        settings: RaeSettings | None = None,
        levels: int | None = 256,
        decoder: nn.Module | None = None,
        seed: int = 0,
    ) -> "Rae":
        """Return a learner with new weights from its settings.

        image_shape: (c, h, w).
        model: of the decoder; the defaults where not given.
        encoder: of the encoder; the defaults where not given.
        settings: of the loss; the defaults where not given.
        levels: values that a pixel can take; None where pixels are floats.
        decoder: the user's own module in place of the one that `model` names; None for that.
        seed: 0 or more, of the initial weights.

        Raises InputError for a value out of range, and for a likelihood, which the learner does not have.
        """
        description = LearnerConfig(
            image_shape,
            levels,
            decoder is not None,
            model or ModelConfig(),
            learner=name_of(LEARNERS, cls),
            encoder=encoder or EncoderConfig(),
            own=to_mapping(settings or RaeSettings()),
        )
        return cls.from_description(checked_for_learner(description, cls), decoder, seed)

    @classmethod
    def from_description(cls, description: LearnerConfig, decoder: nn.Module | None = None, seed: int = 0) -> "Rae":
        """Return the learner that a description is of; the decoder's weights are those of every learner's generator."""
        # the likelihood and the prior that come with it are left behind
        own_decoder = build_generator(description, decoder, seed).decoder
        encoder = build_encoder(description, layered=False, seed=seed)
        return cls(own_decoder, encoder, description.model.latents, cls.own_settings(description), description)

    @classmethod
    def check(cls, settings: Config | LearnerConfig) -> None:
        """Refuse another likelihood than the one whose decoder gives images; what it says of sigma is not used."""
        super().check(settings)
        if settings.model.likelihood != "gaussian":
            raise InputError(
                "model.likelihood",
                f"{settings.model.likelihood!r}, but {name_of(LEARNERS, cls)} has no likelihood",
                "leave it at gaussian: its error is a squared one",
            )

    @classmethod
    def describe_model(cls, settings: Config | LearnerConfig) -> str:
        """Say parameterization, blocks, layers and the terms of the loss."""
        model, own = settings.model, cls.own_settings(settings)
        layers = f"{len(model.latents)} layers of latents, top down {' '.join(map(str, model.latents))}"
        penalty = "" if own.regularizer == "none" else f", {own.regularizer} {own.regularizer_weight:g}"
        words = f"{model.parameterization}, {model.blocks} blocks of width {model.width}"
        return f"{words}; {layers}, {sum(model.latents)} in all; squared error, beta {own.beta:g}{penalty}"

    @classmethod
    def describe_settings(
        cls, settings: Config | LearnerConfig, found: tuple[tuple[float, ...], float] | None = None
    ) -> str:
        """Say width and depth of the encoder."""
        encoder = settings.encoder
        return f"a deterministic encoder of width {encoder.width or settings.model.width} and depth {encoder.depth}"

    @property
    def latents(self) -> tuple[int, ...]:
        """The sizes of the layers of latents, top down."""
        return self._latents

    def encode(self, x: Images) -> Flat:
        """Return z = E(x), (n, d).

        x: (n, c, h, w) in [-1, 1], the images.
        """
        return torch.cat([moments.mu for moments in self.encoder(x)], 1)

    def loss(
        self, x: Images, rng: torch.Generator, part: tuple[int, int] = (0, 1), rows: Rows | None = None
    ) -> tuple[Float[Tensor, ""], Statistics]:
        """Return mean_i |x_i - D(z_i)|^2 + (beta / 2) |z_i|^2 + lambda R, with z_i = E(x_i), and statistics.

        Statistics: `mse` in [0, 1] pixels, `second_moment` of z per dimension and, where there is one, the
        `regularizer` R without its weight.
        """
        own, z = self.own, self.encode(x)
        decoded = self._decoded(z).to(x.dtype)
        error, square = squared_error(decoded, x), z.square()
        loss = (error.flatten(1).sum(1) + 0.5 * own.beta * square.sum(1)).mean()
        statistics = {"mse": error.mean().detach(), "second_moment": square.mean().detach()}
        if own.regularizer == "none":
            return loss, statistics
        if own.regularizer == "l2":
            penalty = torch.stack([weights.square().sum() for weights in self.decoder.parameters()]).sum()
        else:
            noise = DrawnNoise(rng, 1, (len(x), x[0].numel()), part, x.device).draw().to(x.dtype)
            penalty = gradient_penalty(decoded, z, noise.sign().view_as(x)).mean()
        return loss + own.regularizer_weight * penalty, {**statistics, "regularizer": penalty.detach()}

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
        """Return z = E(x).

        With a mask the missing pixels start as noise and become, round by round, those that the latents are decoded to.
        An image whose latents are not finite has failed: it gets zeros, where beta pulls to.

        x: (n, c, h, w) in [-1, 1], the images.
        rng: gives the random numbers; there are none without a mask.
        mask: (n or 1, c or 1, h, w), 1 = observed; None where all pixels are.
        steps: at least 1, the rounds where there is a mask; 50 where not given.
        noise: False or None: there is none.
        part: (i, m), these images are the i-th of m equal parts of a batch; see `DrawnNoise`.

        Raises InputError for noise, for steps without a mask, and for fewer than one.
        """
        if noise:
            raise InputError("noise", noise, "leave it out", problem="the encoder of rae is deterministic")
        if mask is None:
            if steps is not None:
                raise InputError("steps", steps, "an encoder takes none unless pixels are missing: leave it out")
            z = self.encode(x)
        else:
            check_at_least(1, steps=steps)
            start = DrawnNoise(rng, 1, (len(x), x[0].numel()), part, x.device).draw().to(x.dtype)
            # uniform in [-1, 1], out of normal numbers that several processes can share
            z = self._impute(x, mask > 0.5, torch.erf(start / math.sqrt(2)).view_as(x), steps or ROUNDS)
        failed = ~torch.isfinite(z).all(1)
        return Inferred(z.masked_fill(failed[:, None], 0), failed, 0)

    def _impute(self, x: Images, seen: Tensor, start: Images, rounds: int) -> Flat:
        filled = torch.where(seen, x, start)
        for _ in range(rounds - 1):
            filled = torch.where(seen, x, self.decode(self.encode(filled)).to(x.dtype))
        return self.encode(filled)

    @torch.no_grad()
    def decode(self, z: Flat) -> Images:
        """Return D(z), (n, c, h, w) in [-1, 1]."""
        return self._decoded(z).float().clamp(-1, 1)

    def _decoded(self, z: Flat) -> Images:
        return self.decoder(*z.split(self.latents, dim=1))

    @torch.no_grad()
    def layers(self, z: Flat) -> list[Tensor]:
        """Return (z_L, ..., z_1): the parts of z, or mu_l + sigma_l u_l where the parameterization is conditional."""
        split = z.split(self.latents, dim=1)
        return self.decoder.layers(*split) if isinstance(self.decoder, Decoder) else list(split)

    def draw_prior(self, n: int, rng: torch.Generator) -> Flat:
        """Raise InputError: there is no prior."""
        raise InputError("prior", problem="rae has no prior", instead="draw from the density fitted to its latents")

    def draw_fitted(self, n: int, rng: torch.Generator) -> Flat:
        """Return draws of the latents from the density that was fitted to those of training images, (n, d)."""
        return self._fitted().mixture.sample(n, rng).to(self.device)

    def redraw(self, z: Flat, first: int, last: int, rng: torch.Generator) -> Flat:
        """Return latents of which some are drawn anew given the others, from the fitted density, (n, d)."""
        return self._fitted().mixture.redraw(z, first, last, rng)

    def spread(self) -> tuple[Float[Tensor, "d"], Float[Tensor, "d d"]]:
        """Return the mean of the fitted density and the lower triangular root of its covariance."""
        return self._fitted().mixture.spread()

    def _fitted(self) -> LatentDensity:
        if self.latent_density is None:
            raise InputError(
                "learner",
                problem="no density was fitted to the latents of this rae, and it has no prior",
                instead="train it with training.fit_images of at least 10",
            )
        return self.latent_density

    def conditions(self) -> dict[str, Any]:
        """Return what a test figure has to quote about inference."""
        return {"inference": self.describe_inference()}

    def describe_inference(self, steps: int | None = None, noise: bool | None = None, masked: bool = False) -> str:
        """Say how latents are inferred; masked: where pixels are missing, which takes rounds."""
        return f"{steps or ROUNDS} rounds of the deterministic encoder" if masked else "a deterministic encoder"


def gradient_penalty(decoded: Images, z: Flat, signs: Images) -> PerImage:
    """Return an unbiased estimate of the squared norm of the decoder's Jacobian at z, pixels in [0, 1], of each image.

        |J|^2 = sum_jk (d D_j / d z_k)^2 = E |v^T J|^2,   v of independent signs, 1 or -1 with equal chances

    It can be differentiated once more.

    decoded: (n, c, h, w) in [-1, 1], made of z.
    z: (n, d), latents.
    signs: (n, c, h, w), v.

    Source: Hutchinson, "A stochastic estimator of the trace of the influence matrix for Laplacian smoothing splines",
    1990, Communications in Statistics 19(2).
    """
    (gradient,) = torch.autograd.grad(
        (difference(decoded, torch.zeros_like(decoded)) * signs).sum(), z, create_graph=True
    )
    return gradient.square().sum(1)
