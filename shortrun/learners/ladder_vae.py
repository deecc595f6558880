"""The ladder variational autoencoder: the encoder corrects the generator's own top-down pass.

Source: Sonderby, Raiko, Maaloe, Sonderby and Winther, "Ladder Variational Autoencoders", 2016, arXiv 1602.02282.
"""

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from shortrun.config import LearnerConfig
from shortrun.errors import InputError
from shortrun.learners.encoder import Draw, EncoderLearner
from shortrun.learners.weighted import for_each_draw
from shortrun.model import TopDown
from shortrun.model.blocks import Conditional
from shortrun.model.decoders import Decoder
from shortrun.model.encoders import Moments
from shortrun.model.likelihood import Images


def combined(upward: Moments, prior: Moments) -> Moments:
    """Return the product of two normal distributions of z, in the coordinates u = (z - mu_p) / sigma_p of the second.

        z ~ N((mu_h / sigma_h^2 + mu_p / sigma_p^2) sigma^2, sigma^2),   1 / sigma^2 = 1 / sigma_h^2 + 1 / sigma_p^2
        u ~ N(w (mu_h - mu_p) / sigma_p, 1 - w),                         w = sigma_p^2 / (sigma_h^2 + sigma_p^2)

    upward: mu_h and log sigma_h of the bottom-up pass.
    prior: mu_p and log sigma_p of the top-down pass.
    """
    log_odds = 2 * (prior.log_sigma - upward.log_sigma)
    mu = torch.sigmoid(log_odds) * (upward.mu - prior.mu) * torch.exp(-prior.log_sigma)
    return Moments(mu, -0.5 * F.softplus(log_odds))


class LadderVae(
    EncoderLearner,
    library_name="shortrun",
    paper_url="https://arxiv.org/abs/1602.02282",
    tags=["generative-model", "latent-variable-model", "variational-autoencoder"],
):
    """A generator of the conditional parameterization, learned with a posterior along its own top-down path.

        q(z|x) = q(z_L|x) prod_l q(z_l | z_{l+1}, ..., z_L, x),   q(z_L|x) = N(mu_hat_L, sigma_hat_L^2),

    and below the top q(z_l|...) is the product of N(mu_hat_l, sigma_hat_l^2), which the bottom-up pass gives, and of
    the prior N(mu_l, sigma_l^2), which the layers above give. All latents are in the coordinates of the flat matrix z
    of `TopDown`, u_l = (z_l - mu_l) / sigma_l, whose prior is N(0, I); the divergence is the same in them. The paper's
    batch normalization is left out, because images are to be treated apart. Its warm-up is training.kl_schedule.
    `build` makes a learner from its settings.

    generator: p(x, z) of the conditional parameterization, by `dense_decoder` or `conv_decoder`.
    encoder: gives the moments of each layer.
    description: what `save_pretrained` writes; `build` fills it.

    Raises InputError for another generator.

    >>> from shortrun import ModelConfig
    >>> learner = LadderVae.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8, parameterization="conditional"))
    >>> learner.infer(torch.zeros(2, 1, 4, 4), torch.Generator().manual_seed(0)).z.shape
    torch.Size([2, 5])
    """

    layered = True
    parameterization = "conditional"

    def __init__(self, generator: TopDown, encoder: nn.Module, description: LearnerConfig | None = None) -> None:
        if generator.parameterization is None:
            raise InputError(
                "decoder",
                problem="the learner ladder_vae needs the layers' priors",
                instead="leave it out, or choose vae",
            )
        if generator.parameterization != self.parameterization:
            raise InputError(
                "model.parameterization", repr(generator.parameterization), "the learner ladder_vae is for conditional"
            )
        super().__init__(generator, encoder, description)

    def draw(self, x: Images, noise: Float[Tensor, "mn d"]) -> Draw:
        """Draw from q(z|x) with standard normal noise, (m n, d), top down; zeros give each layer's mean below means."""
        decoder = cast(Decoder, self.generator.decoder)
        upward, layers, u = for_each_draw(self.encoder(x), len(noise) // len(x)), self.generator.split(noise), []
        posteriors: list[Moments] = []

        def entering(i: int, h: Tensor | None) -> Tensor:
            if h is None:
                q, prior = upward[0], None
            else:
                moments = cast(Conditional, cast(nn.ModuleList, decoder.conditional)[i - 1]).moments(h)
                prior = Moments(*(part.to(x.dtype) for part in moments))
                q = combined(upward[i], prior)
            posteriors.append(q)
            u.append(q.mu + torch.exp(q.log_sigma) * layers[i])
            return u[i] if prior is None else prior.mu + torch.exp(prior.log_sigma) * u[i]

        _, state = decoder.descend(len(layers), entering)
        log_q = torch.stack([q.log_prob(part) for q, part in zip(posteriors, u, strict=True)], 1).sum(1)
        kl = torch.stack([q.divergence().sum(1) for q in posteriors], 1)
        return Draw(torch.cat(u, 1), log_q, kl, decoder.out(state))
