"""What learners with a generator p(x, z) of a few latents have in common."""

import math
from dataclasses import replace
from typing import Any, TypeGuard

import torch
from torch import Tensor

from shortrun.config import Config, LearnerConfig
from shortrun.learners.declared import likelihood_class, prior_class
from shortrun.learners.learner import Flat, Learner
from shortrun.model import TopDown
from shortrun.model.likelihood import Images


class LatentLearner(Learner):
    """A learner with a generator p(x, z) of a few latents; what differs is how they are inferred.

    A subclass sets `generator` and defines `from_description`, `loss` and `infer`.

    generator: p(x, z).

    >>> from shortrun import ShortRun, Vae
    >>> [issubclass(kind, LatentLearner) for kind in (ShortRun, Vae)]
    [True, True]
    """

    has_generator = True

    generator: TopDown

    @property
    def description(self) -> LearnerConfig | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What `save_pretrained` writes: the settings that the learner was built from, with its present values.

        None where it was put together by hand.
        """
        return None if self._described is None else self._present(self._described)

    @description.setter
    def description(self, described: LearnerConfig | None) -> None:
        self._described = described

    def _present(self, described: LearnerConfig) -> LearnerConfig:
        """Return a description with the values that the learner has now."""
        before, now = vars(described.model), self.generator.likelihood.values()
        changed = {name: now[name] for name in before.keys() & now.keys() if not alike(before[name], now[name])}
        return replace(described, model=replace(described.model, **changed))

    @classmethod
    def describe_model(cls, settings: Config | LearnerConfig) -> str:
        """Say parameterization, blocks, layers, prior and likelihood."""
        model = settings.model
        sizes = " ".join(map(str, model.latents))
        layers = f"{len(model.latents)} layers of latents, top down {sizes}, {sum(model.latents)} in all"
        prior, likelihood = prior_class(model), likelihood_class(model)
        if not prior.standard:
            layers += f", prior {prior.describe(model)}"
        words = f"{model.parameterization}, {model.blocks} blocks of width {model.width}; {layers}"
        return f"{words}; {model.likelihood}{likelihood.describe(model)}"

    @classmethod
    def fixed(cls, settings: Config | LearnerConfig) -> tuple[str, ...]:
        """Return the step sizes, and the likelihood's numbers where they are not learned."""
        learned = likelihood_class(settings.model).learns(settings.model)
        return ("step_size.",) if learned else ("step_size.", "generator.likelihood.")

    @property
    def latents(self) -> tuple[int, ...]:
        """The sizes of the layers of latents, top down."""
        return self.generator.latents

    def density_conditions(self) -> dict[str, Any]:
        """Return what the likelihood says of its density."""
        return self.generator.likelihood.conditions()

    def draw_prior(self, n: int, rng: torch.Generator) -> Flat:
        """Return n draws of the latents from the generator's prior, on the learner's device."""
        return self.generator.prior.sample(n, rng, device=self.device)

    @torch.no_grad()
    def decode(self, z: Flat) -> Images:
        """Return the images of latents, (n, c, h, w) in [-1, 1]."""
        return self.generator.decode(z).float().clamp(-1, 1)

    @torch.no_grad()
    def layers(self, z: Flat) -> list[Tensor]:
        """Return (z_L, ..., z_1): the parts of z, or mu_l + sigma_l u_l where the parameterization is conditional."""
        return self.generator.layers(z)


def with_generator(learner: Learner) -> TypeGuard[LatentLearner]:
    """Return whether a learner declares a generator p(x, z) of a few latents.

    learner: any.
    """
    return learner.has_generator


def alike(one: float, other: float) -> bool:
    """Return whether two numbers are the same but for the rounding of float32, in which learners keep them."""
    return math.isclose(one, other, rel_tol=1e-6)
