"""What a run is made of: dataclasses that recipe files fill and the command line overrides. Imports no torch."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

Schedule = tuple[tuple[float, float], ...]
"""Pairs (share of the training done, value), interpolated linearly: ((0, 0.3), (1, 0.2)); empty: constant."""

LearnerName = Literal["short_run", "vae", "ladder_vae", "persistent", "vlae", "glow"]
"""short_run: no encoder; vae, ladder_vae, vlae: encoders; persistent: a chain kept for each image; glow: a flow."""


@dataclass(frozen=True)
class DataConfig:
    """Which images to learn from."""

    source: str = "digits"
    """digits, mnist, fashion_mnist, svhn, celeba, a path (.npz, .npy, .mat, idx, folder) or hub:OWNER/NAME."""
    dir: Annotated[Path | None, tyro.conf.arg(name="data-dir", prefix_name=False)] = None
    """Folder that holds the named data set; without it, mnist, fashion_mnist and svhn are downloaded."""
    image_size: int | None = None
    """Crop images of a folder to a square and resize them to this many pixels."""
    crop: int | None = None
    """Side of the centre crop that comes before resizing, in pixels."""
    train_limit: int | None = None
    """Use only the first so many training images."""
    test_limit: int | None = None
    """Use only the first so many test images."""
    held_out: int | None = None
    """Test on so many of the training images, which are not trained on then: to choose settings by."""
    test_fraction: float = 0.2
    """Share of the images kept for testing where a source has no split of its own."""
    binarize: bool = False
    """Make pixels black or white, at the middle grey; for the Bernoulli likelihood."""


@dataclass(frozen=True)
class ModelConfig:
    """The generator p(x, z)."""

    latents: tuple[int, ...] = (8, 16, 32)
    """Sizes of the layers of latents, top down."""
    parameterization: Literal["ladder", "conditional"] = "ladder"
    """ladder: all latents independent, each layer enters at its depth; conditional: z_l | z_{l+1} is Gaussian."""
    blocks: Literal["dense", "conv"] = "dense"
    """dense for vectors and tiny images, conv for images of 28x28 and up."""
    width: int = 256
    """Units of a dense block; channels of a convolutional one at the coarsest resolution."""
    depth: int = 1
    """Linear or convolutional layers in each block."""
    skip: bool = True
    """Add the state of the layer above to each layer's."""
    likelihood: Literal["gaussian", "bernoulli", "logistic"] = "gaussian"
    """Gaussian, Bernoulli (black and white pixels) or discretized logistic (bits/dim)."""
    sigma: float = 0.3
    """Standard deviation of the Gaussian likelihood, pixels in [-1, 1]."""
    learn_sigma: bool = False
    """Learn sigma along with the weights."""
    prior: Literal["normal", "mixture"] = "normal"
    """Of the latents: standard normal, or a mixture of normals learned along with the generator."""
    components: int = 10
    """Normals of the mixture."""


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
    start: float = 0.1
    """The step size that training begins with."""
    images: int = 8
    """Training images of one tuning."""
    share: float = 0.08
    """Share of the training's work that tuning may take; it sets how often the step size is tuned."""


@dataclass(frozen=True)
class InferenceConfig:
    """The short-run chain z_{k+1} = z_k + (s_k^2 / 2) d/dz log p(x, z_k) + s_k noise_k."""

    steps: int = 25
    """K, the number of Langevin steps."""
    step_size: float | tuple[float, ...] | Literal["tuned"] = 0.1
    """s_0: one number, or one for each layer, top down; or tuned: chosen by variational optimization on the way."""
    step_decay: float = 1.0
    """r: s_k = s_0 r^(k/(K-1)); 1 keeps the step constant."""
    noise: bool = True
    """Without noise the chain is plain gradient ascent."""
    retries: int = 3
    """How often a chain that became non-finite is started again, each time with half the step."""
    candidates: int = 1
    """Draws of the prior, common to a batch, among which each image's start is drawn by their likelihood; 1: none."""
    tuning: TuningConfig = field(default_factory=TuningConfig)

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
    """The inference network of vae, ladder_vae and vlae; its shape mirrors the generator's."""

    width: int | None = None
    """Units, or channels at the coarsest resolution; the generator's where not given."""
    depth: int = 1
    """Linear or convolutional layers in each block."""


@dataclass(frozen=True)
class PersistentConfig:
    """The chains of the learner `persistent`, one for each training image; a visit takes inference.steps more steps."""

    store: Literal["memory", "disk"] = "memory"
    """Where the chains are kept: disk for more of them than memory holds."""
    fresh_steps: int = 100
    """Steps from the prior for an image that has no chain, such as a test image."""


@dataclass(frozen=True)
class GlowConfig:
    """The flow of the learner `glow`, which has no generator of layers: the settings of the model are not used."""

    scales: int = 2
    """Resolutions, each half of the one before."""
    flows: int = 8
    """Steps of actnorm, invertible 1x1 convolution and affine coupling at each resolution."""
    width: int = 128
    """Channels inside a coupling."""


@dataclass(frozen=True)
class TrainingConfig:
    """The loop that learns the model."""

    epochs: int = 100
    updates: int | None = None
    """Updates in all, in place of epochs."""
    batch_size: int = 100
    """Images of an update, over all processes."""
    learning_rate: float = 1e-3
    learning_rate_schedule: Schedule = ((0.0, 0.1), (0.02, 1.0), (1.0, 0.02))
    """Factor of the learning rate against the share of the training done."""
    sigma_schedule: Schedule = ()
    """Sigma of the Gaussian likelihood against the share of the training done; empty: model.sigma throughout."""
    step_size_schedule: Schedule = ()
    """Factor of the step size against the share of the training done; empty: constant."""
    kl_schedule: Schedule = ()
    """Weight of an encoder's divergence from the prior against the share of the training done; empty: 1 throughout."""
    clip_norm: float = 1000.0
    """Largest norm of the gradient of the mean of -log p(x, z) in an update."""
    ema_decay: float = 0.999
    """Decay of the moving average of the weights, which is what a run leaves behind."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of matrix products while training; auto: bfloat16 where the machine has instructions for it."""
    seed: Annotated[int, tyro.conf.arg(prefix_name=False)] = 0
    """Of the initial weights, the order of the images and the noise of the chains."""
    threads: int | None = None
    """CPU threads; PyTorch's choice where not given."""
    log_steps: int = 20
    """Updates between two lines of metrics."""
    picture_epochs: int = 10
    """Epochs between two pictures of samples and reconstructions."""
    checkpoint_seconds: float = 60.0
    """Seconds between two checkpoints; one is also written at the end and at Ctrl-C."""
    fit_images: int = 10000
    """Training images, at most, to whose latents a density is fitted at the end, to sample from; 0: none is."""


@dataclass(frozen=True)
class Config:
    """A whole run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    learner: LearnerName = "short_run"
    """How the latents are inferred and the model learned; see `shortrun train --help`."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    persistent: PersistentConfig = field(default_factory=PersistentConfig)
    glow: GlowConfig = field(default_factory=GlowConfig)

    def alone(self) -> "Config":
        """Return the configuration without what a command's arguments add to it."""
        return Config(**{item.name: getattr(self, item.name) for item in fields(Config)})


@dataclass(frozen=True)
class LearnerConfig:
    """What a saved model needs to be rebuilt: the config.json beside its weights."""

    image_shape: tuple[int, int, int]
    """Channels, height, width."""
    levels: int | None = None
    """Values that a pixel can take, which the discretized logistic likelihood counts; none where pixels are floats."""
    own_decoder: bool = False
    """The decoder is the user's own module and has to be given when the model is loaded."""
    model: ModelConfig = field(default_factory=ModelConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    learner: LearnerName = "short_run"
    """Which class of learner it is."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    persistent: PersistentConfig = field(default_factory=PersistentConfig)
    glow: GlowConfig = field(default_factory=GlowConfig)
