"""Learning by short-run inference: no encoder, only the generator and a chain.

Source: Nijkamp et al., "Learning Multi-layer Latent Variable Model via Variational Optimization of Short Run MCMC for
Approximate Inference", ECCV 2020, arXiv 1912.01909.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import ModelHubMixin
from jaxtyping import Bool, Float
from torch import Tensor, nn

from shortrun.config import InferenceConfig, LearnerConfig, ModelConfig
from shortrun.errors import InputError
from shortrun.inference import DrawnNoise, StepSize, no_noise, short_run
from shortrun.learners.pretrained import read_model, write_model
from shortrun.model import Bernoulli, DiscretizedLogistic, Gaussian, Likelihood, TopDown, conv_decoder, dense_decoder
from shortrun.model.likelihood import Images, Mask

Flat = Float[Tensor, "n d"]


class Inferred(NamedTuple):
    """Latents of images, and what became of their chains."""

    z: Flat
    """(n, d); a chain that failed gives its start, a draw from the prior."""
    failed: Bool[Tensor, "n"]
    """True where log p(x, z) at the end of the chain stayed non-finite after all retries."""
    retried: int
    """Chains that were started again, counted once for each time."""


def check_steps(steps: int) -> int:
    """Return K, or raise InputError where it is no number of steps."""
    if steps < 1:
        raise InputError(f"steps: got {steps}; write a whole number of at least 1")
    return steps


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Keep the weights out of the graph while the block runs: only latents get gradients."""
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)


class ShortRun(
    nn.Module,
    ModelHubMixin,
    library_name="shortrun",
    paper_url="https://arxiv.org/abs/1912.01909",
    tags=["generative-model", "latent-variable-model", "langevin"],
):
    """A generator whose latents are inferred by a K-step Langevin chain started from the prior.

    generator: p(x, z). steps: K. step_size: s_0, one number or one for each layer, top down; step_decay: r in
    s_k = s_0 r^(k/(K-1)). noise: False for plain gradient ascent. retries: how often a chain that became non-finite is
    started again, each time with half the step. description: what `save_pretrained` writes; `build` fills it.
    """

    def __init__(
        self,
        generator: TopDown,
        steps: int = 25,
        step_size: float | tuple[float, ...] = 0.1,
        step_decay: float = 1.0,
        noise: bool = True,
        retries: int = 3,
        description: LearnerConfig | None = None,
    ) -> None:
        super().__init__()
        check_steps(steps)
        self.generator = generator
        self.step_size = StepSize(step_size, generator.latents, step_decay)
        self.steps, self.noise, self.retries, self.description = steps, noise, retries, description

    @property
    def device(self) -> torch.device:
        """Where the learner is, and where its images have to be."""
        return self.step_size.log_values.device

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
        description = LearnerConfig(image_shape, levels, decoder is not None, model, inference)
        likelihood = build_likelihood(model, image_shape[0], levels)
        if decoder is None:
            make = {"dense": dense_decoder, "conv": conv_decoder}[model.blocks]
            # torch initializes modules from its global state alone: it is put back as it was
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                decoder = make(
                    image_shape,
                    model.latents,
                    parameterization=model.parameterization,
                    width=model.width,
                    depth=model.depth,
                    skip=model.skip,
                    activation=nn.Identity() if isinstance(likelihood, Bernoulli) else nn.Tanh(),
                )
        generator = TopDown(decoder, likelihood, model.latents)
        chain = inference
        step_size = chain.first_step_size(len(model.latents))
        return cls(generator, chain.steps, step_size, chain.step_decay, chain.noise, chain.retries, description)

    def infer(
        self,
        x: Images,
        rng: torch.Generator,
        *,
        mask: Mask | None = None,
        steps: int | None = None,
        noise: bool | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> Inferred:
        """Infer the latents of images by one short run each, from the prior.

        x: (n, c, h, w) in [-1, 1]; mask: (n or 1, c or 1, h, w), 1 = observed. steps, noise: in place of the learner's.
        share: see DrawnNoise. A chain that became non-finite is started again from new noise with half the step.
        """
        steps = self.steps if steps is None else check_steps(steps)
        size = (len(x), self.generator.dim)
        draws = DrawnNoise(rng, steps, size, share, x.device)
        z = start = draws.draw()
        with torch.no_grad(), frozen(self.generator):
            z = self._chain(x, z, self.step_size(steps), draws, mask, noise)
            retried = 0
            failed = ~torch.isfinite(self.generator.log_joint(x, z, mask))  # so is z where this is
            for attempt in range(1, self.retries + 1):
                if not failed.any():
                    break
                rows = failed.nonzero()[:, 0]
                retried += len(rows)
                again = DrawnNoise(rng, steps, (len(rows), size[1]), device=x.device)
                part = mask[rows] if mask is not None and len(mask) > 1 else mask
                z[rows] = self._chain(x[rows], again.draw(), self.step_size(steps) * 0.5**attempt, again, part, noise)
                failed = ~torch.isfinite(self.generator.log_joint(x, z, mask))
        return Inferred(torch.where(failed[:, None], start, z), failed, retried)

    def _chain(
        self, x: Images, z: Flat, step_size: Tensor, draws: DrawnNoise, mask: Mask | None, noise: bool | None
    ) -> Flat:
        noisy = self.noise if noise is None else noise
        return short_run(
            lambda latents: self.generator.log_joint(x, latents, mask),
            z,
            step_size,
            draws if noisy else no_noise(len(draws), z),
        )

    def loss(
        self, x: Images, rng: torch.Generator, share: tuple[int, int] = (0, 1)
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return -mean_i log p(x_i, z_i) with z_i from the short run, and statistics of the batch.

        Its gradient is the whole of learning: z is detached. Images whose chain failed are left out. Statistics:
        `mse` in [0, 1] pixels, `second_moment` of z per dimension, `retried` and `failed` chains.
        """
        z, failed, retried = self.infer(x, rng, share=share)
        generator, kept = self.generator, ~failed
        x, z = x[kept], z[kept]
        decoded = generator.decoder(*generator.split(z))
        log_joint = generator.likelihood.log_prob(x, decoded) + generator.log_prior(z)
        loss = -log_joint.sum() / max(len(x), 1)
        with torch.no_grad():
            mse = ((generator.likelihood.mean(decoded).float() - x) ** 2).mean() / 4
        return loss, {
            "mse": mse,
            "second_moment": (z**2).mean(),
            "retried": torch.tensor(float(retried)),
            "failed": failed.sum().float(),
        }

    def forward(
        self, x: Images, rng: torch.Generator, share: tuple[int, int] = (0, 1)
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return `loss`: what a wrapper for several processes calls."""
        return self.loss(x, rng, share)

    @torch.no_grad()
    def decode(self, z: Flat) -> Images:
        """Return the images of latents, (n, c, h, w) in [-1, 1]."""
        return self.generator.decode(z).float().clamp(-1, 1)

    def reconstruct(
        self, x: Images, rng: torch.Generator, *, steps: int | None = None, noise: bool | None = None
    ) -> Images:
        """Infer the latents of images and decode them: (n, c, h, w) in [-1, 1]."""
        return self.decode(self.infer(x, rng, steps=steps, noise=noise).z)

    def sample(self, n: int, rng: torch.Generator) -> Images:
        """Decode n draws from the prior: (n, c, h, w) in [-1, 1]."""
        z = torch.randn(n, self.generator.dim, generator=rng, device=rng.device)
        return self.decode(z.to(self.device))

    def _save_pretrained(self, save_directory: Path) -> None:
        write_model(self.state_dict(), self.description, Path(save_directory))

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        decoder: nn.Module | None = None,
    ) -> "ShortRun":
        """Load what `save_pretrained` wrote, from a folder or from the Hugging Face hub (OWNER/NAME), ready to use.

        decoder: the user's own module, where the model was built with one. The other arguments are the hub's. Raises
        InputError where a file is absent, damaged, or does not fit.
        """
        # In place of the mixin's method, which reads config.json by itself and knows nothing of InputError.
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            from huggingface_hub import snapshot_download

            folder = Path(
                snapshot_download(
                    str(pretrained_model_name_or_path),
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                    allow_patterns=["config.json", "model.safetensors"],
                )
            )
        description, weights = read_model(folder)
        if description.own_decoder and decoder is None:
            raise InputError(f"decoder: {folder} was trained with a decoder of its own; give it, decoder=MyDecoder()")
        if decoder is not None and not description.own_decoder:
            raise InputError(f"decoder: {folder} has a decoder of this package; leave the argument out")
        learner = cls.build(
            description.image_shape, description.model, description.inference, description.levels, decoder
        )
        try:
            learner.load_state_dict(weights)
        except RuntimeError as error:
            raise InputError(
                f"{folder}: the weights do not fit the configuration ({' '.join(str(error).split())[:200]})"
            ) from None
        return learner.eval()


def build_likelihood(model: ModelConfig, channels: int, levels: int | None) -> Likelihood:
    """Return the likelihood that a configuration names; levels: values that a pixel can take."""
    if model.likelihood == "bernoulli":
        return Bernoulli()
    if model.likelihood == "logistic":
        if levels is None:
            raise InputError("model.likelihood: logistic needs images of whole numbers, these are floats; use gaussian")
        return DiscretizedLogistic(channels, levels)
    return Gaussian(model.sigma, model.learn_sigma)
