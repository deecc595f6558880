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

    The flat z has the prior N(0, I) whatever the parameterization of the generator; a decoder of the user's own will
    do as well. The arguments are those of `EncoderLearner`; `build` makes one from its settings.
    """

    layered = False
