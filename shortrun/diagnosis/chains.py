"""The chains that a diagnosis measures: the learner's own, followed step by step and far beyond K, and adjusted ones.

Source of the adapted step: Andrieu and Thoms, "A Tutorial on Adaptive MCMC", 2008 (a Robbins-Monro search for the
acceptance).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from shortrun.inference import DrawnNoise
from shortrun.inference.diagnostics import BEST_ACCEPTANCE, adjusted_step, evaluate, log_ratio, propose
from shortrun.learners import ChainLearner, frozen

Images = Float[Tensor, "n c h w"]
Shown = Callable[[Sequence[Any], str], Iterable[Any]]
"""Gives back the items of a sequence while it shows how far it is; the words say what is being measured."""

LONG = 10
"""A long chain is so many times K steps long."""
KEPT = 125
"""Draws kept of the second half of a long chain: more would tell no more, so slowly do the latents move."""


def silent(items: Sequence[Any], words: str) -> Iterable[Any]:
    """Return the items and show nothing."""
    return items


def layer_names(layers: int) -> list[str]:
    """Return what the layers are called, top down: layer 3 (top), layer 2, layer 1."""
    return [f"layer {number}" + (" (top)" if number == layers > 1 else "") for number in range(layers, 0, -1)]


def step_sizes(learner: ChainLearner, steps: int, length: int) -> list[Float[Tensor, "1 d"]]:
    """Return the steps of a chain of `length`: the learner's own for its K steps, its last one from there on."""
    own = list(learner.step_size(steps))
    return own[:length] + own[-1:] * (length - steps)


@dataclass(frozen=True)
class Trace:
    """A chain from the prior, seen at some k from 0 to 10 K: mean over images, and the middle 80% of images."""

    k: list[int]
    energy: list[float]
    """-log p(x, z_k), in nats an image."""
    energy_low: list[float]
    energy_high: list[float]
    mse: list[float]
    """Pixels in [0, 1]."""
    mse_low: list[float]
    mse_high: list[float]
    acceptance: list[float]
    """How likely a Metropolis test accepts the steps since the last k, up to the one from z_k; empty without noise."""
    acceptance_low: list[float]
    acceptance_high: list[float]
    diverged: int
    """Chains that became non-finite; they count as acceptance 0 and are left out of energy and error."""
    chains: int


def shown_steps(steps: int, length: int) -> list[int]:
    """Return every k up to K and about a hundred from there to `length`, evenly spaced in log k."""
    beyond = (
        torch.logspace(math.log10(steps), math.log10(length), 100).round().long().tolist() if steps < length else []
    )
    return sorted({*range(steps + 1), *beyond, length})


def repeats(n: int, times: int, apart: bool) -> Int64[Tensor, "rows"]:
    """Return each of n rows so many times: one after the other, or, apart, all of them before any comes again."""
    return torch.arange(n).repeat(times) if apart else torch.arange(n).repeat_interleave(times)


class Walk(NamedTuple):
    """What chains of 10 K steps passed: energy, error and acceptance at each of the k."""

    k: list[int]
    energy: Float[Tensor, "k n restarts"]
    mse: Float[Tensor, "k n restarts"]
    acceptance: Float[Tensor, "k n restarts"]


@torch.no_grad()
def walk(
    learner: ChainLearner,
    x: Images,
    rng: torch.Generator,
    steps: int,
    noise: bool,
    restarts: int,
    batch_size: int,
    words: str,
    shown: Shown = silent,
) -> Walk:
    """Run chains of 10 K steps, `restarts` for each image, and record energy, error and acceptance on the way.

    The first K steps are the short run; the chain goes on with its last step size. No chain is started again. For the
    meaning of the records see Trace.
    """
    generator, length = learner.generator, LONG * steps
    sizes, recorded = step_sizes(learner, steps, length), shown_steps(steps, length)
    kept: list[list[Tensor]] = []
    batches = x.split(max(1, batch_size // restarts))
    with frozen(generator):
        for number, part in enumerate(batches, 1):
            images = len(part)
            repeated = part.to(learner.device).repeat_interleave(restarts, 0)

            def log_density(z: Tensor, repeated: Images = repeated) -> Tensor:
                return generator.log_joint(repeated, z)

            draws = DrawnNoise(rng, length, (len(repeated), generator.dim), device=learner.device)
            here, rows, since = evaluate(log_density, learner.start(repeated, draws)), [], []
            for k in shown(range(length + 1), f"chains up to 10 K {words}, batch {number} of {len(batches)}"):
                s = sizes[min(k, length - 1)]
                there = evaluate(log_density, propose(here, s, draws.draw() if noise else torch.zeros_like(here.z)))
                since.append(log_ratio(here, there, s).clamp(max=0).exp())
                if k in recorded:
                    decoded = generator.likelihood.mean(generator.decoder(*generator.split(here.z))).float()
                    error = ((decoded.clamp(-1, 1) - repeated) ** 2).flatten(1).mean(1) / 4
                    accepted, since = torch.stack(since).mean(0), []
                    both = torch.stack([-here.log_density.float(), error.float(), accepted.float()])
                    rows.append(both.unflatten(1, (images, restarts)).cpu())
                here = there
            kept.append(rows)
    energy, mse, acceptance = torch.cat([torch.stack(rows) for rows in kept], dim=2).double().transpose(0, 1)
    return Walk(recorded, energy, mse, acceptance)


def trace(seen: Walk, noise: bool) -> Trace:
    """Reduce what chains passed to means and quantiles over images; chains that became non-finite are left out."""
    whole, nothing = torch.isfinite(seen.energy + seen.mse).all(0), ([], [], [])
    return Trace(
        seen.k,
        *_over_images(seen.energy.where(whole, math.nan)),
        *_over_images(seen.mse.where(whole, math.nan)),
        *(_over_images(seen.acceptance) if noise else nothing),
        diverged=int((~whole).sum()),
        chains=whole.numel(),
    )


def _over_images(values: Float[Tensor, "k n restarts"]) -> tuple[list[float], list[float], list[float]]:
    """Return the mean over images and the 10% and 90% quantiles of the images' own means."""
    means = values.nanmean(2)
    quantiles = torch.nanquantile(means, torch.tensor([0.1, 0.9], dtype=means.dtype), dim=1)
    return means.nanmean(1).tolist(), quantiles[0].tolist(), quantiles[1].tolist()


class LongRun(NamedTuple):
    """Metropolis-adjusted chains of 10 K steps."""

    ends: Float[Tensor, "n restarts d"]
    """Where they end."""
    kept: Float[Tensor, "n restarts draws d"]
    """Draws of the second half, of the first so many images."""
    log_joint: Float[Tensor, "n restarts draws"]
    """log p(x, z) at these draws."""
    scale: Float[Tensor, "n"]
    """What multiplies the learner's last step size so that the best share of proposals is accepted, image by image."""
    acceptance: float
    """The mean acceptance in the second half."""
    energy: float
    """The mean of -log p(x, z) over the second half and all images."""
    every: int
    """Steps between two draws that are kept."""


@torch.no_grad()
def long_run(
    learner: ChainLearner,
    x: Images,
    start: Float[Tensor, "n restarts d"],
    rng: torch.Generator,
    steps: int,
    keep: int,
    batch_size: int,
    shown: Shown = silent,
) -> LongRun:
    """Go on from the ends of short runs, (n, restarts, d), with adjusted steps until 10 K steps are done.

    Adjusted, because an unadjusted chain with the learner's steps has the same bias as the short run and would not
    show it; and with a step of its own for each image, since the learner's may be too long to be accepted at all.
    The step is searched for in the first fifth of the way and then fixed, so that what is kept samples p(z | x).
    keep: of how many images, the first so many, the draws of the second half are kept.
    """
    generator, total = learner.generator, LONG * steps
    (n, restarts, d), length = start.shape, total - steps
    search, every = max(1, total // 5), max(1, total // 2 // KEPT)
    saved_at = set(range(length - 1, total // 2 - steps - 1, -every)[:KEPT])
    last = step_sizes(learner, steps, steps)[-1]
    per_batch = max(1, batch_size // restarts)
    count = -(-n // per_batch)
    ends, kept, values, scales, seen = [], [], [], [], []
    with frozen(generator):
        for number, first in enumerate(range(0, n, per_batch), 1):
            rows = slice(first, min(first + per_batch, n))
            repeated = x[rows].to(learner.device).repeat_interleave(restarts, 0)
            images, saved = rows.stop - first, max(0, min(keep - first, per_batch, n - first))

            def log_density(z: Tensor, repeated: Images = repeated) -> Tensor:
                return generator.log_joint(repeated, z)

            here = evaluate(log_density, start[rows].flatten(0, 1).to(learner.device))
            draws = DrawnNoise(rng, length, (len(repeated), d), device=learner.device)
            log_scale = here.z.new_zeros(images)
            some: list[Tensor] = []
            heights: list[Tensor] = []
            for k in shown(range(length), f"adjusted chains of 10 K steps, batch {number} of {count}"):
                uniform = torch.rand(len(repeated), generator=rng, device=rng.device).to(here.z)
                s = last * log_scale.exp().repeat_interleave(restarts)[:, None]
                here, acceptance = adjusted_step(log_density, here, s, draws.draw(), uniform)
                share = acceptance.unflatten(0, (images, restarts))
                if k < search:
                    log_scale = log_scale + 2 * (share.mean(1) - BEST_ACCEPTANCE) / math.sqrt(k + 1)
                elif k >= total // 2 - steps:
                    seen.append(torch.stack([share.mean(), -here.log_density.mean()]).double().cpu() * images / n)
                if k in saved_at and saved:
                    some.append(here.z.unflatten(0, (images, restarts))[:saved].cpu())
                    heights.append(here.log_density.unflatten(0, (images, restarts))[:saved].cpu())
            ends.append(here.z.unflatten(0, (images, restarts)).cpu())
            scales.append(log_scale.exp().cpu())
            if saved:
                kept.append(torch.stack(some, dim=2))
                values.append(torch.stack(heights, dim=2))
    acceptance, energy = (torch.stack(seen).sum(0) / (len(seen) / count)).tolist()
    return LongRun(torch.cat(ends), torch.cat(kept), torch.cat(values), torch.cat(scales), acceptance, energy, every)


@torch.no_grad()
def short_ends(
    learner: ChainLearner,
    x: Images,
    rng: torch.Generator,
    steps: int,
    noise: bool,
    restarts: int,
    batch_size: int,
    words: str,
    shown: Shown = silent,
) -> tuple[Float[Tensor, "n restarts d"], int]:
    """Return where `restarts` short runs of each image end, from the prior, and how many of them failed."""
    ends, failed = [], 0
    apart = learner.shares_draws  # the restarts of an image would depend on one another
    for part in shown(x.split(batch_size if apart else max(1, batch_size // restarts)), words):
        rows = repeats(len(part), restarts, apart)
        found = [
            learner.infer(part[some].to(learner.device), rng, steps=steps, noise=noise)
            for some in rows.split(len(part) if apart else batch_size)
        ]
        ends.append(torch.cat([each.z.cpu() for each in found])[rows.argsort(stable=True)].unflatten(0, (-1, restarts)))
        failed += sum(int(each.failed.sum()) for each in found)
    return torch.cat(ends), failed
