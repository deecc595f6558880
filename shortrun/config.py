"""What a run is made of: dataclasses that recipe files fill and the command line overrides. Imports no torch."""

import dataclasses
import math
import tomllib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from shortrun.errors import InputError, did_you_mean
from shortrun.mapping import from_mapping

Schedule = tuple[tuple[float, float], ...]
"""Pairs (share of the training done, value), interpolated linearly: ((0, 0.3), (1, 0.2)); empty: constant."""


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
class TrainingConfig:
    """The loop that learns the generator."""

    epochs: int = 100
    batch_size: int = 100
    """Images of an update, over all processes."""
    learning_rate: float = 1e-3
    learning_rate_schedule: Schedule = ((0.0, 0.1), (0.02, 1.0), (1.0, 0.02))
    """Factor of the learning rate against the share of the training done."""
    sigma_schedule: Schedule = ()
    """Sigma of the Gaussian likelihood against the share of the training done; empty: model.sigma throughout."""
    step_size_schedule: Schedule = ()
    """Factor of the step size against the share of the training done; empty: constant."""
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


@dataclass(frozen=True)
class Config:
    """A whole run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


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


RECIPES = Path(__file__).parent / "recipes"


def recipe_names() -> list[str]:
    """Return the names of the recipes in the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_config(recipe: str) -> Config:
    """Read a recipe: the name of one in the package, or the path of a TOML file.

    Raises InputError for an unknown name, an unknown key, a wrong type, and a file that is not TOML.
    """
    path = RECIPES / f"{recipe}.toml"
    if not path.is_file():
        path = Path(recipe)
        if path.suffix != ".toml":
            raise InputError(
                f"recipe: got {recipe!r}; {did_you_mean(recipe, recipe_names())} (or the path of a .toml file)"
            )
        if not path.is_file():
            raise InputError(f"recipe: {recipe} does not exist; write the path of a .toml file or a recipe's name")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"recipe: {path} is not TOML ({error}); see the recipes that `shortrun train --help` names"
        ) from None
    config = from_mapping(Config, values, "")
    validate(config)
    return config


def absolute(config: Config, names: Collection[str]) -> Config:
    """Return the configuration with its paths made absolute, so that a run can be resumed from any folder.

    names: what data.source means a data set by, even where a file or folder of that name is at hand.
    """
    data, source = config.data, Path(config.data.source).expanduser()
    is_path = data.source not in names and source.exists()
    folder = data.dir and data.dir.expanduser().resolve()
    data = dataclasses.replace(data, dir=folder, source=str(source.resolve()) if is_path else data.source)
    return dataclasses.replace(config, data=data)


def validate(config: Config) -> None:
    """Check the ranges that types cannot say; raise InputError for the first value out of its range."""
    data, model, inference, training = config.data, config.model, config.inference, config.training
    step_sizes = inference.first_step_size(len(model.latents))
    at_least_one = [
        ("data.image-size", data.image_size),
        ("data.crop", data.crop),
        ("data.train-limit", data.train_limit),
        ("data.test-limit", data.test_limit),
        *(("model.latents", size) for size in model.latents),
        ("model.width", model.width),
        ("model.depth", model.depth),
        ("inference.steps", inference.steps),
        ("training.epochs", training.epochs),
        ("training.batch-size", training.batch_size),
        ("training.log-steps", training.log_steps),
        ("training.picture-epochs", training.picture_epochs),
        ("training.threads", training.threads),
    ]
    for name, count in at_least_one:
        if count is not None and count < 1:
            raise InputError(f"{name}: got {count}; write a whole number of at least 1")
    positive = [
        ("model.sigma", model.sigma),
        ("inference.tuning.start", inference.tuning.start),  # before the step sizes, which may be it
        *(("inference.step-size", size) for size in step_sizes),
        ("inference.step-decay", inference.step_decay),
        ("inference.tuning.share", inference.tuning.share),
        ("training.learning-rate", training.learning_rate),
        ("training.clip-norm", training.clip_norm),
        ("training.checkpoint-seconds", training.checkpoint_seconds),
        *(("training.sigma-schedule", value) for _, value in training.sigma_schedule),
        *(("training.step-size-schedule", value) for _, value in training.step_size_schedule),
    ]
    for name, value in positive:
        if not 0 < value < math.inf:
            raise InputError(f"{name}: got {value}; write a positive number")
    check_tuning(inference, training, sum(model.latents))
    if not model.latents:
        raise InputError("model.latents: got none; write one size for each layer, top down, 8 16 32 for example")
    if len(step_sizes) not in (1, len(model.latents)):
        raise InputError(
            f"inference.step-size: got {len(step_sizes)} values for {len(model.latents)} layers; "
            "write one, or one for each layer, top down"
        )
    if not 0 < data.test_fraction < 1:
        raise InputError(f"data.test-fraction: got {data.test_fraction}; write a number between 0 and 1")
    if not 0 <= training.ema_decay < 1:
        raise InputError(f"training.ema-decay: got {training.ema_decay}; write a number from 0 up to, not including, 1")
    if inference.retries < 0:
        raise InputError(f"inference.retries: got {inference.retries}; write 0 or more")
    if not 0 <= training.seed < 2**63:
        raise InputError(f"seed: got {training.seed}; write a whole number from 0 up to, not including, 2^63")
    if model.likelihood != "gaussian" and (model.learn_sigma or training.sigma_schedule):
        raise InputError(
            f"model.likelihood: got {model.likelihood}, which has no sigma; drop model.learn-sigma and "
            "training.sigma-schedule, or choose gaussian"
        )
    if model.learn_sigma and training.sigma_schedule:
        raise InputError("training.sigma-schedule: sigma is learned (model.learn-sigma); write one or the other")
    for name in ("learning_rate_schedule", "sigma_schedule", "step_size_schedule"):
        if not all(0 <= value < math.inf for _, value in getattr(training, name)):
            raise InputError(f"training.{name.replace('_', '-')}: got a negative or infinite value; write 0 or more")
        at = [share for share, _ in getattr(training, name)]
        if at != sorted(at) or any(not 0 <= share <= 1 for share in at):
            raise InputError(
                f"training.{name.replace('_', '-')}: got shares {at}; write them in [0, 1] and in rising order"
            )


def check_tuning(inference: InferenceConfig, training: TrainingConfig, latents: int) -> None:
    """Check how the step size is to be tuned; raise InputError for the first value that cannot be."""
    tuning = inference.tuning
    if tuning.images < 2:
        raise InputError(f"inference.tuning.images: got {tuning.images}; write a whole number of at least 2")
    if not tuning.share < 1:
        raise InputError(
            f"inference.tuning.share: got {tuning.share}; write a number between 0 and 1, 0.08 for example"
        )
    if tuning.tuner == "acceptance" and tuning.over != "one":
        raise InputError(f"inference.tuning.over: got {tuning.over}; acceptance tunes one step size: write one")
    if latents > DENSE and (tuning.tuner, tuning.estimator) == ("gradient", "conditional"):
        raise InputError(
            f"inference.tuning.tuner: got gradient for the conditional estimator of {latents} latents, which has no "
            f"reliable derivative beyond {DENSE}; write grid, or take marginal"
        )
    if inference.tuned and training.step_size_schedule:
        raise InputError("training.step-size-schedule: the step size is tuned; write one or the other")
    if inference.tuned and not inference.noise and (tuning.estimator != "conditional" or tuning.tuner == "acceptance"):
        raise InputError(
            "inference.noise: without noise the chain's density is the conditional one; write "
            "inference.tuning.estimator = conditional and a tuner of grid or gradient"
        )
