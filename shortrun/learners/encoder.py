"""What learners with an encoder have in common: q(z|x) of one pass through a network, learned with the generator."""

import math
from typing import Any, ClassVar, NamedTuple, TypeGuard, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from shortrun.config import Config, EncoderConfig, LearnerConfig, ModelConfig
from shortrun.errors import InputError, check_at_least
from shortrun.inference import DrawnNoise
from shortrun.learners.declared import checked_for_learner
from shortrun.learners.generator import build_generator
from shortrun.learners.images import observed_error
from shortrun.learners.latent_learner import LatentLearner
from shortrun.learners.learner import Flat, Inferred, Learner, Rows, Statistics
from shortrun.learners.own_modules import made, ready
from shortrun.learners.weighted import for_each_draw, images_for_each_draw, importance_weighted, resampled
from shortrun.model import TopDown
from shortrun.model.encoders import Moments
from shortrun.model.likelihood import Images, Mask, PerImage, observed
from shortrun.registry import ENCODERS, LEARNERS, name_of
from shortrun.streams import Use, seed_of

Kind = TypeVar("Kind", bound="EncoderLearner")

ROUNDS = 50
"""Rounds of imputation where none are asked for."""


class Draw(NamedTuple):
    """Draws from the encoder's q(z|x), and what an update needs of them; n counts all draws of all images."""

    z: Flat
    """(n, d), in the coordinates of the flat matrix z of `TopDown`."""
    log_q: PerImage
    """log q(z|x) of each image."""
    kl: Float[Tensor, "n layers"]
    """The divergence of q from N(0, I) in each layer, top down, given the draw of the layers above."""
    decoded: Images
    """What the decoder says of z, as the likelihood wants it."""


class Proposal(NamedTuple):
    """A draw of latents and its density, for bounds by importance weights."""

    z: Flat
    """(n, d), in the coordinates of the flat matrix z of `TopDown`."""
    log_q: PerImage
    """log q(z|x) of each image, (n,)."""


class EncoderLearner(LatentLearner):
    """A generator and an encoder q(z|x), learned together by the evidence lower bound.

        log p(x) >= E_q[log p(x|z)] - KL(q(z|x) || p(z)),   z = mu(x) + sigma(x) noise

    A subclass says whether the encoder has a head for each layer of latents, in `layered`.

    With another prior than N(0, I) the divergence is log q(z|x) - log p(z) at the draw z. With m > 1 draws of each
    image, the description's `encoder.draws`, the bound is that of importance weights: see `importance_weighted`. A draw
    from the posterior is then one of m draws from q, taken by its weight.

    Of incomplete images the bound is that of the observed pixels x_o, and q(z|x_o) what the encoder makes of the
    image with something in place of the hidden pixels: their mean over training images, or zeros, with the mask as one
    more channel. The description's `encoder.missing` says which.

    generator: p(x, z).
    encoder: gives the moments of each layer, or of all latents at once.
    description: what `save_pretrained` writes; `from_description` fills it.

    >>> from shortrun import ModelConfig, Vae
    >>> learner = Vae.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8))
    >>> loss, statistics = learner.loss(torch.zeros(2, 1, 4, 4), torch.Generator().manual_seed(0))
    >>> loss.shape, "elbo" in statistics
    (torch.Size([]), True)
    """

    has_encoder = True
    learns_masked = True

    filling: Tensor
    layered: ClassVar[bool]
    """Whether the encoder has a head for each layer of latents."""

    def __init__(self, generator: TopDown, encoder: nn.Module, description: LearnerConfig | None = None) -> None:
        super().__init__()
        self.generator, self.encoder, self.description = generator, encoder, description
        self.missing = None if description is None else description.encoder.missing
        self.draws = 1 if description is None else description.encoder.draws
        if description is not None and self.missing == "mean":
            self.register_buffer("filling", torch.zeros(description.image_shape))

    @classmethod
    def build(
        cls: type[Kind],
        image_shape: tuple[int, int, int],
        model: ModelConfig | None = None,
        encoder: EncoderConfig | None = None,
        levels: int | None = 256,
        decoder: nn.Module | None = None,
        seed: int = 0,
    ) -> Kind:
        """Return a learner with new weights from its settings.

        image_shape: (c, h, w).
        model: of the generator; the defaults where not given.
        encoder: of the encoder; the defaults where not given.
        levels: values that a pixel can take; None where pixels are floats.
        decoder: the user's own module in place of the one that `model` names; None for that.
        seed: 0 or more, of the initial weights.

        Raises InputError for a value out of range, and for a generator that the learner is not defined for.
        """
        description = LearnerConfig(
            image_shape,
            levels,
            decoder is not None,
            model or ModelConfig(),
            learner=name_of(LEARNERS, cls),
            encoder=encoder or EncoderConfig(),
        )
        return cls.from_description(checked_for_learner(description, cls), decoder, seed)

    @classmethod
    def from_description(
        cls: type[Kind], description: LearnerConfig, decoder: nn.Module | None = None, seed: int = 0
    ) -> Kind:
        """Return the learner that a description is of, with new weights.

        The generator's weights are those of every learner with this seed.

        description: what `save_pretrained` writes, checked.
        decoder: the user's own module, where description.own_decoder says that there is one; else None.
        seed: 0 or more, of the initial weights.

        Raises InputError for a generator that the learner is not defined for.
        """
        generator = build_generator(description, decoder, seed)
        return cls(generator, build_encoder(description, cls.layered, seed), description)

    @classmethod
    def describe_settings(
        cls, settings: Config | LearnerConfig, found: tuple[tuple[float, ...], float] | None = None
    ) -> str:
        """Say width and depth of the encoder."""
        encoder = settings.encoder
        words = f"an encoder of width {encoder.width or settings.model.width} and depth {encoder.depth}"
        return words if encoder.draws == 1 else f"{words}, {encoder.draws} draws of each image by importance weights"

    def draw(self, x: Images, noise: Float[Tensor, "mn d"]) -> Draw:
        """Return draws from q(z|x), and what an update needs of them.

        Here the layers are independent given the image: q(z|x) = N(mu(x), sigma(x)^2).

        x: (n, c, h, w) in [-1, 1], the images.
        noise: (m n, d), standard normal, for m draws: of all images, then of all again; zeros give the mean.
        """
        parts = for_each_draw(self.encoder(x), len(noise) // len(x))
        q = Moments(torch.cat([part.mu for part in parts], 1), torch.cat([part.log_sigma for part in parts], 1))
        z = q.mu + torch.exp(q.log_sigma) * noise
        kl = torch.stack([layer.sum(1) for layer in q.divergence().split(self.latents, dim=1)], 1)
        return Draw(z, q.log_prob(z), kl, self.generator.decoder(*self.generator.split(z)))

    def seen(self, x: Images, mask: Mask | None = None) -> Float[Tensor, "n e h w"]:
        """Return what the encoder is given for images, (n, c or c + 1, h, w).

        x: (n, c, h, w) in [-1, 1], the images; what they hold at hidden pixels is not looked at.
        mask: (n or 1, 1 or c, h, w), 1 = observed; None where all pixels are.

        Raises InputError for a mask where the learner's encoder has not learned what to do with one.

        Source of the mean: what data analysis calls mean imputation; of the zeros and the mask: Mattei and Frellsen,
        "MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets", ICML 2019, arXiv 1812.02633, and
        Nazabal et al., "Handling Incomplete Heterogeneous Data using VAEs", 2020, arXiv 1807.03653.
        """
        if self.missing is None:
            if mask is not None:
                raise InputError(
                    "mask",
                    problem="the encoder has no way to see that pixels are hidden",
                    instead="write encoder.missing = mean or mask",
                )
            return x
        if self.missing == "mean":
            return x if mask is None else torch.where(mask > 0.5, x, self.filling.to(x))
        mask = x.new_ones(len(x), 1, *x.shape[2:]) if mask is None else (mask > 0.5).to(x.dtype)
        whole = mask.amin(1, keepdim=True).expand(len(x), -1, -1, -1)
        return torch.cat([observed(x, mask), whole], 1)

    def loss(
        self,
        x: Images,
        rng: torch.Generator,
        part: tuple[int, int] = (0, 1),
        rows: Rows | None = None,
        mask: Mask | None = None,
    ) -> tuple[Float[Tensor, ""], Statistics]:
        """Return -mean_i (log p(x_i|z_i) - kl_weight KL_i) with z_i drawn from q(z|x_i), and statistics of the batch.

        With m > 1 draws of each image it is -mean_i log (1/m) sum_j w_ij, w_ij = p(x_i|z_ij) (p(z_ij) / q(z_ij|x_i)),
        the bracket to the power of kl_weight. With a mask, x_i is what is observed of an image.

        Statistics: `mse` of the draws in [0, 1] pixels, `second_moment` of z per dimension, `elbo` (the bound of one
        draw, whatever the weight), `log_likelihood` and `kl` that it is made of. With the prior N(0, I) and one draw
        also `kl_1` (the lowest layer) to `kl_L`, the divergence of each layer. With a prior that lacks its constant
        neither `elbo` nor `kl`: the loss is up to that constant.
        """
        self.refit(rng)
        noise, prior, count = self._draws(x, rng, part), self.generator.prior, self.draws
        draw = self.draw(self.seen(x, mask), torch.cat([each.to(x.dtype) for each in noise]))
        of, mask = images_for_each_draw(x, mask, count)
        log_likelihood = self.generator.likelihood.log_prob(of, draw.decoded, mask)
        log_prior, fit = self.log_prior(draw.z)
        # the divergence from N(0, I) is closed; from another prior, and in a weight, it is estimated at the draw
        closed = prior.standard and count == 1
        kl = draw.kl.sum(1) if closed else draw.log_q - log_prior
        if count == 1:
            loss = (self.kl_weight * kl - log_likelihood).mean()
        else:
            loss = -importance_weighted((log_likelihood - self.kl_weight * kl).view(count, -1)).mean()
        self.remember(draw.z, of)
        with torch.no_grad():
            mse = observed_error(self.generator.likelihood.mean(draw.decoded).to(x.dtype), of, mask)
            layers = draw.kl.mean(0) if closed else kl.new_zeros(0)
        return loss, {
            "mse": mse,
            "second_moment": (draw.z.detach() ** 2).mean(),
            **fit,
            **({"elbo": (log_likelihood - kl).mean().detach(), "kl": kl.mean().detach()} if prior.exact else {}),
            "log_likelihood": log_likelihood.mean().detach(),
            **{f"kl_{len(layers) - i}": layer for i, layer in enumerate(layers)},
        }

    @torch.no_grad()
    def propose(self, x: Images, rng: torch.Generator) -> Proposal:
        """Return one draw of the latents for each image, and log q(z|x) of it.

        x: (n, c, h, w) in [-1, 1], the images.
        rng: gives the random numbers.
        """
        draw = self.draw(self.seen(x), self._noise(x, rng))
        return Proposal(draw.z, draw.log_q)

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
        """Return the mean of q(z|x), or a draw from it.

        With a mask the latents are a draw from q(z|x_o), where the encoder has learned from incomplete images; with
        `steps` above 1, one of so many draws, taken by its importance weight p(x_o, z) / q(z|x_o). Where the encoder
        has not learned from such images, the missing pixels start as noise. In each round latents are drawn, and the
        missing pixels become those that the latents are decoded to. An image whose latents are not finite has failed:
        it gets a draw from the prior.

        x: (n, c, h, w) in [-1, 1], the images.
        rng: gives the random numbers.
        mask: (n or 1, c or 1, h, w), 1 = observed; None where all pixels are.
        steps: at least 1, the draws that one is taken from, encoder.draws where not given; or the rounds where there
            are some, 50 where not given.
        noise: without a mask, True for a draw in place of the mean. With a mask, False for the mean in place of draws.
        part: (i, m), these images are the i-th of m equal parts of a batch; see `DrawnNoise`.

        Raises InputError for steps without a mask or with noise = False, and for fewer than one.

        Source of the rounds: Rezende, Mohamed, Wierstra, "Stochastic Backpropagation and Approximate Inference in Deep
        Generative Models", 2014, arXiv 1401.4082.
        """
        if mask is None or self.missing is not None:
            noisy = noise if mask is None else noise is not False
            if steps is not None and (mask is None or not noisy):
                why = "unless pixels are missing" if mask is None else "for the mean"
                raise InputError("steps", steps, f"an encoder takes none {why}: leave it out")
            check_at_least(1, steps=steps)
            z = self._sampled(x, rng, mask, steps, part) if noisy else self.draw(self.seen(x, mask), self._zeros(x)).z
        else:
            check_at_least(1, steps=steps)
            z = self._impute(x, rng, mask, ROUNDS if steps is None else steps, noise is not False, part)
        failed = ~torch.isfinite(z).all(1)
        if failed.any():
            draws = DrawnNoise(rng, 1, (len(x), self.dim), part, x.device)
            spare = self.generator.prior.from_normal(draws.draw().to(z), draws.uniform).z
            z = torch.where(failed[:, None], spare, z)
        return Inferred(z, failed, 0)

    def _sampled(
        self, x: Images, rng: torch.Generator, mask: Mask | None, count: int | None, part: tuple[int, int]
    ) -> Flat:
        """Return a draw from q(z|x_o), or one of several by its weight."""
        seen, noise = self.seen(x, mask), self._draws(x, rng, part, count)

        def weigh(numbers: Flat) -> tuple[Flat, PerImage]:
            draw = self.draw(seen, numbers.to(x.dtype))
            if len(noise) == 1:
                return draw.z, draw.log_q  # nothing to weigh against
            log_likelihood = self.generator.likelihood.log_prob(x, draw.decoded, mask)
            return draw.z, log_likelihood + self.generator.prior.log_prob(draw.z) - draw.log_q

        return resampled(weigh, noise)

    def _impute(
        self, x: Images, rng: torch.Generator, mask: Mask, rounds: int, noisy: bool, part: tuple[int, int]
    ) -> Flat:
        seen = mask > 0.5
        start = DrawnNoise(rng, 1, (len(x), x[0].numel()), part, x.device).draw().to(x.dtype)
        # uniform in [-1, 1], out of normal numbers that several processes can share
        z, filled = self._zeros(x), torch.where(seen, x, torch.erf(start / math.sqrt(2)).view_as(x))
        for _ in range(rounds):
            z, _, _, decoded = self.draw(filled, self._noise(x, rng, part) if noisy else self._zeros(x))
            filled = torch.where(seen, x, self.generator.likelihood.mean(decoded).to(x.dtype).clamp(-1, 1))
        return z

    def draw_posterior(self, x: Images, rng: torch.Generator, mask: Mask | None = None) -> Flat:
        """Return one draw from q(z|x), or q(z|x_o), for each image: (n, d)."""
        return self.infer(x, rng, noise=True, mask=mask).z

    def conditions(self) -> dict[str, Any]:
        """Return what a test figure has to quote about inference."""
        return {"inference": "mean of the encoder"}

    def describe_inference(self, steps: int | None = None, noise: bool | None = None, masked: bool = False) -> str:
        """Say how latents are inferred; masked: where pixels are missing, which takes rounds of draws."""
        if masked and self.missing is not None:
            input_of = {"mean": "hidden pixels as their mean", "mask": "zeros at hidden pixels, and the mask"}
            return f"{self._drawn(steps, noise is not False)}, given {input_of[self.missing]}"
        if masked:
            return f"{steps or ROUNDS} rounds of {'means' if noise is False else 'draws'} from the encoder"
        return self._drawn(None, noise is True)

    def _drawn(self, steps: int | None, noise: bool) -> str:
        count = self.draws if steps is None else steps
        if not noise:
            return "mean of the encoder"
        return "a draw from the encoder" if count == 1 else f"one of {count} draws from the encoder, by its weight"

    def _draws(
        self, x: Images, rng: torch.Generator, part: tuple[int, int] = (0, 1), count: int | None = None
    ) -> DrawnNoise:
        return DrawnNoise(rng, self.draws if count is None else count, (len(x), self.dim), part, x.device)

    def _noise(self, x: Images, rng: torch.Generator, part: tuple[int, int] = (0, 1)) -> Flat:
        return self._draws(x, rng, part, 1).draw().to(x.dtype)

    def _zeros(self, x: Images) -> Flat:
        return x.new_zeros(len(x), self.dim)


def with_encoder(learner: Learner) -> TypeGuard[EncoderLearner]:
    """Return whether a learner declares an encoder q(z|x) in closed form.

    learner: any.
    """
    return learner.has_encoder


def encoder_shape(description: LearnerConfig) -> tuple[int, int, int]:
    """Return the shape of what an encoder is given: an image, with its mask as one more channel where it sees that.

    description: of the learner.
    """
    c, h, w = description.image_shape
    return (c + 1, h, w) if description.encoder.missing == "mask" else (c, h, w)


def build_encoder(description: LearnerConfig, layered: bool, seed: int = 0) -> nn.Module:
    """Return an encoder that mirrors the description's generator, with new weights.

    The encoder is what encoder.blocks names, called with image_shape, latents and the keywords of `conv_encoder`.

    description: of the learner.
    layered: whether there is a head for each layer of latents, in place of one for all of them.
    seed: 0 or more, of the initial weights.

    Raises InputError where encoder.blocks names none, and where what makes the encoder raises, or gives no module.
    """
    model, settings = description.model, description.encoder
    if settings.blocks is None and model.blocks not in ENCODERS:
        raise InputError(
            "encoder.blocks",
            problem=f"the model's blocks, {model.blocks}, name no encoder",
            instead=f"write {', '.join(ENCODERS)}, or module:Name of your own",
        )
    word, width = settings.blocks or model.blocks, model.width if settings.width is None else settings.width
    arguments = {
        "image_shape": encoder_shape(description),
        "latents": model.latents,
        "width": width,
        "depth": settings.depth,
        "heads": layered,
    }
    seed = seed_of(seed, Use.ENCODER)
    module = made(ENCODERS, word, "encoder.blocks", arguments, seed)
    if word not in ENCODERS:
        module = ready(module, "encoder.blocks", [torch.zeros(2, *encoder_shape(description))], seed)
    return module
