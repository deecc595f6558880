"""The chains that a diagnosis measures: the learner's own, to their end at K and followed far beyond it."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from shortrun.inference import DrawnNoise
from shortrun.inference.diagnostics import evaluate, log_ratio
from shortrun.inference.langevin import LogDensity, langevin_update
from shortrun.learners import ChainLearner, frozen
from shortrun.model.likelihood import Images
from shortrun.pixels import mse
from shortrun.progress import Shown, silent

LONG = 10
"""A long chain is so many times K steps long."""


def layer_names(layers: int) -> list[str]:
    """Return what the layers are called, top down: layer 3 (top), layer 2, layer 1."""
    return [f"layer {number}" + (" (top)" if number == layers > 1 else "") for number in range(layers, 0, -1)]


@dataclass(frozen=True)
class ChainSettings:
    """Which chains are measured, and how: of a learner, `steps` long (K), with noise or without."""

    learner: ChainLearner
    steps: int
    noise: bool
    batch_size: int = 500
    """Chains at a time."""
    shown: Shown = silent

    @property
    def length(self) -> int:
        """Steps of a long chain, 10 K."""
        return LONG * self.steps

    def step_sizes(self) -> list[Float[Tensor, "1 d"]]:
        """Return the step sizes of a short run, K of them."""
        return list(self.learner.step_size(self.steps))

    def log_joint(self, x: Images) -> LogDensity:
        """Return the density that chains of images x, (n, c, h, w), follow: z -> log p(x, z)."""
        return lambda z: self.learner.generator.log_joint(x, z)


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


def recorded_steps(steps: int, length: int) -> list[int]:
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
def walk(chain: ChainSettings, x: Images, rng: torch.Generator, restarts: int, words: str) -> Walk:
    """Run chains of 10 K steps, `restarts` for each image, and record energy, error and acceptance on the way.

    The first K steps are the short run; the chain goes on with its last step size. No chain is started again. For the
    meaning of the records see Trace. words: say which images these are.
    """
    own, recorded = chain.step_sizes(), recorded_steps(chain.steps, chain.length)
    sizes = own + own[-1:] * (chain.length - chain.steps)
    batches = x.split(max(1, chain.batch_size // restarts))
    with frozen(chain.learner.generator):
        kept = [
            _walked(chain, part, rng, restarts, sizes, recorded, f"{words}, batch {number} of {len(batches)}")
            for number, part in enumerate(batches, 1)
        ]
    energy, error, acceptance = torch.cat(kept, dim=2).double().transpose(0, 1)
    return Walk(recorded, energy, error, acceptance)


def _walked(
    chain: ChainSettings,
    x: Images,
    rng: torch.Generator,
    restarts: int,
    sizes: list[Float[Tensor, "1 d"]],
    recorded: list[int],
    words: str,
) -> Float[Tensor, "k 3 n restarts"]:
    """Return energy, error and acceptance of the chains of one batch at the steps that are recorded."""
    learner, generator = chain.learner, chain.learner.generator
    repeated = x.to(learner.device).repeat_interleave(restarts, 0)
    draws = DrawnNoise(rng, chain.length, (len(repeated), generator.dim), device=learner.device)
    start = learner.start(repeated, draws)
    # the chain climbs log p(x, z, c) with c held, and its energy is -log p(x, z)
    log_density, log_joint = learner.log_density(repeated, start.component), chain.log_joint(repeated)
    here, rows, since = evaluate(log_density, start.z), [], []
    for k in chain.shown(range(chain.length + 1), f"chains up to 10 K {words}"):
        s = sizes[min(k, chain.length - 1)]
        eps = draws.draw() if chain.noise else torch.zeros_like(here.z)
        there = evaluate(log_density, langevin_update(here.z, here.score, s, eps))
        since.append(log_ratio(here, there, s).clamp(max=0).exp())
        if k in recorded:
            decoded = generator.likelihood.mean(generator.decoder(*generator.split(here.z))).float()
            error = mse(decoded.clamp(-1, 1), repeated)
            accepted, since = torch.stack(since).mean(0), []
            energy = -here.log_density if generator.prior.standard else -log_joint(here.z)
            each = torch.stack([energy.float(), error.float(), accepted.float()])
            rows.append(each.unflatten(1, (len(x), restarts)).cpu())
        here = there
    return torch.stack(rows)


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


@torch.no_grad()
def short_ends(
    chain: ChainSettings, x: Images, rng: torch.Generator, restarts: int, words: str
) -> tuple[Float[Tensor, "n restarts d"], int]:
    """Return where `restarts` short runs of each image end, from the prior, and how many of them failed."""
    learner, ends, failed = chain.learner, [], 0
    apart = learner.shares_draws  # the restarts of an image would depend on one another
    for part in chain.shown(x.split(chain.batch_size if apart else max(1, chain.batch_size // restarts)), words):
        rows = repeats(len(part), restarts, apart)
        found = [
            learner.infer(part[some].to(learner.device), rng, steps=chain.steps, noise=chain.noise)
            for some in rows.split(len(part) if apart else chain.batch_size)
        ]
        ends.append(torch.cat([each.z.cpu() for each in found])[rows.argsort(stable=True)].unflatten(0, (-1, restarts)))
        failed += sum(int(each.failed.sum()) for each in found)
    return torch.cat(ends), failed
