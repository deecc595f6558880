"""The marginal estimator from a stiff subspace: steps known wholly, what lies between, leaks in and stays out."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stochastic_problems import IMAGES, SIZES, STEPS, Decoder, chain, estimate, quadratic, seeded
from torch import Tensor

from shortrun.inference.divergence import ChainDensity, Marginal, follow
from shortrun.inference.initial import Initial
from shortrun.inference.jacobian import Step
from shortrun.inference.subspace import FAR, SubspaceMarginal, _between, whole_steps


def test_the_subspace_is_completed_from_probes_where_the_chain_is_short() -> None:
    d = 40
    eigenvalues = torch.cat([torch.linspace(60, 5, 10), torch.ones(d - 10)])
    log_density, (z, noise) = quadratic(eigenvalues), chain(d, steps=3)
    found = estimate(SubspaceMarginal(seeded(), rank=12), log_density, 0.15, z, noise)
    assert torch.allclose(found.kl, estimate(Marginal(), log_density, 0.15, z, noise).kl, rtol=1e-6)


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


def test_the_subspace_estimator_is_differentiable_in_the_step_size() -> None:
    s = torch.tensor(0.1, dtype=torch.float64)

    def slope(log_density, density: ChainDensity, z: Tensor, noise: Tensor) -> Tensor:
        def value(at: Tensor) -> Tensor:
            return estimate(density, log_density, at.expand(len(noise), 1, 1), z, noise).kl

        return torch.func.jvp(value, (s,), (torch.ones_like(s),))[1]

    log_density, (z, noise) = quadratic(torch.linspace(1.5, 30, 9)), chain(9)
    found = slope(log_density, SubspaceMarginal(seeded(), 9, 4, 5), z, noise)
    assert torch.allclose(found, slope(log_density, Marginal(), z, noise), rtol=1e-6)
    log_density, (z, noise) = Decoder(30).log_density, chain(30)
    found = slope(log_density, SubspaceMarginal(seeded(), 20, 6, 6), z, noise)
    assert torch.allclose(found, slope(log_density, Marginal(), z, noise), rtol=0.1)
