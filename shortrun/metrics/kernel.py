"""How far generated images are from real ones as a set: the kernel distance of their features, with no upward bias."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from shortrun.errors import InputError, check_at_least
from shortrun.metrics.feature_matrix import check_sets, feature_matrix

MOST_IN_A_SUBSET = 1000


class KernelDistance(NamedTuple):
    """The kernel distance over subsets."""

    mean: float
    std: float
    """How far one subset is from another; subsets share images, so it is not the standard error of the mean."""


def kernel_distance(
    features: nn.Module,
    real: Float[Tensor, "n c h w"],
    made: Float[Tensor, "m _ _ _"],
    rng: torch.Generator,
    *,
    subsets: int = 100,
    subset_size: int | None = None,
    batch_size: int = 500,
) -> KernelDistance:
    """Return mean and standard deviation of the squared kernel distance between subsets of two sets of images.

    For each subset, images of each set are drawn without replacement, and `polynomial_mmd` of their features is taken.
    The mean estimates the same number for every subset size and n, unlike the Frechet distance. For sets of one
    distribution it is 0 on average, and below 0 about as often as above. It is often quoted times 1000.

    features: as in `feature_matrix`.
    real: (n, c, h, w) in [-1, 1], at least two images, test images as a rule.
    made: (m, c, h, w) in [-1, 1], at least two images, generated ones.
    rng: draws the subsets.
    subsets: at least 1.
    subset_size: at least 2; where not given 1000, as is usual, or half of the smaller set where that is less.
    batch_size: at least 1, images at a time.

    Raises InputError for fewer than two images, unlike shapes, counts that do not fit, and as `feature_matrix` does.

    >>> rng = torch.Generator().manual_seed(0)
    >>> x = torch.rand(40, 1, 2, 2, generator=rng)
    >>> kernel_distance(nn.Flatten(), x, x - 1, rng, subsets=5).mean > 0
    True

    Source: Binkowski et al., "Demystifying MMD GANs", 2018, arXiv 1801.01401.
    """
    check_sets(real, made)
    check_at_least(1, subsets=subsets)
    smaller = min(len(real), len(made))
    size = max(2, min(MOST_IN_A_SUBSET, smaller // 2)) if subset_size is None else subset_size
    if not 2 <= size <= smaller:
        raise InputError("subset_size", size, f"write a whole number from 2 to {smaller}, the smaller set")
    x = feature_matrix(features, real, batch_size, "real")
    y = feature_matrix(features, made, batch_size, "made")

    def draw(rows: Tensor) -> Tensor:
        return rows[torch.randperm(len(rows), generator=rng, device=rng.device)[:size].cpu()]

    found = torch.tensor([polynomial_mmd(draw(x), draw(y)) for _ in range(subsets)], dtype=torch.float64)
    return KernelDistance(float(found.mean()), float(found.std(correction=0)))


def polynomial_mmd(x: Float64[Tensor, "n d"], y: Float64[Tensor, "m d"]) -> float:
    """Return the unbiased estimate of the squared maximum mean discrepancy of two samples under a cubic kernel.

        mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j),   k(a, b) = (a.b / d + 1)^3

    The result can lie below 0.

    x: (n, d), at least two rows.
    y: (m, d), at least two rows.

    Raises InputError for fewer rows.

    Source: as for `kernel_distance`, equation 4.
    """
    for name, rows in (("x", x), ("y", y)):
        if len(rows) < 2:
            raise InputError(name, f"{len(rows)} rows", "write at least two")

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def between(rows: Tensor) -> Tensor:
        values, count = kernel(rows, rows), len(rows)
        return (values.sum() - values.trace()) / (count * (count - 1))

    return float(between(x) + between(y) - 2 * kernel(x, y).mean())
