"""Estimators from few Hessian-vector products against the dense ones, on problems where those are exact or cheap."""

from collections.abc import Callable

import pytest
import torch
from stochastic_problems import SIZES, STEPS, Decoder, chain, estimate, quadratic, seeded
from torch import Tensor

from shortrun.errors import InputError
from shortrun.inference import products as hessian
from shortrun.inference import quadrature, subspace
from shortrun.inference.divergence import ChainDensity, Conditional, Marginal, follow
from shortrun.inference.initial import Initial
from shortrun.inference.jacobian import Linearized, Step
from shortrun.inference.stochastic import LanczosConditional, log_det, weighted_median
from shortrun.inference.subspace import SubspaceMarginal


@pytest.mark.parametrize("step_size", SIZES.values(), ids=SIZES.keys())
def test_with_as_many_products_as_latents_both_are_the_dense_ones(step_size: float | Tensor) -> None:
    log_density, (z, noise) = quadratic(torch.linspace(1.5, 30, 9)), chain(9)
    lanczos = LanczosConditional(seeded(), probes=3, depth=3, every=1)
    assert torch.allclose(
        estimate(lanczos, log_density, step_size, z, noise).kl,
        estimate(Conditional(), log_density, step_size, z, noise).kl,
        rtol=1e-9,
    )
    subspace = SubspaceMarginal(seeded(), rank=9, stiff=9, whole=STEPS)
    assert torch.allclose(
        estimate(subspace, log_density, step_size, z, noise).kl,
        estimate(Marginal(), log_density, step_size, z, noise).kl,
        rtol=1e-7,
    )


def test_few_stiff_directions_and_the_rest_at_the_prior_need_a_small_rank() -> None:
    d = 60
    eigenvalues = torch.cat([torch.tensor([80.0, 40.0, 25.0, 9.0, 4.0]), torch.ones(d - 5)])
    log_density, (z, noise) = quadratic(eigenvalues), chain(d)
    for whole, stiff in ((STEPS, 5), (3, 2)):
        found = estimate(SubspaceMarginal(seeded(), 5, stiff, whole), log_density, 0.15, z, noise)
        assert torch.allclose(found.kl, estimate(Marginal(), log_density, 0.15, z, noise).kl, rtol=1e-6)
    found = estimate(LanczosConditional(seeded(), 3, 4, every=3), log_density, 0.15, z, noise)
    assert torch.allclose(found.kl, estimate(Conditional(), log_density, 0.15, z, noise).kl, rtol=1e-6)


@pytest.mark.parametrize("depth", [2, 3])
def test_the_quadrature_is_unbiased_on_a_known_spectrum(depth: int) -> None:
    d, rows = 50, 4000
    eigenvalues = torch.linspace(
        0.2, 3.0, d
    )  # no stiff ones: nothing converges, the plain quadrature is what is tested
    log_density, (z, noise) = quadratic(eigenvalues), chain(d, 1, rows)
    step = Step(log_density, z, torch.full((1, 1), 0.5, dtype=torch.float64), noise[0])
    found = log_det(step, 2, depth, seeded())
    exact = torch.log1p(-0.125 * eigenvalues).sum()
    assert (found.mean() - exact).abs() < 4 * found.std() / rows**0.5 + 2e-3 * exact.abs()  # the quadrature's own error
    assert found.std() > 0


D = 300
SPECTRA = {
    "slow decay": (1 + 100 * 0.985 ** torch.arange(D), 0.05, 0.5),
    "slow decay, longer steps": (1 + 100 * 0.985 ** torch.arange(D), 0.1, 2.0),
    "geometric decay": (1 + 400 * 0.9 ** torch.arange(D), 0.1, 0.6),
    "few outliers": (torch.cat([torch.tensor([80.0, 40.0, 25.0, 9.0, 4.0]), torch.ones(D - 5)]), 0.15, 0.05),
}
"""Eigenvalues of -H, the step size, and how large the standard deviation of one image may be, nats."""


@pytest.mark.parametrize(("eigenvalues", "s", "spread"), SPECTRA.values(), ids=SPECTRA.keys())
def test_the_log_determinant_is_unbiased_whatever_has_converged(eigenvalues: Tensor, s: float, spread: float) -> None:
    """The variance is that of plain quadrature, or, where there are outliers, far below: 3.3 and 1.4 nats there."""
    rows = 200
    (z, noise), values = chain(D, 1, rows), eigenvalues.double()
    step = Step(lambda z: -0.5 * (values * z**2).sum(1), z, torch.full((1, 1), s, dtype=torch.float64), noise[0])
    found = log_det(step, 6, 7, seeded())
    exact = (1 - 0.5 * s**2 * values).abs().log().sum()
    assert (found.mean() - exact).abs() < 4 * found.std() / rows**0.5 + 1e-3 * exact.abs()  # the quadrature's own error
    assert found.std() < spread


def test_a_chain_on_a_slowly_decaying_spectrum_has_the_dense_value() -> None:
    rows, steps = 32, 25
    z, noise = chain(D, steps, rows)
    values = SPECTRA["slow decay"][0].double()

    def log_density(z: Tensor) -> Tensor:
        return -0.5 * (values * z**2).sum(1)

    def log_dets(density: ChainDensity, rows: int) -> Tensor:
        found = estimate(density, log_density, 0.05, z[:rows], noise[:, :rows])
        return Initial.normal(z).log_prob(z[:rows]) - found.log_q

    errors = log_dets(LanczosConditional(seeded()), rows) - log_dets(Conditional(), 1)  # alike for all rows
    assert errors.mean().abs() < 4 * errors.std() / rows**0.5
    assert errors.std() / rows**0.5 < 0.7


def test_images_draw_their_steps_apart() -> None:
    """With exact log-determinants only the draw of steps is random: images differ, their spread tells the error."""
    d, rows = 9, 400
    log_density, (z, noise) = quadratic(torch.linspace(1.5, 30, d)), chain(d, STEPS, rows)
    sizes = torch.linspace(0.4, 0.02, STEPS, dtype=torch.float64)[:, None, None]
    halved = LanczosConditional(seeded(), probes=3, depth=3, every=4, first=0)
    errors = (
        estimate(halved, log_density, sizes, z, noise).kl - estimate(Conditional(), log_density, sizes, z, noise).kl
    )
    assert errors.std() > 1
    assert errors.mean().abs() < 4 * errors.std() / rows**0.5


def test_the_weighted_median_halves_the_weight() -> None:
    values, weights = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]]), torch.tensor([[1.0, 1.0, 1.0], [5.0, 1.0, 1.0]])
    assert weighted_median(values, weights).tolist() == [2.0, 3.0]


def test_steps_that_overshoot_stay_finite() -> None:
    d = 30
    log_density, (z, noise) = quadratic(torch.linspace(1, 400, d)), chain(d, 40)
    for density in (LanczosConditional(seeded(), 4, 3), SubspaceMarginal(seeded(), 12, 4, 5)):
        found = estimate(density, log_density, 0.6, z, noise)
        assert torch.isfinite(found.kl).all()
        alike = follow([density], lambda v: log_density(v.double()).float(), z.float(), 0.15, noise.float())[0]
        assert torch.isfinite(alike.log_q).all()


@pytest.mark.parametrize(
    "make", [lambda: LanczosConditional(seeded(), 3, 2), lambda: SubspaceMarginal(seeded(), 5, 2, 3)]
)
def test_a_chain_that_is_lost_does_not_take_the_others_along(make: Callable[[], ChainDensity]) -> None:
    def log_density(z: Tensor) -> Tensor:
        return -(z**4).sum(1)

    z, noise = chain(20)
    sound = estimate(make(), log_density, 0.1, z, noise)
    lost = estimate(make(), log_density, 0.1, torch.cat([z[:-1], 1e40 * z[-1:]]), noise)
    assert torch.isfinite(sound.kl).all()
    torch.testing.assert_close(lost.kl[:-1], sound.kl[:-1])
    assert not torch.isfinite(lost.z[-1]).all()
    assert torch.isnan(lost.kl[-1])


def test_the_same_generator_gives_the_same_numbers() -> None:
    log_density, (z, noise) = Decoder(40).log_density, chain(40)
    for make in (lambda g: LanczosConditional(g, 3, 2), lambda g: SubspaceMarginal(g, 10)):
        first, again, other = (estimate(make(seeded(seed)), log_density, 0.1, z, noise).kl for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


@pytest.mark.parametrize("step_size", [0.05, 0.1, 0.15])
def test_a_curved_generator_is_measured_within_a_few_nats(step_size: float) -> None:
    d, steps = 80, 25
    log_density, (z, noise) = Decoder(d).log_density, chain(d, steps, rows=24)
    conditional, marginal = follow([Conditional(), Marginal()], log_density, z, step_size, noise)
    lanczos, subspace = follow(
        [LanczosConditional(seeded(), 6, 4), SubspaceMarginal(seeded(), 24, 8, 8)], log_density, z, step_size, noise
    )
    assert torch.equal(lanczos.z, marginal.z)
    assert (lanczos.kl - conditional.kl).mean().abs() < 2
    assert (subspace.kl - marginal.kl).mean().abs() < 2.5


@pytest.mark.parametrize("steps", [1, 4, 12])
def test_products_are_as_many_as_said(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    counted, inner = [], hessian.products

    def counting(step: Linearized, v: Tensor) -> Tensor:
        counted.append(len(v))
        return inner(step, v)

    for room in (hessian, subspace, quadrature):
        monkeypatch.setattr(room, "products", counting)
    log_density, (z, noise) = Decoder(40).log_density, chain(40, steps)
    for density in (
        LanczosConditional(seeded(), 3, 2),
        SubspaceMarginal(seeded(), 10, 4, 3),
        SubspaceMarginal(seeded(), 10, 4, 3, outside=3),
    ):
        counted.clear()
        estimate(density, log_density, 0.1, z, noise)
        assert sum(counted) == pytest.approx(density.products_per_step(steps) * steps)


@pytest.mark.parametrize("d", [257, 511, 512, 2000])
def test_the_settings_by_size_take_about_a_tenth_of_the_products(d: int) -> None:
    for density in (LanczosConditional.at_a_tenth(seeded(), d), SubspaceMarginal.at_a_tenth(seeded(), d)):
        assert density.products_per_step(25) < 0.102 * d
    assert LanczosConditional.at_a_tenth(seeded(), d, probes=3).products_per_step(25) < 0.06 * d
    assert SubspaceMarginal.at_a_tenth(seeded(), d, rank=9).rank == 9


def test_counts_below_one_are_refused() -> None:
    with pytest.raises(InputError, match="rank: got 0"):
        SubspaceMarginal(seeded(), rank=0)
    with pytest.raises(InputError, match="every: got 0"):
        LanczosConditional(seeded(), every=0)
