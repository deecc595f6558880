"""Draws of a log density by short runs, which say where they diverged; and draws for ArviZ."""

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from shortrun.densities.door import check_step_size, entered
from shortrun.densities.start import Start, normals
from shortrun.errors import InputError, require_package
from shortrun.inference.langevin import LogDensity, short_run
from shortrun.normals import Flat, PerImage, chi_square_bound

if TYPE_CHECKING:
    from xarray import DataTree

CHAINS = 4
"""Rows that draws stand in for ArviZ, which compares rows with one another."""


class Draws(NamedTuple):
    """Ends of short runs on a log density, independent of one another."""

    z: Flat
    """(n, d), where the chains end, the diverged ones too."""
    log_density: PerImage
    """(n,), there."""
    diverged: Bool[Tensor, "n"]
    """Whether a chain became non-finite, or ended far below the log density that it started with."""
    step_size: float
    steps: int
    """K."""

    @property
    def share_diverged(self) -> float:
        """The share of the chains that diverged."""
        return float(self.diverged.double().mean())

    def to_arviz(self, chains: int = CHAINS, name: str = "z") -> "DataTree":
        """Return the draws as the DataTree of ArviZ, in groups `posterior` and `sample_stats` (lp, diverging).

        The draws are independent, so that which row one stands in says nothing.

        chains: rows that they stand in, a divisor of their number.
        name: of the variable, (chain, draw, dimension).

        Raises InputError where arviz-base is not installed, and where the rows cannot be equally long.
        """
        if chains < 1 or len(self.z) % chains:
            raise InputError("chains", chains, f"write a divisor of {len(self.z)}, the number of draws")
        rows = [each.unflatten(0, (chains, -1)) for each in (self.z, self.log_density, self.diverged)]
        return data_tree(rows[0], {"lp": rows[1], "diverging": rows[2]}, name, self.step_size, self.steps)


def data_tree(
    z: Float[Tensor, "chains draws d"], statistics: dict[str, Tensor], name: str, step_size: float, steps: int
) -> "DataTree":
    """Return draws as the DataTree of ArviZ; statistics: (chains, draws), by the names that ArviZ has for them."""
    require_package("arviz_base", "diagnose")
    from arviz_base import from_dict

    groups: dict[str, dict[str, Any]] = {
        "posterior": {name: z.numpy(force=True)},
        "sample_stats": {key: each.numpy(force=True) for key, each in statistics.items()},
    }
    about = {"inference_library": "shortrun", "step_size": step_size, "steps": steps}
    return from_dict(groups, dims={name: ["dimension"]}, attrs={"posterior": about})


def draw(
    log_density: LogDensity,
    start: Start,
    rng: torch.Generator,
    step_size: float,
    *,
    steps: int = 25,
    draws: int = 1000,
) -> Draws:
    """Return draws of a log density, each the end of a short run of its own, and warn where chains diverged.

    A chain has diverged where it became non-finite, or where its log density fell by more than a chi-square variable
    of d degrees of freedom exceeds once in 10^9: twice what chains that settle on a normal lose from its mode.

    log_density: (n, d) -> (n,), one value for each row from that row alone, up to a constant; twice differentiable.
    start: the normal that the chains start from, in whose precision they run.
    rng: gives the random numbers.
    step_size: s, a positive number.
    steps: K, at least 1.
    draws: n, at least 1.

    Raises InputError for a density, a start or a setting that cannot be.

    >>> import torch
    >>> found = draw(lambda z: -(z**2).sum(1) / 2, Start.standard(2), torch.Generator().manual_seed(0), 0.5)
    >>> found.z.shape, found.z.dtype, found.share_diverged
    (torch.Size([1000, 2]), torch.float64, 0.0)
    """
    step_size = check_step_size(step_size)
    density = entered(log_density, start, rng, steps=steps, draws=draws)
    return drawn(density, start, rng, step_size, steps, draws)[1]


def drawn(
    density: LogDensity, start: Start, rng: torch.Generator, step_size: float, steps: int, draws: int, depth: int = 3
) -> tuple[Flat, Draws]:
    """Return where chains on a density that has come through the door start, and their draws; warn of divergence.

    depth: calls from here to the user's own, whose line the warning names.
    """
    z = start.draw(draws, rng)
    with torch.no_grad():
        ends = short_run(density, z, step_size, normals(draws, start, rng, steps))
        before, after = density(z), density(ends)
    # written so that NaN has diverged
    settled = torch.isfinite(ends).all(1) & torch.isfinite(after) & (before - after <= chi_square_bound(start.dim))
    found = Draws(ends, after, ~settled, step_size, steps)
    if found.diverged.any():
        warnings.warn(divergence_in_words(found), RuntimeWarning, stacklevel=depth)
    return z, found


def divergence_in_words(found: Draws) -> str:
    """Say how many chains diverged, how far, and which argument to change."""
    lost = found.z[found.diverged]
    norms = lost.norm(dim=1)
    whole = norms[torch.isfinite(norms)]
    far = [f"the farthest at |z| = {float(whole.max()):.3g}"] if len(whole) else []
    far += [f"{len(norms) - len(whole)} not finite"] if len(whole) < len(norms) else []
    return (
        f"step_size: {len(lost)} of {len(found.z)} chains diverged in {found.steps} steps of {found.step_size:.3g} "
        f"({', '.join(far)}); write a shorter one, {found.step_size / 2:.2g} for example"
    )
