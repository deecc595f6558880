import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from shortrun.errors import InputError
from shortrun.metrics.neighbours import neighbour_figures


def draws(n: int, seed: int, d: int = 4, shift: float = 0.0) -> Tensor:
    return shift + torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("entries", [1, 9, 10**6])
def test_points_on_a_line_by_hand(entries: int) -> None:
    """Real balls have the radius 1. Of the generated, 0.5 lies in two, 3 on the edge of one, 50 and 60 in none.

    Their own balls have the radii 2.5, 2.5, 10 and 10, and hold every real point.
    """
    real, made = column(0, 1, 2, 55, 56), column(0.5, 3, 50, 60)
    found = neighbour_figures(real, made, k=1, entries=entries)
    assert found == (2 / 4, 1, 3 / 4, 3 / 5)
    assert neighbour_figures(made, real, k=1).precision == found.recall
    # second neighbours: real radii 2, 1, 2, 53 and 54, whose balls hold 3, 3, 2 and 2 generated points
    assert neighbour_figures(real, made, k=2, entries=entries) == (1, 1, 10 / 4 / 2, 1)


@settings(deadline=None, max_examples=20)
@given(
    st.integers(0, 1000),
    st.integers(8, 60),
    st.integers(8, 60),
    st.integers(1, 5),
    st.integers(1, 40),
    st.floats(-2.0, 2.0),
    st.integers(1, 500),
)
def test_the_four_are_those_of_prdc(seed: int, n: int, m: int, k: int, d: int, shift: float, entries: int) -> None:
    prdc = pytest.importorskip("prdc")
    real, made = draws(n, seed, d), draws(m, seed + 1, d, shift)
    wanted = prdc.compute_prdc(real.numpy(), made.numpy(), nearest_k=k)
    assert neighbour_figures(real, made, k, entries)._asdict() == pytest.approx(wanted, abs=1e-12)


def test_equal_sets_and_far_ones() -> None:
    x = draws(50, 0)
    same = neighbour_figures(x, x.flip(0))
    assert same[:2] == (1, 1)
    assert same.coverage == 1
    assert same.density >= 1  # each lies in its own ball too
    assert neighbour_figures(x, x + 100) == (0, 0, 0, 0)


def test_samples_of_one_distribution_have_the_expected_density_and_coverage() -> None:
    n, m, k = 40, 30, 3
    found = [neighbour_figures(draws(n, s), draws(m, s + 5000), k) for s in range(400)]
    expected = {"density": 1, "coverage": 1 - math.comb(n - 1, k) / math.comb(n + m - 1, k)}
    for name, value in expected.items():
        figures = torch.tensor([getattr(one, name) for one in found], dtype=torch.float64)
        assert abs(float(figures.mean()) - value) < 4 * float(figures.std()) / 20


def test_one_image_again_and_again_is_precise_but_covers_little() -> None:
    real = draws(200, 0)
    made = real[:1].repeat(200, 1)
    found = neighbour_figures(real, made)
    assert found.precision == 1
    assert found.recall == 1 / 200
    assert found.coverage < 0.1


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.sampled_from([0.125, 4.0]))
def test_units_and_a_common_offset_do_not_matter(seed: int, scale: float) -> None:
    real, made = draws(30, seed), draws(40, seed + 1, shift=0.5)
    assert neighbour_figures(scale * real + 2**24, scale * made + 2**24) == neighbour_figures(real, made)


def test_no_more_distances_are_held_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    held, measure = [], torch.cdist

    def watched(x: Tensor, y: Tensor) -> Tensor:
        held.append(len(x) * len(y))
        return measure(x, y)

    monkeypatch.setattr(torch, "cdist", watched)
    neighbour_figures(draws(50, 0), draws(70, 1), entries=1000)
    assert 900 < max(held) <= 1000
    assert sum(held) == 50 * 50 + 70 * 70 + 50 * 70


def test_what_cannot_be_measured_is_refused() -> None:
    x = draws(6, 0)
    with pytest.raises(InputError, match="k: got 6; write a whole number from 1 to 5"):
        neighbour_figures(x, draws(9, 1), 6)
    with pytest.raises(InputError, match="k: got 0"):
        neighbour_figures(x, x, 0)
    with pytest.raises(InputError, match="made: got 3 features, but the real ones have 4"):
        neighbour_figures(x, x[:, :3])
    with pytest.raises(InputError, match="real: some features are not finite"):
        neighbour_figures(x * math.inf, x)
    with pytest.raises(InputError, match="entries: got 0"):
        neighbour_figures(x, x, 5, 0)
