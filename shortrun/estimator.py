"""A generative model with the face of scikit-learn: fit, transform, inverse_transform, sample, score."""

import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from shortrun.config import RECIPES, Config, read_recipe
from shortrun.data import Dataset
from shortrun.data.rows import Rows, likely_shape
from shortrun.errors import InputError, check_at_least, renaming
from shortrun.evaluation.anomaly import anomaly_scores, available
from shortrun.files import read_json
from shortrun.learners import Learner, with_generator
from shortrun.progress import quiet
from shortrun.streams import Use, stream
from shortrun.tasks import sample
from shortrun.tasks.alone import infer_alone
from shortrun.tasks.batches import decode
from shortrun.training import load, train
from shortrun.training.processes import choose_device
from shortrun.training.run_folder import RunFolder

RECIPE = RECIPES / "of_arrays" / "arrays.toml"
TEST_IMAGES = 100
"""Images of the training set, at most, that a run folder has figures of: there are no others."""
TABLES = {
    "model": ("latents", "width", "blocks", "sigma"),
    "inference": ("steps", "test_steps"),
    "training": ("epochs", "batch_size", "learning_rate"),
}
"""Parameters that are settings, by the table that they are in."""
PARAMETERS = {f"{table}.{name}": name for table, names in TABLES.items() for name in names}
PARAMETERS |= {"training.seed": "random_state", "out": "run_dir"}
"""What settings are called here."""


class ShortRunEstimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A generator of images whose latents are inferred by short-run Langevin chains, as an estimator of scikit-learn.

    X holds images of one shape: (n, pixels), (n, h, w) or (n, c, h, w), numbers of any range. What comes back has the
    shape and the range of the X that was learned from. Each parameter that is None takes its value from `config`, or
    from the package's recipe for arrays where there is no config: two layers of 8 and 16 latents, dense blocks of width
    128, 60 epochs, and chains that start from a regression of latents on images.

    learner: short_run, vae, ladder_vae, persistent, vlae, rae, glow, or module:Name of your own.
    latents: the sizes of the layers of latents, top down; `transform` returns their sum of numbers.
    width: units of a dense block, channels of a convolutional one.
    blocks: what the decoder is made of: dense or conv.
    steps: K, Langevin steps of a chain while the model learns.
    test_steps: K afterwards, in `transform` and `score_samples`.
    sigma: standard deviation of the Gaussian likelihood, of pixels that are scaled to [-1, 1].
    epochs: how often each image is learned from.
    batch_size: images of an update; X may have fewer.
    learning_rate: of Adam.
    image_shape: (c, h, w) that rows of pixels stand for. Where not given, a square of one channel if there is one of as
        many pixels, else one line. It matters to `blocks="conv"` and to glow alone.
    pixel_range: (low, high), the range of the numbers in X; others are refused. Where not given, the least and the
        largest number of the X that is learned from, and what lies outside of it later is taken for the nearer end.
    levels: the values that a pixel can take, 256 for 0 to 255, for the likelihoods logistic and bernoulli; X is then
        rounded to them. None for numbers without steps.
    draws: chains of each image whose ends `transform` averages, at least 1.
    importance_samples: draws of each image that `score_samples` weighs, at least 1.
    random_state: an int, a RandomState, or None for numbers that are new at every fit.
    config: a `Config`, the name of a recipe, or the path of one, for all that has no parameter of its own; its table of
        data is not used. The learner's own table of a recipe is.
    run_dir: the folder in which the run is kept, new at each fit: figures, pictures, settings. None for a temporary one
        that is gone after the fit.
    device: cpu or cuda; the best there is where not given.
    verbose: whether training says how far it is.

    After `fit`: `learner_`, the model, for all other functions of the package, whose pixels are in [-1, 1];
    `image_shape_`; `pixel_range_`, the numbers of X that -1 and 1 stand for; `n_features_in_`.

    >>> from sklearn.datasets import load_digits
    >>> from sklearn.pipeline import make_pipeline
    >>> X = load_digits().data[:60]
    >>> model = ShortRunEstimator(latents=(3, 4), epochs=2, device="cpu").fit(X)
    >>> model.transform(X).shape, model.sample(5).shape
    ((60, 7), (5, 64))
    >>> model.inverse_transform(model.transform(X)).shape, model.score_samples(X[:2]).shape
    ((60, 64), (2,))
    """

    def __init__(
        self,
        learner: str | None = None,
        latents: Sequence[int] | None = None,
        *,
        width: int | None = None,
        blocks: str | None = None,
        steps: int | None = None,
        test_steps: int | None = None,
        sigma: float | int | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        image_shape: Sequence[int] | None = None,
        pixel_range: Sequence[float | int] | None = None,
        levels: int | None = None,
        draws: int = 4,
        importance_samples: int = 50,
        random_state: Any = 0,
        config: Config | str | None = None,
        run_dir: str | Path | None = None,
        device: str | None = None,
        verbose: bool = False,
    ) -> None:
        self.learner = learner
        self.latents = latents
        self.width = width
        self.blocks = blocks
        self.steps = steps
        self.test_steps = test_steps
        self.sigma = sigma
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.image_shape = image_shape
        self.pixel_range = pixel_range
        self.levels = levels
        self.draws = draws
        self.importance_samples = importance_samples
        self.random_state = random_state
        self.config = config
        self.run_dir = run_dir
        self.device = device
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> "ShortRunEstimator":  # noqa: N803
        """Return the estimator, with a model that has learned from images.

        X: (n, pixels), (n, h, w) or (n, c, h, w), at least 2 images.
        y: not looked at.

        Raises InputError, a ValueError, for images and parameters that cannot be used.
        """
        check_at_least(1, draws=self.draws, importance_samples=self.importance_samples)
        rows, given = self._rows(X, reset=True)
        shape = likely_shape(given) if self.image_shape is None else self.image_shape
        stated = self.pixel_range is not None
        low, high = self.pixel_range if self.pixel_range is not None else (rows.min(), rows.max())
        if not stated and low == high:  # all pixels alike
            high = low + 1
        self.rows_ = Rows(tuple(shape), given, float(low), float(high), stated, self.levels)
        self.image_shape_, self.pixel_range_ = self.rows_.shape, (self.rows_.low, self.rows_.high)
        self.seed_ = _seed_of(self.random_state)
        images = self.rows_.image_set(rows)
        dataset = Dataset("X", images, images.take(min(TEST_IMAGES, len(images))), split="train")
        config = self._settings(len(rows))
        with self._folder() as folder, nullcontext() if self.verbose else quiet():
            with renaming(PARAMETERS):
                run = RunFolder(train(config, folder, device=self.device, dataset=dataset))
            if (warning := read_json(run.result).get("warning")) and not self.verbose:
                warnings.warn(str(warning), stacklevel=2)
            self.learner_: Learner = load(run.path).to(choose_device(self.device))
            assert self.learner_.record is not None  # a run has one
            self.learner_.record = partial(dict, self.learner_.record())  # read while the folder is there
        return self

    def transform(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the latents of images, (n, d) float32: an estimate of their posterior mean.

        It is the mean of the ends of `draws` chains, so that draws=1 gives a draw from what stands in for the
        posterior. An encoder's mean is taken as it is, and so are the latents of a flow. All images have the same
        random numbers: the latents of an image depend on the image and the seed of `fit`, and not on the images beside
        it.

        X: images as `fit` had them.
        """
        with quiet():
            z = infer_alone(self._fitted(), self._images(X), stream(self.seed_, Use.TEST), self.draws)
        return z.numpy()

    def inverse_transform(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the images of latents, in the shape and the range of the X that was learned from.

        X: (n, d), latents.
        """
        learner = self._fitted()
        z = np.asarray(check_array(X, dtype=np.float32))  # pyright: ignore[reportArgumentType]
        if z.shape[1] != learner.dim:
            raise InputError("X", f"rows of {z.shape[1]} numbers", f"the model has {learner.dim} latents")
        with quiet():
            return self.rows_.numbers(decode(learner, torch.from_numpy(z.copy())))

    def sample(self, n_samples: int = 1, random_state: Any = None) -> np.ndarray:
        """Return new images, in the shape and the range of the X that was learned from.

        n_samples: at least 1, how many.
        random_state: of the draws, an int or a RandomState; None for the seed of `fit`, the same draws at each call.

        Raises InputError where the model has neither a prior nor a density of its latents.
        """
        learner = self._fitted()
        seed = self.seed_ if random_state is None else _seed_of(random_state)
        with quiet(), renaming({"n": "n_samples"}):
            return self.rows_.numbers(sample(learner, n_samples, stream(seed, Use.PRIOR)))

    def score_samples(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return a lower bound of log p(x) of each image in nats, (n,) float64, by importance weights.

            log (1/S) sum_s p(x, z_s) / q(z_s | x),   S = importance_samples

        It is the density of x in the range of X, so that models of unlike `pixel_range` can be compared; a likelihood
        that counts levels gives log-probabilities. Of a flow it is the exact density, with the noise of one level.

        X: images as `fit` had them.

        Raises InputError for a learner without a likelihood, as rae is.

        Source: Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", 2016, arXiv 1509.00519.
        """
        learner, x = self._fitted(), self._images(X)
        if "bound" not in available(learner):
            raise InputError("learner", problem="it has no likelihood", instead="choose another, short_run for example")
        rng = stream(self.seed_, Use.IMPORTANCE)
        with quiet():
            found = anomaly_scores(learner, x, rng, ["bound"], importance_samples=self.importance_samples)
        counts_levels = with_generator(learner) and not learner.generator.likelihood.is_density
        scale = 0.0 if counts_levels else self.rows_.log_scale * x[0].numel()
        return (scale - found.scores["bound"]).numpy()

    def score(self, X: Any, y: Any = None) -> float:  # noqa: N803
        """Return the mean of `score_samples`, by which GridSearchCV chooses.

        X: images as `fit` had them.
        y: not looked at.
        """
        return float(self.score_samples(X).mean())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]  # chains are in float32
        return tags

    @property
    def _n_features_out(self) -> int:
        return self.learner_.dim

    def _fitted(self) -> Learner:
        check_is_fitted(self, "learner_")
        return self.learner_.eval()

    def _rows(self, X: Any, reset: bool) -> tuple[np.ndarray, tuple[int, ...]]:  # noqa: N803
        """Return images as rows of numbers, checked as scikit-learn does, and the shape that each was given in."""
        X = X.detach().cpu().numpy() if isinstance(X, Tensor) else X  # noqa: N806
        shape: tuple[int, ...] = tuple(getattr(X, "shape", ()))
        if len(shape) in (3, 4) and len(X):
            X = np.asarray(X).reshape(len(X), -1)  # noqa: N806
        least = 2 if reset else 1
        rows = np.asarray(validate_data(self, X, reset=reset, dtype=np.float32, ensure_min_samples=least))
        given = shape[1:] if len(shape) in (3, 4) else (rows.shape[1],)
        if not reset and given not in (self.rows_.given, (rows.shape[1],)):
            raise InputError("X", f"images of shape {given}", f"the model has learned from {self.rows_.given}")
        return rows, given

    def _images(self, X: Any) -> Float[Tensor, "n c h w"]:  # noqa: N803
        check_is_fitted(self, "learner_")
        return self.rows_.image_set(self._rows(X, reset=False)[0]).images()

    def _settings(self, images: int) -> Config:
        """Return the configuration of a run."""
        config = self.config
        if not isinstance(config, Config):
            recipe = str(RECIPE if config is None else config)
            with renaming({"recipe": "config"}):
                config = read_recipe(recipe, self.learner)
        values = {name: getattr(self, name) for names in TABLES.values() for name in names}
        if self.latents is not None:
            values["latents"] = tuple(self.latents)
        tables: dict[str, Any] = {
            table: replace(getattr(config, table), **{name: values[name] for name in names if values[name] is not None})
            for table, names in TABLES.items()
        }
        training = tables["training"]
        updates = training.updates if self.epochs is None else None
        batch_size = min(training.batch_size, images)
        tables["training"] = replace(training, seed=self.seed_, updates=updates, batch_size=batch_size)
        data = replace(Config().data, source="X")
        return replace(config, data=data, learner=self.learner or config.learner, **tables)

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """Give the folder of the run, which is gone afterwards where none was asked for."""
        if self.run_dir is not None:
            yield Path(self.run_dir)
            return
        folder = Path(tempfile.mkdtemp(prefix="shortrun-"))
        try:
            yield folder / "run"
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None  # what it says of resuming is of a folder that is gone
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _seed_of(random_state: Any) -> int:
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))
