"""Learning by short-run inference: no encoder, only the generator and a chain.

Source: Nijkamp et al., "Learning Multi-layer Latent Variable Model via Variational Optimization of Short Run MCMC for
Approximate Inference", ECCV 2020, arXiv 1912.01909.
"""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from shortrun.config import InferenceConfig, LearnerConfig, ModelConfig
from shortrun.learners.chain import ChainLearner
from shortrun.learners.declared import checked_for_learner
from shortrun.learners.generator import build_generator, build_start
from shortrun.learners.incomplete import Incomplete
from shortrun.learners.learner import Rows
from shortrun.model.likelihood import Images, Mask
from shortrun.registry import LEARNERS, name_of


class ShortRun(
    ChainLearner,
    library_name="shortrun",
    paper_url="https://arxiv.org/abs/1912.01909",
    tags=["generative-model", "latent-variable-model", "langevin"],
):
    """A generator learned from latents that a K-step Langevin chain from the prior infers anew at each update.

    `build` makes one from its settings.

    generator: p(x, z).
    steps: K, at least 1.
    step_size: s_0, one positive number or one for each layer, top down.
    step_decay: r in s_k = s_0 r^(k/(K-1)), a positive number; 1 keeps the step constant.
    noise: whether the chain is noisy; without noise it is plain gradient ascent.
    retries: how often a chain that became non-finite is started again, each time with half the step.
    description: what `save_pretrained` writes; `build` fills it.
    candidates: draws of the prior, among which each image's start is drawn; see `ChainLearner`.
    regression: of past chains' latents on their images, which chains start from; None for a start from the prior.
    test_steps: K where the model infers outside of learning; None for `steps`.

    Raises InputError for counts below 1, and for step sizes that are not positive or do not fit the layers.

    >>> from shortrun import InferenceConfig
    >>> learner = ShortRun.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8), InferenceConfig(steps=5))
    >>> loss, statistics = learner.loss(torch.zeros(2, 1, 4, 4), torch.Generator().manual_seed(0))
    >>> loss.shape, sorted(statistics)
    (torch.Size([]), ['failed', 'mse', 'retried', 'second_moment'])
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
        """Return a learner with new weights from its settings.

        image_shape: (c, h, w).
        model: of the generator; the defaults where not given.
        inference: of the chain; the defaults where not given.
        levels: values that a pixel can take; None where pixels are floats.
        decoder: the user's own module in place of the one that `model` names; None for that.
        seed: 0 or more, of the initial weights.

        Raises InputError for a value out of range.
        """
        model, inference = model or ModelConfig(), inference or InferenceConfig()
        name = name_of(LEARNERS, cls)
        description = LearnerConfig(image_shape, levels, decoder is not None, model, inference, name)
        return cls.from_description(checked_for_learner(description, cls), decoder, seed)

    @classmethod
    def from_description(
        cls, description: LearnerConfig, decoder: nn.Module | None = None, seed: int = 0
    ) -> "ShortRun":
        """Return the learner that a description is of, with new weights.

        description: what `save_pretrained` writes, checked.
        decoder: the user's own module, where description.own_decoder says that there is one; else None.
        seed: 0 or more, of the initial weights.
        """
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
            build_start(description, generator),
            chain.test_steps,
        )

    def loss(
        self,
        x: Images,
        rng: torch.Generator,
        part: tuple[int, int] = (0, 1),
        rows: Rows | None = None,
        mask: Mask | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return -mean_i log p(x_i, z_i) with z_i from the short run, and statistics of the batch.

        Its gradient is the whole of learning: z is detached. Images whose chain failed are left out. With a mask, x_i
        is what is observed of an image. Statistics: `mse` in [0, 1] pixels, `second_moment` of z per dimension,
        `retried` and `failed` chains.
        """
        self.refit(rng)
        infer = partial(self._infer, x, rng, mask, self.steps, None, part)
        return self._learned_at(x, infer, None if mask is None else Incomplete(mask, rng, part))
