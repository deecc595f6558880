"""Photos of any size with damaged places, filled in by a model of small square images."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from shortrun.continuation import continued
from shortrun.errors import InputError, check_at_least
from shortrun.learners import Learner
from shortrun.learners.learner import Stage
from shortrun.pixels import to_unit
from shortrun.tasks.batches import BATCH_SIZE, decode, infer, watch

MOST_UNKNOWN = 40_000
"""Missing pixels up to which a rest is continued at the photo's own resolution."""


class Window(NamedTuple):
    """A square part of a photo that the model sees at its own size."""

    top: int
    left: int
    side: int

    @property
    def box(self) -> tuple[slice, slice]:
        """The rows and the columns of the photo."""
        return slice(self.top, self.top + self.side), slice(self.left, self.left + self.side)


def windows(height: int, width: int) -> list[Window]:
    """Return square windows, as wide as the shorter side, that cover a photo with equal overlap.

    height, width: of the photo, in pixels.

    >>> [window.left for window in windows(100, 250)]
    [0, 75, 150]
    """
    side, longer = min(height, width), max(height, width)
    count = -(-longer // side)
    places = [round(i * (longer - side) / max(count - 1, 1)) for i in range(count)]
    return [Window(0, place, side) if width > height else Window(place, 0, side) for place in places]


class Seen(NamedTuple):
    """A window at the model's size."""

    x: Float[Tensor, "c h w"]
    """In [-1, 1]; smoothly continued where pixels are missing."""
    observed: Bool[Tensor, "h w"]
    """Where at least half of the photo's pixels are."""


def seen_through(
    photo: UInt8[Tensor, "c height width"],
    observed: Bool[Tensor, "height width"],
    window: Window,
    size: tuple[int, int],
) -> Seen:
    """Return a window of a photo at the model's size (antialiased bicubic).

    Missing pixels are filled by a smooth continuation first, so that what lies under the damage gets into no pixel
    that counts as observed.

    photo: all of it.
    observed: true where the photo is not damaged.
    window: of the photo.
    size: (h, w) of the model's images.
    """
    part, there = photo[:, *window.box].double(), observed[window.box]
    smooth = rest_continued(part, there)[None]
    share = F.interpolate(there.double()[None, None], size, mode="area")[0, 0]
    if size != (window.side, window.side):
        smooth = F.interpolate(smooth, size, mode="bicubic", antialias=True)
    return Seen((smooth[0] / 127.5 - 1).clamp(-1, 1).float(), share >= 0.5)


def rest_continued(
    rest: Float[Tensor, "c height width"], seen: Bool[Tensor, "height width"]
) -> Float[Tensor, "c height width"]:
    """Return maps continued into where they are missing; with very many missing pixels, at a lower resolution.

    rest: the maps.
    seen: true where they are known.
    """
    missing = int((~seen).sum())
    if not missing or missing <= MOST_UNKNOWN:
        return continued(rest, seen)
    factor = int((missing / MOST_UNKNOWN) ** 0.5) + 1
    known = seen.double()[None]
    share = F.avg_pool2d(known, factor, ceil_mode=True)
    low = F.avg_pool2d(rest * known, factor, ceil_mode=True) / share.clamp(min=1e-9)
    filled = F.interpolate(continued(low, share[0] > 0)[None], rest.shape[1:], mode="bilinear", align_corners=False)[0]
    return torch.where(seen, rest.double(), filled)


class Filled(NamedTuple):
    """Windows filled in, at the model's size."""

    completions: Float[Tensor, "m n c h w"]
    """m completions of each window, in [-1, 1]; observed pixels are as given."""
    failed: Bool[Tensor, "m n"]
    """True where the chain stayed non-finite: a draw from the prior stands in for it."""

    def rows(self, rows: slice) -> "Filled":
        """Return some of the windows.

        rows: which.
        """
        return Filled(self.completions[:, rows], self.failed[:, rows])


def fill(
    learner: Learner,
    seen: list[Seen],
    rng: torch.Generator,
    completions: int = 16,
    steps: int | None = None,
    noise: bool | None = None,
    batch_size: int = BATCH_SIZE,
) -> Filled:
    """Return windows filled in by the model, each several times over.

        completion = decode(z_K) + continued(x - decode(z_K)),   z_K by a chain on log p(x_observed, z)

    What decoding leaves over at a hole's border is continued into the hole, so that no seam shows.

    learner: ready to use.
    seen: the windows.
    rng: gives the random numbers.
    completions: at least 1, of each window.
    steps: K, at least 1, in place of the learner's; None keeps that.
    noise: in place of what the learner does; None keeps that.
    batch_size: at least 1, completions at a time.
    """
    rows = _rows(learner, seen, completions, batch_size)
    z, failed = infer(learner, rows.x, rng, mask=rows.mask, steps=steps, noise=noise, batch_size=rows.batch_size)
    return _continued(learner, seen, z, failed, rows.batch_size)


def watch_filling(
    learner: Learner,
    seen: list[Seen],
    rng: torch.Generator,
    every: int,
    completions: int = 16,
    steps: int | None = None,
    noise: bool | None = None,
    batch_size: int = BATCH_SIZE,
) -> Iterator[Stage[Filled]]:
    """Yield windows filled in by chains on their way, and last what `fill` returns.

    learner: ready to use.
    seen: the windows.
    rng: gives the random numbers; more than one batch draws them in another order than `fill` does.
    every: at least 1, the steps from one stage to the next.
    completions: at least 1, of each window.
    steps: K, at least 1, in place of the learner's; None keeps that.
    noise: in place of what the learner does; None keeps that.
    batch_size: at least 1, completions at a time.
    """
    rows = _rows(learner, seen, completions, batch_size)
    stages = watch(learner, rows.x, rng, every, mask=rows.mask, steps=steps, noise=noise, batch_size=rows.batch_size)
    for step, steps, (z, failed) in stages:
        yield Stage(step, steps, _continued(learner, seen, z, failed, rows.batch_size))


class _Rows(NamedTuple):
    """Completions of windows, as rows alike."""

    x: Float[Tensor, "rows c h w"]
    mask: Float[Tensor, "rows 1 h w"]
    batch_size: int


def _rows(learner: Learner, seen: list[Seen], completions: int, batch_size: int) -> _Rows:
    check_at_least(1, completions=completions)
    n, x = len(seen), torch.stack([one.x for one in seen])
    mask = torch.stack([one.observed for one in seen])[:, None].float()
    rows = torch.arange(completions * n) % n
    return _Rows(x[rows], mask[rows], min(batch_size, n) if learner.shares_draws else batch_size)


def _continued(learner: Learner, seen: list[Seen], z: Tensor, failed: Tensor, batch_size: int) -> Filled:
    """Return the windows that latents are decoded to, (m n, d), each continued into its holes."""
    made, failed = (each.unflatten(0, (-1, len(seen))) for each in (decode(learner, z, batch_size), failed))
    for i, one in enumerate(seen):
        made[:, i] += continued(one.x - made[:, i], one.observed).to(made)
    return Filled(made.clamp(-1, 1), failed)


class Photo(NamedTuple):
    """A photo with its damage filled in."""

    pixels: UInt8[Tensor, "c height width"]
    """Observed ones are as given, to the last bit."""
    deviation: Float[Tensor, "height width"]
    """Standard deviation over completions, pixels in [0, 1]; 0 where observed."""


def paste(
    photo: UInt8[Tensor, "c height width"],
    observed: Bool[Tensor, "height width"],
    parts: list[Window],
    filled: Filled,
) -> Photo:
    """Return a photo with its missing pixels taken from its windows, of several the one whose centre is nearest.

    They are the mean of the completions, resized to the window's size (bicubic). What that leaves over at the border of
    a hole is continued into the hole.

    photo: as given.
    observed: true where it is not damaged.
    parts: its windows; none where nothing is missing.
    filled: the same windows, filled in, row by row.

    Raises InputError where these are not as many.
    """
    if len(parts) != filled.completions.shape[1]:
        raise InputError("filled", f"{filled.completions.shape[1]} windows for {len(parts)}", "give one for each")
    if not parts:
        return Photo(photo, torch.zeros(observed.shape))
    height, width = observed.shape
    middle = torch.arange(max(height, width))[None] + 0.5
    centres = torch.tensor([part.top + part.left + part.side / 2 for part in parts])
    nearest = (middle - centres[:, None]).abs().argmin(0)
    nearest = nearest.expand(height, width) if width >= height else nearest[:, None].expand(height, width)
    means, spreads = filled.completions.mean(0).double(), filled.completions.std(0, correction=0).mean(1) / 2
    made, deviation = torch.zeros(photo.shape, dtype=torch.float64), torch.zeros(height, width)
    for i, part in enumerate(parts):
        size, mine = (part.side, part.side), nearest[part.box] == i
        large = F.interpolate(means[i : i + 1], size, mode="bicubic", antialias=True)[0]
        spread = F.interpolate(spreads[i][None, None], size, mode="bilinear", antialias=True)[0, 0]
        made[:, *part.box] = torch.where(mine, 255 * to_unit(large), made[:, *part.box])
        deviation[part.box] = torch.where(mine, spread, deviation[part.box])
    made += rest_continued(photo.double() - made, observed)
    pixels = torch.where(observed, photo, made.round().clamp(0, 255).to(torch.uint8))
    return Photo(pixels, torch.where(observed, 0.0, deviation.clamp(min=0)))
