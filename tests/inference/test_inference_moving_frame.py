"""log det of an overshooting chain's covariance by a frame that moves along, against the dense one and spectra."""

import math

import pytest
import torch
from test_inference_stochastic import SIZES, STEPS, Decoder, chain, estimate, quadratic, seeded
from torch import Tensor

from shortrun.inference import subspace
from shortrun.inference.divergence import Marginal, follow
from shortrun.inference.jacobian import Step, steps_of
from shortrun.inference.langevin import LogDensity
from shortrun.inference.moving_frame import _bounds, _forgotten, _mean_and_log, beside, log_det_covariance
from shortrun.inference.subspace import SubspaceMarginal


def walked(log_density: LogDensity, z: Tensor, step_size: float | Tensor, noise: Tensor) -> tuple[list[Step], Tensor]:
    """Return the steps of a chain and the dense log det Sigma_K."""
    dense = Marginal()
    follow([dense], log_density, z, step_size, noise)
    exact = 2 * dense.root.diagonal(dim1=1, dim2=2).abs().log().sum(1)
    return list(steps_of(log_density, z, step_size, noise)), exact


def spread_out(rows: int, d: int) -> Tensor:
    """Return symmetric matrices with eigenvalues from 0.05 to 20."""
    turn = torch.linalg.qr(torch.randn(rows, d, d, generator=seeded(3), dtype=torch.float64))[0]
    eigenvalues = torch.logspace(math.log10(0.05), math.log10(20), d, dtype=torch.float64)
    return turn @ torch.diag(eigenvalues) @ turn.mT


def lanczos(matrix: Tensor, start: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """Return Lanczos coefficients from the whole Krylov space, by QR."""
    powers = [start]
    for _ in range(depth):
        powers.append((matrix @ powers[-1][..., None])[..., 0])
    basis = torch.linalg.qr(torch.stack(powers, 2))[0]
    small = basis.mT @ matrix @ basis
    return small.diagonal(dim1=1, dim2=2)[:, :depth], small.diagonal(1, 1, 2)[:, :depth].abs()


@pytest.mark.parametrize(
    "step_size",
    [
        0.8,
        torch.linspace(1.0, 0.6, STEPS, dtype=torch.float64)[:, None, None],
        torch.linspace(0.6, 1.0, 12, dtype=torch.float64),
    ],
    ids=["one for all", "one for each step", "one for each latent"],
)
def test_a_frame_of_as_many_columns_as_latents_is_exact(step_size: float | Tensor) -> None:
    steps, exact = walked(Decoder(12).log_density, *_with(chain(12), step_size))
    found = log_det_covariance(steps, seeded(), columns=12, powers=1, depth=3)
    assert (exact.abs() > 10).any()
    assert torch.allclose(found, exact, rtol=1e-9)


def _with(start: tuple[Tensor, Tensor], step_size: float | Tensor) -> tuple[Tensor, float | Tensor, Tensor]:
    return start[0], step_size, start[1]


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_growing_directions_beside_the_prior_need_few_columns(depth: int) -> None:
    d = 60
    eigenvalues = torch.cat([torch.tensor([900.0, 600.0, 350.0, 300.0]), torch.ones(d - 4)])
    steps, exact = walked(quadratic(eigenvalues), *_with(chain(d, 25, rows=8), 0.15))
    found = log_det_covariance(steps, seeded(), columns=12, powers=2, depth=depth)
    assert exact.min() > 200  # they grew
    assert (found - exact).abs().max() < 0.5
    # what is left is where the frame starts
    found = log_det_covariance(steps, seeded(), columns=12, powers=6, depth=depth)
    assert (found - exact).abs().max() < 0.01


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_quadrature_lies_between_its_bounds_which_hold_the_truth(depth: int) -> None:
    rows, d = 20, 30
    matrix = spread_out(rows, d)
    start = torch.randn(rows, d, generator=seeded(4), dtype=torch.float64)
    start = start / start.norm(dim=1, keepdim=True)
    values, vectors = torch.linalg.eigh(matrix)
    exact = ((vectors.mT @ start[..., None])[..., 0] ** 2 * values.log()).sum(1)
    lowest = torch.tensor([0.04], dtype=torch.float64)
    above, below = _bounds(*lanczos(matrix, start, depth), lowest)
    assert (above > exact).all()
    assert (below < exact).all()
    mean, found = _mean_and_log(lambda v: (matrix @ v[..., None])[..., 0], 3 * start, depth, lowest)
    assert torch.allclose(mean, (start[:, None] @ matrix @ start[..., None])[:, 0, 0])
    assert (found < above).all()
    assert (found > below).all()
    assert (found - exact).abs().mean() < 0.4 * (above - below).mean()


def test_a_bound_that_still_moves_counts_less() -> None:
    rows, d = 100, 30
    values = torch.linspace(1, 3, d, dtype=torch.float64)
    start = torch.randn(rows, d, generator=seeded(4), dtype=torch.float64)
    exact = (start**2 * values.log()).sum(1) / (start**2).sum(1)
    lowest = torch.tensor([1e-6], dtype=torch.float64)  # far below what there is, so that the lower bound is far off
    unit = start / start.norm(dim=1, keepdim=True)
    above, below = _bounds(*lanczos(torch.diag(values).expand(rows, d, d), unit, 2), lowest)
    found = _mean_and_log(lambda v: v * values, start, 2, lowest)[1]
    assert (found - exact).abs().mean() < 0.25 * (0.5 * (above + below) - exact).abs().mean()


def test_what_is_forgotten_is_what_the_noise_has_replaced() -> None:
    sizes = torch.linspace(0.6, 0.2, 5, dtype=torch.float64)[:, None, None]
    z, noise = chain(6, 5)
    shares = _forgotten(list(steps_of(quadratic(torch.ones(6)), z, sizes, noise)))
    kept = torch.tensor([float(torch.prod((1 - sizes[k:] ** 2 / 2) ** 2)) for k in range(5)], dtype=torch.float64)
    assert torch.allclose(torch.stack([share[0, 0, 0] for share in shares]), 1 - kept)


@pytest.mark.parametrize("step_size", SIZES.values(), ids=SIZES.keys())
def test_the_squared_length_by_the_last_hessian_is_exact_where_all_are_alike(step_size: float | Tensor) -> None:
    log_density, (z, noise) = quadratic(torch.linspace(1.5, 60, 9)), chain(9)
    size = 1.5 * step_size
    dense, density = Marginal(), SubspaceMarginal(seeded(), 4, 2, 2)
    follow([dense, density], log_density, z, size, noise)
    whole = torch.eye(9, dtype=torch.float64).expand(len(z), 9, 9)
    assert density.overshot
    assert torch.allclose(density._squared_by_the_last_hessian(whole), dense.squared_length(), rtol=1e-6)


def test_a_subspace_that_is_the_whole_space_follows_overshooting_chains_itself() -> None:
    log_density, (z, noise) = Decoder(12).log_density, chain(12)
    density = SubspaceMarginal(seeded(), rank=12, stiff=12, late=STEPS)
    found, exact = follow([density, Marginal()], log_density, z, 1.0, noise)
    assert density.delta.norm() > 1e3
    assert not density.overshot
    assert torch.allclose(found.kl, exact.kl, rtol=1e-4)


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
    assert (density._in_a_subspace()[0] - exact).mean().abs() < 0.25 * of_the_mean


def test_quadrature_of_the_whole_space_is_exact_also_where_it_ends_early() -> None:
    lowest = torch.tensor([0.05], dtype=torch.float64)
    start = torch.randn(5, 6, generator=seeded(4), dtype=torch.float64)
    matrix = spread_out(5, 6)
    exact = (start[:, None] @ _log(matrix) @ start[..., None])[:, 0, 0] / (start**2).sum(1)
    found = _mean_and_log(lambda v: (matrix @ v[..., None])[..., 0], start, 6, lowest)[1]
    assert torch.allclose(found, exact, rtol=1e-6)
    same = _mean_and_log(lambda v: 0.3 * v, start, 4, lowest)[1]
    assert torch.allclose(same, torch.tensor(0.3, dtype=torch.float64).log().expand(5))


def _log(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag_embed(values.log()) @ vectors.mT


def test_what_is_beside_a_fixed_frame_has_its_closed_form() -> None:
    d, stiff, rows, s = 40, 5, 2000, 0.4
    eigenvalues = torch.cat([torch.linspace(20, 12, stiff), torch.linspace(4, 0.2, d - stiff)]).double()
    turn = torch.linalg.qr(torch.randn(d, d, generator=seeded(1), dtype=torch.float64))[0]  # as in `quadratic`
    steps = list(steps_of(quadratic(eigenvalues), chain(d, 8, rows)[0], s, chain(d, 8, rows)[1]))
    frame = turn[:, :stiff].expand(rows, d, stiff)
    mean, mean_log = beside(steps, [frame] * 9, seeded(), depth=3)
    kept = (1 - 0.5 * s**2 * eigenvalues[stiff:]) ** 2
    variance = kept**8 + s**2 * sum(kept**k for k in range(8))
    for found, exact in ((mean, variance.mean()), (mean_log, variance.log().mean())):
        assert (found.mean() - exact).abs() < 4 * found.std() / rows**0.5 + 1e-3
        assert found.std() > 0
    assert variance.mean().log() - variance.log().mean() > 0.05  # the logarithm of the mean would not do


def test_overshooting_chains_are_told_apart_and_measured_better_than_by_a_fixed_subspace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log_density, (z, noise) = Decoder(120).log_density, chain(120, 25, rows=16)
    exact = estimate(Marginal(), log_density, 1.0, z, noise).kl
    moving, fixed, settled = (SubspaceMarginal(seeded(), 24, 8, 8) for _ in range(3))
    errors = estimate(moving, log_density, 1.0, z, noise).kl - exact
    estimate(settled, log_density, 0.2, z, noise)
    monkeypatch.setattr(subspace, "GROWN", math.inf)
    of_fixed = estimate(fixed, log_density, 1.0, z, noise).kl - exact
    assert moving.overshot
    assert not settled.overshot
    assert not fixed.overshot
    assert (errors**2).mean() < 0.25 * (of_fixed**2).mean()
    assert errors.mean().abs() < 6


def test_an_overshooting_estimate_repeats_and_has_a_finite_derivative() -> None:
    log_density, (z, noise) = Decoder(60).log_density, chain(60, 20, rows=4)

    def value(at: Tensor, seed: int = 0) -> Tensor:
        density = SubspaceMarginal(seeded(seed), 16, 4, 4, frame=8)
        found = estimate(density, log_density, at.expand(len(noise), 1, 1), z, noise).kl
        assert density.overshot
        return found

    s = torch.tensor(1.2, dtype=torch.float64)
    assert torch.equal(value(s), value(s))
    assert not torch.equal(value(s), value(s, 1))
    assert torch.isfinite(torch.func.jvp(value, (s,), (torch.ones_like(s),))[1]).all()
