"""Is the inference good? Everything that `shortrun diagnose` measures, as one dataclass of numbers."""

import datetime
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.diagnosis.adjusted import LongRun, long_run
from shortrun.diagnosis.calibration import Calibration, Gap, Sampler, Statistic, calibrate, energy_gap
from shortrun.diagnosis.chains import ChainSettings, Trace, layer_names, short_ends, trace, walk
from shortrun.diagnosis.one_mode import one_mode_chains
from shortrun.diagnosis.posterior import Aggregate, Distance, aggregate, compare
from shortrun.errors import InputError
from shortrun.inference import DrawnNoise
from shortrun.inference.diagnostics import effective_sizes, split_rhat
from shortrun.inference.initial import Initial
from shortrun.learners import ChainLearner
from shortrun.model import Prior
from shortrun.progress import Shown, silent
from shortrun.version import __version__

LEAST_IMAGES = 8
TRACED = 4
"""Chains of each image that are followed to 10 K."""
SHORT = 64
"""Short runs of each image: enough for noise well below 0.01 in the variance over images of the posterior mean."""
RESTARTS = 16
"""Long runs of each image. Each goes on from the end of one of its short runs."""
MIXING_IMAGES = 32
"""Images whose effective sample sizes and R-hat are computed."""
ONE_MODE = 200
"""Latents of each layer, at least, of the chains on one mode that R-hat is compared with."""
SIMULATIONS = 4
"""Images simulated from the model for the calibration, for each image of the diagnosis."""
GAP = 2
"""Images simulated from the model for the energy gap to the true latents, for each image of the diagnosis."""
AGGREGATE = 16
"""Images that the aggregate posterior is estimated from, one posterior sample each, for each image of the diagnosis."""
CALIBRATION_DRAWS = 31


@dataclass(frozen=True)
class Conditions:
    """What was measured, on what and when."""

    split: str
    images: int
    aggregate_images: int
    """Images of the aggregate, one draw each."""
    steps: int
    long_steps: int
    noise: bool
    step_size: list[float]
    """s_0, one for each layer, top down."""
    last_step_size: list[float]
    """s_{K-1}, the same."""
    step_decay: float
    sigma: float | None
    """Of a Gaussian likelihood, pixels in [-1, 1]."""
    latents: list[int]
    likelihood: str
    prior: str
    normal_prior: bool
    """Whether the prior is N(0, I), which needs no words."""
    start: str
    """What chains start from: prior, or regression of past chains' latents on their images."""
    candidates: int
    """Draws of the prior among which a chain's start is drawn; 1: the start is a draw of the prior itself."""
    traced_chains: int
    """For each image; so are the next two."""
    short_runs: int
    long_runs: int
    failed_chains: int
    """Short runs that stayed non-finite after the learner's retries: a draw from the prior stands in for each."""
    seed: int | None
    batch_size: int
    device: str
    date: str
    shortrun: str


@dataclass(frozen=True)
class Mixing:
    """R-hat and effective sample sizes of the long runs, over their second half, of one layer or of log p(x, z)."""

    name: str
    rhat_worst: float
    rhat_median: float
    rhat_high: float
    """The share of latents and images with an R-hat above 1.1."""
    rhat_one_mode: float
    """The median of chains of the same step and length on the normals that chains start from, of the prior or the
    regression, which have one mode: what slow steps explain."""
    ess_median: float
    rhat: list[float]
    """The quantiles 0%, 1%, ... 100% of all latents and images."""


@dataclass(frozen=True)
class Adjusted:
    """The Metropolis-adjusted long chains: the step that the best share of proposals is accepted with."""

    step_size: list[float]
    """The median over images, one for each layer, top down."""
    acceptance: float
    energy: float
    """The mean of -log p(x, z) over the second half and all images, in nats."""
    chains: int
    draws: int
    """Draws of each chain that R-hat and effective sizes are computed from, the second half thinned evenly."""


@dataclass(frozen=True)
class Diagnosis:
    """Everything measured; layers top down."""

    conditions: Conditions
    trace: Trace
    adjusted: Adjusted
    distances: list[Distance]
    mixing: list[Mixing] | None
    """Layers and, last, log p(x, z); None where arviz-stats is not installed."""
    aggregates: list[Aggregate]
    prior_fit: list[float] | None
    """How far the latents of each layer are from the normals of the prior that they are of, in their units: 1 where
    they fit, see `Prior.fit`; None where the prior is N(0, I), of which the second moment says it."""
    calibration: Calibration
    gap: Gap


def measure_mixing(
    run: LongRun, latents: tuple[int, ...], step_size: list[float], initial: Initial, rng: torch.Generator
) -> list[Mixing] | None:
    """Return R-hat and effective sizes of the kept draws of a long run, or None where arviz-stats is not installed.

    run: the long run.
    latents: the sizes of the layers, top down.
    step_size: of the run, one for each layer, top down.
    initial: what chains of the images start from.
    rng: gives the random numbers of chains on that.
    """
    draws, heights = run.kept.permute(1, 2, 0, 3).numpy(), run.log_joint.permute(1, 2, 0).numpy()
    # drawn in any case, so that what comes after is the same with arviz-stats and without
    alike = one_mode_chains(
        initial,
        torch.tensor(step_size).repeat_interleave(torch.tensor(latents)),
        chains=draws.shape[0],
        draws=draws.shape[1],
        every=run.every,
        sets=math.ceil(ONE_MODE / min(latents)),
        rng=rng,
    )
    try:
        rhat, sizes = split_rhat(draws), effective_sizes(draws)
        tall, counts = split_rhat(heights), effective_sizes(heights)
        one_mode = [float(np.median(each)) for each in np.split(split_rhat(alike), np.cumsum(latents)[:-1], axis=1)]
    except ModuleNotFoundError:
        return None
    ends = np.cumsum(latents)[:-1]
    layers = zip(
        layer_names(len(latents)), np.split(rhat, ends, axis=1), np.split(sizes, ends, axis=1), one_mode, strict=True
    )
    return [_mixing(*each) for each in [*layers, (Statistic.LOG_JOINT.value, tall, counts, max(one_mode))]]


def _mixing(name: str, rhat: np.ndarray, sizes: np.ndarray, one_mode: float) -> Mixing:
    # chains that never moved have no R-hat: as bad as can be
    flat = np.nan_to_num(rhat.ravel(), nan=np.inf, posinf=np.inf)
    quantiles = np.quantile(flat, np.linspace(0, 1, 101), method="nearest")
    return Mixing(
        name,
        float(flat.max()),
        float(quantiles[50]),
        float((flat > 1.1).mean()),
        one_mode,
        float(np.nanmedian(sizes)),
        quantiles.tolist(),
    )


def diagnose(
    learner: ChainLearner,
    x: Float[Tensor, "n c h w"],
    rng: torch.Generator,
    *,
    more: Float[Tensor, "m c h w"] | None = None,
    steps: int | None = None,
    noise: bool | None = None,
    batch_size: int = 500,
    split: str = "test",
    seed: int | None = None,
    shown: Shown = silent,
) -> Diagnosis:
    """Return measurements of how good the short-run inference of a learner is.

    They take about 400 n K evaluations of log p(x, z) and its gradient.

    learner: ready to use, as `load` returns it.
    x: (n, c, h, w) in [-1, 1], at least 8 images.
    rng: gives the random numbers.
    more: (m, c, h, w) in [-1, 1], images of which one draw each makes the aggregate; x where not given.
    steps: K, at least 1, in place of the learner's; None keeps that.
    noise: whether the chain is noisy, in place of what the learner does; None keeps that.
    batch_size: at least 1, chains at a time.
    split: what the images are, for the record.
    seed: of rng, for the record.
    shown: called with a sequence of work and words for it, returns it, to show progress.

    Raises InputError for fewer than 8 images, and for a prior that is not exact: calibration takes draws of it.

    >>> from shortrun import InferenceConfig, ModelConfig, ShortRun
    >>> learner = ShortRun.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8), InferenceConfig(steps=2))
    >>> found = diagnose(learner, torch.zeros(8, 1, 4, 4), torch.Generator().manual_seed(0))
    >>> found.conditions.steps, len(found.distances)
    (2, 2)
    """
    if len(x) < LEAST_IMAGES:
        raise InputError("x", f"{len(x)} images", f"give at least {LEAST_IMAGES}")
    if not learner.generator.prior.exact:
        raise InputError(
            "model.prior",
            problem="no exact draws of the prior are known, which calibration takes, nor its constant",
            instead="diagnose a model whose prior is normal or mixture",
        )
    chain = ChainSettings(
        learner,
        learner.steps if steps is None else steps,
        learner.noise if noise is None else noise,
        batch_size,
        shown,
    )
    latents, prior = learner.generator.latents, learner.generator.prior
    more = x if more is None else more
    seen = trace(walk(chain, x, rng, TRACED, "on the images"), chain.noise)
    short, failed = short_ends(chain, x, rng, SHORT, "short runs")
    run = long_run(chain, x, short[:, :RESTARTS], rng, MIXING_IMAGES)
    adapted = [float(run.scale.median()) * s for s in _each_layer(chain.step_sizes()[-1], latents)]
    # the long runs went on from the first short ones: the others are independent of them
    distances = compare(short[:, RESTARTS:], run.ends, latents, rng)
    draws = DrawnNoise(rng, 1, (len(x[:MIXING_IMAGES]), sum(latents)), device=learner.device)
    initial = learner.start(x[:MIXING_IMAGES].to(learner.device), draws).initial
    mixing = measure_mixing(run, latents, adapted, initial, rng)
    one_each, failed_too = short_ends(chain, more, rng, 1, "one draw for each image")
    calibration = calibrate(
        learner.generator,
        sampler_of(chain),
        rng,
        SIMULATIONS * len(x),
        CALIBRATION_DRAWS,
        batch_size,
        shown,
        once=learner.shares_draws,
    )
    return Diagnosis(
        _conditions(chain, len(x), len(more), failed + failed_too, split, seed),
        seen,
        Adjusted(adapted, run.acceptance, run.energy, len(x) * RESTARTS, run.kept.shape[2]),
        distances,
        mixing,
        aggregate(_of_prior(prior, one_each[:, 0]), _of_prior(prior, short), latents),
        _prior_fit(learner, one_each[:, 0]),
        calibration,
        energy_gap(chain, rng, GAP * len(x)),
    )


def sampler_of(chain: ChainSettings) -> Sampler:
    """Return what draws latents of images by a short run each: NaN where a chain failed."""

    def sampler(x: Float[Tensor, "n c h w"], rng: torch.Generator) -> Float[Tensor, "n d"]:
        inferred = chain.learner.infer(x, rng, steps=chain.steps, noise=chain.noise)
        # a failed chain has no rank: its stand-in, a draw from the prior, is not what was inferred
        return inferred.z.masked_fill(inferred.failed[:, None], math.nan)

    return sampler


def _of_prior(prior: Prior, z: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """Return latents less the prior's mean and in its standard deviations, float64."""
    mean, root = (part.double().cpu() for part in prior.whole())
    return (z.double() - mean) / root.norm(dim=1)


def _prior_fit(learner: ChainLearner, z: Float[Tensor, "n d"]) -> list[float] | None:
    fit = learner.prior_fit(z.to(learner.device))
    return None if fit is None else fit.double().mean(0)[1:].tolist()


def _conditions(
    chain: ChainSettings, images: int, aggregate_images: int, failed: int, split: str, seed: int | None
) -> Conditions:
    """Say what was measured, of which images, counted, and how many of the short runs failed."""
    learner, latents = chain.learner, chain.learner.generator.latents
    sizes, likelihood = chain.step_sizes(), learner.generator.likelihood
    return Conditions(
        split=split,
        images=images,
        aggregate_images=aggregate_images,
        steps=chain.steps,
        long_steps=chain.length,
        noise=chain.noise,
        step_size=_each_layer(sizes[0], latents),
        last_step_size=_each_layer(sizes[-1], latents),
        step_decay=learner.step_size.decay,
        sigma=likelihood.values().get("sigma"),
        latents=list(latents),
        likelihood=type(likelihood).__name__,
        prior=type(learner.generator.prior).__name__,
        normal_prior=learner.generator.prior.standard,
        start="prior" if learner.regression is None else "regression",
        candidates=learner.candidates,
        traced_chains=TRACED,
        short_runs=SHORT,
        long_runs=RESTARTS,
        failed_chains=failed,
        seed=seed,
        batch_size=chain.batch_size,
        device=str(learner.device),
        date=datetime.date.today().isoformat(),
        shortrun=__version__,
    )


def _each_layer(sizes: Float[Tensor, "1 d"], latents: tuple[int, ...]) -> list[float]:
    return [float(layer[0, 0]) for layer in sizes.split(latents, dim=1)]


def plain(value: Any) -> Any:
    """Return nested dictionaries and lists with None for numbers that are not finite: JSON has no word for these."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
