"""The variational autoencoder: one network gives the posterior of all latents at once.

Source: Kingma and Welling, "Auto-Encoding Variational Bayes", 2014, arXiv 1312.6114.
"""

from shortrun.learners.encoder import EncoderLearner


class Vae(
    EncoderLearner,
    library_name="shortrun",
    paper_url="https://arxiv.org/abs/1312.6114",
    tags=["generative-model", "latent-variable-model", "variational-autoencoder"],
):
    """A generator learned with an encoder q(z|x) = N(mu(x), sigma(x)^2) of the whole flat z.

    The flat z has the prior N(0, I) whatever the parameterization of the generator. A decoder of the user's own will do
    as well. `build` makes a learner from its settings.

    generator: p(x, z).
    encoder: gives the moments of all latents at once.
    description: what `save_pretrained` writes; `build` fills it.

    >>> import torch
    >>> from shortrun import ModelConfig
    >>> learner = Vae.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8))
    >>> learner.infer(torch.zeros(2, 1, 4, 4), torch.Generator().manual_seed(0)).z.shape
    torch.Size([2, 5])
    """

    layered = False
