"""The variational ladder autoencoder: independent layers, each read from, and entering, the network at its own depth.

Source: Zhao, Song and Ermon, "Learning Hierarchical Features from Deep Generative Models", 2017, arXiv 1702.08396.
"""

from torch import nn

from shortrun.config import LearnerConfig
from shortrun.errors import InputError
from shortrun.learners.encoder import EncoderLearner
from shortrun.model import TopDown


class Vlae(
    EncoderLearner,
    library_name="shortrun",
    paper_url="https://arxiv.org/abs/1702.08396",
    tags=["generative-model", "latent-variable-model", "variational-autoencoder"],
):
    """A generator of the ladder parameterization, learned with an encoder that has a head at each layer's depth.

        q(z|x) = prod_l N(z_l; mu_l(h_l), sigma_l(h_l)^2),   h_l the l-th state of the bottom-up path

    A decoder of the user's own will do as well. `build` makes a learner from its settings.

    generator: p(x, z) of the ladder parameterization, with the prior N(0, I).
    encoder: gives the moments of each layer.
    description: what `save_pretrained` writes; `build` fills it.

    Raises InputError for a generator of the conditional parameterization, whose layers are not independent.

    >>> import torch
    >>> from shortrun import ModelConfig
    >>> learner = Vlae.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8))
    >>> learner.infer(torch.zeros(2, 1, 4, 4), torch.Generator().manual_seed(0)).z.shape
    torch.Size([2, 5])
    """

    layered = True
    parameterization = "ladder"

    def __init__(self, generator: TopDown, encoder: nn.Module, description: LearnerConfig | None = None) -> None:
        if generator.parameterization not in (None, self.parameterization):
            raise InputError(
                "model.parameterization", repr(generator.parameterization), "the learner vlae is for ladder"
            )
        super().__init__(generator, encoder, description)
