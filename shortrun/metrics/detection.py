"""How well a score tells images of one kind from those of another."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from shortrun.errors import InputError


def average_precision(scores: Float[Tensor, "n"], positive: Bool[Tensor, "n"]) -> float:
    """Return the area under the precision-recall curve: 1 at best, the share of positives by chance.

        AP = sum_k (R_k - R_{k-1}) P_k

    P_k and R_k are precision and recall of "positive from the k-th largest score on"; no line is drawn between them.

    scores: (n,), larger where an image is taken for a positive one; infinite ones too.
    positive: (n,), which are.

    Raises InputError where not both kinds are there, and for scores that are not numbers.

    >>> average_precision(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([True, False, True]))
    0.8333333333333333

    Source: scikit-learn's `average_precision_score`.
    """
    from sklearn.metrics import average_precision_score

    ranks = _ranks(scores, positive)
    return float(average_precision_score(positive.cpu().numpy(), ranks.cpu().numpy()))


def roc_auc(scores: Float[Tensor, "n"], positive: Bool[Tensor, "n"]) -> float:
    """Return the area under the ROC curve: the chance that a positive has a larger score than a negative.

    A tie counts as one half, so that a score that says nothing has 1/2.

    scores: (n,), larger where an image is taken for a positive one; infinite ones too.
    positive: (n,), which are.

    Raises InputError where not both kinds are there, and for scores that are not numbers.

    >>> roc_auc(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([True, False, True]))
    0.5

    Source: scikit-learn's `roc_auc_score`.
    """
    from sklearn.metrics import roc_auc_score

    ranks = _ranks(scores, positive)
    return float(roc_auc_score(positive.cpu().numpy(), ranks.cpu().numpy()))


def least_average_precision(positives: int, negatives: int) -> float:
    """Return the average precision of the worst order there is, all negatives before all positives.

        AP = (1 / m) sum_{k=1}^m k / (n + k)

    positives: m, at least 1.
    negatives: n, 0 or more.

    >>> least_average_precision(2, 1)
    0.5833333333333333
    """
    return sum(k / (negatives + k) for k in range(1, positives + 1)) / positives


def _ranks(scores: Float[Tensor, "n"], positive: Bool[Tensor, "n"]) -> Tensor:
    """Return whole numbers in the same order, ties included, in which infinite scores have a place."""
    if len(scores) != len(positive):
        raise InputError("scores", f"{len(scores)} for {len(positive)} images", "give one each")
    if bool(torch.isnan(scores).any()):
        raise InputError("scores", "some that are not numbers", "leave those images out, or give them the largest")
    if not 0 < int(positive.sum()) < len(positive):
        raise InputError("positive", f"{int(positive.sum())} of {len(positive)}", "give some of both kinds")
    return torch.unique(scores, return_inverse=True)[1]
