"""Values that change as training goes on: a schedule is a list of pairs."""

from collections.abc import Sequence

import numpy as np


def interpolate(pairs: Sequence[tuple[float, float]], progress: float) -> float:
    """Return the value of a schedule at a share of the training done.

    pairs: (share, value) in rising order of share; linear in between, constant outside; progress: in [0, 1].
    """
    shares, values = zip(*pairs, strict=True)
    return float(np.interp(progress, shares, values))
