"""Is the inference good? Everything that `shortrun diagnose` measures, as one dataclass of numbers."""

import datetime
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.diagnosis.calibration import Calibration, Gap, calibrate, simulated_gap
from shortrun.diagnosis.chains import (
    LONG,
    LongRun,
    Shown,
    Trace,
    layer_names,
    long_run,
    short_ends,
    silent,
    step_sizes,
    trace,
    walk,
)
from shortrun.diagnosis.posterior import Aggregate, Distance, aggregate, compare
from shortrun.errors import InputError
from shortrun.inference.diagnostics import effective_sizes, split_rhat
from shortrun.learners import ChainLearner
from shortrun.model import Gaussian
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
    """The median of chains of the same step and length on the prior, which has one mode: what slow steps explain."""
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
    calibration: Calibration
    gap: Gap


def measure_mixing(
    run: LongRun, latents: tuple[int, ...], step_size: list[float], rng: torch.Generator
) -> list[Mixing] | None:
    """Return R-hat and effective sizes of the kept draws of a long run, or None where arviz-stats is not installed.

    step_size: of the run, one for each layer, top down.
    """
    draws, heights = run.kept.permute(1, 2, 0, 3).numpy(), run.log_joint.permute(1, 2, 0).numpy()
    # drawn in any case, so that what comes after is the same with arviz-stats and without
    alike = [prior_chains(s, draws.shape[0], draws.shape[1], run.every, rng) for s in step_size]
    try:
        rhat, sizes = split_rhat(draws), effective_sizes(draws)
        tall, counts = split_rhat(heights), effective_sizes(heights)
        one_mode = [float(np.median(split_rhat(each))) for each in alike]
    except ModuleNotFoundError:
        return None
    ends = np.cumsum(latents)[:-1]
    layers = zip(
        layer_names(len(latents)), np.split(rhat, ends, axis=1), np.split(sizes, ends, axis=1), one_mode, strict=True
    )
    return [_mixing(*each) for each in [*layers, ("log p(x, z)", tall, counts, max(one_mode))]]


def prior_chains(step_size: float, chains: int, draws: int, every: int, rng: torch.Generator) -> np.ndarray:
    """Return Langevin chains on N(0, 1) that start from it: (chains, draws, 200), every so many steps one draw."""
    keeps = (1 - step_size**2 / 2) ** every
    z = [torch.randn(chains, 200, generator=rng)]
    while len(z) < draws:
        z.append(keeps * z[-1] + math.sqrt(1 - keeps**2) * torch.randn(chains, 200, generator=rng))
    return torch.stack(z, dim=1).numpy()


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
    """Measure how good the short-run inference of a learner is.

    x: images (n, c, h, w) in [-1, 1], at least 8; more: images of which one draw each makes the aggregate, x where not
    given; steps, noise: in place of the learner's; batch_size: chains at a time; split, seed: for the record. Takes
    about 400 n K evaluations of log p(x, z) and its gradient. Raises InputError for fewer than 8 images.
    """
    if len(x) < LEAST_IMAGES:
        raise InputError("x", f"{len(x)} images", f"give at least {LEAST_IMAGES}")
    steps = learner.steps if steps is None else steps
    noise = learner.noise if noise is None else noise
    latents, common = learner.generator.latents, (steps, noise)
    sizes = step_sizes(learner, steps, steps)
    first, last = _each_layer(sizes[0], latents), _each_layer(sizes[-1], latents)
    seen = walk(learner, x, rng, *common, TRACED, batch_size, "on the images", shown)
    short, failed = short_ends(learner, x, rng, *common, SHORT, batch_size, "short runs", shown)
    run = long_run(learner, x, short[:, :RESTARTS], rng, steps, MIXING_IMAGES, batch_size, shown)
    scale = float(run.scale.median())
    adapted = [scale * s for s in last]
    # the long runs went on from the first short ones: the others are independent of them
    distances = compare(short[:, RESTARTS:], run.ends, latents, rng)
    mixing = measure_mixing(run, latents, adapted, rng)
    more = x if more is None else more
    one_each, failed_too = short_ends(learner, more, rng, *common, 1, batch_size, "one draw for each image", shown)

    def sampler(images: Tensor, rng: torch.Generator) -> Tensor:
        inferred = learner.infer(images, rng, steps=steps, noise=noise)
        # a failed chain has no rank: its stand-in, a draw from the prior, is not what was inferred
        return inferred.z.masked_fill(inferred.failed[:, None], math.nan)

    calibration = calibrate(
        learner.generator,
        sampler,
        rng,
        SIMULATIONS * len(x),
        CALIBRATION_DRAWS,
        batch_size,
        shown,
        once=learner.shares_draws,
    )
    gap = simulated_gap(learner, rng, GAP * len(x), *common, batch_size, shown)
    likelihood = learner.generator.likelihood
    mean, variance = (moment.detach().double().cpu() for moment in learner.generator.prior.moments())
    one, many = ((z.double() - mean) / variance.sqrt() for z in (one_each[:, 0], short))
    conditions = Conditions(
        split=split,
        images=len(x),
        aggregate_images=len(more),
        steps=steps,
        long_steps=LONG * steps,
        noise=noise,
        step_size=first,
        last_step_size=last,
        step_decay=learner.step_size.decay,
        sigma=float(likelihood.sigma) if isinstance(likelihood, Gaussian) else None,
        latents=list(latents),
        likelihood=type(likelihood).__name__,
        prior=type(learner.generator.prior).__name__,
        candidates=learner.candidates,
        traced_chains=TRACED,
        short_runs=SHORT,
        long_runs=RESTARTS,
        failed_chains=failed + failed_too,
        seed=seed,
        batch_size=batch_size,
        device=str(learner.device),
        date=datetime.date.today().isoformat(),
        shortrun=__version__,
    )
    return Diagnosis(
        conditions,
        trace(seen, noise),
        Adjusted(adapted, run.acceptance, run.energy, len(x) * RESTARTS, run.kept.shape[2]),
        distances,
        mixing,
        aggregate(one, many, latents),
        calibration,
        gap,
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
