"""Metropolis adjustment against closed forms of a Gaussian density, in float64; effective sizes against theory."""

import math
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from shortrun.inference import langevin_step
from shortrun.inference.diagnostics import (
    adjusted_step,
    effective_sizes,
    evaluate,
    log_ratio,
    split_rhat,
)
from shortrun.inference.langevin import LogDensity

D = 3
PRECISION = torch.tensor([[4.0, 1.0, 0.0], [1.0, 9.0, -2.0], [0.0, -2.0, 2.0]], dtype=torch.float64)
CENTRE = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
STEPS = {
    "one": 0.4,
    "of each latent": torch.tensor([0.5, 0.2, 0.7], dtype=torch.float64),
    "of each row": torch.linspace(0.1, 0.6, 9, dtype=torch.float64)[:, None],
}


def log_density(z: Tensor) -> Tensor:
    return -0.5 * ((z - CENTRE) @ PRECISION * (z - CENTRE)).sum(1)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ratio(density: LogDensity, z: Tensor, proposal: Tensor, step_size: float | Tensor) -> Tensor:
    return log_ratio(evaluate(density, z), evaluate(density, proposal), step_size)


def exact(rows: int, seed: int = 0) -> Tensor:
    """Draw from the density itself."""
    return CENTRE + normal(rows, D, seed=seed) @ torch.linalg.cholesky(torch.linalg.inv(PRECISION)).T


@pytest.mark.parametrize("step_size", STEPS.values(), ids=STEPS)
def test_the_ratio_is_that_of_the_two_normal_kernels(step_size: float | Tensor) -> None:
    z, proposal = normal(9, D), normal(9, D, seed=1)

    def log_kernel(to: Tensor, start: Tensor) -> Tensor:
        s = torch.as_tensor(step_size).expand_as(start) if isinstance(step_size, Tensor) else step_size
        drift = start - s**2 / 2 * ((start - CENTRE) @ PRECISION)
        return torch.distributions.Normal(drift, s).log_prob(to).sum(1)

    joint = log_density(proposal) - log_density(z)
    expected = joint + log_kernel(z, proposal) - log_kernel(proposal, z)
    torch.testing.assert_close(ratio(log_density, z, proposal, step_size), expected)


def test_the_ratio_on_a_quadratic_is_its_closed_form() -> None:
    """For -p/2 z^2 in one dimension it is -(s p)^2 / 8 (z'^2 - z^2): no first order in s^2."""
    p, s = 3.0, 0.5
    z, proposal = normal(6, 1), normal(6, 1, seed=1)
    # (z' - az)^2 - (z - az')^2 = (1 - a^2)(z'^2 - z^2) with a = 1 - s^2 p / 2, over 2 s^2, and the densities' -p/2
    a = 1 - s**2 * p / 2
    expected = ((1 - a**2) / (2 * s**2) - p / 2) * (proposal**2 - z**2)[:, 0]
    torch.testing.assert_close(expected, -(s**2) * p**2 / 8 * (proposal**2 - z**2)[:, 0])
    found = ratio(lambda at: -p / 2 * (at**2).sum(1), z, proposal, s)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("step_size", STEPS.values(), ids=STEPS)
def test_a_step_is_langevins_where_accepted_and_none_where_not(step_size: float | Tensor) -> None:
    z, noise = normal(9, D), normal(9, D, seed=1)
    proposal = langevin_step(log_density, z, step_size, noise)
    chance = ratio(log_density, z, proposal, step_size).clamp(max=0).exp()
    here = evaluate(log_density, z)
    made, acceptance = adjusted_step(log_density, here, step_size, noise, (chance - 1e-6).clamp(min=0))
    torch.testing.assert_close(made.z, proposal)
    torch.testing.assert_close(acceptance, chance)
    stayed, _ = adjusted_step(log_density, here, step_size, noise, chance)
    torch.testing.assert_close(stayed.z, z)
    assert not made.z.requires_grad


def test_an_adjusted_chain_keeps_the_density_where_an_unadjusted_one_does_not() -> None:
    n, s = 20_000, 0.45
    start = exact(n)
    here, plain = evaluate(log_density, start), start
    total = 0.0
    for k in range(15):
        noise = normal(n, D, seed=10 + k)
        here, acceptance = adjusted_step(log_density, here, s, noise, uniform(n, seed=100 + k))
        plain = langevin_step(log_density, plain, s, noise)
        total += float(acceptance.mean()) / 15
    assert 0.5 < total < 0.95
    torch.testing.assert_close(here.log_density, log_density(here.z))
    covariance = torch.linalg.inv(PRECISION)
    variance = covariance.diagonal()
    error = ((torch.outer(variance, variance) + covariance**2) / n).sqrt()
    assert ((here.z.mean(0) - CENTRE).abs() < 4.5 * (variance / n).sqrt()).all()
    assert ((torch.cov(here.z.T) - covariance).abs() < 4.5 * error).all()
    assert ((torch.cov(plain.T) - covariance).abs() > 10 * error).any()


def test_steps_of_each_row_adjust_each_row_alone() -> None:
    z, noise, draw = normal(9, D), normal(9, D, seed=1), uniform(9)
    step = STEPS["of each row"]
    assert isinstance(step, Tensor)
    together, _ = adjusted_step(log_density, evaluate(log_density, z), step, noise, draw)
    alone = []
    for i in range(9):
        row, here = slice(i, i + 1), evaluate(log_density, z[i : i + 1])
        alone.append(adjusted_step(log_density, here, float(step[i]), noise[row], draw[row])[0].z)
    torch.testing.assert_close(together.z, torch.cat(alone))


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_a_proposal_of_no_density_is_rejected(bad: float) -> None:
    def walled(z: Tensor) -> Tensor:
        return torch.where(z[:, 0] > 0, z[:, 0] * 0 + bad, log_density(z))

    z = torch.full((4, D), -0.01, dtype=torch.float64)
    noise = torch.full((4, D), 5.0, dtype=torch.float64)
    made, acceptance = adjusted_step(walled, evaluate(walled, z), 0.5, noise, torch.zeros(4, dtype=torch.float64))
    assert torch.equal(made.z, z)
    assert (acceptance == 0).all()


def autoregressive(rho: float, chains: int, draws: int, slots: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    z = [rng.standard_normal((chains, slots))]
    for _ in range(draws - 1):
        z.append(rho * z[-1] + math.sqrt(1 - rho**2) * rng.standard_normal((chains, slots)))
    return np.stack(z, axis=1)


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_effective_sizes_of_an_autoregressive_chain(rho: float) -> None:
    draws = autoregressive(rho, 8, 500, 6)
    found = effective_sizes(draws)
    assert found.shape == (6,)
    assert np.median(found) == pytest.approx(8 * 500 * (1 - rho) / (1 + rho), rel=0.15)
    assert effective_sizes(draws.reshape(8, 500, 2, 3)).shape == (2, 3)
    assert np.array_equal(effective_sizes(draws[:, :, 1]), found[1])


def test_rhat_is_one_for_chains_that_agree_and_says_which_slot_does_not() -> None:
    draws = autoregressive(0.2, 4, 300, 3)
    assert split_rhat(draws).max() < 1.02
    draws[0, :, 1] += 3  # one chain in another mode
    draws[:, 150:, 2] += 3  # a drift, which split halves see
    found = split_rhat(draws)
    assert found[0] < 1.02
    assert found[1] > 1.3
    assert found[2] > 1.3


@pytest.mark.parametrize("measure", [effective_sizes, split_rhat])
def test_without_arviz_stats_it_says_so(monkeypatch: pytest.MonkeyPatch, measure: object) -> None:
    monkeypatch.setitem(sys.modules, "arviz_stats.base.array", None)
    monkeypatch.setitem(sys.modules, "arviz_stats", None)
    assert callable(measure)
    with pytest.raises(ModuleNotFoundError, match="arviz_stats"):
        measure(np.zeros((2, 8)))
