"""Search for the step sizes whose chain ends nearest to its target: by grid and by gradient.

An objective gives one number for each image, smaller is better, of a vector of settings: with the start and the noise
of the chains held fixed it is a deterministic function of them, and two settings are compared on the same draws.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.errors import InputError, did_you_mean
from shortrun.inference.step_size import StepSize, step_sizes

Settings = Float[Tensor, "p"]
Objective = Callable[[Settings], Float[Tensor, "n"]]
OVER = ("one", "layers", "schedule", "both")
"""What is tuned: one step size; one for each layer; one and its decay r; one for each layer and r."""
SHORTEST, LONGEST = 1e-3, 10.0
"""Where step sizes are looked for."""
TOLERANCE = 0.03
"""Logarithms of step sizes that are nearer to one another are not told apart."""
LOOK = torch.logspace(-3, 1, 13, dtype=torch.float64).log()
"""Logarithms of the step sizes of a first look; overshooting leaves local minima, which a descent alone would keep."""
DECAYS = torch.tensor([0.1, 0.2, 0.4, 0.7, 1.0, 1.5], dtype=torch.float64).log()


class Space:
    """The settings that are tuned, as a vector: log step sizes, then log r where the decay is tuned too.

    The step sizes in it are geometric means along the chain, s_0 sqrt(r), so that the best of them depends little on r,
    and the settings can be searched one after the other.

    over: what is tuned: one step size, one for each of the layers, schedule for one and its decay, or both.
    latents: the sizes of the layers, top down, (d_L, ..., d_1).
    decay: r where it is not tuned.

    Raises InputError for another word.

    >>> space = Space("both", latents=(2, 3))
    >>> settings = space.read(StepSize(0.1, latents=(2, 3), decay=0.5))
    >>> settings.shape, space.sizes(settings, steps=4).shape
    (torch.Size([3]), torch.Size([4, 1, 5]))
    """

    def __init__(self, over: str, latents: Sequence[int], decay: float = 1.0) -> None:
        if over not in OVER:
            raise InputError("over", repr(over), did_you_mean(over, OVER))
        self.over, self.latents = over, tuple(latents)
        self.log_decay = torch.tensor(decay, dtype=torch.float64).log()

    @property
    def has_decay(self) -> bool:
        """Whether the last setting is log r."""
        return self.over in ("schedule", "both")

    @property
    def layers(self) -> int:
        """How many step sizes there are."""
        return len(self.latents) if self.over in ("layers", "both") else 1

    def read(self, step_size: StepSize) -> Settings:
        """Return the settings of step sizes; where there is one for each layer and one is wanted, their mean.

        step_size: of a learner.
        """
        each, decay = step_size.log_values.double().cpu(), step_size.log_decay.double().cpu()
        if len(each) != self.layers:
            each = each.mean().expand(self.layers)
        means = each + 0.5 * decay
        return torch.cat([means, decay[None]]) if self.has_decay else means

    def parts(self, settings: Settings) -> tuple[Tensor, Tensor]:
        """Return log s_0, one or one for each layer, and log r.

        settings: (p,).
        """
        decay = settings[-1] if self.has_decay else self.log_decay.to(settings.dtype)
        return settings[: self.layers] - 0.5 * decay, decay

    def write(self, step_size: StepSize, settings: Settings) -> None:
        """Put settings into step sizes.

        step_size: of a learner.
        settings: (p,).

        Raises InputError where there is one step size for settings of several.
        """
        each, decay = self.parts(settings)
        if len(each) not in (1, len(step_size.log_values)):
            raise InputError("over", f"{self.over!r} for a learner with one step size", "write one or schedule")
        step_size.log_values.copy_(each.expand(step_size.log_values.shape))
        step_size.log_decay.copy_(decay)

    def sizes(self, settings: Settings, steps: int) -> Float[Tensor, "k 1 d"]:
        """Return the step sizes of a chain, (K, 1, d), differentiable in the settings.

        settings: (p,).
        steps: K, at least 1.
        """
        each, decay = self.parts(settings)
        return step_sizes(each, decay, self.latents, steps)

    def widths(self) -> Settings:
        """Return how far a small move goes at most: log r matters less than a log step size and may go further."""
        return torch.tensor([0.3] * self.layers + [0.6] * self.has_decay, dtype=torch.float64)

    def within(self, settings: Settings) -> Settings:
        """Return the settings, or the nearest ones that a search looks at.

        settings: (p,).
        """
        low, high = (
            torch.stack([self.look(index)[end] for index in range(len(settings))]).to(settings) for end in (0, -1)
        )
        return settings.clamp(low, high)

    def look(self, index: int) -> Tensor:
        """Return the values of a setting that a first look tries.

        index: of the setting.
        """
        return DECAYS if self.has_decay and index == self.layers else LOOK


class Tuned(NamedTuple):
    """What a tuner found."""

    settings: Settings
    value: float
    """The objective there, mean over images, on the draws of the search: too low, since these draws chose it."""
    error: float
    """The standard error of `value` over the images, on the same draws: it does not contain the choice."""
    start: float
    """The objective where the tuner began."""
    evaluations: int
    """Of the objective in the search; one with its derivative counts for three."""
    fresh_value: float = float("nan")
    """The objective at the settings on draws that had no part in the choice; nan where it was not looked at."""
    fresh_error: float = float("nan")
    """The standard error of `fresh_value` over the images."""

    @property
    def improved(self) -> bool:
        """Whether anything better than the start was found; where not, the settings are the start's."""
        return self.value < self.start


def checked(found: Tuned, fresh: Objective) -> Tuned:
    """Return what a tuner found with the objective at its settings on other draws, by one evaluation.

    found: by a search.
    fresh: the objective on draws that the search has not seen.
    """
    with torch.no_grad():
        values = finite_or_worst(fresh(found.settings).double())
    return found._replace(fresh_value=mean(values), fresh_error=standard_error(values))


Known = dict[tuple[float, ...], Tensor]
"""Values (n,) of an objective by its settings: what has been seen is not computed again."""


class Search:
    """An objective with what has been seen of it so far, `known` to begin with."""

    def __init__(self, objective: Objective, start: Settings, known: Known | None = None) -> None:
        self.objective, self.start = objective, start.double()
        self.known = {} if known is None else known
        self.evaluations = 0
        self.best, self.best_values = self.start, self.values(self.start)
        self.start_value = mean(self.best_values)

    def values(self, settings: Settings) -> Tensor:
        """Return the objective for each image; inf where it is not finite: such a chain is the worst there is."""
        key = tuple(settings.tolist())
        if key not in self.known:
            self.evaluations += 1
            with torch.no_grad():
                self.known[key] = finite_or_worst(self.objective(settings).double())
        return self.known[key]

    def try_(self, settings: Settings) -> float:
        """Return the mean of the objective at the settings cut to 0.001 .. 10, and remember the best."""
        settings = settings.clamp(LOOK[0], LOOK[-1])
        values = self.values(settings)
        if mean(values) < mean(self.best_values):
            self.best, self.best_values = settings, values
        return mean(values)

    def slope(self, index: int) -> float:
        """Return a robust mean over images of the derivative in one setting at the best one seen.

        Derivatives of long chains have heavy tails: each image's is cut to five median deviations from the median.
        """
        self.evaluations += 2
        slopes = derivatives(self.objective, self.best, index)
        return float(robust(slopes).mean()) if len(slopes) else 0.0

    def found(self) -> Tuned:
        """Return the best that was seen."""
        return Tuned(
            self.best, mean(self.best_values), standard_error(self.best_values), self.start_value, self.evaluations
        )


def derivatives(objective: Objective, at: Settings, index: int) -> Tensor:
    """Return the derivative in one setting for each image where it is finite, by forward mode."""
    direction = torch.zeros_like(at)
    direction[index] = 1
    slopes = torch.func.jvp(lambda settings: objective(settings).double(), (at,), (direction,))[1]
    return slopes.detach()[torch.isfinite(slopes)]


def finite_or_worst(values: Tensor) -> Tensor:
    """Return values with inf in place of those that are not finite."""
    return torch.where(torch.isfinite(values), values, torch.inf)


def mean(values: Tensor) -> float:
    """Return the mean over images."""
    return float(values.mean())


def standard_error(values: Tensor) -> float:
    """Return the standard error of the mean over images; nan from one image."""
    return float(values.std() / len(values) ** 0.5) if len(values) > 1 else float("nan")


def robust(values: Tensor, deviations: float = 5.0) -> Tensor:
    """Return the values cut to so many median absolute deviations from their median; fewer than three as they are."""
    if len(values) < 3:
        return values  # of two, torch's median is the lower one, and the median deviation from it is 0
    middle = values.median()
    spread = deviations * (values - middle).abs().median()
    return values.clamp(middle - spread, middle + spread)


def vertex(low: float, middle: float, high: float) -> float:
    """Return where the parabola through (-1, low), (0, middle), (1, high) is least; else the lower of its ends."""
    bend = low + high - 2 * middle
    if not bend > 0:
        return -1.0 if low < high else 1.0
    return min(max(0.5 * (low - high) / bend, -1.0), 1.0)


def grid(objective: Objective, start: Settings, space: Space, known: Known | None = None, rounds: int = 6) -> Tuned:
    """Return the settings that a search of each over a fixed grid, then over a finer one around its best, has found.

    One setting: 13 step sizes from 0.001 to 10, 6 between the neighbours of the best, then the vertex of a parabola.
    Several: one after the other, and again over the finer grid until a round moves none. The start counts too: what is
    returned is never worse.

    objective: settings -> (n,), to be minimized in the mean.
    start: (p,), the settings to start from.
    space: what the settings are.
    known: what has been seen of the objective; new values are added to it.
    rounds: at most, where there are several settings.

    >>> objective = lambda settings: (settings - 0.5) ** 2
    >>> found = grid(objective, torch.zeros(1, dtype=torch.float64), Space("one", latents=(2,)))
    >>> round(float(found.settings), 2)
    0.5
    """
    search = Search(objective, start, known)
    _together(search, space)
    for turn in range(rounds if len(start) > 1 else 1):
        before = search.best
        for index in range(len(start)):
            spacing = 0.4 if turn else _scan(search, index, space.look(index))
            while spacing > 0.15:
                spacing = _scan(search, index, search.best[index] + spacing * torch.tensor([-0.5, 0.5]))
            _vertex_around(search, index, spacing)
        change = search.best - before
        if change.abs().max() < TOLERANCE:
            break
        search.try_(search.best + change)  # settings that are best moved together go slowly one by one
    return search.found()


def _together(search: Search, space: Space) -> None:
    """Try equal step sizes in all layers: from steps too long in every layer no single one leads back."""
    for point in LOOK if space.layers > 1 else ():
        search.try_(torch.cat([point.expand(space.layers), search.start[space.layers :]]))


def _scan(search: Search, index: int, points: Tensor) -> float:
    """Try the points of one setting and return the distance between neighbours."""
    for point in points:
        settings = search.best.clone()
        settings[index] = point
        search.try_(settings)
    return float((points[1:] - points[:-1]).max()) / (2 if len(points) == 2 else 1)


def moved(settings: Settings, index: int, by: float) -> Settings:
    """Return the settings with one of them moved."""
    moved = settings.clone()
    moved[index] += by
    return moved


def _vertex_around(search: Search, index: int, width: float) -> None:
    """Try the vertex of the parabola through the best setting and its neighbours at `width`."""
    at, middle = search.best, mean(search.best_values)
    low, high = (search.try_(moved(at, index, sign * width)) for sign in (-1, 1))
    search.try_(moved(at, index, vertex(low, middle, high) * width))


def gradient(
    objective: Objective,
    start: Settings,
    space: Space,
    known: Known | None = None,
    evaluations: int = 200,
) -> Tuned:
    """Descend along the derivative of the objective in the logarithm of each setting, from the best of a first look.

    The derivative, by forward mode and robust to its heavy tails, says which way to go, and the objective itself
    whether that was right: a step that does not lower it is tried the other way, and where both ways lead up the
    vertex of the parabola through the three is tried and the step becomes shorter, down to TOLERANCE. Without the
    look it would end in a local minimum beyond the overshooting step sizes. The look is the same wherever it starts.
    """
    search = Search(objective, start, known)
    _together(search, space)
    for index in range(len(start)):
        _scan(search, index, space.look(index))
    width = torch.full((len(start),), 0.3, dtype=torch.float64)
    while width.max() > TOLERANCE and search.evaluations < evaluations:
        index = int(width.argmax())
        at, middle, w = search.best, mean(search.best_values), float(width[index])
        way = -1.0 if search.slope(index) > 0 else 1.0
        ahead = search.try_(moved(at, index, way * w))
        if ahead < middle:
            width[index] = min(1.4 * w, 1.0)
            continue
        behind = search.try_(moved(at, index, -way * w))
        if behind < middle:
            continue
        search.try_(moved(at, index, way * w * vertex(behind, middle, ahead)))
        width[index] = 0.35 * w
    return search.found()
