"""Estimators from few Hessian-vector products against the dense ones, on problems where those are exact or cheap."""

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shortrun.errors import InputError
from shortrun.inference import products as hessian
from shortrun.inference import quadrature, subspace
from shortrun.inference.divergence import Conditional, Density, Estimate, Marginal, follow
from shortrun.inference.initial import Initial
from shortrun.inference.jacobian import Linearized, Step
from shortrun.inference.stochastic import LanczosConditional, log_det
from shortrun.inference.subspace import FAR, SubspaceMarginal, _between, whole_steps

IMAGES, STEPS = 3, 12
SIZES: dict[str, float | Tensor] = {
    "one for all": 0.3,
    "one for each step": torch.linspace(0.4, 0.2, STEPS, dtype=torch.float64)[:, None, None],
    "one for each latent": torch.linspace(0.2, 0.4, 9, dtype=torch.float64),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quadratic(eigenvalues: Tensor, seed: int = 1):
    """Return -1/2 z' P z + h' z for P of these eigenvalues in random directions, the same for all rows."""
    d, rng = len(eigenvalues), seeded(seed)
    turn = torch.linalg.qr(torch.randn(d, d, generator=rng, dtype=torch.float64))[0]
    precision = turn @ torch.diag(eigenvalues.double()) @ turn.T
    pull = torch.randn(d, generator=rng, dtype=torch.float64)
    return lambda z: -0.5 * ((z @ precision) * z).sum(1) + z @ pull


def chain(d: int, steps: int = STEPS, rows: int = IMAGES, seed: int = 2) -> tuple[Tensor, Tensor]:
    rng = seeded(seed)
    z = torch.randn(rows, d, generator=rng, dtype=torch.float64)
    return z, torch.randn(steps, rows, d, generator=rng, dtype=torch.float64)


def estimate(density: Density, log_density, step_size, z: Tensor, noise: Tensor) -> Estimate:
    return follow([density], log_density, z, step_size, noise)[0]


class Decoder(nn.Module):
    """Much curved in few directions, as a trained one: a layer whose weights decay from one latent to the next."""

    def __init__(self, d: int, pixels: int = 80, hidden: int = 60) -> None:
        super().__init__()
        rng = seeded(5)
        decay = 0.9 ** torch.arange(d, dtype=torch.float64)
        turn = torch.linalg.qr(torch.randn(d, d, generator=rng, dtype=torch.float64))[0]
        self.inner = 0.6 * torch.randn(hidden, d, generator=rng, dtype=torch.float64) * decay @ turn
        self.outer = torch.randn(pixels, hidden, generator=rng, dtype=torch.float64) / hidden**0.5
        self.image = torch.tanh(
            self.outer @ torch.tanh(self.inner @ torch.randn(d, generator=rng, dtype=torch.float64))
        )

    def log_density(self, z: Tensor) -> Tensor:
        residual = self.image - torch.tanh(torch.tanh(z @ self.inner.T) @ self.outer.T)
        return -0.5 * (residual**2).sum(1) / 0.3**2 - 0.5 * (z**2).sum(1)


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


def test_the_subspace_is_completed_from_probes_where_the_chain_is_short() -> None:
    d = 40
    eigenvalues = torch.cat([torch.linspace(60, 5, 10), torch.ones(d - 10)])
    log_density, (z, noise) = quadratic(eigenvalues), chain(d, steps=3)
    found = estimate(SubspaceMarginal(seeded(), rank=12), log_density, 0.15, z, noise)
    assert torch.allclose(found.kl, estimate(Marginal(), log_density, 0.15, z, noise).kl, rtol=1e-6)


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
def test_a_chain_that_is_lost_does_not_take_the_others_along(make: Callable[[], Density]) -> None:
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


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 200), st.integers(1, 40))
def test_whole_steps_grow_rarer_from_the_last_one_back(steps: int, whole: int) -> None:
    found = whole_steps(steps, whole)
    assert len(found) == min(steps, whole)
    assert found[-1] == steps - 1
    gaps = [b - a for a, b in itertools.pairwise(found)]
    assert all(gap >= 1 for gap in gaps)
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(gaps))  # + 1: they are rounded
    assert found[0] >= 0
    if 1 < whole < steps / 4:
        assert found[0] == steps - 1 - round((steps - 1) * FAR)


def test_the_steps_of_the_defaults() -> None:
    assert whole_steps(25, 6) == [4, 11, 17, 21, 23, 24]
    assert whole_steps(3, 6) == [0, 1, 2]


def test_between_whole_steps_lies_a_line() -> None:
    known = {k: torch.full((2, 3, 4), float(k**2)) for k in (3, 5, 9)}
    for step, value in {0: 9.0, 2: 9.0, 4: 17.0, 6: 39.0, 8: 67.0}.items():
        assert torch.equal(_between(known, step), torch.full((2, 3, 4), value))


@pytest.mark.parametrize("step_size", SIZES.values(), ids=SIZES.keys())
def test_a_hessian_that_stays_is_known_from_any_step(step_size: float | Tensor) -> None:
    """Also where the step size falls along the chain: what is carried from step to step is without it."""
    log_density, (z, noise) = quadratic(torch.linspace(1.5, 30, 9)), chain(9)
    size = 0.5 * step_size
    exact = estimate(Marginal(), log_density, size, z, noise).kl
    if isinstance(step_size, Tensor) and step_size.ndim == 1:
        exact_only_with = SubspaceMarginal(seeded(), 9, 9, 2)  # the mean of s^2 stands for that of each latent
    else:
        exact_only_with = SubspaceMarginal(seeded(), 9, 2, 2)
    assert torch.allclose(estimate(exact_only_with, log_density, size, z, noise).kl, exact, rtol=1e-7)


@pytest.mark.parametrize(("step_size", "error"), [(0.2, 1.0), (0.4, 3.0), (0.8, 10.0)])
def test_hessians_that_turn_are_followed_by_few_whole_steps(step_size: float, error: float) -> None:
    """120 latents, 0.8 overshoots: values from -88 to -73 nats, root mean square over images."""
    log_density, (z, noise) = Decoder(120).log_density, chain(120, 25, rows=16)
    found = estimate(SubspaceMarginal(seeded(), 24, 8, 6), log_density, step_size, z, noise).kl
    exact = estimate(Marginal(), log_density, step_size, z, noise).kl
    assert float((found - exact).square().mean().sqrt()) < error


def test_what_is_outside_the_subspace_counts_by_its_logarithms() -> None:
    eigenvalues = torch.linspace(4, 0.2, 40)
    log_density, (z, noise) = quadratic(eigenvalues), chain(40, 8, rows=200)
    density, dense = SubspaceMarginal(seeded(), 1, 1, 8), Marginal()
    follow([density, dense], log_density, z, 0.4, noise)
    exact = 2 * dense.root.diagonal(dim1=1, dim2=2).abs().log().sum(1)
    kept = (1 - 0.5 * 0.4**2 * eigenvalues.double()) ** 2
    variance = kept**8 + 0.4**2 * sum(kept**k for k in range(8))
    of_the_mean = 40 * variance.mean().log() - variance.log().sum()
    assert of_the_mean > 2
    assert (density._log_det_and_squared()[0] - exact).mean().abs() < 0.25 * of_the_mean


@pytest.mark.parametrize("step_size", [0.3, torch.linspace(0.2, 0.4, 6, dtype=torch.float64)])
def test_what_leaks_into_the_subspace_widens_it(step_size: float | Tensor) -> None:
    """Of one step from N(0, I) the covariance inside is known exactly, whichever subspace it is."""
    log_density, (z, noise) = quadratic(torch.linspace(2, 30, 6)), chain(6, steps=1)
    found = SubspaceMarginal(seeded(), rank=3, stiff=1)
    step = Step(log_density, z, torch.as_tensor(step_size, dtype=torch.float64).expand(1, 6), noise[0])
    found.start(z, Initial.normal(z))
    found.follow(step)
    basis = torch.linalg.qr(torch.randn(IMAGES, 6, 3, generator=seeded(), dtype=torch.float64))[0]
    root, alone = found._walk(basis)[:2]
    jacobian, fresh = step.jacobian, torch.diag_embed(step.step_size**2)
    torch.testing.assert_close(root.mT @ root, basis.mT @ (jacobian @ jacobian.mT + fresh) @ basis)
    block = basis.mT @ jacobian @ basis
    torch.testing.assert_close(alone.mT @ alone, block @ block.mT + basis.mT @ fresh @ basis)


def test_a_subspace_that_is_the_whole_space_follows_overshooting_chains() -> None:
    log_density, (z, noise) = Decoder(12).log_density, chain(12)
    density = SubspaceMarginal(seeded(), rank=12, stiff=12, whole=STEPS)
    found, exact = follow([density, Marginal()], log_density, z, 1.0, noise)
    assert density.delta.norm() > 1e3
    assert torch.allclose(found.kl, exact.kl, rtol=1e-4)


@pytest.mark.parametrize("step_size", [0.05, 0.1, 0.15])
def test_a_curved_generator_is_measured_within_a_few_nats(step_size: float) -> None:
    d, steps = 80, 25
    log_density, (z, noise) = Decoder(d).log_density, chain(d, steps, rows=6)
    conditional, marginal = follow([Conditional(), Marginal()], log_density, z, step_size, noise)
    lanczos, subspace = follow(
        [LanczosConditional(seeded(), 6, 4), SubspaceMarginal(seeded(), 24, 8, 8)], log_density, z, step_size, noise
    )
    assert torch.equal(lanczos.z, marginal.z)
    assert (lanczos.kl - conditional.kl).mean().abs() < 2
    assert (subspace.kl - marginal.kl).mean().abs() < 2.5


def test_the_subspace_estimator_is_differentiable_in_the_step_size() -> None:
    s = torch.tensor(0.1, dtype=torch.float64)

    def slope(log_density, density: Density, z: Tensor, noise: Tensor) -> Tensor:
        def value(at: Tensor) -> Tensor:
            return estimate(density, log_density, at.expand(len(noise), 1, 1), z, noise).kl

        return torch.func.jvp(value, (s,), (torch.ones_like(s),))[1]

    log_density, (z, noise) = quadratic(torch.linspace(1.5, 30, 9)), chain(9)
    found = slope(log_density, SubspaceMarginal(seeded(), 9, 4, 5), z, noise)
    assert torch.allclose(found, slope(log_density, Marginal(), z, noise), rtol=1e-6)
    log_density, (z, noise) = Decoder(30).log_density, chain(30)
    found = slope(log_density, SubspaceMarginal(seeded(), 20, 6, 6), z, noise)
    assert torch.allclose(found, slope(log_density, Marginal(), z, noise), rtol=0.1)


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
