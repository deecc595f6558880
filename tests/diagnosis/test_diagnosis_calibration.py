"""Simulation-based calibration on x ~ N(W z, sigma^2 I), whose posterior can be drawn from exactly, in float64."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from shortrun.diagnosis.calibration import (
    Bias,
    Calibration,
    Shape,
    Statistic,
    Width,
    calibrate,
    chi_square,
    choose_bins,
    energy_gap,
    judge_layer,
    ranks_among,
    shape_of,
)
from shortrun.diagnosis.chains import ChainSettings
from shortrun.inference import StepSize
from shortrun.learners import ShortRun
from shortrun.model import Gaussian, TopDown

LATENTS, PIXELS, SIGMA = (2, 3), 6, 0.8


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(0.7 * torch.randn(PIXELS, sum(LATENTS), generator=rng, dtype=torch.float64))

    def forward(self, *z: Tensor) -> Tensor:
        return (torch.cat(z, dim=1) @ self.weight.T)[:, None, None, :]


DECODER = Linear()
WEIGHT = DECODER.weight.detach()
GENERATOR = TopDown(DECODER, Gaussian(SIGMA).double(), LATENTS)


def posterior(wider: float, off: Tensor | float = 0.0) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Return a sampler of the exact posterior, its standard deviations times `wider`, its mean `off` of them away."""
    w = WEIGHT
    precision = torch.eye(sum(LATENTS), dtype=torch.float64) + w.T @ w / SIGMA**2
    covariance = torch.linalg.inv(precision)
    root, deviation = torch.linalg.cholesky(covariance), covariance.diagonal().sqrt()

    def sampler(x: Tensor, rng: torch.Generator) -> Tensor:
        mean = x.flatten(1) @ w @ covariance / SIGMA**2
        noise = torch.randn(len(x), sum(LATENTS), generator=rng, dtype=torch.float64)
        return mean + off * deviation + wider * noise @ root.T

    return sampler


def calibration(sampler: Callable[[Tensor, torch.Generator], Tensor], seed: int = 0) -> Calibration:
    return calibrate(GENERATOR, sampler, torch.Generator().manual_seed(seed), simulations=400, draws=31)


def shapes(found: Calibration) -> list[str]:
    return [shape_of(layer, found.simulations).words for layer in found.layers]


@pytest.mark.parametrize("seed", range(5))
def test_an_exact_sampler_is_calibrated(seed: int) -> None:
    found = calibration(posterior(1.0), seed)
    assert [layer.name for layer in found.layers] == ["layer 2 (top)", "layer 1", "log p(x, z)"]
    assert (found.simulations, found.draws, found.bins) == (400, 31, 16)
    assert shapes(found) == ["uniform"] * 3
    for layer in found.layers:
        assert layer.spread == pytest.approx(1, abs=0.15)
        assert abs(layer.shift) < 0.06
        for one in layer.statistics:
            assert sum(one.histogram) == len(one.ranks) == 400
            assert 0 <= min(one.ranks) <= max(one.ranks) <= 31


def test_p_values_of_exact_samplers_are_not_small_too_often() -> None:
    values = [min(layer.p_value for layer in calibration(posterior(1.0), seed).layers) for seed in range(20, 50)]
    assert sum(value < 0.05 / 3 for value in values) <= 4  # at most 0.05 of 30 are expected


def test_a_narrow_a_wide_and_a_biased_sampler_are_told_apart() -> None:
    narrow = calibration(posterior(0.6))
    assert all(shape.startswith("draws too narrow") for shape in shapes(narrow)[:2])
    assert all(layer.spread > 1.2 for layer in narrow.layers[:2])
    assert narrow.layers[2].shift < -0.2  # they sit too near the mode: log p(x, z) of the truth is below theirs
    wide = calibration(posterior(1.7))
    assert all(shape.startswith("draws too wide") for shape in shapes(wide)[:2])
    assert wide.layers[2].shift > 0.2
    off = torch.tensor([0.0, 0.0, 1.2, 1.2, 1.2], dtype=torch.float64)
    biased = calibration(posterior(1.0, off))
    assert shapes(biased)[0] == "uniform"
    assert "biased: the true projection" in shapes(biased)[1]


def test_the_draws_of_simulations_that_failed_are_left_out() -> None:
    exact = posterior(1.0)

    def failing(x: Tensor, rng: torch.Generator) -> Tensor:
        z = exact(x, rng)
        return torch.where(x[:, 0, 0, :1] > 1, torch.nan, z)

    found = calibration(failing)
    assert 100 < found.simulations < 400
    assert all(len(one.ranks) == found.simulations for layer in found.layers for one in layer.statistics)
    nothing = calibration(lambda x, rng: exact(x, rng) * torch.nan)
    assert (nothing.simulations, nothing.layers) == (0, [])


def test_a_sampler_that_shares_its_draws_sees_an_image_once_in_a_call() -> None:
    exact, calls = posterior(1.0), []

    def sampler(x: Tensor, rng: torch.Generator) -> Tensor:
        calls.append(len(x))
        assert len(torch.unique(x.flatten(1), dim=0)) == len(x)
        return exact(x, rng)

    found = calibrate(GENERATOR, sampler, torch.Generator().manual_seed(0), 300, 31, batch_size=200, once=True)
    assert calls == [200] * 31 + [100] * 31
    assert shapes(found) == ["uniform"] * 3


def test_ranks_count_the_draws_below() -> None:
    truth, draws = torch.tensor([0.5, -1.0, 9.0]), torch.tensor([[0.0, 1.0, 0.4], [0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    assert ranks_among(truth, draws).tolist() == [2, 0, 3]


@pytest.mark.parametrize("counts", [[16, 16], [10, 20, 30, 5], [100, 0, 0, 0, 0, 0, 0, 0]])
def test_the_chi_square_is_scipys(counts: list[int]) -> None:
    assert chi_square(torch.tensor(counts)) == pytest.approx(stats.chisquare(counts).pvalue)


@pytest.mark.parametrize(
    ("simulations", "draws", "bins"), [(256, 31, 16), (512, 31, 32), (40, 31, 2), (5, 31, 2), (200, 9, 10)]
)
def test_bins_divide_the_ranks_and_are_filled(simulations: int, draws: int, bins: int) -> None:
    assert choose_bins(simulations, draws) == bins


def test_uniform_ranks_have_a_spread_of_one_and_no_shift() -> None:
    ranks = torch.arange(32).repeat(50)
    layer = judge_layer("layer 1", {Statistic.PROJECTION_1: ranks, Statistic.NORM: ranks}, 31, 16, 2)
    assert layer.spread == pytest.approx(1, abs=1e-3)
    assert layer.shift == pytest.approx(0)
    assert layer.p_adjusted == 1


def test_the_gap_on_simulated_images_is_that_of_the_linear_model() -> None:
    """The chain's moments are known; with a small step it has the posterior's energy, at k = 0 the prior's."""
    learner = ShortRun(TopDown(Linear().float(), Gaussian(SIGMA), LATENTS), steps=40, step_size=0.25)
    n = 1500
    found = energy_gap(ChainSettings(learner, 40, True), torch.Generator().manual_seed(0), n)
    assert (found.images, found.finite, found.k[-1]) == (n, n, 400)
    w = WEIGHT
    precision = torch.eye(sum(LATENTS), dtype=torch.float64) + w.T @ w / SIGMA**2
    # at k = 0, z and the truth z* are independent draws of the prior: E |W (z* - z)|^2 / (2 sigma^2)
    start = float((w**2).sum()) / SIGMA**2
    assert found.gap[0] == pytest.approx(start, abs=4 * found.error[0])
    # at rest a step of s has variance 1 / (l (1 - s^2 l / 4)) along each curvature l
    curvature = torch.linalg.eigvalsh(precision)
    at_rest = float((0.5 / (1 - 0.25**2 * curvature / 4) - 0.5).sum())
    assert sum(found.gap[-10:]) / 10 == pytest.approx(at_rest, abs=4 * found.error[-1])
    assert found.error[-1] == pytest.approx(math.sqrt(sum(LATENTS) / n), rel=0.3)
    learner.step_size = StepSize(30.0, LATENTS)
    assert energy_gap(ChainSettings(learner, 40, True), torch.Generator().manual_seed(0), 10).finite == 0


def test_a_shape_has_a_short_title_and_words_that_name_the_statistic() -> None:
    both = Shape(False, Width.NARROW, Bias(Statistic.PROJECTION_2, above=True))
    assert both.title == "draws too narrow, biased"
    assert both.words == "draws too narrow, biased: the true projection 2 is above the draws'"
    for said, shape in {
        "uniform": Shape(True),
        "not uniform": Shape(False),
        "draws too wide": Shape(False, Width.WIDE),
    }.items():
        assert shape.title == shape.words == said
