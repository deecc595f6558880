"""Sums with forgetting against numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shortrun.sums import Sums, symmetric, with_one


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 5), st.lists(st.integers(0, 9), max_size=4), st.floats(0, 1), st.integers(0, 999)
)
def test_they_are_what_numpy_adds_up(groups: int, size: int, batches: list[int], forget: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sums, expected = Sums(groups, size).double(), np.zeros((groups, size, size))
    for n in batches:
        rows, group = rng.normal(size=(n, size)), rng.integers(groups, size=n)
        sums.add(torch.tensor(rows), forget, torch.tensor(group))
        expected *= forget
        for row, index in zip(rows, group, strict=True):
            expected[index] += np.outer(row, row)
    np.testing.assert_allclose(sums.total.numpy(), expected, atol=1e-12)


def test_one_group_needs_no_naming() -> None:
    rows = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    alone, named = Sums(1, 3), Sums(1, 3)
    alone.add(rows, 0.5)
    named.add(rows, 0.5, torch.zeros(6, dtype=torch.long))
    assert torch.equal(alone.total, named.total)


def test_rows_with_a_one_carry_count_and_sum_along() -> None:
    rows, sums = torch.arange(6.0).view(3, 2), Sums(1, 3)
    sums.add(with_one(rows), 0.9)
    assert sums.total[0, 0].tolist() == [3.0, *rows.sum(0).tolist()]
    assert torch.equal(sums.total[0, 1:, 1:], rows.T @ rows)


def test_they_are_saved_and_no_part_of_a_graph() -> None:
    rows, sums, other = torch.randn(4, 2, requires_grad=True), Sums(1, 2), Sums(1, 2)
    sums.add(rows, 0.9)
    assert not sums.total.requires_grad
    other.load_state_dict(sums.state_dict())
    assert torch.equal(other.total, sums.total)
    assert not list(sums.parameters())


@pytest.mark.parametrize("groups", [1, 2])
def test_half_precision_around_them_changes_nothing(groups: int) -> None:
    """The squares of a thousand pixels summed over many updates have no place in bfloat16."""
    rows = 100 * torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    group = torch.arange(200) % groups if groups > 1 else None
    plain, inside = Sums(groups, 5), Sums(groups, 5)
    plain.add(rows, 0.9, group)
    with torch.autocast("cpu", torch.bfloat16):
        inside.add(rows, 0.9, group)
    assert torch.equal(plain.total, inside.total)
    assert inside.total.dtype == torch.float32


def test_a_matrix_that_round_off_bent_is_made_symmetric() -> None:
    matrix = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0))
    found = symmetric(matrix)
    assert torch.equal(found, found.mT)
    torch.testing.assert_close(found, (matrix + matrix.mT) / 2)
