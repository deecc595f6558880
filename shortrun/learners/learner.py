"""What every way to learn a model of images has: three verbs for training, latents, and a place on disk."""

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar, cast, get_args

import torch
from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from shortrun.config import LearnerConfig
from shortrun.errors import InputError, reason
from shortrun.files import read_json, write_json
from shortrun.learners.card import RECORD, model_card
from shortrun.learners.declared import Declared, declared_class
from shortrun.learners.images import check_images, check_pixels, check_weights
from shortrun.learners.latent_density import FILE, LatentDensity, write_density
from shortrun.learners.pretrained import put_together_by_hand, rebuilt, write_model
from shortrun.metrics.figure import Figure
from shortrun.model.likelihood import Images, Mask, PerImage
from shortrun.modes import own_modes, plain
from shortrun.normals import Flat

Kind = TypeVar("Kind", bound="Learner")
Found = TypeVar("Found")
Rows = Int64[Tensor, "n"]
Statistics = dict[str, Tensor]
"""Of a batch, by name, no dimension: a mean over its images where the number is a floating-point one, else a count."""
Source = Literal["prior", "fitted"]
"""What new images are drawn from: the prior, or the density fitted to the latents of training images."""


class Inferred(NamedTuple):
    """Latents of images, and what became of their chains."""

    z: Flat
    """(n, d); a chain that failed gives its start, a draw from the prior."""
    failed: Bool[Tensor, "n"]
    """True where log p(x, z) at the end of the chain stayed non-finite after all retries."""
    retried: int
    """Chains that were started again, counted once for each time."""


class Stage(NamedTuple, Generic[Found]):
    """How far inference is, and what there is by then."""

    step: int
    """0 at the start, `steps` at the end."""
    steps: int
    found: Found


class Learner(
    nn.Module, Declared, ModelHubMixin, library_name="shortrun", tags=["generative-model", "latent-variable-model"]
):
    """A model of images that `train` learns and the commands use.

    A subclass defines the abstract methods, and declares in class variables what the rest of the package has to know of
    it: see `Declared`. Most are not subclasses of this class but of `LatentLearner`, `ChainLearner` or
    `EncoderLearner`.

    description: what `save_pretrained` writes; None where the learner was put together by hand.
    latents: the sizes of the layers of latents, top down; z is (n, d) with the layers side by side.

    >>> import tempfile
    >>> from shortrun import ModelConfig, ShortRun
    >>> learner = ShortRun.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8))
    >>> rng = torch.Generator().manual_seed(0)
    >>> learner.sample(5, rng).shape, learner.reconstruct(torch.zeros(2, 1, 4, 4), rng).shape
    (torch.Size([5, 1, 4, 4]), torch.Size([2, 1, 4, 4]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = learner.save_pretrained(folder)
    ...     type(Learner.from_pretrained(folder)).__name__
    'ShortRun'
    """

    description: LearnerConfig | None
    latent_density: LatentDensity | None = None
    """Fitted after training, saved with the model; no part of the weights."""
    record: Callable[[], dict[str, Any]] | None = None
    """Returns what is known of its training, for the card of a saved model; None where nothing is."""
    kl_weight: float = 1.0
    """Of the divergence from the prior in the loss of a learner with an encoder; the others have no such term."""

    @property
    @abstractmethod
    def latents(self) -> tuple[int, ...]:
        """The sizes of the layers of latents, top down."""

    @property
    def dim(self) -> int:
        """The number of latents of an image, d."""
        return sum(self.latents)

    @property
    def settled(self) -> bool:
        """Whether an update costs what it will cost from now on."""
        return True

    @property
    def shares_draws(self) -> bool:
        """Whether images of one call to `infer` share random draws, so that draws for an image twice in it depend."""
        return False

    @property
    def device(self) -> torch.device:
        """Where the learner is, and where its images have to be."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    @abstractmethod
    def loss(
        self,
        x: Images,
        rng: torch.Generator,
        part: tuple[int, int] = (0, 1),
        rows: Rows | None = None,
        mask: Mask | None = None,
    ) -> tuple[Float[Tensor, ""], Statistics]:
        """Return what an update minimizes, a scalar, and statistics of the batch.

        x: (n, c, h, w) in [-1, 1], the images.
        rng: gives the random numbers.
        part: (i, m), these images are the i-th of m equal parts of a batch; see `DrawnNoise`.
        rows: (n,), which training images these are, for learners that keep something for each; None for the others.
        mask: (n, 1, h, w), 1 = observed, for learners that declare `learns_masked`; None where all pixels are. What
            images hold at hidden pixels is not looked at.
        """

    def forward(
        self,
        x: Images,
        rng: torch.Generator,
        part: tuple[int, int] = (0, 1),
        rows: Rows | None = None,
        mask: Mask | None = None,
    ) -> tuple[Float[Tensor, ""], Statistics]:
        """Return `loss`: what a wrapper for several processes calls.

        x: (n, c, h, w) in [-1, 1], the images.
        rng: gives the random numbers.
        part: (i, m), these images are the i-th of m equal parts of a batch; see `DrawnNoise`.
        rows: (n,), which training images these are; None where no learner asks.
        mask: (n, 1, h, w), 1 = observed; None where all pixels are.
        """
        # a learner that does not learn from incomplete images need not know the word
        return self.loss(x, rng, part, rows) if mask is None else self.loss(x, rng, part, rows, mask)

    @abstractmethod
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
        """Return the latents that reconstructions are made of, and what became of their chains.

        x: (n, c, h, w) in [-1, 1], the images.
        rng: gives the random numbers.
        mask: (n or 1, c or 1, h, w), 1 = observed; None where all pixels are.
        steps: at least 1, in place of the learner's own number; None keeps that.
        noise: whether the steps are noisy, in place of what the learner does; None keeps that.
        part: (i, m), these images are the i-th of m equal parts of a batch; see `DrawnNoise`.
        """

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
        """Yield the latents on their way, and last those that `infer` returns for the same numbers.

        A learner without a chain has no way to show: it yields the end alone.

        x: (n, c, h, w) in [-1, 1], the images.
        rng: gives the random numbers.
        every: at least 1, the steps from one stage to the next.
        mask: (n or 1, c or 1, h, w), 1 = observed; None where all pixels are.
        steps: at least 1, in place of the learner's own number; None keeps that.
        noise: whether the steps are noisy, in place of what the learner does; None keeps that.
        """
        yield Stage(1, 1, self.infer(x, rng, mask=mask, steps=steps, noise=noise))

    def draw_posterior(self, x: Images, rng: torch.Generator, mask: Mask | None = None) -> Flat:
        """Return one draw of the latents for each image from what stands in for the posterior, (n, d).

        x: (n, c, h, w) in [-1, 1], the images.
        rng: gives the random numbers.
        mask: (n or 1, c or 1, h, w), 1 = observed; None where all pixels are.
        """
        return self.infer(x, rng, mask=mask).z

    @abstractmethod
    def decode(self, z: Flat) -> Images:
        """Return the images of latents, (n, c, h, w) in [-1, 1].

        z: (n, d), latents.
        """

    def layers(self, z: Flat) -> list[Tensor]:
        """Return the layers (z_L, ..., z_1) of latents, as the generator has them.

        z: (n, d), latents.
        """
        return list(z.split(self.latents, dim=1))

    def reconstruct(
        self, x: Images, rng: torch.Generator, *, steps: int | None = None, noise: bool | None = None
    ) -> Images:
        """Return images through their latents and back, (n, c, h, w) in [-1, 1].

        x: (n, c, h, w) in [-1, 1], the images.
        rng: gives the random numbers.
        steps: at least 1, in place of the learner's own number; None keeps that.
        noise: whether the steps are noisy, in place of what the learner does; None keeps that.

        Raises InputError for images of another shape than the model's, and for pixels outside of [-1, 1].
        """
        check_weights(self)
        check_images(self.description, x)
        check_pixels(x)
        with own_modes():
            return self.decode(self.infer(plain(x), rng, steps=steps, noise=noise).z)

    @property
    def sources(self) -> tuple[Source, ...]:
        """What new images can be drawn from here, the learner's own first; empty where there is nothing."""
        prior: tuple[Source, ...] = ("prior",) if self.has_prior else ()
        return prior if self.latent_density is None else (*prior, "fitted")

    def sample(self, n: int, rng: torch.Generator, source: Source | None = None) -> Images:
        """Return new images, the decoded draws of latents, (n, c, h, w) in [-1, 1].

        n: how many.
        rng: gives the random numbers.
        source: prior, or fitted for the density that was fitted to the latents of training images; None for the prior,
            or the fitted density where the learner has no prior.

        Raises InputError where there is no such source, and for other words than the two.
        """
        check_weights(self)
        if source not in (None, *get_args(Source)):
            raise InputError("source", repr(source), "write prior or fitted")
        if source == "prior" and not self.has_prior:
            raise InputError("source", "'prior'", "the learner has none: write fitted")
        if source is None:
            source = "prior" if self.has_prior else "fitted"
        return self.decode(self.draw_prior(n, rng) if source == "prior" else self.draw_fitted(n, rng))

    def draw_fitted(self, n: int, rng: torch.Generator) -> Flat:
        """Return draws of the latents from the density that was fitted to those of training images, (n, d).

        n: how many.
        rng: gives the random numbers.

        Raises InputError where there is no such density.

        Source: Ghosh et al., "From Variational to Deterministic Autoencoders", ICLR 2020, arXiv 1903.12436.
        """
        if self.latent_density is None:
            raise InputError("source", "'fitted'", "no density was fitted to the latents of this model: write prior")
        return self.latent_density.mixture.sample(n, rng).to(self.device)

    def draw_prior(self, n: int, rng: torch.Generator) -> Flat:
        """Return draws of the latents from the prior, (n, d), on the learner's device.

        n: how many.
        rng: gives the random numbers.
        """
        return torch.randn(n, self.dim, generator=rng, device=rng.device).to(self.device)

    def redraw(self, z: Flat, first: int, last: int, rng: torch.Generator) -> Flat:
        """Return latents of which some are drawn anew given the others, as they are where no image is seen, (n, d).

        z: (n, d), latents.
        first: 0 to d - 1, the first that is drawn anew.
        last: first + 1 to d, the one after the last.
        rng: gives the random numbers.
        """
        drawn = self.draw_prior(len(z), rng).to(z)
        return torch.cat([z[:, :first], drawn[:, first:last], z[:, last:]], 1)

    def spread(self) -> tuple[Float[Tensor, "d"], Float[Tensor, "d d"]] | None:
        """Return mean and lower triangular root of the covariance of the latents that new images are made of.

        None for 0 and I, which are those of the prior N(0, I).
        """
        return None

    def frame(self, z: Flat) -> tuple[Flat, Float[Tensor, "n d d"]] | None:
        """Return for each row the normal in whose units walks through latents are taken; None for N(0, I).

        It is the mean, (n, d), and the lower triangular root of the covariance, (n, d, d).

        z: (n, d), latents.
        """
        if (spread := self.spread()) is None:
            return None
        mean, root = (part.to(z) for part in spread)
        return mean.expand(len(z), -1), root.expand(len(z), -1, -1)

    def prior_fit(self, z: Flat) -> Float[Tensor, "n more"] | None:
        """Return how far latents are from the prior, in its units: 1 on average where they follow it.

        That is one number for all latents and one for each layer, top down, (n, 1 + layers); None where the prior is
        N(0, I), of which the mean square says it.

        z: (n, d), latents.
        """
        return None

    def log_prob(self, x: Images) -> PerImage:
        """Return log p(x) in nats, (n,), of learners that declare `has_density`.

        x: (n, c, h, w) in [-1, 1], the images.
        """
        raise NotImplementedError

    @property
    def bin_width(self) -> float:
        """The width of the uniform noise that makes pixels continuous, of learners that declare `has_density`."""
        raise NotImplementedError

    @property
    def levels(self) -> int | None:
        """Values that a pixel can take; None where pixels are floats, or where that is not known."""
        return None if self.description is None else self.description.levels

    def density_conditions(self) -> dict[str, Any]:
        """Return what a figure of log p(x) has to quote: what it is the logarithm of."""
        return {}

    def conditions(self) -> dict[str, Any]:
        """Return what a test figure has to quote about inference: plain values, by name."""
        return {}

    def describe_inference(self, steps: int | None = None, noise: bool | None = None, masked: bool = False) -> str:
        """Return how latents are inferred, in words.

        steps: in place of the learner's own number; None keeps that.
        noise: whether the steps are noisy, in place of what the learner does; None keeps that.
        masked: whether pixels are missing.
        """
        raise NotImplementedError

    def settings(self) -> dict[str, float]:
        """Return the values that training changes on its way besides the weights, for the log."""
        return {}

    def test_figures(self, x: Images, rng: torch.Generator) -> dict[str, Figure]:
        """Return figures that only this learner has, by name, with their conditions.

        x: (n, c, h, w) in [-1, 1], test images.
        rng: gives the random numbers.
        """
        return {}

    def start_training(self, images: int, seed: int, folder: Path) -> None:
        """Prepare what the learner keeps for each training image.

        images: how many there are.
        seed: of the run.
        folder: of the run.
        """

    def training_state(self) -> dict[str, Tensor]:
        """Return what only training needs, to be written beside the weights."""
        return {}

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `training_state` returned.

        state: its tensors, by name.
        """

    def _save_pretrained(self, save_directory: Path) -> None:
        record = {} if self.record is None else self.record()  # read first: a damaged one leaves nothing half-written
        write_model(self.state_dict(), self.description, Path(save_directory))
        write_density(self.latent_density, Path(save_directory))
        if record:
            write_json(Path(save_directory) / RECORD, record)

    def push_to_hub(self, repo_id: str, **arguments: Any) -> str:
        """Upload the model to the Hugging Face hub, with a card that says how to load it; return the commit's address.

        repo_id: OWNER/NAME.
        arguments: of `huggingface_hub.ModelHubMixin.push_to_hub`: private, token, branch, ...; model_card_kwargs are
            those of `generate_model_card`.
        """
        arguments["model_card_kwargs"] = {"repo_id": repo_id, **(arguments.get("model_card_kwargs") or {})}
        return super().push_to_hub(repo_id, **arguments)

    def generate_model_card(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        repo_id: str | None = None,
        data_license: str | None = None,
        license: str | None = None,
        notes: str | None = None,
    ) -> ModelCard:
        """Return the README.md of a saved model: its data, figures with their conditions, settings and limits.

        `save_pretrained` writes it where there is none, and passes on `model_card_kwargs`.

        repo_id: OWNER/NAME on the hub; None for a folder.
        data_license: of the images that it learned from; where not given, what is known of a named data set.
        license: of the weights, as the hub abbreviates it, apache-2.0 for example; None to say nothing.
        notes: more words of your own, in Markdown.

        Raises InputError where the learner was put together by hand.
        """
        if self.description is None:
            raise put_together_by_hand()
        said = self._hub_mixin_info.model_card_data.to_dict()
        data = ModelCardData(**{**said, **({} if license is None else {"license": license})})
        record = {} if self.record is None else self.record()
        return model_card(type(self), self.description, record, data, repo_id, data_license, notes)

    @classmethod
    def from_pretrained(
        cls: type[Kind],
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        decoder: nn.Module | None = None,
    ) -> Kind:
        """Return the learner that `save_pretrained` wrote into a folder or to the Hugging Face hub, ready to use.

        pretrained_model_name_or_path: the folder, or OWNER/NAME on the hub.
        force_download: whether to download a model that was downloaded before.
        token: for the hub; True for the one that is stored on this machine.
        cache_dir: the folder of downloads; None for the hub's own.
        local_files_only: whether to use only what was downloaded before.
        revision: branch, tag or commit on the hub; None for the newest.
        decoder: the user's own module, where the model was built with one; else None.

        Raises InputError where a file is absent, damaged, does not fit, or holds another learner than the class called.
        """
        # in place of the mixin's method, which reads config.json by itself and knows nothing of InputError
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            from huggingface_hub import snapshot_download

            name = str(pretrained_model_name_or_path)
            try:
                found = snapshot_download(
                    name,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                    allow_patterns=["config.json", "model.safetensors", FILE, RECORD],
                )
            except (OSError, ValueError) as error:  # no such name, no network, no right to it
                raise InputError(
                    "pretrained_model_name_or_path",
                    problem=f"{name!r} is no folder and cannot be had from the hub ({reason(error)})",
                    instead="write the folder of a saved model, or OWNER/NAME on the hub",
                ) from error
            folder = Path(found)
        with own_modes():  # weights that are made in inference mode could never be learned from
            learner = rebuilt(cls, folder, decoder)
        if (folder / RECORD).is_file():
            learner.record = partial(read_json, folder / RECORD)
        return learner


def learner_class(name: str) -> type[Learner]:
    """Return the class of a learner.

    name: of the registry, or module:Name.

    Raises InputError where it is no learner.

    >>> learner_class("vae").__name__
    'Vae'
    """
    return cast(type[Learner], declared_class(name))


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Keep the weights out of the graph while the block runs: only latents get gradients.

    module: whose parameters are frozen.
    """
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)
