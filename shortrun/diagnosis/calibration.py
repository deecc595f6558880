"""Simulation-based calibration: are the truth's ranks among the draws uniform, where the truth is known?

Source: Talts et al., "Validating Bayesian Inference Algorithms with Simulation-Based Calibration", 2018,
arXiv 1804.06788; log p(x, z) as a statistic: Modrak et al., "Simulation-Based Calibration Checking for Bayesian
Computation", 2023, arXiv 2211.02383.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from shortrun.diagnosis.chains import ChainSettings, layer_names, repeats, walk
from shortrun.model import TopDown
from shortrun.progress import Shown, silent

Sampler = Callable[[Tensor, torch.Generator], Tensor]
"""(x, rng) -> z, (n, d): one draw of the inferred latents for each image."""
SIGNIFICANT = 0.01
"""Ranks are not uniform where the adjusted p-value is below this."""


class Statistic(StrEnum):
    """What of the latents is ranked."""

    PROJECTION_1 = "projection 1"
    PROJECTION_2 = "projection 2"
    PROJECTION_3 = "projection 3"
    PROJECTION_4 = "projection 4"
    NORM = "norm"
    LOG_JOINT = "log p(x, z)"


PROJECTIONS = (Statistic.PROJECTION_1, Statistic.PROJECTION_2, Statistic.PROJECTION_3, Statistic.PROJECTION_4)
"""A layer's coordinates along as many random directions."""


@dataclass(frozen=True)
class Ranks:
    """The ranks of one statistic of the true latents among the draws'."""

    name: Statistic
    ranks: list[int]
    """0 to B, one for each simulation."""
    histogram: list[int]
    p_value: float
    """Of the chi-square test that the ranks are uniform."""


@dataclass(frozen=True)
class LayerRanks:
    """All statistics of one layer, or log p(x, z), which is of all of them."""

    name: str
    statistics: list[Ranks]
    histogram: list[int]
    """Of the projections together; of the one statistic where there are none."""
    p_value: float
    """The smallest of the statistics', times their number (Bonferroni), at most 1."""
    p_adjusted: float
    """The same, times the number of layers and log p(x, z): what to judge by."""
    spread: float
    """Variance of the ranks over that of uniform ones: above 1 the draws are too narrow, below too wide."""
    shift: float
    """Mean of the ranks as a share of B, less 1/2, of the statistic that is furthest off: 0 for no bias."""
    shifted: Statistic
    """That statistic."""


@dataclass(frozen=True)
class Calibration:
    """Simulation-based calibration of an inference."""

    draws: int
    """B, short runs for each simulated image; ranks go from 0 to B."""
    simulations: int
    bins: int
    layers: list[LayerRanks]
    """Top down, and log p(x, z) last; none where no simulation had finite draws."""


def ranks_among(truth: Float[Tensor, "n"], draws: Float[Tensor, "n b"]) -> Int[Tensor, "n"]:
    """Return how many of each row's draws are below its truth, 0 to B."""
    return (draws < truth[:, None]).sum(1)


def chi_square(histogram: Int[Tensor, "bins"]) -> float:
    """Return the p-value of the chi-square test that all bins are equally likely."""
    from scipy.stats import chisquare

    return float(chisquare(histogram.numpy()).pvalue)


def choose_bins(simulations: int, draws: int) -> int:
    """Return the most bins that divide the B + 1 ranks equally and hold 16 simulations each; at least 2."""
    possible = [bins for bins in range(2, draws + 2) if (draws + 1) % bins == 0]
    return max([bins for bins in possible if simulations >= 16 * bins] or possible[:1])


def judge_layer(name: str, ranks: dict[Statistic, Int[Tensor, "n"]], draws: int, bins: int, layers: int) -> LayerRanks:
    """Reduce the ranks of the statistics of a layer: test each, and say how far they spread and lean."""
    statistics = []
    for each, values in ranks.items():
        histogram = torch.bincount(values * bins // (draws + 1), minlength=bins)
        statistics.append(Ranks(each, values.tolist(), histogram.tolist(), chi_square(histogram)))
    shares = {each: values.double() / draws for each, values in ranks.items()}
    pooled = [each for each in ranks if each in PROJECTIONS] or list(ranks)
    # the variance of a rank that is uniform on 0..B, as a share of B
    uniform = (draws + 2) / (12 * draws)
    spread = torch.stack([shares[each].var() for each in pooled]).mean() / uniform
    leans = {each: float(share.mean()) - 0.5 for each, share in shares.items()}
    shifted = max(leans, key=lambda each: abs(leans[each]))
    p_value = min(1.0, len(statistics) * min(one.p_value for one in statistics))
    together = torch.tensor([one.histogram for one in statistics if one.name in pooled]).sum(0).tolist()
    p_adjusted = min(1.0, layers * p_value)
    return LayerRanks(name, statistics, together, p_value, p_adjusted, float(spread), leans[shifted], shifted)


class Width(Enum):
    """How the spread of draws compares with that of the posterior, where it clearly differs."""

    NARROW = "draws too narrow"
    WIDE = "draws too wide"


class Bias(NamedTuple):
    """The statistic whose truth lies to one side of its draws."""

    statistic: Statistic
    above: bool
    """Whether the truth is above the draws."""


@dataclass(frozen=True)
class Shape:
    """What the ranks of a layer say of the draws; uniform is what is not clearly otherwise."""

    uniform: bool
    width: Width | None = None
    """None where the draws are neither too narrow nor too wide."""
    bias: Bias | None = None

    @property
    def title(self) -> str:
        """The shape in a few words."""
        return self._said("biased")

    @property
    def words(self) -> str:
        """The shape in words, with the statistic that is biased and its direction."""
        if self.bias is None:
            return self._said("")
        side = "above" if self.bias.above else "below"
        return self._said(f"biased: the true {self.bias.statistic} is {side} the draws'")

    def _said(self, bias: str) -> str:
        if self.uniform:
            return "uniform"
        parts = ([] if self.width is None else [self.width.value]) + ([] if self.bias is None else [bias])
        return ", ".join(parts) or "not uniform"


def shape_of(layer: LayerRanks, simulations: int) -> Shape:
    """Return what the ranks of a layer show: uniform draws, too narrow, too wide or biased ones."""
    if layer.p_adjusted >= SIGNIFICANT:
        return Shape(uniform=True)
    noise = math.sqrt(1 / (12 * simulations))
    biased = abs(layer.shift) > max(0.1, 3 * noise)
    width = None
    if layer.spread > 1.15:
        width = Width.NARROW
    # a bias piles ranks up at one end, which narrows them too
    elif layer.spread < 0.85 and not (biased and layer.shifted is not Statistic.NORM):
        width = Width.WIDE
    return Shape(False, width, Bias(layer.shifted, layer.shift > 0) if biased else None)


@dataclass(frozen=True)
class Gap:
    """Energies -log p(x, z) on simulated images, where the latents that made an image are an exact posterior draw."""

    images: int
    k: list[int]
    gap: list[float]
    """The chain's mean energy at k less that of the true latents, in nats: 0 for chains that sample the posterior."""
    error: list[float]
    """Its standard error over images."""
    finite: int
    """Images whose chain stayed finite: the others are left out."""


@torch.no_grad()
def energy_gap(chain: ChainSettings, rng: torch.Generator, simulations: int) -> Gap:
    """Return how far the energies of chains on simulated images are from those of the latents that made the images.

    z* is drawn from the prior and x from p(x | z*); 10 K steps are run on each x.

    chain: what is run.
    rng: gives the random numbers.
    simulations: how many z*.
    """
    generator = chain.learner.generator
    truth = generator.prior.sample(simulations, rng, device=chain.learner.device)
    x, energy = [], []
    for z in truth.split(chain.batch_size):
        x.append(generator.likelihood.sample(generator.decoder(*generator.split(z)), rng))
        energy.append(-generator.log_joint(x[-1], z).double().cpu())
    seen = walk(chain, torch.cat(x), rng, 1, "on simulated images")
    above = seen.energy[:, :, 0] - torch.cat(energy)
    above = above[:, torch.isfinite(above).all(0)]
    finite = above.shape[1]
    error = above.std(1) / math.sqrt(finite) if finite > 1 else torch.full_like(above.mean(1), math.nan)
    return Gap(simulations, seen.k, above.mean(1).tolist(), error.tolist(), finite)


@torch.no_grad()
def calibrate(
    generator: TopDown,
    sampler: Sampler,
    rng: torch.Generator,
    simulations: int = 256,
    draws: int = 31,
    batch_size: int = 500,
    shown: Shown = silent,
    once: bool = False,
) -> Calibration:
    """Return how the latents of simulated images rank among the latents that are inferred of them.

    z* is drawn from the prior and x from p(x | z*), z is inferred from x several times, and z* is ranked among what is
    inferred. Where the inference is exact, the rank of any statistic of (z, x) is uniform on 0..B. The statistics are,
    for each layer, its coordinates in some random directions and its norm, and log p(x, z). Simulations where any draw
    is non-finite are left out. Images and latents are on the device of the generator's weights.

    generator: p(x, z).
    sampler: (x, rng) -> z, one draw for each image.
    rng: gives the random numbers.
    simulations: how many z*.
    draws: B, inferred from each x.
    batch_size: at least 1, images at a time.
    shown: called with a sequence of work and words for it, returns it, to show progress.
    once: whether the sampler is never called with an image twice, for one that shares random numbers among its images.
    """
    device = next(generator.parameters()).device
    dtype = next(generator.parameters()).dtype
    directions = [
        torch.nn.functional.normalize(torch.randn(size, len(PROJECTIONS), generator=rng, dtype=dtype), dim=0)
        for size in generator.latents
    ]
    found: list[Tensor] = []
    per_batch = batch_size if once else max(1, batch_size // draws)
    for part in shown(torch.arange(simulations).split(per_batch), "calibration on simulated images"):
        truth = generator.prior.sample(len(part), rng, dtype, device)
        x = generator.likelihood.sample(generator.decoder(*generator.split(truth)), rng)
        rows = repeats(len(x), draws, once).to(device)
        repeated, order = x[rows], rows.argsort(stable=True)
        inferred = torch.cat([sampler(some, rng) for some in repeated.split(len(x) if once else batch_size)])
        at_truth = _statistics(generator, truth, x, directions)
        at_draws = _statistics(generator, inferred, repeated, directions)[:, order].unflatten(1, (-1, draws))
        ranks = torch.stack([ranks_among(one, many) for one, many in zip(at_truth, at_draws, strict=True)])
        # a rank among draws of which one is not finite is no rank
        found.append(ranks[:, torch.isfinite(at_draws).all(2).all(0)].cpu())
    ranks = torch.cat(found, dim=1)
    kept = ranks.shape[1]
    if not kept:
        return Calibration(draws, 0, 0, [])
    bins = choose_bins(kept, draws)
    groups = {
        name: dict(zip([*PROJECTIONS, Statistic.NORM], rows, strict=True))
        for name, rows in zip(layer_names(len(generator.latents)), ranks[:-1].split(len(PROJECTIONS) + 1), strict=True)
    }
    groups[Statistic.LOG_JOINT.value] = {Statistic.LOG_JOINT: ranks[-1]}
    layers = [judge_layer(name, group, draws, bins, len(groups)) for name, group in groups.items()]
    return Calibration(draws, kept, bins, layers)


def _statistics(generator: TopDown, z: Tensor, x: Tensor, directions: list[Tensor]) -> Float[Tensor, "statistics n"]:
    """Return the statistics of rows of latents: each layer's projections and norm, and log p(x, z)."""
    rows: list[Tensor] = []
    for layer, towards in zip(generator.split(z), directions, strict=True):
        rows += [*(layer @ towards.to(layer)).T, layer.norm(dim=1)]
    return torch.stack([*rows, generator.log_joint(x, z)])
