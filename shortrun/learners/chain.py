"""What learners that infer by a Langevin chain have in common."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.config import Config, LearnerConfig
from shortrun.errors import check_at_least
from shortrun.inference import DrawnNoise, Initial, Regression, StepSize, langevin_step, no_noise, short_run
from shortrun.inference.langevin import ChainNoise, LogDensity, Step
from shortrun.learners.chain_density import ChainDensity
from shortrun.learners.chain_start import Start, chosen, draw_by
from shortrun.learners.images import observed_error
from shortrun.learners.incomplete import Incomplete, completed
from shortrun.learners.latent_learner import LatentLearner, alike
from shortrun.learners.learner import Flat, Inferred, Stage, Statistics, frozen
from shortrun.model import TopDown
from shortrun.model.casting import cast_once
from shortrun.model.likelihood import Images, Mask, PerImage
from shortrun.model.prior import Component, choose_each

Arrive = Callable[[Flat], PerImage]
"""Is called with the ends of chains and returns numbers that are finite where log p(x, z) is."""


class _Joint(NamedTuple):
    """log p(x, z) of images and latents, and what it came from."""

    value: PerImage
    decoded: Images
    fit: Statistics


class ChainLearner(LatentLearner):
    """A generator whose latents are inferred by a K-step Langevin chain, from the prior or from a regression.

    Where the prior is a mixture, a component c ~ p(c | z_0) is drawn at the start and held: a Gibbs step on
    p(z, c | x).

    generator: p(x, z).
    steps: K, at least 1.
    step_size: s_0, one positive number or one for each layer, top down.
    step_decay: r in s_k = s_0 r^(k/(K-1)), a positive number; 1 keeps the step constant.
    noise: whether the chain is noisy; without noise it is plain gradient ascent.
    retries: how often a chain that became non-finite is started again, each time with half the step.
    description: what `save_pretrained` writes; `from_description` fills it.
    candidates: draws of the prior, common to a batch, among which each image's start is drawn in proportion to p(x |
        z). With 1 the start is a draw of the prior itself. With many of them the start alone comes near to a draw of
        p(z | x). With a regression the image's own start is one more of them.
    regression: of past chains' latents on their images, which chains start from; None for a start from the prior.
    test_steps: K where the model infers outside of learning, at least 1; None for `steps`.

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
    learns_masked = True

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
        regression: Regression | None = None,
        test_steps: int | None = None,
    ) -> None:
        super().__init__()
        check_at_least(1, steps=steps, candidates=candidates, test_steps=test_steps)
        self.generator = generator
        self.step_size = StepSize(step_size, generator.latents, step_decay)
        self.steps, self.noise, self.retries, self.description = steps, noise, retries, description
        self.candidates, self.regression, self.test_steps = candidates, regression, test_steps
        self.step: Step = langevin_step
        """Takes the steps of chains; training may put a compiled one in its place."""

    def _present(self, described: LearnerConfig) -> LearnerConfig:
        described = super()._present(described)
        chain = replace(
            described.inference,
            steps=self.steps,
            test_steps=self.test_steps,
            noise=self.noise,
            retries=self.retries,
            candidates=self.candidates,
            start="prior" if self.regression is None else "regression",
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
        start = "" if inference.start == "prior" else ", from the regression of latents on images"
        visits = cls.describe_visits(settings)
        return f"{inference.steps} steps{visits} of size {size}{decay}{how}, {noise} noise{start}"

    @classmethod
    def describe_visits(cls, settings: Config | LearnerConfig) -> str:
        """Return at what the steps are taken, in words, where an inference takes others.

        settings: of a run, or of a saved model.
        """
        afterwards = settings.inference.test_steps
        return "" if afterwards is None else f" while learning and {afterwards} afterwards,"

    @property
    def keeps_latents(self) -> bool:
        """Whether the prior or the regression is fitted to the latents of updates."""
        return super().keeps_latents or self.regression is not None

    @property
    def settled(self) -> bool:
        """Whether all that is fitted to latents has been fitted for the first time."""
        return super().settled and (self.regression is None or bool(self.regression.fits))

    def features(self, x: Images) -> Float[Tensor, "n p"]:
        """Return what the latents are regressed on, (n, p); nothing where chains start from the prior.

        x: (n, c, h, w) in [-1, 1], the images.
        """
        return super().features(x) if self.regression is None else self.regression.features(x)

    def fit_latents(self, z: Flat, features: Float[Tensor, "n p"], rng: torch.Generator) -> None:
        """Fit the prior to latents, and the regression to both.

        z: (n, d), finite.
        features: (n, p), as `features` gives them.
        rng: gives the random numbers.
        """
        super().fit_latents(z, features, rng)
        if self.regression is not None:
            self.regression.learn(features, z)

    @property
    def shares_draws(self) -> bool:
        """Whether chains choose among candidates, which are common to a batch."""
        return self.candidates > 1

    @property
    def fresh_steps(self) -> int:
        """K where the model infers outside of learning."""
        return self.steps if self.test_steps is None else self.test_steps

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
        """Return the latents of images by one short run each, of `fresh_steps` steps.

        A chain that became non-finite is started again from new noise with half the step.

        x: (n, c, h, w) in [-1, 1], the images.
        rng: gives the random numbers.
        mask: (n or 1, c or 1, h, w), 1 = observed; None where all pixels are.
        steps: K, at least 1, in place of `fresh_steps`; None keeps that.
        noise: whether the chain is noisy, in place of what the learner does; None keeps that.
        part: (i, m), these images are the i-th of m equal parts of a batch; see `DrawnNoise`.
        """
        check_at_least(1, steps=steps)
        return self._infer(x, rng, mask, self.fresh_steps if steps is None else steps, noise, part)

    def _infer(
        self,
        x: Images,
        rng: torch.Generator,
        mask: Mask | None,
        steps: int,
        noise: bool | None,
        part: tuple[int, int],
        arrive: Arrive | None = None,
    ) -> Inferred:
        draws = DrawnNoise(rng, steps, (len(x), self.generator.dim), part, x.device)
        start = self.start(x, draws, mask)
        z, failed, retried = self._run(x, start, draws, mask, noise, arrive=arrive)
        return Inferred(torch.where(failed[:, None], start.z, z), failed, retried)

    def watch(
        self,
        x: Images,
        rng: torch.Generator,
        every: int,
        *,
        mask: Mask | None = None,
        steps: int | None = None,
        noise: bool | None = None,
    ) -> Iterator[Stage[Inferred]]:
        """Yield where the chains of `infer` are: at their start, after so many steps each time, and at their end.

        A chain that became non-finite shows its start until the end, where it is run again.
        """
        check_at_least(1, steps=steps, every=every)
        steps = self.fresh_steps if steps is None else steps
        noisy, sizes = self.noise if noise is None else noise, self.step_size(steps)
        draws = DrawnNoise(rng, steps, (len(x), self.generator.dim), device=x.device)
        start = self.start(x, draws, mask)
        z, step = start.z, 0
        yield Stage(step, steps, Inferred(z, torch.zeros(len(x), dtype=torch.bool, device=x.device), 0))
        for part in sizes.split(every):
            moved = torch.stack([draws.draw() for _ in part]) if noisy else no_noise(len(part), z)
            z, heights = self._climb(x, start._replace(z=z), moved, mask, part, self.step)
            step = min(step + every, steps)
            now = Inferred(z, ~torch.isfinite(heights), 0)
            if step == steps:
                now = self._run_again(x, start, draws, mask, noisy, True, z, heights)
            yield Stage(step, steps, now._replace(z=torch.where(now.failed[:, None], start.z, now.z)))

    @torch.no_grad()
    def start(self, x: Images, draws: DrawnNoise, mask: Mask | None = None) -> Start:
        """Return where chains start.

        That is a draw from the prior, or from the regression once it has learned from chains. An image of which nothing
        is observed starts from the prior. Among candidates it is drawn in proportion to p(x, z) / q(z), q what the
        candidate was drawn from; those of the prior are the same for all images of a call, and in all processes that
        share a batch.

        x: (n, c, h, w) in [-1, 1], the images.
        draws: gives the next numbers.
        mask: (n or 1, c or 1, h, w), 1 = observed; None where all pixels are.
        """
        own = self._from_regression(x, draws, mask)
        if self.candidates > 1:
            return self._among_candidates(x, draws, mask, own)
        if own is None:
            return self._from_prior(draws)
        if mask is None:
            return own
        blind = ~(mask > 0.5).flatten(1).any(1).expand(len(x))
        return chosen(blind, self._from_prior(draws), own) if blind.any() else own

    def _from_prior(self, draws: DrawnNoise) -> Start:
        """Return draws of the prior."""
        prior = self.generator.prior
        z, component = prior.from_normal(draws.draw(), draws.uniform)
        return Start(z, component, self._of_components(component))

    def _of_components(self, component: Component) -> Initial:
        """Return the density of draws from components of the prior, drawn by their weights."""
        log_weights, means, roots, _ = (part.to(component.device) for part in self.generator.prior.parts())
        return Initial(means[component], roots, component, log_weights[component].double())

    def _from_regression(self, x: Images, draws: DrawnNoise, mask: Mask | None) -> Start | None:
        """Return draws from what past chains say of the images; None where there is no regression, or none yet."""
        if self.regression is None or not self.regression.fits:
            return None
        prior = self.generator.prior
        normal = self.regression.starts(x, mask)
        z = normal.draw(draws.draw())
        log_chances = torch.log_softmax(prior.components(z).double(), 1)
        component = choose_each(log_chances.exp(), draws.uniform())
        chance = log_chances.gather(1, component[:, None])[:, 0]
        return Start(z, component, Initial(normal.means, normal.roots, normal.which, chance))

    def _among_candidates(self, x: Images, draws: DrawnNoise, mask: Mask | None, own: Start | None) -> Start:
        """Return for each image one of the candidates, the image's own start among them where there is one."""
        generator, prior = self.generator, self.generator.prior
        pool = DrawnNoise(draws.rng, 1, (self.candidates, generator.dim), device=x.device)
        candidates, component = prior.from_normal(pool.draw(), pool.uniform)
        decoded = generator.decoder(*generator.split(candidates))
        log_weights = generator.likelihood.log_prob_pairs(x, decoded, mask)
        if not prior.exact:  # they are draws of what it tilts
            tilt = prior.held(component)(candidates) - self._of_components(component).log_prob(candidates)
            log_weights = log_weights + tilt.to(log_weights)
        if own is not None:
            joint = generator.log_likelihood(x, own.z, mask) + prior.held(own.component)(own.z)
            log_weights = torch.cat([log_weights, (joint - own.initial.log_prob(own.z).to(joint))[:, None]], 1)
        picked, tilt = draw_by(log_weights, draws.uniform())
        common = picked.clamp(max=self.candidates - 1)
        start = Start(candidates[common], component[common], self._of_components(component[common]))
        if own is not None:
            start = chosen(picked < self.candidates, start, own)
        return start._replace(initial=start.initial._replace(tilt=start.initial.tilt + tilt))

    def log_density(self, x: Images, component: Component, mask: Mask | None = None) -> LogDensity:
        """Return what chains climb, z -> log p(x, z, c), (n, d) -> (n,), with the component c of each image held.

        x: (n, c, h, w) in [-1, 1], the images.
        component: (n,), as a start has it.
        mask: (n or 1, c or 1, h, w), 1 = observed; None where all pixels are.
        """
        return ChainDensity(self.generator, x, self.generator.prior.held(component), mask)

    def _run(
        self,
        x: Images,
        start: Start,
        draws: DrawnNoise,
        mask: Mask | None = None,
        noise: bool | None = None,
        anew: bool = True,
        arrive: Arrive | None = None,
    ) -> Inferred:
        """Run chains from where they start; one that became non-finite runs again with half the step.

        anew: it then has a new start, else the same. The latents of chains that failed after all retries are left as
        they are.
        arrive: is called with the ends of the first run and returns numbers that are finite where log p(x, z) is; None
        computes it.
        """
        noisy, sizes = self.noise if noise is None else noise, self.step_size(len(draws))
        moved = draws if noisy else no_noise(len(draws), start.z)
        z, heights = self._climb(x, start, moved, mask, sizes, self.step, arrive is None)
        return self._run_again(x, start, draws, mask, noisy, anew, z, heights if arrive is None else arrive(z))

    def _climb(
        self,
        x: Images,
        start: Start,
        noise: ChainNoise,
        mask: Mask | None,
        sizes: Float[Tensor, "k 1 d"],
        step: Step,
        check: bool = True,
    ) -> tuple[Flat, PerImage]:
        """Return where chains end that take the given steps, and numbers that are finite where the ends are.

        check: whether these are log p(x, z, c).
        """

        def run() -> tuple[Flat, PerImage]:
            climbed = self.log_density(x, start.component, mask)
            z = short_run(climbed, start.z, sizes, noise, step)
            return z, climbed(z) if check else z.sum(1)  # where the density is finite, so is z

        with torch.no_grad(), frozen(self.generator):
            return cast_once(self.generator, x.device, run)

    def _run_again(
        self,
        x: Images,
        start: Start,
        draws: DrawnNoise,
        mask: Mask | None,
        noisy: bool,
        anew: bool,
        z: Flat,
        heights: PerImage,
    ) -> Inferred:
        """Return the ends of chains with those that are not finite run again, each time with half the step.

        z: (n, d), the ends of the first run.
        heights: (n,), finite where the ends are.
        """
        failed, retried = ~torch.isfinite(heights), 0
        for attempt in range(1, self.retries + 1):
            if not failed.any():
                break
            rows = failed.nonzero()[:, 0]
            retried += len(rows)
            again = DrawnNoise(draws.rng, len(draws), (len(rows), z.shape[1]), device=x.device)
            part = mask[rows] if mask is not None and len(mask) > 1 else mask
            begin = (
                self.start(x[rows], again, part)
                if anew
                else start._replace(z=start.z[rows], component=start.component[rows])
            )
            noise = again if noisy else no_noise(len(again), begin.z)
            sizes = self.step_size(len(draws)) * 0.5**attempt
            z[rows], heights = self._climb(x[rows], begin, noise, part, sizes, langevin_step)
            failed[rows] = ~torch.isfinite(heights)
        return Inferred(z, failed, retried)

    def _learned_at(
        self, x: Images, infer: Callable[[Arrive], Inferred], incomplete: Incomplete | None = None
    ) -> tuple[Float[Tensor, ""], Statistics]:
        """Return -mean_i log p(x_i, z_i) over the images whose chain did not fail, and statistics of the batch.

        infer: returns the latents; it is given what it has to call with the ends of chains. Their images are decoded
        once then, for a last look at the chains and for the loss.
        incomplete: what is hidden of the images; None where nothing is.
        """
        arrived: list[_Joint] = []

        def arrive(z: Flat) -> PerImage:
            arrived.append(self._joint(x, z, None if incomplete is None else incomplete.mask))
            return arrived[0].value.detach()

        inferred = infer(arrive)
        all_arrived = not (inferred.retried or inferred.failed.any())
        return self._loss_at(x, inferred, arrived[0] if all_arrived else None, incomplete)

    def _joint(self, x: Images, z: Flat, mask: Mask | None = None) -> _Joint:
        decoded = self.generator.decoder(*self.generator.split(z))
        log_prior, fit = self.log_prior(z)
        return _Joint(self.generator.likelihood.log_prob(x, decoded, mask) + log_prior, decoded, fit)

    def _loss_at(
        self, x: Images, inferred: Inferred, joint: _Joint | None = None, incomplete: Incomplete | None = None
    ) -> tuple[Float[Tensor, ""], Statistics]:
        """Return -mean_i log p(x_i, z_i) over the images whose chain did not fail, and statistics of the batch.

        joint: what `_joint` says of all images, where it is known and none has failed.
        incomplete: what is hidden of the images; None where nothing is.
        """
        z, failed, retried = inferred
        mask = None if incomplete is None else incomplete.mask
        latents, images = z.masked_fill(failed[:, None], math.nan), x
        if joint is None:
            x, z, mask = x[~failed], z[~failed], None if mask is None else mask[~failed]
            joint = self._joint(x, z, mask)
        if incomplete is not None and self.regression is not None:
            images = completed(images, self.generator.likelihood, joint.decoded, ~failed, incomplete)
        self.remember(latents, images)
        with torch.no_grad():
            mse = observed_error(self.generator.likelihood.mean(joint.decoded).float(), x, mask)
        return -joint.value.sum() / max(len(x), 1), {
            "mse": mse,
            "second_moment": (z**2).mean(),
            **joint.fit,
            "retried": torch.tensor(retried),
            "failed": failed.sum(),
        }

    def conditions(self) -> dict[str, Any]:
        """Return what a test figure has to quote about the chain."""
        return {
            "steps": self.fresh_steps,
            **({} if self.test_steps is None else {"steps_while_learning": self.steps}),
            "step_size": self.step_size.values,
            "step_decay": self.step_size.decay,
            "noise": self.noise,
            **({"start": "regression"} if self.regression is not None else {}),
            **({"candidates": self.candidates} if self.candidates > 1 else {}),
        }

    def settings(self) -> dict[str, float]:
        """Return the mean step size and its decay."""
        return {"step_size": float(np.mean(self.step_size.values)), "step_decay": self.step_size.decay}

    def describe_inference(self, steps: int | None = None, noise: bool | None = None, masked: bool = False) -> str:
        """Say how latents are inferred, with steps and noise in place of the learner's where given."""
        noisy = self.noise if noise is None else noise
        start = "" if self.regression is None else ", from the regression"
        if self.candidates > 1:
            start += f"{' and' if start else ', from'} {self.candidates} candidates of the prior"
        return f"{steps or self.fresh_steps} steps, {'with' if noisy else 'without'} noise{start}"
