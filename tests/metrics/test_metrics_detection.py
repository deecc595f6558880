"""Areas under curves, against sums over pairs and ranks."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from shortrun.errors import InputError
from shortrun.metrics.detection import average_precision, least_average_precision, roc_auc


@settings(deadline=None, max_examples=30)
@given(values=st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=30))
def test_areas_are_sums_over_thresholds_and_pairs(values: list[tuple[int, bool]]) -> None:
    scores = torch.tensor([float(score) for score, _ in values])
    positive = torch.tensor([kind for _, kind in values])
    if not 0 < int(positive.sum()) < len(values):
        return
    area, recall = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        taken = scores >= threshold
        now = float((taken & positive).sum() / positive.sum())
        area += (now - recall) * float(positive[taken].float().mean())
        recall = now
    assert average_precision(scores, positive) == pytest.approx(area, abs=1e-6)
    gaps = scores[positive][:, None] - scores[~positive]
    assert roc_auc(scores, positive) == pytest.approx(float(((gaps > 0).float() + 0.5 * (gaps == 0)).mean()), abs=1e-6)


def test_infinite_scores_have_a_place_and_the_order_alone_counts() -> None:
    positive = torch.tensor([True, False, True, False])
    scores = torch.tensor([math.inf, 1.0, 2.0, -math.inf])
    assert average_precision(scores, positive) == roc_auc(scores, positive) == 1.0
    close = 1e9 + torch.tensor([3e-3, 2e-3, 1e-3, 0.0]).double()  # float64 tells them apart, float32 would not
    assert roc_auc(close, positive) == pytest.approx(0.75)


@pytest.mark.parametrize(("positives", "negatives"), [(1, 1), (3, 5), (7877, 12425)])
def test_no_order_is_worse_than_the_worst(positives: int, negatives: int) -> None:
    scores = torch.arange(positives + negatives).double()
    least = least_average_precision(positives, negatives)
    assert average_precision(scores, scores < positives) == pytest.approx(least)
    assert least <= positives / (positives + negatives)


@pytest.mark.parametrize(
    ("scores", "positive", "words"),
    [
        (torch.zeros(3), torch.zeros(3, dtype=torch.bool), "positive: got 0 of 3"),
        (torch.zeros(3), torch.ones(3, dtype=torch.bool), "positive: got 3 of 3"),
        (torch.tensor([0.0, math.nan]), torch.tensor([True, False]), "scores: got some that are not numbers"),
    ],
)
def test_what_has_no_area_is_refused(scores: Tensor, positive: Tensor, words: str) -> None:
    for area in (average_precision, roc_auc):
        with pytest.raises(InputError, match=words):
            area(scores, positive)
