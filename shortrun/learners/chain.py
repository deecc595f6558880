"""What learners that infer by a Langevin chain have in common."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from shortrun.config import Config, LearnerConfig
from shortrun.errors import check_at_least
from shortrun.inference import DrawnNoise, Initial, StepSize, langevin_step, no_noise, short_run
from shortrun.inference.langevin import Step
from shortrun.learners.latent_learner import LatentLearner, alike
from shortrun.learners.learner import Flat, Inferred, Statistics, frozen
from shortrun.model import TopDown
from shortrun.model.casting import cast_once
from shortrun.model.likelihood import Images, Mask
from shortrun.pixels import squared_error


def draw_by(
    log_weights: Float[Tensor, "n m"], uniform: Float[Tensor, "n"]
) -> tuple[Int64[Tensor, "n"], Float[Tensor, "n"]]:
    """Return for each row one of m, drawn in proportion to its weight, and its tilt.

    The tilt is the logarithm of the weight less that of the mean weight, float64. Weights that are not finite count as
    none; where no weight is finite, all are equal.

    log_weights: (n, m), the logarithms of the weights.
    uniform: (n,) in [0, 1), the number that each row is drawn by.
    """
    finite = torch.where(torch.isfinite(log_weights), log_weights, -torch.inf).double()
    hopeless = torch.isinf(finite).all(1, keepdim=True)
    finite, m = torch.where(hopeless, 0.0, finite), log_weights.shape[1]
    # the sum may be rounded to less than 1
    shares = torch.softmax(finite, 1).cumsum(1)
    chosen = torch.searchsorted(shares, uniform[:, None].double(), right=True).clamp(max=m - 1)
    return chosen[:, 0], torch.log_softmax(finite, 1).gather(1, chosen)[:, 0] + math.log(m)


class ChainLearner(LatentLearner):
    """A generator whose latents are inferred by a K-step Langevin chain started from the prior.

    generator: p(x, z).
    steps: K, at least 1.
    step_size: s_0, one positive number or one for each layer, top down.
    step_decay: r in s_k = s_0 r^(k/(K-1)), a positive number; 1 keeps the step constant.
    noise: whether the chain is noisy; without noise it is plain gradient ascent.
    retries: how often a chain that became non-finite is started again, each time with half the step.
    description: what `save_pretrained` writes; `from_description` fills it.
    candidates: draws of the prior, common to a batch, among which each image's start is drawn in proportion to p(x |
        z). With 1 the start is a draw of the prior itself. With many of them the start alone comes near to a draw of
        p(z | x).

    Raises InputError for counts below 1, and for step sizes that are not positive or do not fit the layers.

    A subclass defines `from_description` and `loss`.

    >>> from shortrun import Gaussian, dense_decoder
    >>> class Gradient(ChainLearner):
    ...     def loss(self, x, rng, part=(0, 1), rows=None):
    ...         return self._loss_at(x, self.infer(x, rng, noise=False, part=part))
    ...     @classmethod
    ...     def from_description(cls, description, decoder=None, seed=0):
    ...         raise NotImplementedError
    >>> generator = TopDown(dense_decoder((1, 4, 4), (2, 3), width=8), Gaussian(), (2, 3))
    >>> learner = Gradient(generator, steps=3)
    >>> learner.infer(torch.zeros(2, 1, 4, 4), torch.Generator().manual_seed(0)).z.shape
    torch.Size([2, 5])

    Source of the candidates: sampling importance resampling, Rubin, "Using the SIR algorithm to simulate posterior
    distributions", 1988, Bayesian Statistics 3.
    """

    has_chain = True

    def __init__(
        self,
        generator: TopDown,
        steps: int = 25,
        step_size: float | tuple[float, ...] = 0.1,
        step_decay: float = 1.0,
        noise: bool = True,
        retries: int = 3,
        description: LearnerConfig | None = None,
        candidates: int = 1,
    ) -> None:
        super().__init__()
        check_at_least(1, steps=steps, candidates=candidates)
        self.generator = generator
        self.step_size = StepSize(step_size, generator.latents, step_decay)
        self.steps, self.noise, self.retries, self.description = steps, noise, retries, description
        self.candidates = candidates
        self.step: Step = langevin_step
        """Takes the steps of chains; training may put a compiled one in its place."""

    def _present(self, described: LearnerConfig) -> LearnerConfig:
        described = super()._present(described)
        chain = replace(
            described.inference, steps=self.steps, noise=self.noise, retries=self.retries, candidates=self.candidates
        )
        first, now = chain.first_step_size(len(self.latents)), self.step_size.values
        same_number = len(first) == len(now)
        if not same_number or not (chain.tuned or all(map(alike, first, now))):
            chain = replace(chain, step_size=tuple(now) if len(now) > 1 else now[0])
        if not chain.tuned and not alike(chain.step_decay, self.step_size.decay):
            chain = replace(chain, step_decay=self.step_size.decay)
        return replace(described, inference=chain)

    @classmethod
    def describe_settings(
        cls, settings: Config | LearnerConfig, found: tuple[tuple[float, ...], float] | None = None
    ) -> str:
        """Say steps, step sizes and noise; a tuned step size is where training has brought it so far."""
        inference, how = settings.inference, ""
        step, ratio = list(inference.first_step_size(len(settings.model.latents))), inference.step_decay
        if inference.tuned:
            step, ratio = (list(found[0]), found[1]) if found else (step, ratio)
            goal = "acceptance" if inference.tuning.tuner == "acceptance" else inference.tuning.estimator
            how = f" (tuned: {goal}, {inference.tuning.over})"
        size = " ".join(f"{value:.3g}" for value in step) if inference.tuned or len(step) > 1 else f"{step[0]:g}"
        decay = "" if ratio == 1 else f" falling to {ratio:.3g} of it"
        noise = "with" if inference.noise else "without"
        return f"{inference.steps} steps{cls.describe_visits(settings)} of size {size}{decay}{how}, {noise} noise"

    @classmethod
    def describe_visits(cls, settings: Config | LearnerConfig) -> str:
        """Return at what the steps are taken, in words, where an inference takes others.

        settings: of a run, or of a saved model.
        """
        return ""

    @property
    def shares_draws(self) -> bool:
        """Whether chains choose among candidates, which are common to a batch."""
        return self.candidates > 1

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
        """Return the latents of images by one short run each, from the prior.

        A chain that became non-finite is started again from new noise with half the step.

        x: (n, c, h, w) in [-1, 1], the images.
        rng: gives the random numbers.
        mask: (n or 1, c or 1, h, w), 1 = observed; None where all pixels are.
        steps: K, at least 1, in place of the learner's; None keeps that.
        noise: whether the chain is noisy, in place of what the learner does; None keeps that.
        part: (i, m), these images are the i-th of m equal parts of a batch; see `DrawnNoise`.
        """
        check_at_least(1, steps=steps)
        steps = self.steps if steps is None else steps
        draws = DrawnNoise(rng, steps, (len(x), self.generator.dim), part, x.device)
        start = self.start(x, draws, mask)
        z, failed, retried = self._run(x, start, draws, mask, noise)
        return Inferred(torch.where(failed[:, None], start, z), failed, retried)

    def start(self, x: Images, draws: DrawnNoise, mask: Mask | None = None) -> Flat:
        """Return where chains start, (n, d): draws from the prior, or from its candidates in proportion to p(x | z).

        The candidates are the same for all images of a call, and in all processes that share a batch.

        x: (n, c, h, w) in [-1, 1], the images.
        draws: gives the next numbers.
        mask: (n or 1, c or 1, h, w), 1 = observed; None where all pixels are.
        """
        return self.start_of(x, draws, mask)[0]

    @torch.no_grad()
    def start_of(self, x: Images, draws: DrawnNoise, mask: Mask | None = None) -> tuple[Flat, Initial]:
        """Return where chains start, as `start` does, and the density that it was drawn from.

        x: (n, c, h, w) in [-1, 1], the images.
        draws: gives the next numbers.
        mask: (n or 1, c or 1, h, w), 1 = observed; None where all pixels are.
        """
        generator = self.generator
        if self.candidates == 1:
            z = generator.prior.from_normal(draws.draw(), draws.uniform)
            tilt = torch.zeros(1, dtype=torch.float64)
        else:
            candidates = generator.prior.sample(self.candidates, draws.rng, device=x.device)
            decoded = generator.decoder(*generator.split(candidates))
            chosen, tilt = draw_by(generator.likelihood.log_prob_pairs(x, decoded, mask), draws.uniform())
            z = candidates[chosen]
        log_weights, means, scales = (part.to(z.device).double() for part in generator.prior.parts())
        return z, Initial(log_weights, means, scales, tilt.to(z.device))

    def _run(
        self,
        x: Images,
        start: Flat,
        draws: DrawnNoise,
        mask: Mask | None = None,
        noise: bool | None = None,
        anew: bool = True,
    ) -> Inferred:
        """Run chains from where they start; one that became non-finite runs again with half the step.

        anew: it then starts from a new draw of the prior, else from its start. The latents of chains that failed after
        all retries are left as they are.
        """
        run = partial(self._run_and_retry, x, start, draws, mask, noise, anew)
        return cast_once(self.generator, x.device, run)

    def _run_and_retry(
        self, x: Images, start: Flat, draws: DrawnNoise, mask: Mask | None, noise: bool | None, anew: bool
    ) -> Inferred:
        noisy, sizes = self.noise if noise is None else noise, self.step_size(len(draws))

        def run(
            x: Images, z: Flat, step_size: Tensor, draws: DrawnNoise, mask: Mask | None, step: Step = langevin_step
        ) -> Flat:
            return short_run(
                lambda latents: self.generator.log_joint(x, latents, mask),
                z,
                step_size,
                draws if noisy else no_noise(len(draws), z),
                step,
            )

        with torch.no_grad(), frozen(self.generator):
            z = run(x, start, sizes, draws, mask, self.step)
            retried = 0
            failed = ~torch.isfinite(self.generator.log_joint(x, z, mask))  # so is z where this is
            for attempt in range(1, self.retries + 1):
                if not failed.any():
                    break
                rows = failed.nonzero()[:, 0]
                retried += len(rows)
                again = DrawnNoise(draws.rng, len(draws), (len(rows), z.shape[1]), device=x.device)
                part = mask[rows] if mask is not None and len(mask) > 1 else mask
                begin = self.start(x[rows], again, part) if anew else start[rows]
                z[rows] = run(x[rows], begin, sizes * 0.5**attempt, again, part)
                failed = ~torch.isfinite(self.generator.log_joint(x, z, mask))
        return Inferred(z, failed, retried)

    def _loss_at(self, x: Images, inferred: Inferred) -> tuple[Float[Tensor, ""], Statistics]:
        """Return -mean_i log p(x_i, z_i) over the images whose chain did not fail, and statistics of the batch."""
        z, failed, retried = inferred
        generator, kept = self.generator, ~failed
        x, z = x[kept], z[kept]
        decoded = generator.decoder(*generator.split(z))
        log_joint = generator.likelihood.log_prob(x, decoded) + generator.log_prior(z)
        loss = -log_joint.sum() / max(len(x), 1)
        with torch.no_grad():
            mse = squared_error(generator.likelihood.mean(decoded).float(), x).mean()
        return loss, {
            "mse": mse,
            "second_moment": (z**2).mean(),
            "retried": torch.tensor(retried),
            "failed": failed.sum(),
        }

    def conditions(self) -> dict[str, Any]:
        """Return what a test figure has to quote about the chain."""
        return {
            "steps": self.steps,
            "step_size": self.step_size.values,
            "step_decay": self.step_size.decay,
            "noise": self.noise,
            **({"candidates": self.candidates} if self.candidates > 1 else {}),
        }

    def settings(self) -> dict[str, float]:
        """Return the mean step size and its decay."""
        return {"step_size": float(np.mean(self.step_size.values)), "step_decay": self.step_size.decay}

    def describe_inference(self, steps: int | None = None, noise: bool | None = None, masked: bool = False) -> str:
        """Say how latents are inferred, with steps and noise in place of the learner's where given."""
        noisy = self.noise if noise is None else noise
        start = f", from {self.candidates} candidates of the prior" if self.candidates > 1 else ""
        return f"{steps or self.steps} steps, {'with' if noisy else 'without'} noise{start}"
