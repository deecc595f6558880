"""Fidelity and diversity apart: precision, recall, density and coverage by nearest neighbours of features."""

from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from shortrun.errors import InputError, check_at_least

ENTRIES = 2**24
"""Distances held at once, 128 MiB in float64."""


class Neighbours(NamedTuple):
    """What nearest neighbours say of generated images."""

    precision: float
    """The share of generated images that lie in a ball of some real one: fidelity, in [0, 1]."""
    recall: float
    """The share of real images that lie in a ball of some generated one: diversity, in [0, 1]."""
    density: float
    """In how many balls of real images a generated one lies, over k: fidelity, from 0, near 1 for equal sets."""
    coverage: float
    """The share of real images with a generated one in their ball: diversity, in [0, 1]."""


def neighbour_figures(
    real: Float64[Tensor, "n d"], made: Float64[Tensor, "m _"], k: int = 5, entries: int = ENTRIES
) -> Neighbours:
    """Return precision, recall, density and coverage of generated images, from balls around features.

        B(x_i) = {v: |v - x_i| <= r_k(x_i)},   r_k(x_i) the distance from x_i to its k-th neighbour among the other x
        precision = mean_j 1[y_j in some B(x_i)]      recall   = mean_i 1[x_i in some B(y_j)]
        density   = mean_j #{i: y_j in B(x_i)} / k    coverage = mean_i 1[some y_j in B(x_i)]

    All four depend on n, m and k: quote them, and compare only equal ones. For two samples of one distribution of
    continuous features density is 1 on average, and coverage 1 - C(n - 1, k) / C(n + m - 1, k), about 1 - 2^-k for n =
    m; precision and recall have no such value.

    real: x, (n, d), features of test images as a rule, by `feature_matrix`.
    made: y, (m, d), features of generated ones.
    k: at least 1 and less than n and m; 3 in the first paper, 5 in the second.
    entries: at least 1, how many distances are held at once, which bounds the memory.

    Raises InputError for a k that does not fit, unlike d, and rows that are not finite.

    >>> x = torch.rand(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> neighbour_figures(x, x + 9).coverage, neighbour_figures(x, x).coverage
    (0.0, 1.0)

    Sources: Kynkaanniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", 2019, arXiv
    1904.06991 (precision and recall). Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models",
    2020, arXiv 2002.09797 (density and coverage).
    """
    if real.shape[1] != made.shape[1]:
        raise InputError("made", f"{made.shape[1]} features, but the real ones have {real.shape[1]}", "use the same")
    most = min(len(real), len(made)) - 1
    if not 1 <= k <= most:
        raise InputError("k", k, f"write a whole number from 1 to {most}, one less than the smaller set")
    check_at_least(1, entries=entries)
    for name, rows in (("real", real), ("made", made)):
        if not torch.isfinite(rows).all():
            raise InputError(name, problem="some features are not finite", instead="leave out images that are not")
    # long rows are compared by products of matrices, which lose the digits that a common offset takes
    centre = real.mean(0)
    x, y = real - centre, made - centre
    of_real, of_made = _radii(x, k, entries), _radii(y, k, entries)
    balls = torch.zeros(len(y), dtype=torch.int64)
    recalled = covered = 0
    for part, radii in zip(_split(x, len(y), entries), _split(of_real, len(y), entries), strict=True):
        distances = torch.cdist(part, y)
        inside = distances <= radii[:, None]
        balls += inside.sum(0)
        covered += int(inside.any(1).sum())
        recalled += int((distances <= of_made).any(1).sum())
    return Neighbours(
        precision=float((balls > 0).double().mean()),
        recall=recalled / len(x),
        density=float(balls.double().mean()) / k,
        coverage=covered / len(x),
    )


def _radii(rows: Tensor, k: int, entries: int) -> Tensor:
    """Return the distance of each row to its k-th neighbour: the (k + 1)-th smallest, as each is nearest to itself."""
    return torch.cat(
        [
            torch.cdist(part, rows).topk(k + 1, dim=1, largest=False).values[:, -1]
            for part in _split(rows, len(rows), entries)
        ]
    )


def _split(rows: Tensor, others: int, entries: int) -> tuple[Tensor, ...]:
    return rows.split(max(1, entries // others))
