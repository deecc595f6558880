"""What a diagnosis means, in plain words: rules with thresholds, each with the change to make.

| subject | not well where | the change |
| --- | --- | --- |
| chains | any chain became non-finite | half the step |
| steps | acceptance of the last quarter < 0.1, or > 0.9 with room for more | the step of the best acceptance |
| arrival | on simulated images > 0.2 (d/2) nats above the true latents' energy | more steps, or steps that fall |
| step noise | unadjusted chains of 10 K steps are 0.2 (d/2) nats above adjusted ones | steps that fall |
| length | test MSE falls by > 10% from K to 10 K | the k from which it is within 5% of its end |
| layer | > 0.5 sd off long runs' means or variance ratio outside 0.7 to 1.4, beyond the null | as for the chain |
| restarts | R-hat > 1.1 and > 1.2 times what chains on one mode have | none: several restarts |
| prior | second moment of a layer, or its prior fit, > 1.3 or < 0.7 | a shorter step of that layer, or model.sigma |
| use | fewer than half of a layer's latents active, none: dead | smaller model.latents |
| calibration | adjusted p < 0.01, and spread > 1.15 or < 0.85, or shift > 0.1 | by the shape |

d/2 nats is what a chain at rest has above the mode of a Gaussian density of d latents: the size of its own fluctuation.

Steps that fall: what a Langevin chain at rest has too much in energy goes with the square of its step, so that a last
step shorter by sqrt(half of the threshold / the excess) would bring it to half of the threshold.
"""

import math
from dataclasses import dataclass

from shortrun.diagnosis.calibration import SIGNIFICANT, Statistic, Width, shape_of
from shortrun.diagnosis.chains import layer_names
from shortrun.diagnosis.measure import Conditions, Diagnosis

OVERSHOOT, TIMID = 0.1, 0.9
ENERGY_SHARE = 0.2
MSE_FALL, FLAT = 0.1, 0.05
SHIFT, VARIANCES = 0.5, (0.7, 1.4)
RHAT, RHAT_FACTOR = 1.1, 1.2
MOMENTS = (0.7, 1.3)
USED = 0.5


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    subject: str
    well: bool
    words: str
    change: str = ""
    """Options of `shortrun train` that would mend it, or words; empty where nothing is to be changed."""


def at_step(d: Diagnosis, k: int) -> int:
    """Return the index of step k in what the trace recorded."""
    return min(range(len(d.trace.k)), key=lambda i: abs(d.trace.k[i] - k))


def late_acceptance(d: Diagnosis) -> float:
    """Return the mean acceptance over the last quarter of the K steps, nan for a chain without noise."""
    steps = d.conditions.steps
    late = [a for k, a in zip(d.trace.k, d.trace.acceptance, strict=False) if steps - max(1, steps // 4) <= k < steps]
    return sum(late) / len(late) if late else math.nan


def last_error(d: Diagnosis) -> float:
    """Return the mean MSE of the chain from 8 K to 10 K."""
    end = [mse for k, mse in zip(d.trace.k, d.trace.mse, strict=True) if k >= 8 * d.conditions.steps]
    return sum(end) / len(end)


def flat_from(d: Diagnosis) -> int:
    """Return the k from which the MSE stays within 5% of its end, in two digits."""
    limit, flat = (1 + FLAT) * last_error(d), d.trace.k[-1]
    for k, mse in zip(reversed(d.trace.k), reversed(d.trace.mse), strict=True):
        if mse > limit:
            break
        flat = k
    return rounded(flat)


def two_digits(values: list[float]) -> str:
    """Return numbers with spaces between, or the one number that they all are."""
    words = [f"{value:.2g}" for value in values]
    return " ".join(words if len(set(words)) > 1 else words[:1])


def step_size_option(values: list[float]) -> str:
    """Return the option of one step size, or of one for each layer where they differ."""
    return f"--inference.step-size {two_digits(values)}"


def falling(d: Diagnosis) -> str:
    """Return the decay that makes the last step short enough, by its acceptance and by the energy it costs."""
    c, limit = d.conditions, ENERGY_SHARE * sum(d.conditions.latents) / 2
    excess = max(d.gap.gap[-1], d.trace.energy[-1] - d.adjusted.energy)
    last = c.last_step_size[0] * min(1.0, math.sqrt(limit / 2 / excess) if excess > 0 else 1.0)
    if late_acceptance(d) < OVERSHOOT:
        last = min(last, d.adjusted.step_size[0])
    return f"--inference.step-decay {max(0.1, last / c.step_size[0]):.2g}"


def rounded(count: float | int) -> int:
    """Return a number of steps in two digits."""
    return int(float(f"{count:.2g}"))


def judge_chains(d: Diagnosis) -> Finding:
    """Are all chains finite?"""
    bad, failed = d.trace.diverged, d.conditions.failed_chains
    if bad or failed:
        words = f"{bad} of {d.trace.chains} chains became non-finite, {failed} short runs after all retries"
        return Finding("chains", False, words, step_size_option([s / 2 for s in d.conditions.step_size]))
    return Finding(
        "chains", True, f"all {d.trace.chains} chains followed to {d.conditions.long_steps} steps are finite"
    )


def judge_steps(d: Diagnosis) -> Finding:
    """Are the steps neither too long nor too short?"""
    accepted, best, last = late_acceptance(d), d.adjusted.step_size, d.conditions.last_step_size
    if math.isnan(accepted):
        return Finding("steps", True, "the chain has no noise: a Metropolis test does not apply")
    said = f"a Metropolis test would accept {accepted:.0%} of the last steps"
    words = two_digits(best)
    if accepted < OVERSHOOT:
        more = rounded(d.conditions.steps * min(10.0, (last[0] / best[0]) ** 2))
        change = f"{falling(d)}, or {step_size_option(best)} --inference.steps {more}"
        return Finding("steps", False, f"the steps overshoot: {said}; {words} would be accepted best", change)
    # steps that fall are short at the end on purpose
    if accepted > TIMID and best[0] > 1.2 * d.conditions.step_size[0]:
        said = f"the steps are shorter than they need be: {said}; {words} would mix fastest"
        return Finding("steps", False, said, step_size_option(best))
    return Finding("steps", True, f"{said} (57% mixes fastest, at a step of {words})")


def judge_noise(d: Diagnosis) -> Finding:
    """Does the length of the last steps cost energy, however long the chain?"""
    half, cost = sum(d.conditions.latents) / 2, d.trace.energy[-1] - d.adjusted.energy
    said = f"an unadjusted chain of {d.conditions.long_steps} steps ends {cost:.1f} nats above an adjusted one"
    if not d.conditions.noise:
        return Finding("step noise", True, "the chain has no noise")
    if not cost <= ENERGY_SHARE * half:
        return Finding("step noise", False, f"the last steps are too long to settle: {said}", falling(d))
    return Finding("step noise", True, f"{said}: little beside its fluctuation of {half:g}")


def judge_length(d: Diagnosis) -> Finding:
    """Is K enough?"""
    steps, at = d.conditions.steps, at_step(d, d.conditions.steps)
    mse, end, gain = d.trace.mse[at], last_error(d), d.trace.energy[at] - d.trace.energy[-1]
    said = (
        f"from K = {steps} to {d.conditions.long_steps} the MSE goes from {mse:.5f} to {end:.5f} ({end / mse - 1:+.0%})"
    )
    said += f" and log p(x, z) gains {gain:.1f} nats"
    if not mse - end <= MSE_FALL * mse:
        flat = flat_from(d)
        words = f"K is too small for the best reconstruction: {said}; it is flat from k = {flat}"
        change = f"--inference.steps {flat} (training takes {flat / steps:.1f} times as long)"
        return Finding("length", False, words, change)
    return Finding("length", True, f"K is enough: {said}")


def judge_arrival(d: Diagnosis) -> Finding:
    """On simulated images, do the chains end at the energy of the posterior?"""
    steps, half = d.conditions.steps, sum(d.conditions.latents) / 2
    at = d.gap.k.index(steps)
    short, long, error = d.gap.gap[at], d.gap.gap[-1], d.gap.error[at]
    limit = max(ENERGY_SHARE * half, 3 * error)
    said = (
        f"on simulated images short runs end {short:+.1f} nats from the energy of the true latents, which are a draw "
        f"from the posterior ({long:+.1f} after {d.conditions.long_steps} steps; error {error:.1f}, "
        f"fluctuation {half:g})"
    )
    if short < -limit:
        change = "" if d.conditions.noise else "noise: leave out --inference.no-noise"
        return Finding("arrival", False, f"the chains end too close to the mode: {said}", change)
    if short <= limit:
        return Finding("arrival", True, said)
    if long > limit and d.conditions.noise:
        change = f"--inference.steps {2 * steps} {falling(d)}"
        return Finding("arrival", False, f"{said}; longer chains with steps as long do not get there", change)
    there = next((k for k, gap in zip(d.gap.k, d.gap.gap, strict=True) if gap <= ENERGY_SHARE * half), d.gap.k[-1])
    return Finding("arrival", False, f"the chains have not arrived: {said}", f"--inference.steps {rounded(there)}")


def judge_layers(d: Diagnosis) -> list[Finding]:
    """Does each layer end where long adjusted runs end?"""
    found = []
    for name, far in zip(layer_names(len(d.distances)), d.distances, strict=True):
        said = (
            f"short runs end {far.mean_shift:.2f} posterior sd from adjusted runs of {d.conditions.long_steps} steps "
            f"(null {far.mean_shift_null:.2f}), with {far.variance_ratio:.2f} of their variance; "
            f"energy distance {far.energy:.3f} (null {far.energy_null:.3f})"
        )
        off = far.mean_shift > max(SHIFT, far.mean_shift_null) or not VARIANCES[0] <= far.variance_ratio <= VARIANCES[1]
        found.append(Finding(name, not (off and far.energy > far.energy_null), said))
    return found


def one_normal(c: Conditions) -> str:
    """Say which normal the chains with one mode are on, that R-hat is compared with."""
    if c.start == "regression":
        return "the normal of the regression that they start from"
    return "N(0, 1)" if c.normal_prior else "the component of the prior that they start from"


def judge_restarts(d: Diagnosis) -> Finding:
    """Do long chains from several starts agree?"""
    if d.mixing is None:
        words = "effective sample sizes and R-hat left out: pip install 'shortrun[diagnose]'"
        return Finding("restarts", True, words)
    worst = max(d.mixing[:-1], key=lambda one: one.rhat_median / one.rhat_one_mode)
    said = f"median R-hat {worst.rhat_median:.2f} in {worst.name}, worst {worst.rhat_worst:.2f}"
    if all(one.rhat_median <= RHAT for one in d.mixing[:-1]):
        return Finding("restarts", True, f"long chains from several starts agree: {said}")
    alone = f"chains as long as these have {worst.rhat_one_mode:.2f} on {one_normal(d.conditions)}, which has one mode"
    if worst.rhat_median <= RHAT_FACTOR * worst.rhat_one_mode:
        words = f"long chains do not mix ({said}), but slow steps explain it ({alone}); no sign of several modes"
        return Finding("restarts", True, f"{words}; they bound the distance to the posterior from below")
    words = (
        f"the posterior has several modes: {said}, {alone}; fine for learning, "
        "but summaries of a posterior need several restarts"
    )
    return Finding("restarts", False, words)


def judge_prior(d: Diagnosis) -> list[Finding]:
    """Do the inferred latents of many images follow the prior together?"""
    found = []
    names = layer_names(len(d.aggregates))
    for index, (name, layer) in enumerate(zip(names, d.aggregates, strict=True)):
        moment = layer.second_moment if d.prior_fit is None else d.prior_fit[index]
        said = f"the second moment of the inferred latents of {name} is {moment:.2f} (prior 1)"
        if d.prior_fit is not None:
            said = f"the inferred latents of {name} are at {moment:.2f} in units of the prior (1 where they fit)"
        if MOMENTS[0] <= moment <= MOMENTS[1]:
            found.append(Finding("prior", True, said))
            continue
        said += ": samples from the prior use other latents than training did"
        ranks = d.calibration.layers[index] if d.calibration.layers else None
        inflated = ranks and ranks.shifted is Statistic.NORM and ranks.p_adjusted < SIGNIFICANT and ranks.shift < 0
        if moment > MOMENTS[1] and inflated:
            shorter = [s * (0.7 if i == index else 1) for i, s in enumerate(d.conditions.step_size)]
            change = f"a shorter step of that layer, {step_size_option(shorter)}"
        elif d.conditions.sigma is not None:
            change = f"--model.sigma {d.conditions.sigma * math.sqrt(moment):.2g} (now {d.conditions.sigma:.2g})"
        else:
            change = f"--inference.steps {2 * d.conditions.steps}"
        found.append(Finding("prior", False, said, change))
    return found


def judge_use(d: Diagnosis) -> Finding:
    """Are the latents in use?"""
    names, sizes = layer_names(len(d.aggregates)), d.conditions.latents
    active = [layer.active for layer in d.aggregates]
    said = ", ".join(f"{name} {a} of {size}" for name, a, size in zip(names, active, sizes, strict=True))
    if all(a >= USED * size for a, size in zip(active, sizes, strict=True)):
        return Finding("use", True, f"active latents: {said}")
    dead = [name for name, a in zip(names, active, strict=True) if a == 0]
    kept = [a if a < USED * size else size for a, size in zip(active, sizes, strict=True) if a]
    said = f"{'dead: ' + ', '.join(dead) + '; ' if dead else ''}active latents: {said}"
    return Finding("use", False, said, f"--model.latents {' '.join(map(str, kept))}" if kept else "a smaller sigma")


def judge_calibration(d: Diagnosis) -> list[Finding]:
    """On simulated images, do the draws of each layer cover the true latents as often as they should?"""
    found = []
    if not d.calibration.layers:
        return [Finding("calibration", False, "no simulated image had finite draws")]
    for layer in d.calibration.layers[:-1]:
        shape = shape_of(layer, d.calibration.simulations)
        said = f"{layer.name}: {shape.words} (adjusted p {layer.p_adjusted:.2g}, spread {layer.spread:.2f})"
        change = ""
        if shape.width is Width.NARROW:
            change = f"larger first steps, {step_size_option([1.5 * s for s in d.conditions.step_size])}"
            change += " --inference.step-decay 0.5"
            change = change if d.conditions.noise else "noise: leave out --inference.no-noise"
        elif not shape.uniform:
            change = f"--inference.steps {2 * d.conditions.steps}"
        found.append(Finding("calibration", not change, said, change))
    return found


def verdict(d: Diagnosis) -> list[Finding]:
    """Return all findings, in the order in which changes are best made.

    d: what `diagnose` measured.
    """
    return [
        judge_chains(d),
        judge_steps(d),
        judge_arrival(d),
        judge_noise(d),
        judge_length(d),
        *judge_layers(d),
        judge_restarts(d),
        *judge_prior(d),
        judge_use(d),
        *judge_calibration(d),
    ]


def conclusion(findings: list[Finding]) -> list[str]:
    """Return the last lines: what is not well, and the first change to make.

    findings: by `verdict`.
    """
    wrong = [each for each in findings if not each.well]
    if not wrong:
        return ["verdict: the inference is good; nothing to change"]
    lines = [f"verdict: {len(wrong)} of {len(findings)} findings are not well"]
    for each in wrong:
        lines.append(f"- {each.words}" + (f"\n  change: {each.change}" if each.change else ""))
    first = next((each.change for each in wrong if each.change), None)
    if first is None:
        return [*lines, "no setting would mend this; see the figures"]
    return [*lines, f"change first, and train again: {first}"]
