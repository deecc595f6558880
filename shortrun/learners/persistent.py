"""Learning by alternating back-propagation: a chain is kept for each training image.

Source: Han, Lu, Zhu, Wu, "Alternating Back-Propagation for Generator Network", AAAI 2017, arXiv 1606.08571; chains that
go on while the model changes: Tieleman, "Training restricted Boltzmann machines using approximations to the likelihood
gradient", ICML 2008.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from shortrun.config import Config, LearnerConfig, PersistentConfig
from shortrun.errors import InputError, check_at_least
from shortrun.inference import DrawnNoise, Regression
from shortrun.learners.chain import Arrive, ChainLearner
from shortrun.learners.chain_start import Start
from shortrun.learners.chain_store import ChainStore, process_rank
from shortrun.learners.generator import build_generator, build_start
from shortrun.learners.incomplete import Incomplete
from shortrun.learners.learner import Inferred, Rows, Statistics
from shortrun.model import TopDown
from shortrun.model.likelihood import Images, Mask
from shortrun.streams import Use, stream

FILE = "chains.npy"
BLOCK = 65536
"""Chains that are started at a time, so that a store on disk never lies in memory."""


FRESH_STEPS = 100
"""Steps of the run of an image that has no chain, where neither setting says how many."""


class Persistent(
    ChainLearner,
    library_name="shortrun",
    paper_url="https://arxiv.org/abs/1606.08571",
    tags=["generative-model", "latent-variable-model", "langevin"],
):
    """A generator learned from one Langevin chain for each training image, which goes on at each visit.

    A visit takes K more steps from where the image's chain stood and learns from where it then stands. The chains start
    from the prior. Other images have no chain: theirs is a run from the prior, or from the likeliest of `candidates`.

    generator: p(x, z).
    steps: K, at least 1.
    step_size: s_0, one positive number or one for each layer, top down.
    step_decay: r in s_k = s_0 r^(k/(K-1)), a positive number; 1 keeps the step constant.
    noise: whether the chains are noisy; without noise they are plain gradient ascent.
    retries: how often a chain that became non-finite is started again, each time with half the step.
    description: what `save_pretrained` writes; `from_description` fills it.
    fresh_steps: at least 1, steps of the run of an image that has no chain; where not given `test_steps`, or else 100.
    store: memory, or disk for chains.npy in the run folder.
    candidates: draws of the prior, among which the start of an image without a chain is drawn; see `ChainLearner`.
    regression: of kept chains' latents on their images, which an image without a chain starts from; None for a start
        from the prior.
    test_steps: what `fresh_steps` is where that is not given.

    Raises InputError for counts below 1, and for step sizes that are not positive or do not fit the layers.

    >>> from shortrun import ModelConfig
    >>> description = LearnerConfig((1, 4, 4), model=ModelConfig(latents=(2, 3), width=8), learner="persistent")
    >>> learner, rng = Persistent.from_description(description), torch.Generator().manual_seed(0)
    >>> learner.start_training(images=10, seed=0, folder=Path())
    >>> loss, _ = learner.loss(torch.zeros(2, 1, 4, 4), rng, rows=torch.tensor([3, 7]))
    >>> loss.shape
    torch.Size([])
    """

    def __init__(
        self,
        generator: TopDown,
        steps: int = 5,
        step_size: float | tuple[float, ...] = 0.1,
        step_decay: float = 1.0,
        noise: bool = True,
        retries: int = 3,
        description: LearnerConfig | None = None,
        fresh_steps: int | None = PersistentConfig.fresh_steps,
        store: Literal["memory", "disk"] = PersistentConfig.store,
        candidates: int = 1,
        regression: Regression | None = None,
        test_steps: int | None = None,
    ) -> None:
        chain = (steps, step_size, step_decay, noise, retries, description, candidates, regression, test_steps)
        super().__init__(generator, *chain)
        check_at_least(1, fresh_steps=fresh_steps)
        self._fresh_steps, self.store = fresh_steps, store
        # no buffer: it belongs to a run, not to the model, and must not be copied with it
        self.chains: ChainStore | None = None

    @property
    def fresh_steps(self) -> int:
        """K of the run of an image that has no chain."""
        return _fresh_steps(self._fresh_steps, self.test_steps)

    def _present(self, described: LearnerConfig) -> LearnerConfig:
        kept = replace(described.persistent, fresh_steps=self._fresh_steps, store=self.store)
        return replace(super()._present(described), persistent=kept)

    @classmethod
    def describe_visits(cls, settings: Config | LearnerConfig) -> str:
        """Say that an image's own chain takes them, and how many another image gets."""
        start = "prior" if settings.inference.start == "prior" else "regression"
        fresh = _fresh_steps(settings.persistent.fresh_steps, settings.inference.test_steps)
        return f" at each visit of a chain, {fresh} from the {start} for new images,"

    @classmethod
    def from_description(
        cls, description: LearnerConfig, decoder: nn.Module | None = None, seed: int = 0
    ) -> "Persistent":
        """Return the learner that a description is of, with new weights.

        description: what `save_pretrained` writes, checked.
        decoder: the user's own module, where description.own_decoder says that there is one; else None.
        seed: 0 or more, of the initial weights.
        """
        generator, chain, kept = (
            build_generator(description, decoder, seed),
            description.inference,
            description.persistent,
        )
        return cls(
            generator,
            chain.steps,
            chain.first_step_size(len(generator.latents)),
            chain.step_decay,
            chain.noise,
            chain.retries,
            description,
            kept.fresh_steps,
            kept.store,
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
    ) -> tuple[Float[Tensor, ""], Statistics]:
        """Return -mean_i log p(x_i, z_i) where K more steps of the images' chains end, and statistics of the batch.

        Statistics: `mse` in [0, 1] pixels, `second_moment` of z per dimension, `retried` and `failed` chains. Images
        whose chain failed are left out.

        x: (n, c, h, w) in [-1, 1], the images.
        rng: gives the random numbers.
        part: (i, m), these images are the i-th of m equal parts of a batch; see `DrawnNoise`.
        rows: (n,), which training images these are.
        mask: (n, 1, h, w), 1 = observed; None where all pixels are.

        Raises InputError without rows, and before `start_training`.
        """
        self.refit(rng)
        visit = partial(self._visit, x, rng, rows, part, mask)
        return self._learned_at(x, visit, None if mask is None else Incomplete(mask, rng, part))

    def visit(
        self,
        x: Images,
        rng: torch.Generator,
        rows: Rows | None,
        part: tuple[int, int] = (0, 1),
        mask: Mask | None = None,
    ) -> Inferred:
        """Return where K more steps of the images' chains end, and keep it.

        A chain that became non-finite goes again from where it stood with half the step. One that does so after all
        retries is kept as a new draw of the prior and counted as failed.

        x: (n, c, h, w) in [-1, 1], the images.
        rng: gives the random numbers.
        rows: (n,), which training images these are.
        part: (i, m), these images are the i-th of m equal parts of a batch; see `DrawnNoise`.
        mask: (n, 1, h, w), 1 = observed; None where all pixels are.

        Raises InputError without rows, and before `start_training`.
        """
        return self._visit(x, rng, rows, part, mask)

    def _visit(
        self,
        x: Images,
        rng: torch.Generator,
        rows: Rows | None,
        part: tuple[int, int],
        mask: Mask | None,
        arrive: Arrive | None = None,
    ) -> Inferred:
        if rows is None or len(rows) != len(x):
            got = "none" if rows is None else len(rows)
            raise InputError(
                "rows", f"{got} for {len(x)} images", "write which training image each is: chains are kept"
            )
        if self.chains is None:
            raise InputError("rows", "images before their chains were started", "call start_training(...) first")
        draws = DrawnNoise(rng, self.steps, (len(x), self.dim), part, x.device)
        before = self.chains.read(rows).to(x.device)
        component = self.generator.prior.draw_component(before, draws.uniform)
        start = Start(before, component, self._of_components(component))
        z, failed, retried = self._run(x, start, draws, mask, anew=False, arrive=arrive)
        if failed.any():
            z = torch.where(failed[:, None], self.draw_prior(len(x), rng).to(z), z)
        self.chains.write(rows, z)
        return Inferred(z, failed, retried)

    def conditions(self) -> dict[str, Any]:
        """Return what a test figure has to quote about the run from the prior and about the visits before it."""
        return {**super().conditions(), "steps_per_visit": self.steps}

    def describe_inference(self, steps: int | None = None, noise: bool | None = None, masked: bool = False) -> str:
        """Say how latents are inferred, with steps and noise in place of the learner's where given."""
        said = super().describe_inference(steps, noise)
        return said if self.candidates > 1 or self.regression is not None else f"{said}, from the prior"

    def start_training(self, images: int, seed: int, folder: Path) -> None:
        """Start a chain for each training image, from the prior.

        images: how many there are.
        seed: of the run.
        folder: of the run, where the chains are kept on disk.
        """
        path = Path(folder) / FILE if self.store == "disk" else None
        self.chains = ChainStore(images, self.dim, path, process_rank())
        rng = stream(seed, Use.STARTS)
        for block in self.chains.z.split(BLOCK):
            block.copy_(self.draw_prior(len(block), rng))

    def training_state(self) -> dict[str, Tensor]:
        """Return the chains, (images, d), to be written beside the weights."""
        kept = {} if self.chains is None else {"chains": self.chains.z}
        return {**super().training_state(), **kept}

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back the chains; what a file on disk held meanwhile is overwritten."""
        if self.chains is None:
            raise ValueError("the chains were not started")
        super().load_training_state(state)
        self.chains.load(state["chains"])


def _fresh_steps(own: int | None, test_steps: int | None) -> int:
    return own or test_steps or FRESH_STEPS
