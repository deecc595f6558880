import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchmetrics.image.kid import poly_mmd

from shortrun.errors import InputError
from shortrun.metrics.feature_matrix import feature_matrix
from shortrun.metrics.kernel import kernel_distance, polynomial_mmd


def draws(n: int, seed: int, shift: float = 0.0) -> Tensor:
    return shift + torch.randn(n, 1, 2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(2, 30), st.floats(-2.0, 2.0))
def test_the_discrepancy_is_that_of_torchmetrics(seed: int, n: int, shift: float) -> None:
    x, y = draws(n, seed).flatten(1), draws(n, seed + 1, shift).flatten(1)
    assert polynomial_mmd(x, y) == pytest.approx(float(poly_mmd(x, y)), rel=1e-9, abs=1e-12)


def test_the_discrepancy_of_sets_of_unlike_size_by_hand() -> None:
    """In one dimension k(a, b) = (a b + 1)^3: 1 for the pair of x; 27, 64 and 343 for the pairs of y."""
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    y = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    wanted = 1 + (27 + 64 + 343) / 3 - 2 * (1 + 1 + 1 + 8 + 27 + 64) / 6
    assert polynomial_mmd(x, y) == pytest.approx(wanted, rel=1e-12)


def test_whole_sets_as_subsets_give_the_discrepancy_itself() -> None:
    x, y = draws(20, 0), draws(20, 1, 0.5)
    found = kernel_distance(nn.Flatten(), x, y, rng(), subsets=3, subset_size=20, batch_size=7)
    assert found.mean == pytest.approx(polynomial_mmd(x.flatten(1), y.flatten(1)), rel=1e-9)
    assert found.std < 1e-12


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 1000))
def test_the_generator_alone_chooses_the_subsets(seed: int) -> None:
    x, y = draws(30, 0), draws(40, 1, 0.5)
    state = torch.random.get_rng_state()
    first, again, other = (kernel_distance(nn.Flatten(), x, y, rng(s), subsets=5) for s in (seed, seed, seed + 1))
    assert first == again
    assert first != other
    assert first.std > 0
    assert torch.equal(state, torch.random.get_rng_state())


def test_mean_and_deviation_are_those_of_the_subsets() -> None:
    x, y = draws(9, 0).flatten(1), draws(12, 1, 0.5).flatten(1)
    stream, values = rng(3), []
    for _ in range(4):
        a, b = torch.randperm(9, generator=stream)[:4], torch.randperm(12, generator=stream)[:4]
        values.append(float(poly_mmd(x[a], y[b])))
    found = kernel_distance(nn.Flatten(), x.view(9, 1, 2, 3), y.view(12, 1, 2, 3), rng(3), subsets=4)
    assert found.mean == pytest.approx(float(torch.tensor(values, dtype=torch.float64).mean()), rel=1e-9)
    assert found.std == pytest.approx(float(torch.tensor(values, dtype=torch.float64).std(correction=0)), rel=1e-9)


def test_no_bias_for_small_sets_and_a_distance_for_a_shift() -> None:
    same = torch.tensor([polynomial_mmd(draws(8, s).flatten(1), draws(8, s + 5000).flatten(1)) for s in range(600)])
    error = float(same.std()) / math.sqrt(600)
    assert abs(float(same.mean())) < 4 * error
    x = draws(300, 0)
    near, far = (kernel_distance(nn.Flatten(), x, draws(300, 1, shift), rng(), subsets=20) for shift in (0.3, 0.9))
    assert 0.1 < near.mean < far.mean


def test_features_are_one_matrix_whatever_the_batches() -> None:
    features, x = nn.Sequential(nn.Flatten(), nn.Linear(6, 3)), draws(11, 0).float()
    found = feature_matrix(features, x, 4)
    assert found.dtype == torch.float64
    assert not found.requires_grad
    assert torch.allclose(found, features(x).double(), atol=1e-6)


def test_what_cannot_be_measured_is_refused() -> None:
    x = draws(5, 0)
    for wrong, words in (
        ({"made": x[:1]}, "made: got 1 images"),
        ({"made": x.transpose(2, 3)}, r"made: images of \[1, 3, 2\]"),
        ({"made": x * math.nan}, "made: some features are not finite"),
        ({"subsets": 0}, "subsets: got 0"),
        ({"subset_size": 6}, "subset_size: got 6; write a whole number from 2 to 5"),
        ({"subset_size": 1}, "subset_size: got 1"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"features": nn.Identity()}, r"features: got \[5, 1, 2, 3\] for 5 images"),
        ({"features": nn.Flatten(0, 1)}, r"features: got \[5, 2, 3\] for 5 images"),
    ):
        given_ = {"features": nn.Flatten(), "real": x, "made": x, "rng": rng(), **wrong}
        with pytest.raises(InputError, match=words):
            kernel_distance(**given_)
    with pytest.raises(InputError, match="y: got 1 rows"):
        polynomial_mmd(x.flatten(1), x[:1].flatten(1))
    with pytest.raises(InputError, match="images: got 0 images"):
        feature_matrix(nn.Flatten(), x[:0])
