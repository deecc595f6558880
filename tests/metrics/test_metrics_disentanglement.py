import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_selection import r_regression
from torch import Tensor

from shortrun.errors import InputError
from shortrun.metrics.disentanglement import (
    attribute_predictability,
    dci,
    factor_vae_score,
    mutual_information_gap,
)
from shortrun.metrics.probes import linear_probe, linear_probes

N, VALUES = 1200, (2, 3, 4)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_factors(seed: int = 0, n: int = N) -> Tensor:
    stream = rng(seed)
    return torch.stack([torch.randint(values, (n,), generator=stream) for values in VALUES], 1)


def noise(seed: int, n: int = N, d: int = 5) -> Tensor:
    return torch.randn(n, d, generator=rng(seed), dtype=torch.float64)


def perfect(factors: Tensor, seed: int = 0) -> Tensor:
    """Return codes of five dimensions of which three are the factors, each in its own units, in another order."""
    codes = noise(seed, len(factors))
    codes[:, [3, 0, 4]] = factors * torch.tensor([1.0, 0.1, 10.0]) + 1e-3 * codes[:, :3]
    return codes


def rotated(codes: Tensor) -> Tensor:
    """Return standardized codes turned by 45 degrees in the planes of dimensions 0 and 3, then of 3 and 4."""
    codes = (codes - codes.mean(0)) / codes.std(0)
    for a, b in ((0, 3), (3, 4)):
        turned = codes[:, [a, b]] @ torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64) / math.sqrt(2)
        codes[:, [a, b]] = turned
    return codes


def quick_dci(codes: Tensor, factors: Tensor, seed: int = 0) -> tuple[float, float, float]:
    return dci(codes, factors, rng(seed), trees=10)


SCORES: dict[str, Callable[[Tensor, Tensor], float]] = {
    "mig": mutual_information_gap,
    "sap": attribute_predictability,
    "disentanglement": lambda codes, factors: quick_dci(codes, factors)[0],
    "completeness": lambda codes, factors: quick_dci(codes, factors)[1],
    "informativeness": lambda codes, factors: quick_dci(codes, factors)[2],
    "factor_vae": lambda codes, factors: factor_vae_score(codes, factors, rng(), votes=300),
}
# the commonest of 2, 3 and 4 values by chance; the right one of three factors by chance
CHANCE = {"informativeness": (1 / 2 + 1 / 3 + 1 / 4) / 3, "factor_vae": 1 / 3}


@pytest.mark.parametrize("name", SCORES)
def test_one_dimension_for_each_factor_is_perfect(name: str) -> None:
    factors = some_factors()
    assert 0.97 < SCORES[name](perfect(factors), factors) <= 1


@pytest.mark.parametrize("name", SCORES)
def test_noise_is_worth_nothing(name: str) -> None:
    assert SCORES[name](noise(7), some_factors()) == pytest.approx(CHANCE.get(name, 0), abs=0.08)


@pytest.mark.parametrize("name", ["mig", "sap", "disentanglement", "completeness", "factor_vae"])
def test_mixed_dimensions_are_worse(name: str) -> None:
    factors = some_factors()
    codes = perfect(factors)
    assert SCORES[name](rotated(codes), factors) < SCORES[name](codes, factors) - 0.2


@pytest.mark.parametrize("name", ["mig", "sap", "factor_vae"])
@settings(deadline=None, max_examples=5)
@given(st.permutations(range(5)), st.lists(st.sampled_from([0.25, 1.0, 8.0]), min_size=5, max_size=5))
def test_order_and_units_of_dimensions_do_not_matter(name: str, order: list[int], units: list[float]) -> None:
    factors = some_factors(n=400)
    codes = perfect(factors) + 0.5 * noise(3, 400)
    moved = (codes * torch.tensor(units))[:, order]
    assert SCORES[name](moved, factors) == pytest.approx(SCORES[name](codes, factors), abs=1e-9)


def test_the_order_of_dimensions_matters_to_forests_by_chance_alone() -> None:
    factors = some_factors()
    codes = perfect(factors) + 0.3 * noise(3)
    moved = (codes * torch.tensor([0.25, 8.0, 1.0, 2.0, 4.0]))[:, [2, 4, 0, 1, 3]]
    assert quick_dci(moved, factors) == pytest.approx(quick_dci(codes, factors), abs=0.03)


def test_the_gap_by_hand() -> None:
    """Dimension 0 is the factor, dimension 1 agrees with it in three of four cases: the gap is H(1/4) / log 2."""
    factor = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    other = torch.tensor([0, 0, 0, 1, 1, 1, 1, 0])
    codes = torch.stack([factor, other], 1).double()
    wanted = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert mutual_information_gap(codes, factor[:, None]) == pytest.approx(wanted, rel=1e-9)
    # of a second factor, which is dimension 1, the gap is the same; of one that is neither, both know nothing
    assert mutual_information_gap(codes, torch.stack([factor, other], 1)) == pytest.approx(wanted, rel=1e-9)
    neither = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])
    table = torch.stack([torch.tensor([0, 0, 1, 1, 0, 0, 1, 1]), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])], 1)
    assert mutual_information_gap(table.double(), neither[:, None]) == pytest.approx(0, abs=1e-12)


def test_bins_have_equal_width() -> None:
    """0, 1, 2 and 10 in two bins: the factor that parts 10 from the rest is told, the one that parts 0 is not."""
    codes = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [10.0, 0.0]])
    apart = torch.tensor([[0], [0], [0], [1]])
    assert mutual_information_gap(codes, apart, bins=2) == pytest.approx(1, rel=1e-9)
    assert mutual_information_gap(codes, apart.flip(0), bins=2) < 0.2
    assert mutual_information_gap(codes, apart.flip(0), bins=20) == pytest.approx(1, rel=1e-9)
    # the largest lies in the last bin, beside 9, and in none of its own
    codes[:, 0] = torch.tensor([0.0, 1.0, 9.0, 10.0])
    assert mutual_information_gap(codes, apart, bins=2) < 0.5


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000))
def test_predictability_is_the_gap_of_squared_correlations(seed: int) -> None:
    factors = some_factors(seed, 50)
    codes = perfect(factors, seed) + noise(seed + 1, 50)
    gaps = []
    for factor in factors.T:
        second, first = sorted(r_regression(codes.numpy(), factor.numpy()) ** 2)[-2:]
        gaps.append(first - second)
    assert attribute_predictability(codes, factors) == pytest.approx(sum(gaps) / 3, abs=1e-9)


def test_two_dimensions_for_one_factor_are_disentangled_but_not_complete() -> None:
    factors = some_factors()[:, 1:]
    twice = torch.cat([factors, factors], 1) + 1e-3 * noise(1, d=4)
    disentangled, complete, informative = dci(twice, factors, rng())
    assert disentangled > 0.99
    assert complete == pytest.approx(0.5, abs=0.02)  # 1 - H_4(1/2, 1/2)
    assert informative > 0.99
    assert mutual_information_gap(twice, factors) < 0.01
    assert attribute_predictability(twice, factors) < 0.01


def test_one_dimension_for_two_factors_is_complete_but_not_disentangled() -> None:
    factors = some_factors()[:, :2]
    codes = torch.cat([(factors[:, :1] + 2 * factors[:, 1:]).double(), 1e-3 * noise(1, d=1)], 1)
    disentangled, complete, informative = quick_dci(codes, factors)
    assert disentangled < 0.01
    assert complete > 0.97
    assert informative > 0.99


def test_forests_do_not_share_importance_out_to_noise() -> None:
    """Trees that part every image would give the two dimensions of noise some, and score below 0.85."""
    factors = some_factors()
    disentangled, complete, _ = quick_dci(perfect(factors) + 0.3 * noise(3) * torch.tensor([0.1, 1, 1, 1, 10]), factors)
    assert min(disentangled, complete) > 0.9


def test_a_dead_dimension_changes_nothing() -> None:
    factors = some_factors()
    codes = perfect(factors)
    dead = torch.cat([codes, torch.full((N, 1), 0.1, dtype=torch.float64)], 1)
    for name in ("mig", "sap", "disentanglement", "informativeness", "factor_vae"):
        assert SCORES[name](dead, factors) == pytest.approx(SCORES[name](codes, factors), abs=1e-2)


def test_the_generator_alone_decides() -> None:
    factors = some_factors(n=400)
    codes = perfect(factors) + noise(3, 400)
    state = torch.random.get_rng_state()
    assert quick_dci(codes, factors, 1) == quick_dci(codes, factors, 1) != quick_dci(codes, factors, 2)
    one, again, other = (factor_vae_score(codes, factors, rng(seed), votes=300) for seed in (1, 1, 2))
    assert one == again != other
    assert torch.equal(state, torch.random.get_rng_state())


def test_votes_come_from_values_with_enough_rows() -> None:
    """A value of two rows would be told by its rows alone: both votes and error name what the table can give."""
    factors = torch.cat([some_factors(n=300), torch.tensor([[5, 5, 5], [5, 5, 5]])])
    codes = perfect(factors)
    assert factor_vae_score(codes, factors, rng(), batch_size=40, votes=200) == 1
    most = int(factors[:, 2].bincount().max())
    with pytest.raises(InputError, match=f"batch_size: got {most + 1}; write at most {most}, .* of factor 2"):
        factor_vae_score(codes, factors, rng(), batch_size=most + 1)


def test_a_probe_reads_what_lies_open() -> None:
    factors = some_factors()
    codes = torch.cat([perfect(factors), noise(5, d=2)], 1)
    train, test = slice(0, 800), slice(800, None)
    for label in range(3):
        y = factors[:, label] * 3 - 4  # any whole numbers
        assert linear_probe(codes[train], y[train], codes[test], y[test]) == 1
    y = factors[:, 2]
    assert linear_probe(noise(1)[train], y[train], noise(1)[test], y[test]) == pytest.approx(1 / 4, abs=0.08)
    # dimensions 3, 0 and 4 hold the factors of 2, 3 and 4 values
    found = linear_probes(codes[train], y[train], codes[test], y[test], (4, 1, 2))
    assert found[1] == 1
    assert [found[0], found[2]] == pytest.approx([1 / 4, 1 / 4], abs=0.08)
    assert found[0] == linear_probe(codes[train, :4], y[train], codes[test, :4], y[test])


def test_a_probe_is_linear_and_scored_on_test_codes() -> None:
    signs = (noise(0, 400, 2) > 0).double()
    either = (signs[:, 0] != signs[:, 1]).long()
    assert linear_probe(signs, either, signs, either) < 0.7
    y = signs[:, 0].long()
    assert linear_probe(signs, y, signs, y) == 1
    assert linear_probe(signs, y, signs, 1 - y) == 0
    assert linear_probe(signs, y, signs, y + 7) == 0


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 1000), st.sampled_from([1e-6, 1e6]))
def test_units_and_offsets_do_not_matter_to_a_probe(seed: int, unit: float) -> None:
    factors = some_factors(seed, 200)
    codes, y = perfect(factors) + noise(seed, 200), factors[:, 2]
    moved = unit * (codes + torch.arange(5))
    wanted = linear_probe(codes[:100], y[:100], codes[100:], y[100:])
    assert linear_probe(moved[:100], y[:100], moved[100:], y[100:]) == pytest.approx(wanted, abs=0.011)


@pytest.mark.parametrize("score", [mutual_information_gap, attribute_predictability, dci, factor_vae_score])
def test_tables_that_do_not_fit_are_refused(score: Callable[..., float]) -> None:
    factors = some_factors(n=40)
    codes = noise(0, 40)
    rest = (rng(),) if score in (dci, factor_vae_score) else ()
    for wrong, words in (
        ((codes[:30], factors), "factors: got 40 rows for 30 codes"),
        ((codes[:1], factors[:1]), "factors: got 1 rows for 1 codes"),
        ((codes[:, :1], factors), "codes: got 1 dimensions"),
        ((codes, factors[:, :0]), "factors: got 0"),
        ((codes / 0, factors), "codes: some are not finite"),
        ((codes, factors * torch.tensor([1, 0, 1])), "factors: got one value only in column 1"),
    ):
        with pytest.raises(InputError, match=words):
            score(*wrong, *rest)


def test_options_that_do_not_fit_are_refused() -> None:
    factors = some_factors(n=40)
    codes = noise(0, 40)
    with pytest.raises(InputError, match="bins: got 1"):
        mutual_information_gap(codes, factors, 1)
    with pytest.raises(InputError, match="trees: got 0"):
        dci(codes, factors, rng(), trees=0)
    for share in (0.0, 0.999, 1.5):
        with pytest.raises(InputError, match=f"test_share: got {share} of 40"):
            dci(codes, factors, rng(), test_share=share)
    with pytest.raises(InputError, match="factors: got 1; write at least 2"):
        dci(codes, factors[:, :1], rng())
    with pytest.raises(InputError, match="batch_size: got 1"):
        factor_vae_score(codes, factors, rng(), batch_size=1)
    with pytest.raises(InputError, match="votes: got 0"):
        factor_vae_score(codes, factors, rng(), votes=0)
    with pytest.raises(InputError, match="codes: no dimension varies"):
        factor_vae_score(torch.ones(40, 2), factors, rng(), batch_size=5)


def test_probes_that_cannot_be_fitted_are_refused() -> None:
    codes, y = noise(0, 40), some_factors(n=40)[:, 2]
    with pytest.raises(InputError, match="labels_test: got 39 for 40 codes"):
        linear_probe(codes, y, codes, y[1:])
    with pytest.raises(InputError, match="labels_train: got 0 for 0 codes"):
        linear_probe(codes[:0], y[:0], codes, y)
    with pytest.raises(InputError, match="codes_test: some are not finite"):
        linear_probe(codes, y, codes / 0, y)
    with pytest.raises(InputError, match="codes_test: got 4 dimensions, but the train codes have 5"):
        linear_probe(codes, y, codes[:, 1:], y)
    with pytest.raises(InputError, match="labels_train: got one value only"):
        linear_probe(codes, y * 0, codes, y)
    for sizes in ((2, 2), (5, 0), (), (6, -1)):
        with pytest.raises(InputError, match=r"layer_sizes: got \["):
            linear_probes(codes, y, codes, y, sizes)
    with pytest.raises(InputError, match="codes_test: got 4 dimensions"):
        linear_probes(codes, y, codes[:, 1:], y, (2, 3))
