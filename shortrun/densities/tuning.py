"""The step size of short runs on a log density: each estimator's curve and minimum, and draws at one of them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from shortrun.densities.door import check_step_size, entered
from shortrun.densities.draws import Draws, drawn
from shortrun.densities.start import Start, check_whole, normals
from shortrun.errors import InputError, did_you_mean, renaming
from shortrun.inference.curves import Curves, DrawnChains, check_tuners, curves_of
from shortrun.inference.divergence import ESTIMATORS, named
from shortrun.inference.langevin import LogDensity
from shortrun.inference.tuning import LOOK, Space, Tuned
from shortrun.progress import Shown, silent

DENSE = 256
"""Dimensions up to which estimators take the whole Hessian unless they are asked for."""


class DensityTuning(NamedTuple):
    """What each estimator says of step sizes on a log density, and draws at one of their minima."""

    curves: Curves
    """E[log q - log density] over step sizes, by estimator: KL(q_s || p) - log Z as it estimates it."""
    tuner: str
    estimator: str
    """Whose step size the draws are of."""
    draws: Draws

    @property
    def step_sizes(self) -> dict[str, float]:
        """The step size that each estimator chooses."""
        return {name: float(found.settings[0].exp()) for name, found in self.minima.items()}

    @property
    def minima(self) -> dict[str, Tuned]:
        """By estimator; `fresh_value` and `fresh_error` are of draws that had no part in the choice."""
        return {name: found[self.tuner] for name, found in self.curves.minima.items()}

    def __str__(self) -> str:
        lines = ["estimator    step size   E[log q - log density]"]
        for name, found in self.minima.items():
            lines.append(f"{name:<12} {self.step_sizes[name]:<11.3g} {found.fresh_value:.3f} ± {found.fresh_error:.3f}")
        gone = f", {self.draws.share_diverged:.1%} of them diverged" if self.draws.diverged.any() else ""
        return "\n".join([*lines, f"{len(self.draws.z)} draws at the step size of {self.estimator}{gone}"])


def tune(
    log_density: LogDensity,
    start: Start,
    rng: torch.Generator,
    *,
    steps: int = 25,
    chains: int = 64,
    estimators: Sequence[str] | None = None,
    step_sizes: Sequence[float] | None = None,
    tuner: str = "grid",
    draws: int = 1000,
    draws_by: str | None = None,
    shown: Shown = silent,
) -> DensityTuning:
    """Return the step size of short runs on a log density that each estimator finds best, and draws at one of them.

    Minimized is E[log q_s(z_K) - log density(z_K)] = KL(q_s || p) - log Z, the free energy of where the chains end, as
    each estimator has it: it is the divergence itself where the density is normalized. See `conditional`, `marginal`
    and `path` for what bounds what.

    log_density: (n, d) -> (n,), one value for each row from that row alone, up to a constant; twice differentiable.
    start: the normal that the chains start from, in whose precision they run.
    rng: gives the random numbers; all step sizes are compared on the same draws.
    steps: K, at least 1.
    chains: at least 2, on which step sizes are compared.
    estimators: of conditional, marginal and path; None for all, and for path alone beyond 256 dimensions, since the
        others cost d products with the Hessian a step.
    step_sizes: those looked at before the tuner looks closer; 13 from 0.001 to 10 where None.
    tuner: grid or gradient.
    draws: at least 1, that are returned.
    draws_by: the estimator at whose step size the draws are taken; None for marginal where it is one of them,
        else for the first.
    shown: called with a sequence of work and words for it, returns it, to show progress.

    Raises InputError for a density, a start or a setting that cannot be. Warns where chains of the draws diverged.

    >>> import torch
    >>> start, rng = Start.standard(2), torch.Generator().manual_seed(0)
    >>> found = tune(lambda z: -2 * (z**2).sum(1), start, rng, steps=3, chains=8)
    >>> sorted(found.step_sizes), found.draws.z.shape
    (['conditional', 'marginal', 'path'], torch.Size([1000, 2]))
    """
    check_whole(2, chains=chains)
    with renaming({"tuners": "tuner"}):
        check_tuners([tuner])
    density = entered(log_density, start, rng, steps=steps, draws=draws)
    names = checked_estimators(estimators, start.dim)
    chosen = draws_by or ("marginal" if "marginal" in names else names[0])
    if chosen not in names:
        raise InputError("draws_by", repr(chosen), did_you_mean(chosen, names))
    sizes = None if step_sizes is None else checked_sizes(step_sizes)

    def chains_anew() -> DrawnChains:
        z, noise = start.draw(chains, rng), normals(chains, start, rng, steps)
        # no acceptance is measured here
        return DrawnChains(density, z, start.initial(), noise, noise[:0], z.new_zeros(0, chains))

    middle = LOOK[len(LOOK) // 2] if sizes is None else torch.tensor(sizes[len(sizes) // 2], dtype=torch.float64).log()
    curves = curves_of(
        chains_anew(),
        chains_anew,
        middle[None],
        Space("one", latents=(start.dim,)),
        estimators=names,
        step_sizes=sizes,
        tuners=[tuner],
        shown=shown,
    )
    for name in names:
        if not any(math.isfinite(value) for _, value, _ in curves.points(name)):
            raise InputError("step_sizes", problem=f"{name} is finite at none of them", instead="write smaller ones")
    step_size = float(curves.minima[chosen][tuner].settings[0].exp())
    return DensityTuning(curves, tuner, chosen, drawn(density, start, rng, step_size, steps, draws, depth=4)[1])


def checked_estimators(estimators: Sequence[str] | None, dim: int) -> list[str]:
    """Return the names of estimators; raise InputError for none, for one twice, and for what is none."""
    if estimators is None:
        return list(ESTIMATORS) if dim <= DENSE else ["path"]
    names = [estimators] if isinstance(estimators, str) else list(estimators)
    if not names or len(set(names)) < len(names):
        raise InputError("estimators", " ".join(names) or "none", "write each one once")
    with renaming({"estimator": "estimators"}):
        for name in names:
            named(name)
    return names


def checked_sizes(step_sizes: Sequence[float]) -> list[float]:
    """Return the step sizes of a grid; raise InputError for an empty one and for what is no positive number."""
    if not isinstance(step_sizes, Sequence | Tensor | np.ndarray):
        raise InputError("step_sizes", step_sizes, "write positive numbers, [0.05, 0.1, 0.2] for example")
    with renaming({"step_size": "step_sizes"}):
        found = [check_step_size(s) for s in step_sizes]
    if not found:
        raise InputError("step_sizes", "none", "write positive numbers, [0.05, 0.1, 0.2] for example")
    return found
