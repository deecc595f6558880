"""Learning by short-run inference: no encoder, only the generator and a chain.

Source: Nijkamp et al., "Learning Multi-layer Latent Variable Model via Variational Optimization of Short Run MCMC for
Approximate Inference", ECCV 2020, arXiv 1912.01909.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from shortrun.config import InferenceConfig, LearnerConfig, ModelConfig
from shortrun.learners.chain import ChainLearner
from shortrun.learners.declared import checked_for_learner
from shortrun.learners.generator import build_generator
from shortrun.learners.learner import Rows
from shortrun.model.likelihood import Images
from shortrun.registry import LEARNERS, name_of


class ShortRun(
    ChainLearner,
    library_name="shortrun",
    paper_url="https://arxiv.org/abs/1912.01909",
    tags=["generative-model", "latent-variable-model", "langevin"],
):
    """A generator learned from latents that a K-step Langevin chain from the prior infers anew at each update.

    The arguments are those of `ChainLearner`; `build` makes one from its settings.
    """

    short_runs = True

    @classmethod
    def build(
        cls,
        image_shape: tuple[int, int, int],
        model: ModelConfig | None = None,
        inference: InferenceConfig | None = None,
        levels: int | None = 256,
        decoder: nn.Module | None = None,
        seed: int = 0,
    ) -> "ShortRun":
        """Build a learner from its configuration, with the user's own decoder where one is given.

        image_shape: (c, h, w); levels: values that a pixel can take; seed: of the initial weights.
        """
        model, inference = model or ModelConfig(), inference or InferenceConfig()
        name = name_of(LEARNERS, cls)
        description = LearnerConfig(image_shape, levels, decoder is not None, model, inference, name)
        return cls.from_description(checked_for_learner(description, cls), decoder, seed)

    @classmethod
    def from_description(
        cls, description: LearnerConfig, decoder: nn.Module | None = None, seed: int = 0
    ) -> "ShortRun":
        """Build the learner with new weights; decoder: the user's own where description.own_decoder; seed: of them."""
        generator, chain = build_generator(description, decoder, seed), description.inference
        step_size = chain.first_step_size(len(generator.latents))
        return cls(
            generator,
            chain.steps,
            step_size,
            chain.step_decay,
            chain.noise,
            chain.retries,
            description,
            chain.candidates,
        )

    def loss(
        self, x: Images, rng: torch.Generator, part: tuple[int, int] = (0, 1), rows: Rows | None = None
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return -mean_i log p(x_i, z_i) with z_i from the short run, and statistics of the batch.

        Its gradient is the whole of learning: z is detached. Images whose chain failed are left out. Statistics:
        `mse` in [0, 1] pixels, `second_moment` of z per dimension, `retried` and `failed` chains.
        """
        return self._loss_at(x, self.infer(x, rng, part=part))
