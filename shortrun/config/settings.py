"""What a run is made of: dataclasses that recipe files fill and the command line overrides. Imports no torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from shortrun.config.ranges import (
    DECAY,
    MISSING,
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_SCHEDULE,
    SCHEDULE,
    SEED,
    SHARE,
    Named,
    Numbers,
    at_least,
    between,
)
from shortrun.errors import InputError
from shortrun.registry import DECODERS, ENCODERS, LIKELIHOODS, PRIORS, listed

Schedule = tuple[tuple[float, float], ...]
"""Pairs (share of the training done, value), interpolated linearly: ((0, 0.3), (1, 0.2)); empty: constant."""

Count = Annotated[int, at_least(1)]
"""A whole number of at least 1."""

Long = Annotated[int, between(1, 1_000_000_000)]
"""How long a run is."""

Width = Annotated[int, between(1, 1_000_000)]
"""Units or channels of a layer."""

Depth = Annotated[int, between(1, 1_000)]
"""Layers of a block."""

Blocks = Annotated[
    str,
    Named(DECODERS),
    tyro.conf.arg(
        help=f"What the decoder is made of: {listed(DECODERS)}. dense is for vectors and tiny images, conv for images "
        "of 28x28 and up."
    ),
]
EncoderBlocks = Annotated[
    str,
    Named(ENCODERS),
    tyro.conf.arg(help=f"What the encoder is made of: {listed(ENCODERS)}; the generator's blocks where not given."),
]
LikelihoodName = Annotated[
    str,
    Named(LIKELIHOODS),
    tyro.conf.arg(
        help=f"p(x | z): {listed(LIKELIHOODS)}. bernoulli is for black and white pixels, logistic for bits/dim."
    ),
]
PriorName = Annotated[
    str,
    Named(PRIORS),
    tyro.conf.arg(
        help=f"p(z): {listed(PRIORS)}. normal is N(0, I), mixture one of normals that is fitted to the latents, energy "
        "N(0, I) tilted by a network that is learned from them."
    ),
]


@dataclass(frozen=True)
class DataConfig:
    """Which images to learn from."""

    source: str = "digits"
    """digits, coloured_digits, mnist, fashion_mnist, svhn, celeba, a path (.npz, .npy, .mat, idx, folder) or
    hub:OWNER/NAME."""
    dir: Annotated[Path | None, tyro.conf.arg(name="data-dir", prefix_name=False)] = None
    """Folder that holds the named data set; without it, mnist, fashion_mnist and svhn are downloaded."""
    image_size: Count | None = None
    """Crop images of a folder to a square and resize them to this many pixels."""
    crop: Count | None = None
    """Side of the centre crop that comes before resizing, in pixels."""
    train_limit: Count | None = None
    """Use only the first so many training images."""
    test_limit: Count | None = None
    """Use only the first so many test images."""
    held_out: Count | None = None
    """Test on so many of the training images, which are not trained on then: to choose settings by."""
    test_fraction: Annotated[float, SHARE] = 0.2
    """Share of the images kept for testing where a source has no split of its own."""
    leave_out: tuple[int | str, ...] | None = None
    """Classes, by name or label, that are neither learned nor tested on; limits and shares count their images still."""
    binarize: bool = False
    """Make pixels black or white, at the middle grey; for the Bernoulli likelihood."""
    pixel_range: Literal["unit", "signed"] | None = None
    """What floats of a file mean: unit, [0, 1], or signed, [-1, 1]; where not given, signed if any is negative."""
    missing: Annotated[float, MISSING] | None = None
    """Learn from incomplete images: this share of the pixels of each training image is hidden, the same in all epochs.
    Test images stay whole."""
    missing_shape: Literal["pixels", "blocks"] | None = None
    """What data.missing hides: pixels, drawn one by one (where not given), or blocks, one rectangular hole an image."""
    missing_seed: Annotated[int, SEED] | None = None
    """Of what data.missing hides, 0 where not given; runs of unlike seeds learn from the same incomplete images."""
    masks: Path | None = None
    """Learn from incomplete images: the masks of the training images. An .npy or .npz array (n, h, w), one mask for
    each image of the file in its order, or a folder of black and white pictures named like the images; 1, white =
    observed."""

    def check(self) -> None:
        """Raise InputError where it is said twice, or only in part, which pixels are hidden."""
        if self.missing and self.masks is not None:
            raise InputError("data.missing", f"{self.missing} beside data.masks", "write one or the other")
        if not self.missing and (self.missing_shape is not None or self.missing_seed is not None):
            name = "missing_seed" if self.missing_shape is None else "missing_shape"
            raise InputError(f"data.{name}", problem="no pixels are hidden", instead="add data.missing, or drop it")
        if self.masks is not None and self.held_out is not None:
            raise InputError(
                "data.held_out",
                problem="images that are tested on have to be whole, those of data.masks are not",
                instead="drop one of the two",
            )

    @property
    def incomplete(self) -> bool:
        """Whether pixels of training images are hidden."""
        return bool(self.missing) or self.masks is not None


@dataclass(frozen=True)
class EnergyConfig:
    """The prior `energy`, p(z) in proportion to exp(-f(z)) N(z; 0, I): the network f, and the chain that draws."""

    width: Width = 200
    """Units of a layer of f."""
    depth: Depth = 3
    """Linear layers of f, the last of which gives its value."""
    steps: Count = 40
    """Langevin steps of a draw from N(0, I), while learning and afterwards."""
    step_size: Annotated[float, POSITIVE] = 0.4
    """s of these steps, z + (s^2 / 2) d/dz log p(z) + s noise."""
    learning_rate: Annotated[float, POSITIVE] = 1e-3
    """Of f, by Adam, which takes a step for each 100 latents. At too large a rate energy_gap in metrics.jsonl grows."""
    penalty: Annotated[float, NOT_NEGATIVE] = 1e-3
    """Weight of the mean square of f, of latents and of draws, which keeps f in bounds."""


@dataclass(frozen=True)
class ModelConfig:
    """The generator p(x, z)."""

    latents: Annotated[tuple[int, ...], between(1, 10_000)] = (8, 16, 32)
    """Sizes of the layers of latents, top down."""
    parameterization: Literal["ladder", "conditional"] = "ladder"
    """ladder: all latents independent, each layer enters at its depth; conditional: z_l | z_{l+1} is Gaussian."""
    blocks: Blocks = "dense"
    width: Width = 256
    """Units of a dense block; channels of a convolutional one at the coarsest resolution."""
    depth: Depth = 1
    """Linear or convolutional layers in each block."""
    skip: bool = True
    """Add the state of the layer above to each layer's."""
    likelihood: LikelihoodName = "gaussian"
    sigma: Annotated[float, POSITIVE] = 0.3
    """Standard deviation of the Gaussian likelihood, pixels in [-1, 1]."""
    learn_sigma: bool = False
    """Learn sigma along with the weights."""
    prior: PriorName = "normal"
    components: Annotated[int, between(1, 10_000)] = 10
    """Normals of the mixture."""
    energy: EnergyConfig = field(default_factory=EnergyConfig)

    def check(self) -> None:
        """Raise InputError where there is no layer of latents."""
        if not 1 <= len(self.latents) <= MOST_LAYERS:
            raise InputError(
                "model.latents",
                f"{len(self.latents)} layers" if self.latents else "none",
                f"write one size for each of 1 to {MOST_LAYERS} layers, top down, 8 16 32 for example",
            )


MOST_LAYERS = 100
DENSE = 256
"""Up to so many latents the estimators of the divergence take whole Hessians; beyond, they are stochastic."""


@dataclass(frozen=True)
class TuningConfig:
    """How a step size is tuned while the model learns, where inference.step-size is `tuned`."""

    estimator: Literal["marginal", "conditional", "path"] = "marginal"
    """Of the divergence that the step size is to minimize; conditional is the paper's."""
    tuner: Literal["grid", "gradient", "acceptance"] = "grid"
    """grid compares values, gradient follows their derivative, acceptance aims at 57.4% of a Metropolis step."""
    over: Literal["one", "layers", "schedule", "both"] = "one"
    """What is tuned: one step size, one for each layer, one and the decay r, or one for each layer and r."""
    start: Annotated[float, POSITIVE] = 0.1
    """The step size that training begins with."""
    images: Annotated[int, at_least(2)] = 8
    """Training images of one tuning."""
    share: Annotated[float, SHARE] = 0.08
    """Share of the training's work that tuning may take; it sets how often the step size is tuned."""

    def check(self) -> None:
        """Raise InputError where acceptance is to tune more than one step size."""
        if self.tuner == "acceptance" and self.over != "one":
            raise InputError("inference.tuning.over", repr(self.over), "acceptance tunes one step size: write one")


@dataclass(frozen=True)
class InferenceConfig:
    """The short-run chain z_{k+1} = z_k + (s_k^2 / 2) d/dz log p(x, z_k) + s_k noise_k."""

    steps: Count = 25
    """K, the number of Langevin steps of a chain while the model learns."""
    step_size: Annotated[float | tuple[float, ...] | Literal["tuned"], POSITIVE] = 0.1
    """s_0: one number, or one for each layer, top down; or tuned: chosen by variational optimization on the way."""
    step_decay: Annotated[float, POSITIVE] = 1.0
    """r: s_k = s_0 r^(k/(K-1)); 1 keeps the step constant."""
    noise: bool = True
    """Without noise the chain is plain gradient ascent."""
    retries: Annotated[int, at_least(0)] = 3
    """How often a chain that became non-finite is started again, each time with half the step."""
    start: Literal["prior", "regression"] = "prior"
    """Where chains start: a draw of the prior, or of a normal around what past chains' latents, regressed on the image,
    say of it."""
    candidates: Annotated[
        int,
        between(
            1,
            1_000_000,
            "1 for a start from the prior, or how many draws of it to choose the start among, 256 for example",
        ),
    ] = 1
    """Draws of the prior, common to a batch, among which each image's start is drawn by their likelihood; 1: none. With
    start = regression the image's own start is one more."""
    tuning: TuningConfig = field(default_factory=TuningConfig)
    test_steps: Count | None = None
    """K where the trained model infers: in figures, reconstruct, inpaint, encode; K of learning where not given."""

    def check(self) -> None:
        """Raise InputError where the chain has no noise and the tuning needs some."""
        needs_noise = self.tuning.estimator != "conditional" or self.tuning.tuner == "acceptance"
        if self.tuned and not self.noise and needs_noise:
            raise InputError(
                "inference.noise",
                problem="without noise the chain's density is the conditional one",
                instead="write inference.tuning.estimator = conditional and a tuner of grid or gradient",
            )

    def check_layers(self, latents: tuple[int, ...]) -> None:
        """Raise InputError where the step sizes, or their tuning, do not fit the layers of latents."""
        step_sizes = self.first_step_size(len(latents))
        if len(step_sizes) not in (1, len(latents)):
            raise InputError(
                "inference.step_size",
                f"{len(step_sizes)} values for {len(latents)} layers",
                "write one, or one for each layer, top down",
            )
        if sum(latents) > DENSE and (self.tuning.tuner, self.tuning.estimator) == ("gradient", "conditional"):
            raise InputError(
                "inference.tuning.tuner",
                f"'gradient' for the conditional estimator of {sum(latents)} latents, which has no reliable derivative "
                f"beyond {DENSE}",
                "write grid, or take marginal",
            )

    @property
    def tuned(self) -> bool:
        """Whether the step size is tuned while the model learns."""
        return self.step_size == "tuned"

    def first_step_size(self, layers: int) -> tuple[float, ...]:
        """Return s_0 at the start of training: one number, or one for each layer."""
        if isinstance(self.step_size, tuple):
            return self.step_size
        if isinstance(self.step_size, float | int):
            return (float(self.step_size),)
        return (self.tuning.start,) * (layers if self.tuning.over in ("layers", "both") else 1)


@dataclass(frozen=True)
class EncoderConfig:
    """The inference network of vae, ladder_vae, vlae and rae; its shape mirrors the generator's."""

    width: Width | None = None
    """Units, or channels at the coarsest resolution; the generator's where not given."""
    blocks: EncoderBlocks | None = None
    """What it is made of; the generator's blocks where not given."""
    depth: Depth = 1
    """Linear or convolutional layers in each block."""
    missing: Literal["mean", "mask"] | None = None
    """What the encoder sees of an incomplete image: mean, hidden pixels as their mean over training images, or mask,
    zeros there and the mask as one more channel (MIWAE); mean where not given and training images are incomplete."""
    draws: Annotated[int, between(1, 10_000)] = 1
    """Draws of q(z|x) for each image of an update: 1, the evidence lower bound; more, the tighter bound of importance
    weights (IWAE, MIWAE), which costs as many passes through the generator."""


@dataclass(frozen=True)
class PersistentConfig:
    """The chains of the learner `persistent`, one for each training image; a visit takes inference.steps more steps."""

    store: Literal["memory", "disk"] = "memory"
    """Where the chains are kept: disk for more of them than memory holds."""
    fresh_steps: Count | None = None
    """Steps for an image that has no chain, such as a test image; inference.test-steps or else 100 where not given."""


@dataclass(frozen=True)
class GlowConfig:
    """The flow of the learner `glow`, which has no generator of layers: the settings of the model are not used."""

    scales: Annotated[int, between(1, 16)] = 2
    """Resolutions, each half of the one before."""
    flows: Annotated[int, between(1, 1_000)] = 8
    """Steps of actnorm, invertible 1x1 convolution and affine coupling at each resolution."""
    width: Annotated[int, between(1, 4_096)] = 128
    """Channels inside a coupling."""


@dataclass(frozen=True)
class TrainingConfig:
    """The loop that learns the model."""

    epochs: Long = 100
    updates: Long | None = None
    """Updates in all, in place of epochs."""
    batch_size: Count = 100
    """Images of an update, over all processes."""
    learning_rate: Annotated[float, POSITIVE] = 1e-3
    learning_rate_schedule: Annotated[Schedule, SCHEDULE] = ((0.0, 0.1), (0.02, 1.0), (1.0, 0.02))
    """Factor of the learning rate against the share of the training done."""
    sigma_schedule: Annotated[Schedule, POSITIVE_SCHEDULE] = ()
    """Sigma of the Gaussian likelihood against the share of the training done; empty: model.sigma throughout."""
    step_size_schedule: Annotated[Schedule, POSITIVE_SCHEDULE] = ()
    """Factor of the step size against the share of the training done; empty: constant."""
    kl_schedule: Annotated[Schedule, SCHEDULE] = ()
    """Weight of an encoder's divergence from the prior against the share of the training done; empty: 1 throughout."""
    clip_norm: Annotated[float, POSITIVE] = 1000.0
    """Largest norm of the gradient of the mean of -log p(x, z) in an update."""
    ema_decay: Annotated[float, DECAY] = 0.999
    """Decay of the moving average of the weights, which is what a run leaves behind."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of matrix products while training; auto: bfloat16 where the machine has instructions for it."""
    compile: Literal["auto", "always", "never"] = "never"
    """Compile the steps of Langevin chains, which changes the rounding; auto: where a measurement says that it pays."""
    seed: Annotated[int, SEED, tyro.conf.arg(prefix_name=False)] = 0
    """Of the initial weights, the order of the images and the noise of the chains."""
    threads: Count | None = None
    """CPU threads; PyTorch's choice where not given."""
    log_steps: Count = 20
    """Updates between two lines of metrics."""
    picture_epochs: Count = 10
    """Epochs between two pictures of samples and reconstructions."""
    checkpoint_seconds: Annotated[float, POSITIVE] = 60.0
    """Seconds between two checkpoints; one is also written at the end and at Ctrl-C."""
    fit_images: Annotated[int, Numbers(lambda count: count == 0 or count >= 10, "0 for none, or at least 10")] = 10000
    """Training images, at most, to whose latents a density is fitted at the end, to sample from; 0: none is."""
    cuda_graphs: Literal["auto", "never"] = "auto"
    """Record the steps of Langevin chains in a CUDA graph, which changes no number; auto: on a GPU, where it works."""
