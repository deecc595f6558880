"""Values continued smoothly into where they are missing."""

from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor


def continued(values: Float[Tensor, "*m h w"], seen: Bool[Tensor, "h w"]) -> Float[Tensor, "*m h w"]:
    """Return maps whose missing values are the smoothest continuation of the others; float64.

        u = argmin |L u|^2,   u = values where they are seen

    L is the Laplacian of the grid of pixels, so that u is biharmonic where values are missing. A hole in a plane is
    filled with the plane. Each hole is solved alone, and all maps at once. Where nothing is seen, u is 0.

    values: (..., h, w), the maps; what they have at missing places is not looked at.
    seen: (h, w), true where values are known.

    >>> ramp = torch.arange(8.0).expand(8, 8)
    >>> seen = torch.ones(8, 8, dtype=torch.bool)
    >>> seen[2:5, 3:6] = False
    >>> torch.allclose(continued(torch.where(seen, ramp, 0.0), seen).float(), ramp, atol=1e-5)
    True

    Source: Damelin, Hoang, "On surface completion and image inpainting by biharmonic functions: numerical aspects",
    2018, arXiv 1707.06567.
    """
    from scipy.ndimage import binary_dilation, label

    known = seen.cpu().numpy()
    flat = values.detach().cpu().double().reshape(-1, known.size).numpy().T.copy()
    flat[~known.ravel()] = 0.0
    if known.any():
        # the operator reaches two pixels far: holes that it joins are one
        wide = binary_dilation(~known)
        groups, count = cast(Any, label(wide, np.ones((3, 3))))
        for group in range(1, count + 1):
            _fill(flat, known, (groups == group) & ~known)
    return torch.from_numpy(np.ascontiguousarray(flat.T)).reshape(values.shape).to(values.device)


def _fill(flat: np.ndarray, known: np.ndarray, hole: np.ndarray) -> None:
    """Solve for the values of one hole, in place; flat: (h w, m)."""
    from scipy.sparse.linalg import splu

    rows, columns = np.nonzero(hole)
    # as far as the operator reaches from the hole, and the pixels that its Laplacian there is made of
    top, left = max(rows.min() - 3, 0), max(columns.min() - 3, 0)
    box = np.s_[top : rows.max() + 4, left : columns.max() + 4]
    place = np.arange(known.size).reshape(known.shape)[box]
    inside = hole[box].ravel()
    laplacian = grid_laplacian(*place.shape)
    biharmonic = (laplacian @ laplacian)[inside]
    around = flat[place.ravel()[~inside]]
    flat[place.ravel()[inside]] = splu(biharmonic[:, inside].tocsc()).solve(-(biharmonic[:, ~inside] @ around))


def grid_laplacian(height: int, width: int) -> Any:
    """Return the Laplacian of the graph of neighbouring pixels, (h w, h w), sparse.

    height, width: of the map.
    """
    from scipy.sparse import diags, identity, kron

    def along(n: int) -> Any:
        ends = np.full(n, 2.0)
        ends[0] -= 1.0
        ends[-1] -= 1.0
        return diags([ends, -np.ones(n - 1), -np.ones(n - 1)], cast(Any, [0, 1, -1]))

    return (kron(along(height), identity(width)) + kron(identity(height), along(width))).tocsr()
