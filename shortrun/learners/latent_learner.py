"""What learners with a generator p(x, z) of a few latents have in common."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.config import Config, LearnerConfig
from shortrun.inference import DrawnNoise
from shortrun.learners.chain_store import everywhere
from shortrun.learners.declared import likelihood_class, prior_class
from shortrun.learners.learner import Flat, Learner, Statistics
from shortrun.model import TopDown
from shortrun.model.likelihood import Images, PerImage

WINDOW = 20
"""Updates from one fit of the prior, and of the regression that chains start from, to the next."""


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

    def __init__(self) -> None:
        super().__init__()
        # no buffers: they belong to a run, not to the model, and must not be copied with it
        self.latest: list[tuple[Tensor, Tensor]] = []

    @property
    def keeps_latents(self) -> bool:
        """Whether something is fitted to the latents of updates."""
        return self.generator.prior.learns

    @property
    def settled(self) -> bool:
        """Whether all that is fitted to latents has been fitted for the first time."""
        return self.generator.prior.settled

    def features(self, x: Images) -> Float[Tensor, "n p"]:
        """Return what of images is kept beside their latents, (n, p), for what is fitted to both: here nothing.

        x: (n, c, h, w) in [-1, 1], the images.
        """
        return x.new_zeros(len(x), 0)

    @torch.no_grad()
    def remember(self, z: Flat, x: Images) -> None:
        """Keep the latents of an update, those of all processes in each of them, where something is fitted to them.

        z: (n, d), latents; NaN in rows that are to be left out.
        x: (n, c, h, w) in [-1, 1], their images.
        """
        if not (self.training and self.keeps_latents):
            return
        self.latest.append((everywhere(z.detach().float()), everywhere(self.features(x))))

    @torch.no_grad()
    def refit(self, rng: torch.Generator) -> None:
        """Fit the prior, and what else is fitted to latents, where it is due; `loss` calls this first.

        rng: gives the random numbers.
        """
        if len(self.latest) < WINDOW:
            return
        z, features = (torch.cat(parts) for parts in zip(*self.latest, strict=True))
        self.latest = []
        kept = torch.isfinite(z).all(1)
        self.fit_latents(z[kept], features[kept], rng)

    def fit_latents(self, z: Flat, features: Float[Tensor, "n p"], rng: torch.Generator) -> None:
        """Fit the prior to latents, where it learns.

        z: (n, d), finite.
        features: (n, p), as `features` gives them.
        rng: gives the random numbers.
        """
        if self.generator.prior.learns:
            self.generator.prior.learn(z, rng)

    def training_state(self) -> dict[str, Tensor]:
        """Return the latents of the updates since the last fit, to be written beside the weights."""
        if not self.latest:
            return {}
        z, features = (torch.cat(parts) for parts in zip(*self.latest, strict=True))
        return {"latents": z, "features": features, "updates": torch.tensor(len(self.latest))}

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `training_state` returned.

        state: its tensors, by name.
        """
        self.latest = []
        if "updates" in state:
            # in as many parts as updates: which rows are in which makes no difference to a fit
            kept = (state[name].to(self.device) for name in ("latents", "features"))
            self.latest = list(zip(*(part.tensor_split(int(state["updates"])) for part in kept), strict=True))

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
        kept = ("step_size.", "regression.", "generator.prior.", "filling")
        return kept if learned else (*kept, "generator.likelihood.")

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
    def redraw(self, z: Flat, first: int, last: int, rng: torch.Generator) -> Flat:
        """Return latents with some of them drawn anew from the prior given the others, (n, d), on the CPU.

        z: (n, d), latents.
        first: 0 to d - 1, the first that is drawn anew.
        last: first + 1 to d, the one behind the last.
        rng: gives the random numbers.
        """
        draws = DrawnNoise(rng, 1, (len(z), self.dim), device=self.device)
        return self.generator.prior.redraw(z.to(self.device), first, last, draws.draw, draws.uniform).cpu()

    @torch.no_grad()
    def frame(self, z: Flat) -> tuple[Flat, Float[Tensor, "n d d"]] | None:
        """Return the normal of the prior that each row of latents most likely is of; None where it is no mixture.

        It is the mean, (n, d), and the lower triangular root of the covariance, (n, d, d), on the CPU.

        z: (n, d), latents.
        """
        prior = self.generator.prior
        if prior.standard or not prior.exact:
            return None
        component, (_, means, roots, _) = prior.components(z.to(self.device)).argmax(1), prior.parts()
        return means[component].cpu(), roots[component].cpu()

    @torch.no_grad()
    def spread(self) -> tuple[Float[Tensor, "d"], Float[Tensor, "d d"]] | None:
        """Return mean and lower triangular root of the covariance of the prior; None where it is N(0, I)."""
        return None if self.generator.prior.standard else self.generator.prior.whole()

    @torch.no_grad()
    def prior_fit(self, z: Flat) -> Float[Tensor, "n more"] | None:
        """Return how far latents are from the normals of the prior that they are of; see `Prior.fit`."""
        prior = self.generator.prior
        if prior.standard or not prior.exact:
            return None
        return torch.cat([prior.fit(z, (self.dim,)), prior.fit(z, self.latents)], 1)

    def log_prior(self, z: Flat) -> tuple[PerImage, Statistics]:
        """Return log p(z) of an update, (n,), and what the prior says of itself and of how it fits them, for the log.

        z: (n, d), latents.
        """
        prior = self.generator.prior
        if prior.standard or not prior.exact:
            return prior.log_prob(z), prior.statistics()
        log_prior, fit = prior.log_prob_and_fit(z)
        return log_prior, {"prior_fit": fit.mean()}

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
