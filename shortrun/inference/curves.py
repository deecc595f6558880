"""What estimators say of chains over step sizes: the curves, and where tuners find their minima."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.errors import InputError, did_you_mean, renaming
from shortrun.inference.acceptance import Rates, acceptance_rates
from shortrun.inference.divergence import ChainDensity, Estimate, follow, named
from shortrun.inference.initial import Initial
from shortrun.inference.langevin import LogDensity
from shortrun.inference.stochastic import LanczosConditional
from shortrun.inference.tuning import (
    LOOK,
    Known,
    Objective,
    Settings,
    Space,
    Tuned,
    checked,
    gradient,
    grid,
    standard_error,
)
from shortrun.normals import Flat
from shortrun.progress import Shown, silent

TUNERS = {"grid": grid, "gradient": gradient}


class DrawnChains:
    """Chains on a log density, start and noise drawn once: all step sizes are compared on the same draws.

    log_density: (n, d) -> (n,), one value for each row from that row alone.
    z: (n, d), where the chains start.
    initial: the density of z.
    noise: (K, n, d), as in `short_run`.
    adjusted: (m, n, d), standard normal, the noise of the adjusted steps that measure the acceptance.
    uniforms: (m, n) in [0, 1), by which they are accepted.
    """

    def __init__(
        self,
        log_density: LogDensity,
        z: Flat,
        initial: Initial,
        noise: Float[Tensor, "k n d"],
        adjusted: Float[Tensor, "m n d"],
        uniforms: Float[Tensor, "m n"],
    ) -> None:
        self.log_density, self.z, self.initial, self.noise = log_density, z, initial, noise
        self.adjusted, self.uniforms = adjusted, uniforms

    @property
    def steps(self) -> int:
        """K."""
        return len(self.noise)

    def density(self, estimator: str) -> ChainDensity:
        """Return a new estimator of log q_s(z_K); raise InputError for a name that is none."""
        return named(estimator)()

    def follow(self, densities: list[ChainDensity], sizes: Tensor) -> list[Estimate]:
        """Return what estimators say of the chains with these step sizes, (K, 1, d) or what broadcasts to it."""
        return follow(densities, self.log_density, self.z, sizes, self.noise, self.initial)

    def has_derivative(self, estimator: str) -> bool:
        """Return whether the estimator's derivative in the step size can be followed; Lanczos quadrature's cannot."""
        return not isinstance(self.density(estimator), LanczosConditional)

    def divergence(self, space: Space, estimator: str) -> Objective:
        """Return the objective of the variational optimization: settings -> an estimate of KL - log p(x), per image."""
        self.density(estimator)

        def objective(settings: Settings) -> Float[Tensor, "n"]:
            sizes = space.sizes(settings, self.steps).to(self.z)
            return self.follow([self.density(estimator)], sizes)[0].kl

        return objective

    def acceptance(self, space: Space) -> Rates:
        """Return settings -> how often each image's adjusted chain accepts."""

        def rates(settings: Settings) -> Float[Tensor, "n"]:
            sizes = space.sizes(settings, self.steps).to(self.z)
            with torch.no_grad():
                return acceptance_rates(self.log_density, self.z, sizes, self.noise, self.adjusted, self.uniforms)

        return rates


class Curves(NamedTuple):
    """E[log q - log p(x, z)] over constant step sizes by several estimators, on the same draws."""

    values: dict[str, Known]
    """By estimator: {(log s,): (n,)}, inf where it is not finite."""
    minima: dict[str, dict[str, Tuned]]
    """By estimator and tuner, grid and gradient; the settings are log s. `fresh_value` is of draws of its own."""

    def points(self, estimator: str) -> list[tuple[float, float, float]]:
        """Return (s, mean over images, its standard error) for every step size seen, in rising order."""
        seen = sorted(self.values[estimator].items())
        return [(math.exp(at[0]), float(each.mean()), standard_error(each)) for at, each in seen]


def check_tuners(tuners: Sequence[str]) -> None:
    """Raise InputError for a name that no tuner has."""
    for name in tuners:
        if name not in TUNERS:
            raise InputError("tuners", repr(name), did_you_mean(name, TUNERS))


def curves_of(
    chains: DrawnChains,
    redrawn: Callable[[], DrawnChains],
    start: Settings,
    space: Space,
    *,
    estimators: Sequence[str],
    step_sizes: Sequence[float] | None,
    tuners: Sequence[str],
    shown: Shown = silent,
) -> Curves:
    """Return each estimator's curve over constant step sizes, and where the tuners find its minimum.

    The estimators share each chain and its Hessians.

    chains: which all step sizes are compared on.
    redrawn: returns chains of new draws, on which the minima are looked at again.
    start: (1,), the log of the step size that the tuners start from.
    space: of one step size.
    estimators: names of estimators.
    step_sizes: those looked at before the tuners look closer; 13 from 0.001 to 10 where None.
    tuners: of grid and gradient; an estimator without derivative goes without gradient.
    shown: called with a sequence of work and words for it, returns it, to show progress.

    Raises InputError for an estimator that there is none of.
    """
    with renaming({"estimator": "estimators"}):
        for name in estimators:
            chains.density(name)
    values: dict[str, Known] = {name: {} for name in estimators}
    logs = LOOK.tolist() if step_sizes is None else [math.log(s) for s in step_sizes]
    with torch.no_grad():
        for log_s in shown(logs, "divergence at each step size"):
            sizes = space.sizes(torch.tensor([log_s], dtype=torch.float64), chains.steps).to(chains.z)
            densities = [chains.density(name) for name in estimators]
            for name, estimate in zip(estimators, chains.follow(densities, sizes), strict=True):
                values[name][(log_s,)] = torch.where(torch.isfinite(estimate.kl), estimate.kl, torch.inf)
        able = [
            (name, tuner)
            for name in estimators
            for tuner in tuners
            if tuner != "gradient" or chains.has_derivative(name)
        ]
        minima: dict[str, dict[str, Tuned]] = {name: {} for name in estimators}
        fresh = redrawn() if able else chains
        # each search starts from what the curve shows, and must not see what another has found
        seen = {search: dict(values[search[0]]) for search in able}
        for name, tuner in shown(able, "where it is least, by each tuner"):
            known = seen[name, tuner]
            found = TUNERS[tuner](chains.divergence(space, name), start, space, known)
            minima[name][tuner] = checked(found, fresh.divergence(space, name))
            values[name] |= known
    return Curves(values, minima)
