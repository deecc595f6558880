"""Small moves of the step sizes towards the best, for tuning now and then while the model learns."""

import torch

from shortrun.inference.tuning import (
    Objective,
    Search,
    Settings,
    derivatives,
    mean,
    moved,
    robust,
    standard_error,
    vertex,
)


def grid_move(objective: Objective, start: Settings, width: float | Settings = 0.3) -> Settings:
    """Return settings moved by at most `width` to the vertex of a parabola through three values, as far as it is sure.

    It is for tuning now and then while the model learns, by 1 + 2p evaluations. Differences are taken image by image,
    cut as in `robust`. The move is multiplied by b^2 / (b^2 + its variance), b the slope: noise alone moves nothing.
    Where no value is finite the steps are far too long, and the move is down.

    objective: settings -> (n,), to be minimized in the mean.
    start: (p,), the settings to start from.
    width: of the logarithms, one or one for each setting.
    """
    search = Search(objective, start)
    middle = search.best_values
    move = torch.zeros_like(search.start)
    widths = torch.as_tensor(width, dtype=torch.float64).expand(len(start)).tolist()
    for index, w in enumerate(widths):
        low, high = (search.values(moved(search.start, index, sign * w)) - middle for sign in (-1, 1))
        sure = torch.isfinite(low) & torch.isfinite(high)
        if sure.sum() < 2:
            move[index] = -w
            continue
        low, high = robust(low[sure]), robust(high[sure])
        slope = 0.5 * (high - low)
        trust = 1 / (1 + (standard_error(slope) / max(abs(mean(slope)), 1e-12)) ** 2)
        move[index] = w * trust * vertex(mean(low), 0.0, mean(high))
    return search.start + move


def gradient_move(objective: Objective, start: Settings, width: float | Settings = 0.3) -> Settings:
    """Return settings moved by `width` against the sign of the objective's derivative, as far as it is sure.

    It takes 3p evaluations; trust in the slope is as in `grid_move`. Derivatives see less far than differences: where a
    chain overshoots they have heavy tails.

    objective: settings -> (n,), to be minimized in the mean.
    start: (p,), the settings to start from.
    width: of the logarithms, one or one for each setting.
    """
    move = torch.zeros_like(start.double())
    for index, w in enumerate(torch.as_tensor(width, dtype=torch.float64).expand(len(start)).tolist()):
        slopes = derivatives(objective, start.double(), index)
        if len(slopes) < 2:
            move[index] = -w
            continue
        slopes = robust(slopes)
        trust = 1 / (1 + (standard_error(slopes) / max(abs(mean(slopes)), 1e-12)) ** 2)
        move[index] = -w * trust * (1 if mean(slopes) > 0 else -1)
    return start.double() + move
