"""The record of a diagnosis of short runs on a log density: what it means, and what to change."""

import math
from typing import TYPE_CHECKING, NamedTuple

from jaxtyping import Float
from torch import Tensor

from shortrun.densities.draws import Draws, data_tree
from shortrun.diagnosis.verdict import ENERGY_SHARE, OVERSHOOT, TIMID, Finding

if TYPE_CHECKING:
    from xarray import DataTree

MEAN, DEVIATION = 0.1, 0.1
"""Of a standard deviation: short runs whose means and deviations are nearer than that are good."""
SETTLED = 1.05
"""Long chains with a larger R-hat are no reference; chains of a thousand steps seldom have the 1.01 of long ones."""


class Reference(NamedTuple):
    """Draws of long Metropolis-adjusted chains, of their second half, which short runs are held against."""

    z: Float[Tensor, "chains draws d"]
    log_density: Float[Tensor, "chains draws"]
    step_size: float
    """Which the search for an acceptance of 57.4% found."""
    acceptance: float
    steps: int
    """Of each chain."""
    rhat: float | None
    """The worst of the dimensions; None where arviz-stats is not installed."""
    ess: float | None
    """The smallest bulk effective sample size of the dimensions; None where arviz-stats is not installed."""

    def to_arviz(self, name: str = "z") -> "DataTree":
        """Return the draws as the DataTree of ArviZ, in groups `posterior` and `sample_stats` (lp).

        name: of the variable, (chain, draw, dimension).

        Raises InputError where arviz-base is not installed.
        """
        return data_tree(self.z, {"lp": self.log_density}, name, self.step_size, self.steps)


class Off(NamedTuple):
    """How far something of the short runs is off, and the standard error of that."""

    value: float
    error: float

    def beyond(self, limit: float, errors: float = 4.0) -> bool:
        """Return whether it is farther off than a limit and than so many errors; NaN is.

        limit: not negative.
        errors: how many.
        """
        return not abs(self.value) <= max(limit, errors * self.error)


class DensityDiagnosis(NamedTuple):
    """What short runs of one step size are, held against long adjusted chains; `str` of it says so in words."""

    draws: Draws
    """The short runs; those that diverged are left out of all that follows."""
    acceptance: float
    """How often a Metropolis test would accept the next steps of the same size, 0 where the run diverged."""
    means: list[Off]
    """By dimension: (mean of the short runs - of the long chains) in standard deviations of the long chains."""
    deviations: list[Off]
    """By dimension: standard deviation of the short runs over that of the long chains, less 1."""
    energy: Off
    """Mean of -log density at the ends of short runs less that of the long chains, in nats."""
    reference: Reference

    def __str__(self) -> str:
        return "\n".join(in_words(self))


def judge_chains(d: DensityDiagnosis) -> Finding:
    """Has no chain diverged?"""
    lost, total = int(d.draws.diverged.sum()), len(d.draws.z)
    if not lost:
        return Finding("chains", True, f"none of {total} chains diverged")
    return Finding(
        "chains", False, f"{lost} of {total} chains diverged", f"a shorter step_size, {d.draws.step_size / 2:.2g}"
    )


def judge_steps(d: DensityDiagnosis) -> Finding:
    """Are the steps neither too long nor too short?"""
    best, s = d.reference.step_size, d.draws.step_size
    words = f"a Metropolis test would accept {d.acceptance:.0%} of further steps (57% mixes fastest, at {best:.2g})"
    if d.acceptance < OVERSHOOT:
        more = math.ceil(d.draws.steps * min((s / best) ** 2, 100))
        return Finding("steps", False, f"the steps overshoot: {words}", f"step_size={best:.2g} with steps={more}")
    # short steps are no fault where they arrive: what is too wide by the length of steps, is less so
    if d.acceptance > TIMID and best > 1.2 * s and any(each.beyond(MEAN) for each in d.means):
        words = f"the steps are too short to arrive: {words}"
        return Finding("steps", False, words, f"step_size={min(best, 2 * s):.2g}")
    return Finding("steps", True, words)


def judge_reference(d: DensityDiagnosis) -> Finding:
    """Are the long chains a reference?"""
    r = d.reference
    if r.rhat is None or r.ess is None:
        return Finding("long chains", True, "R-hat and effective sizes left out: pip install 'shortrun[diagnose]'")
    said = f"R-hat at most {r.rhat:.2f}, effective size at least {r.ess:.0f} of {r.z.shape[0] * r.z.shape[1]}"
    if r.rhat <= SETTLED:
        return Finding("long chains", True, f"the long chains agree: {said}")
    words = f"the long chains do not agree, and are no reference: several modes, or too slow ({said})"
    return Finding("long chains", False, words, f"long_steps={10 * r.steps}; where R-hat stays, several modes")


def judge_means(d: DensityDiagnosis) -> Finding:
    """Are the means where they should be?"""
    at, worst = _worst(d.means)
    words = f"means are at most {abs(worst.value):.2f} sd off (dimension {at}, error {worst.error:.2f})"
    if not any(each.beyond(MEAN) for each in d.means):
        return Finding("means", True, words)
    return Finding("means", False, words, _closer(d))


def judge_deviations(d: DensityDiagnosis) -> Finding:
    """Are the standard deviations what they should be?"""
    at, worst = _worst(d.deviations)
    words = f"standard deviations are at most {worst.value:+.0%} off (dimension {at}, error {worst.error:.0%})"
    if not any(each.beyond(DEVIATION) for each in d.deviations):
        return Finding("deviations", True, words)
    return Finding("deviations", False, words, _closer(d))


def judge_energy(d: DensityDiagnosis) -> Finding:
    """Do the short runs end at log densities as high as those of the long chains?"""
    half = d.draws.z.shape[1] / 2
    said = f"ends are {d.energy.value:+.2f} nats from the energy of the long chains (error {d.energy.error:.2f})"
    if not d.energy.beyond(ENERGY_SHARE * half):
        return Finding("energy", True, f"{said}: little beside the fluctuation {half:g} of a normal")
    return Finding("energy", False, said, _closer(d))


def _closer(d: DensityDiagnosis) -> str:
    """Say what brings chains closer whatever holds them off: a start that is nearer, finer steps, and more of them."""
    s, steps = d.draws.step_size / 2, 4 * d.draws.steps
    return f"start=Start.of_samples(draws.z) with step_size={s:.2g} and steps={steps}"


def _worst(off: list[Off]) -> tuple[int, Off]:
    """Return the dimension that is farthest off, counted from 0."""
    at = max(range(len(off)), key=lambda i: abs(off[i].value))
    return at, off[at]


def verdict(d: DensityDiagnosis) -> list[Finding]:
    """Return all findings, in the order in which changes are best made.

    d: what `diagnose` measured.
    """
    judges = (judge_chains, judge_steps, judge_reference, judge_means, judge_deviations, judge_energy)
    # where fewer than two chains are left there is nothing to say of their moments
    return [judge(d) for judge in (judges[:3] if math.isnan(d.energy.error) else judges)]


def in_words(d: DensityDiagnosis) -> list[str]:
    """Return a diagnosis in lines: what was measured, each finding, and what to change first.

    d: what `diagnose` measured.
    """
    chains, _, dim = d.reference.z.shape
    lines = [
        f"{len(d.draws.z)} short runs, K = {d.draws.steps}, step size {d.draws.step_size:.3g}, d = {dim}, "
        f"against {chains} adjusted chains of {d.reference.steps} steps"
    ]
    findings = verdict(d)
    lines += [f"{'well' if each.well else 'NOT '}  {each.subject:<11}  {each.words}" for each in findings]
    wrong = [each for each in findings if not each.well]
    if not wrong:
        return [*lines, "verdict: the short runs are good draws, by their means, deviations and energy"]
    return [*lines, f"verdict: {len(wrong)} of {len(findings)} are not well; change first: {wrong[0].change}"]
