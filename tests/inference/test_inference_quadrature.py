"""Quadrature of the covariance beside a subspace, against closed forms and spectra."""

import math

import pytest
import torch
from stochastic_problems import Decoder, chain, quadratic, seeded
from torch import Tensor

from shortrun.inference.jacobian import steps_of
from shortrun.inference.quadrature import _bounds, _covariance, _mean_and_log, beside


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
    mean, mean_log = beside(steps, frame, seeded(), depth=3)
    kept = (1 - 0.5 * s**2 * eigenvalues[stiff:]) ** 2
    variance = kept**8 + s**2 * sum(kept**k for k in range(8))
    for found, exact in ((mean, variance.mean()), (mean_log, variance.log().mean())):
        assert (found.mean() - exact).abs() < 4 * found.std() / rows**0.5 + 1e-3
        assert found.std() > 0
    assert variance.mean().log() - variance.log().mean() > 0.05  # the logarithm of the mean would not do


def test_the_covariance_is_that_of_chains_which_lose_their_part_in_the_subspace() -> None:
    d, (z, noise) = 7, chain(7, steps=5)
    steps = list(steps_of(Decoder(d).log_density, z, torch.linspace(0.2, 0.5, d, dtype=torch.float64), noise))
    basis = torch.linalg.qr(torch.randn(len(z), d, 2, generator=seeded(), dtype=torch.float64))[0]
    lose = torch.eye(d, dtype=torch.float64) - basis @ basis.mT
    covariance = lose
    for step in steps:
        kept = lose @ step.jacobian
        covariance = kept @ covariance @ kept.mT + lose @ torch.diag_embed(step.step_size**2) @ lose
    v = (lose @ torch.randn(len(z), d, 1, generator=seeded(1), dtype=torch.float64))[..., 0]
    torch.testing.assert_close(_covariance(steps, basis, v), (covariance @ v[..., None])[..., 0])
