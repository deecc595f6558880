"""The step size of a wanted acceptance against an independent Monte Carlo at stationarity, for a Gaussian target."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from tuning_problems import STARTS, logs, normal

from shortrun.inference.acceptance import Rates, acceptance, acceptance_move, acceptance_rates
from shortrun.inference.diagnostics import BEST_ACCEPTANCE
from shortrun.inference.tuning import Space

LATENTS = (2, 4)
D, N, STEPS = 6, 200, 30
PRECISION = torch.diag(torch.tensor([1.0, 4.0, 9.0, 2.0, 16.0, 5.0])).double() + 0.5
CENTRE = torch.linspace(-1, 1, D).double()


def log_density(z: Tensor) -> Tensor:
    return -0.5 * (((z - CENTRE) @ PRECISION) * (z - CENTRE)).sum(1)


def rates_of(space: Space, n: int = N) -> Rates:
    z, noise = normal(n, D, seed=0), normal(STEPS, n, D, seed=1)
    adjusted = normal(STEPS, n, D, seed=2)
    uniforms = torch.rand(STEPS, n, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def rates(settings: Tensor) -> Tensor:
        return acceptance_rates(log_density, z, space.sizes(settings, STEPS), noise, adjusted, uniforms)

    return rates


def stationary(s: np.ndarray, n: int = 100_000) -> float:
    """Mean acceptance of a step from the density itself; s (d,)."""
    rng, precision = np.random.default_rng(0), PRECISION.numpy()
    z = rng.standard_normal((n, D)) @ np.linalg.cholesky(np.linalg.inv(precision)).T
    proposal = z - s**2 / 2 * (z @ precision) + s * rng.standard_normal((n, D))

    def energy(at: np.ndarray) -> np.ndarray:
        return 0.5 * ((at @ precision) * at).sum(1)

    def kernel(to: np.ndarray, start: np.ndarray) -> np.ndarray:
        return -0.5 * (((to - start + s**2 / 2 * (start @ precision)) / s) ** 2).sum(1)

    ratio = energy(z) - energy(proposal) + kernel(z, proposal) - kernel(proposal, z)
    return float(np.exp(np.minimum(ratio, 0)).mean())


def test_from_any_start_the_target_is_met() -> None:
    space, found = Space("one", LATENTS), []
    rates = rates_of(space)
    for start in STARTS:
        tuned = acceptance(rates, logs(start))
        found.append(float(tuned.settings[0]))
        assert tuned.improved
        assert tuned.value < 0.005 < tuned.start
        assert float(rates(tuned.settings).mean()) == pytest.approx(BEST_ACCEPTANCE, abs=0.005)
        assert stationary(np.full(D, math.exp(found[-1]))) == pytest.approx(BEST_ACCEPTANCE, abs=0.03)
    assert max(found) - min(found) < 0.02
    # the Monte Carlo tells step sizes apart
    assert stationary(np.full(D, 1.2 * math.exp(found[0]))) < BEST_ACCEPTANCE - 0.05


@pytest.mark.parametrize("target", [0.7, 0.9])
def test_other_targets(target: float) -> None:
    tuned = acceptance(rates_of(Space("one", LATENTS)), logs(0.1), target)
    assert stationary(np.full(D, float(tuned.settings[0].exp()))) == pytest.approx(target, abs=0.03)


@pytest.mark.parametrize("first", STARTS)
def test_steps_of_layers_move_by_one_factor(first: float) -> None:
    start = logs(first, 0.4 * first)
    tuned = acceptance(rates_of(Space("layers", LATENTS)), start)
    assert float(tuned.settings[0] - tuned.settings[1]) == pytest.approx(-math.log(0.4))
    each = tuned.settings.exp().numpy()
    assert stationary(np.repeat(each, LATENTS)) == pytest.approx(BEST_ACCEPTANCE, abs=0.03)


def test_started_where_the_target_is_met_it_says_that_nothing_is_better() -> None:
    rates = rates_of(Space("one", LATENTS))
    met = logs(0.37)
    tuned = acceptance(rates, met, target=float(rates(met).mean()))
    assert not tuned.improved
    assert torch.equal(tuned.settings, met)
    assert tuned.value == tuned.start == 0


@pytest.mark.parametrize("s", [0.001, 0.1, 0.4, 1.0, 10.0, 1e200])
def test_rates_are_shares_of_each_image(s: float) -> None:
    rates = rates_of(Space("one", LATENTS), n=17)(logs(s))
    assert rates.shape == (17,)
    assert ((rates >= 0) & (rates <= 1)).all()
    if s == 0.001:
        assert (rates > 0.99).all()
    if s >= 10:
        assert (rates < 1e-3).all()


def test_a_chain_that_diverged_counts_nothing() -> None:
    """Every second image has a density that is no number, or one so steep that the run leaves all bounds."""
    bad = torch.arange(8) % 2 == 0
    weight = torch.where(bad, torch.tensor([math.nan, 0, 1e30, 0, math.nan, 0, 1e30, 0]), 1.0).double()

    def walled(z: Tensor) -> Tensor:
        return -0.5 * weight * (z**2).sum(1)

    z, noise = normal(8, D, seed=0), normal(STEPS, 8, D, seed=1)
    uniforms = torch.rand(STEPS, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    rates = acceptance_rates(walled, z, 0.5, noise, noise, uniforms)
    assert (rates[bad] == 0).all()
    assert (rates[~bad] > 0.5).all()


def test_the_last_step_of_a_schedule_is_what_is_judged() -> None:
    z, noise = normal(N, D, seed=0), normal(STEPS, N, D, seed=1)
    uniforms = torch.rand(STEPS, N, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    falling = torch.linspace(0.5, 0.05, STEPS).double()[:, None, None].expand(-1, 1, D)
    rates = acceptance_rates(log_density, z, falling, noise, noise, uniforms)
    assert float(rates.mean()) > 0.97 > 0.6 > stationary(np.full(D, 0.5))


def test_moves_come_to_the_target_and_stay() -> None:
    space = Space("one", LATENTS)
    best = float(acceptance(rates_of(space), logs(0.1)).settings[0])
    for start in (0.01, 1.0):
        at = logs(start)
        for k in range(25):
            before = at
            at = acceptance_move(rates_of(space, n=24 + k), at)
            assert abs(float(at - before)) <= 0.3 + 1e-12
            if k > 15:
                assert abs(float(at) - best) < 0.15
    torch.testing.assert_close(acceptance_move(lambda at: torch.zeros(4), logs(0.5)), logs(0.5) - 0.3)
    torch.testing.assert_close(acceptance_move(lambda at: torch.ones(4), logs(0.5, 0.2)), logs(0.5, 0.2) + 0.3)
