"""Sums of outer products with forgetting: what regressions and mixtures kept in closed form are solved from."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

BLOCK = 128
"""Columns of which the products with those on their right are taken at once: less of them is computed twice in smaller
blocks, and each product of matrices is slower."""


class Sums(nn.Module):
    """The sums of outer products of rows, m of them apart, that are kept while latents arrive.

        total_c <- forget total_c + sum over rows n of group c of row_n row_n^T

    Rows that begin with a 1 carry their count and their sum along: total_c[0, 0] and total_c[0]. The sums are buffers:
    they are saved with the module that they belong to. They are computed in their own precision, outside of autocast.

    groups: m.
    size: q, numbers of a row.
    dtype: of the sums. In float32 what is not a thousandth of a mean gets lost beside it.

    >>> sums = Sums(groups=1, size=2)
    >>> sums.add(torch.tensor([[1.0, 3.0], [1.0, 5.0]]), forget=0.9)
    >>> sums.total[0].tolist()
    [[2.0, 8.0], [8.0, 34.0]]
    """

    total: Tensor

    def __init__(self, groups: int, size: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(groups, size, size, dtype=dtype))

    @torch.no_grad()
    def add(self, rows: Float[Tensor, "n q"], forget: float, group: Int64[Tensor, "n"] | None = None) -> None:
        """Forget some of the sums and add rows to them.

        rows: (n, q), finite.
        forget: from 0 (all is forgotten) to 1 (nothing is), the factor of what was there.
        group: (n,), the sum that each row belongs to, 0 to m - 1; None where there is one.
        """
        with torch.autocast(rows.device.type, enabled=False):
            rows = rows.to(self.total.dtype)
            self.total *= forget
            if group is None:
                add_products(self.total[0], rows)
                return
            for index, total in enumerate(self.total):
                add_products(total, rows[group == index])


def add_products(total: Float[Tensor, "q q"], rows: Float[Tensor, "n q"]) -> None:
    """Add sum_n row_n row_n^T to a symmetric matrix; only what lies above its diagonal is computed.

    total: (q, q), symmetric; it is changed.
    rows: (n, q).
    """
    for first in range(0, len(total), BLOCK):
        last = min(first + BLOCK, len(total))
        total[first:last, first:].addmm_(rows[:, first:last].T, rows[:, first:])
        total[last:, first:last] = total[first:last, last:].T


def with_one(rows: Float[Tensor, "n p"]) -> Float[Tensor, "n q"]:
    """Return rows with a 1 before their numbers, (n, p + 1).

    rows: (n, p).
    """
    return torch.cat([rows.new_ones(len(rows), 1), rows], 1)


def symmetric(matrix: Float[Tensor, "*m d d"]) -> Float[Tensor, "*m d d"]:
    """Return the mean of matrices and their transposes, which round-off has parted.

    matrix: (..., d, d).
    """
    return 0.5 * (matrix + matrix.mT)
