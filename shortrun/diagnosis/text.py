"""A diagnosis as lines of text: the numbers, without judgement."""

from shortrun.diagnosis.calibration import Statistic, shape_of
from shortrun.diagnosis.chains import layer_names
from shortrun.diagnosis.measure import Diagnosis
from shortrun.diagnosis.verdict import at_step, last_error, late_acceptance


def numbers(values: list[float]) -> str:
    """Return numbers with commas between, or the one number that they all are."""
    words = [f"{value:.3g}" for value in values]
    return ", ".join(words if len(set(words)) > 1 else words[:1])


def chain_in_words(d: Diagnosis) -> str:
    """Say which chain was measured: K, steps, noise, likelihood."""
    c = d.conditions
    falling = "" if c.step_size == c.last_step_size else f" falling to {numbers(c.last_step_size)}"
    sigma = "" if c.sigma is None else f" sigma {c.sigma:.3g}"
    noise = "with" if c.noise else "without"
    start = "" if c.start == "prior" else f", from the {c.start}"
    if c.candidates > 1:
        start += f"{' and' if start else ', from'} {c.candidates} candidates"
    model = f"{c.likelihood}{sigma}" + ("" if c.normal_prior else f", {c.prior} prior")
    return f"K = {c.steps}, step size {numbers(c.step_size)}{falling}, {noise} noise{start}, {model}"


def summary(d: Diagnosis) -> list[str]:
    """Return the numbers of a diagnosis in lines, a part at a time.

    d: what `diagnose` measured.
    """
    c, t, at = d.conditions, d.trace, at_step(d, d.conditions.steps)
    names = layer_names(len(c.latents))
    lines = [
        f"{c.images} {c.split} images, {chain_in_words(d)}, seed {c.seed}",
        "",
        f"along the chain                   K = {c.steps:<6}{c.long_steps} steps",
        f"  energy -log p(x, z), nats      {t.energy[at]:9.2f} {t.energy[-1]:9.2f}  "
        f"(adjusted chains {d.adjusted.energy:.2f})",
        f"  MSE, pixels in [0, 1]          {t.mse[at]:9.5f} {last_error(d):9.5f}",
        f"  simulated images: energy above {d.gap.gap[d.gap.k.index(c.steps)]:9.2f} {d.gap.gap[-1]:9.2f}  "
        f"the true latents', error {d.gap.error[d.gap.k.index(c.steps)]:.2f}",
    ]
    if c.noise:
        lines.append(
            f"  Metropolis acceptance          {late_acceptance(d):9.2f} {t.acceptance[-1]:9.2f}  last K / 4 steps"
        )
    width = max(map(len, [*names, Statistic.LOG_JOINT.value]))
    lines += ["", f"short runs against adjusted runs of {c.long_steps} steps (null: long against long)"]
    for name, far in zip(names, d.distances, strict=True):
        lines.append(
            f"  {name:<{width}}  mean off by {far.mean_shift:.2f} sd ({far.mean_shift_null:.2f})  variance ratio "
            f"{far.variance_ratio:.2f}  energy distance {far.energy:.4f} ({far.energy_null:.4f})"
        )
    lines += ["", f"adjusted runs, step {numbers(d.adjusted.step_size)}, acceptance {d.adjusted.acceptance:.2f}"]
    if d.mixing is None:
        lines.append("  effective sample sizes and R-hat left out: pip install 'shortrun[diagnose]'")
    for one in d.mixing or []:
        lines.append(
            f"  {one.name:<{width}}  R-hat median {one.rhat_median:.2f} (one mode {one.rhat_one_mode:.2f}) worst "
            f"{one.rhat_worst:.2f}  median ESS {one.ess_median:.0f} of {c.long_runs * d.adjusted.draws}"
        )
    units = "" if c.normal_prior else ": less its mean, in its standard deviations"
    lines += ["", f"inferred latents of {c.aggregate_images} images against the prior{units}"]
    for index, (name, layer) in enumerate(zip(names, d.aggregates, strict=True)):
        mean = sum(value**2 for value in layer.mean) / len(layer.mean)
        variance = sum(layer.variance) / len(layer.variance)
        fit = "" if d.prior_fit is None else f"in units of the prior {d.prior_fit[index]:.2f}  "
        lines.append(
            f"  {name:<{width}}  {fit}second moment {layer.second_moment:.2f}  variance {variance:.2f}  "
            f"root mean square of the means {mean**0.5:.2f}  active {layer.active} of {len(layer.mean)}"
        )
    lines += ["", f"calibration on {d.calibration.simulations} simulated images, {d.calibration.draws} draws each"]
    for layer in d.calibration.layers:
        lines.append(
            f"  {layer.name:<{width}}  adjusted p {layer.p_adjusted:<8.2g} spread {layer.spread:.2f}  shift "
            f"{layer.shift:+.2f}  {shape_of(layer, d.calibration.simulations).words}"
        )
    return lines
