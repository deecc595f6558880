"""The generator as the sampler sees it: one flat matrix of latents in, log-densities out."""

from collections.abc import Sequence

from torch import Tensor, nn

from shortrun.errors import InputError
from shortrun.model.decoders import Decoder, check_latents
from shortrun.model.likelihood import Images, Likelihood, Mask, PerImage
from shortrun.model.prior import Normal, Prior
from shortrun.normals import Flat


class TopDown(nn.Module):
    """The generator p(x, z) = p(x | z) p(z) with L layers of latents.

    The flat matrix z, (n, d), has the layers side by side, top down.

    decoder: a module that is called with the layers (z_L, ..., z_1), each (n, d_l), and returns what the likelihood
        expects, (n, c, h, w): `dense_decoder`, `conv_decoder`, or the user's own. It must be smooth (GELU, SiLU,
        softplus; no ReLU) and treat samples apart (no batch normalization).
    likelihood: p(x | z) given the decoder's output.
    latents: sizes of the layers, top down, (d_L, ..., d_1).
    prior: p(z); N(0, I) where not given.

    Raises InputError for a decoder with batch normalization, for sizes below 1, and for a prior of another dimension.

    >>> import torch
    >>> from shortrun import Gaussian, dense_decoder
    >>> generator = TopDown(dense_decoder((1, 4, 4), (2, 3), width=8), Gaussian(sigma=0.3), (2, 3))
    >>> z = torch.zeros(5, generator.dim)
    >>> generator.decode(z).shape, generator.log_joint(torch.zeros(5, 1, 4, 4), z).shape
    (torch.Size([5, 1, 4, 4]), torch.Size([5]))

    Source: Nijkamp et al., "Learning Multi-layer Latent Variable Model via Variational Optimization of Short Run MCMC
    for Approximate Inference", ECCV 2020, arXiv 1912.01909.
    """

    def __init__(
        self, decoder: nn.Module, likelihood: Likelihood, latents: Sequence[int], prior: Prior | None = None
    ) -> None:
        super().__init__()
        check_latents(latents)
        coupling = [
            name for name, module in decoder.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
        ]
        if coupling:
            raise InputError(
                "decoder",
                problem=f"{coupling[0] or 'it'} is a batch normalization, which couples the images of a batch",
                instead="use GroupNorm, LayerNorm or none",
            )
        self.decoder, self.likelihood, self.latents = decoder, likelihood, tuple(latents)
        self.prior = prior or Normal(sum(latents))
        if self.prior.dim != self.dim:
            raise InputError("prior", f"one of {self.prior.dim} latents for {self.dim}", f"write one of {self.dim}")

    @property
    def parameterization(self) -> str | None:
        """`ladder` or `conditional`; None where the decoder is the user's own, which knows of neither."""
        return self.decoder.parameterization if isinstance(self.decoder, Decoder) else None

    @property
    def dim(self) -> int:
        """The number of latents of an image, d."""
        return sum(self.latents)

    def split(self, z: Flat) -> tuple[Tensor, ...]:
        """Return the layers (z_L, ..., z_1) of a flat matrix.

        z: (n, d), latents.
        """
        return z.split(self.latents, dim=1)

    def layers(self, z: Flat) -> list[Tensor]:
        """Return (z_L, ..., z_1): the parts of z, or mu_l + sigma_l u_l where the parameterization is conditional.

        z: (n, d), latents.
        """
        split = self.split(z)
        # a decoder of the user's own is called with the layers and knows no others
        return self.decoder.layers(*split) if isinstance(self.decoder, Decoder) else list(split)

    def decode(self, z: Flat) -> Images:
        """Return the image of latents by the likelihood's `mean`, (n, c, h, w) in [-1, 1].

        That is E[x | z] of a Gaussian or a Bernoulli likelihood. Of a discretized logistic it is the location, which
        differs from E[x | z] at the ends of the range: see `DiscretizedLogistic.mean`.

        z: (n, d), latents.
        """
        return self.likelihood.mean(self.decoder(*self.split(z)))

    def log_prior(self, z: Flat) -> PerImage:
        """Return log p(z), (n,): log N(z; 0, I) where no other prior was given.

        z: (n, d), latents.
        """
        return self.prior.log_prob(z)

    def log_likelihood(self, x: Images, z: Flat, mask: Mask | None = None) -> PerImage:
        """Return log p(x | z), (n,), over the observed entries.

        x: (n, c, h, w) in [-1, 1], the images.
        z: (n, d), latents.
        mask: (n or 1, c or 1, h, w), 1 = observed; None where all pixels are.
        """
        return self.likelihood.log_prob(x, self.decoder(*self.split(z)), mask)

    def log_joint(self, x: Images, z: Flat, mask: Mask | None = None) -> PerImage:
        """Return log p(x, z) = log p(x | z) + log p(z), (n,), with log p(x | z) over the observed entries.

        x: (n, c, h, w) in [-1, 1], the images.
        z: (n, d), latents.
        mask: (n or 1, c or 1, h, w), 1 = observed; None where all pixels are.
        """
        return self.log_likelihood(x, z, mask) + self.log_prior(z)
