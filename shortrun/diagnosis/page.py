"""A diagnosis on one page of charts."""

import math

from matplotlib.axes import Axes
from PIL import Image

from shortrun.diagnosis.calibration import LayerRanks, shape_of
from shortrun.diagnosis.chains import layer_names
from shortrun.diagnosis.measure import Diagnosis
from shortrun.diagnosis.text import chain_in_words
from shortrun.diagnosis.verdict import conclusion, verdict
from shortrun.figures.charts import COLOURS, page
from shortrun.inference.diagnostics import BEST_ACCEPTANCE

COLUMNS = 4
GREY = "0.45"


def draw_diagnosis(d: Diagnosis) -> Image.Image:
    """Return the page: the verdict, the chain, the posterior layer by layer, the ranks of the calibration, conditions.

    d: what `diagnose` measured.
    """
    ranks = d.calibration.layers
    with page(2 + -(-len(ranks) // COLUMNS), COLUMNS, (4.0, 3.0)) as sheet:
        c = d.conditions
        sheet.figure.suptitle(headline(conclusion(verdict(d))), fontsize=14)
        sheet.figure.supxlabel(
            f"{c.images} {c.split} images: {chain_in_words(d)}, seed {c.seed}, {c.date}, shortrun {c.shortrun}",
            fontsize=11,
        )
        _acceptance(sheet.panels[0], d)
        _energy(sheet.panels[1], d)
        _error(sheet.panels[2], d)
        _gap(sheet.panels[3], d)
        _distances(sheet.panels[4], d)
        _restarts(sheet.panels[5], d)
        _aggregate(sheet.panels[6], d)
        _activity(sheet.panels[7], d)
        for panel, layer in zip(sheet.panels[8:], ranks, strict=False):
            _ranks(panel, d, layer)
        for panel in sheet.panels[8 + len(ranks) :]:
            panel.set_visible(False)
        return sheet.picture()


def headline(lines: list[str]) -> str:
    """Return of a conclusion the verdict and, where there is one, what to change first: a line each.

    lines: as `conclusion` returns them.

    >>> headline(["verdict: 1 of 2 findings is not well", "- it is so", "change first: --inference.steps 9"])
    'Verdict: 1 of 2 findings is not well\\nChange first: --inference.steps 9'
    """
    kept = [lines[0], *(line for line in lines[1:] if line.startswith("change first"))]
    return "\n".join(line[0].upper() + line[1:] for line in kept)


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _along(panel: Axes, d: Diagnosis) -> None:
    """Lay k out along the panel, from 0 to 10 K, and mark K."""
    panel.set_xscale("symlog", linthresh=1, linscale=0.3)
    panel.set_xlim(0, d.conditions.long_steps)
    panel.set_xlabel("step k")
    panel.axvline(d.conditions.steps, color=GREY, linestyle="--", linewidth=1, label=f"K = {d.conditions.steps}")


def _band(panel: Axes, d: Diagnosis, middle: list[float], low: list[float], high: list[float]) -> None:
    panel.fill_between(d.trace.k, low, high, color=COLOURS[0], alpha=0.2, linewidth=0, label="middle 80% of images")
    panel.plot(d.trace.k, middle, color=COLOURS[0], label="mean of images")


def _acceptance(panel: Axes, d: Diagnosis) -> None:
    panel.set_title("Would a Metropolis test accept the steps?")
    panel.set_ylabel("acceptance probability")
    _along(panel, d)
    if d.trace.acceptance:
        _band(panel, d, d.trace.acceptance, d.trace.acceptance_low, d.trace.acceptance_high)
        panel.axhline(BEST_ACCEPTANCE, color=GREY, linestyle=":", label=f"{BEST_ACCEPTANCE}: mixes fastest")
        panel.legend(fontsize=7)
    else:
        panel.text(0.5, 0.5, "no noise: does not apply", transform=panel.transAxes, ha="center")
    panel.set_ylim(0, 1)


def _energy(panel: Axes, d: Diagnosis) -> None:
    panel.set_title("Energy along the chain")
    panel.set_ylabel("-log p(x, z_k), nats an image")
    _along(panel, d)
    _band(panel, d, d.trace.energy, d.trace.energy_low, d.trace.energy_high)
    panel.axhline(d.adjusted.energy, color=COLOURS[1], linewidth=1, label="adjusted chains, 10 K steps")
    # energies may be negative, and the first ones are far above all others
    panel.set_yscale("symlog", linthresh=max(1.0, sum(d.conditions.latents) / 2))
    panel.legend(fontsize=7)


def _error(panel: Axes, d: Diagnosis) -> None:
    panel.set_title("Reconstruction along the chain")
    panel.set_ylabel("MSE, pixels in [0, 1]")
    _along(panel, d)
    _band(panel, d, d.trace.mse, d.trace.mse_low, d.trace.mse_high)
    panel.set_yscale("log")
    panel.legend(fontsize=7)


def _gap(panel: Axes, d: Diagnosis) -> None:
    half = sum(d.conditions.latents) / 2
    panel.set_title(f"{d.gap.images} simulated images: above the truth")
    panel.set_ylabel("energy less the true latents', nats")
    _along(panel, d)
    low, high = ([g + side * e for g, e in zip(d.gap.gap, d.gap.error, strict=True)] for side in (-2, 2))
    panel.fill_between(d.gap.k, low, high, color=COLOURS[0], alpha=0.2, linewidth=0)
    panel.plot(d.gap.k, d.gap.gap, color=COLOURS[0], label="mean, 2 standard errors")
    panel.axhline(0, color=COLOURS[2], linewidth=1, label="0: the posterior's")
    panel.axhspan(-0.2 * half, 0.2 * half, color=COLOURS[2], alpha=0.15, linewidth=0, label="within 0.2 (d / 2)")
    panel.set_yscale("symlog", linthresh=half)
    panel.legend(fontsize=7, loc="upper right")


def _distances(panel: Axes, d: Diagnosis) -> None:
    names, at = layer_names(len(d.distances)), range(len(d.distances))
    panel.set_title("Short runs against adjusted runs of 10 K steps")
    series = [
        ("shift of the mean, in posterior sd", [far.mean_shift for far in d.distances], 0),
        ("log variance ratio (absolute)", [abs(math.log(far.variance_ratio)) for far in d.distances], 1),
        ("root of the energy distance", [math.sqrt(max(0.0, far.energy)) for far in d.distances], 2),
    ]
    for offset, (words, values, colour) in zip((-0.26, 0, 0.26), series, strict=True):
        panel.bar([i + offset for i in at], values, width=0.24, color=_colour(colour), label=words)
    for offset, nulls in (
        (-0.26, [far.mean_shift_null for far in d.distances]),
        (0.26, [math.sqrt(max(0.0, far.energy_null)) for far in d.distances]),
    ):
        for i, value in enumerate(nulls):
            panel.plot([i + offset - 0.12, i + offset + 0.12], [value, value], color="black", linewidth=1.5)
    panel.plot([], [], color="black", linewidth=1.5, label="95% of long against long")
    panel.set_xticks(list(at), names)
    panel.margins(y=0.45)
    panel.set_ylim(bottom=0)
    panel.set_ylabel("0: no difference")
    panel.legend(fontsize=7, loc="upper right")


def _restarts(panel: Axes, d: Diagnosis) -> None:
    panel.set_title("Do long chains from several starts agree?")
    panel.set_xlabel("split R-hat of a latent of an image")
    panel.set_ylabel("share of them below")
    if d.mixing is None:
        panel.text(0.5, 0.5, "needs pip install 'shortrun[diagnose]'", transform=panel.transAxes, ha="center")
        return
    for index, one in enumerate(d.mixing):
        colour = "black" if index == len(d.distances) else _colour(index)
        words = f"{one.name}: median ESS {one.ess_median:.0f} of {d.conditions.long_runs * d.adjusted.draws}"
        finite = [min(value, 10.0) for value in one.rhat]
        panel.plot(finite, [i / 100 for i in range(101)], color=colour, label=words)
    slow = max(one.rhat_one_mode for one in d.mixing)
    panel.axvline(1.1, 0, 1 / 1.9, color=GREY, linestyle="--", linewidth=1, label="1.1: they agree below")
    panel.axvline(slow, 0, 1 / 1.9, color=GREY, linestyle=":", label=f"{slow:.2f}: chains on one normal (one mode)")
    panel.set_ylim(0, 1.9)
    panel.set_yticks([0, 0.25, 0.5, 0.75, 1])
    panel.legend(fontsize=7, loc="upper left")


def _latents(d: Diagnosis) -> list[range]:
    """Return where each layer's latents lie along an axis."""
    ends = [sum(d.conditions.latents[: i + 1]) for i in range(len(d.conditions.latents))]
    return [range(end - size, end) for end, size in zip(ends, d.conditions.latents, strict=True)]


def _aggregate(panel: Axes, d: Diagnosis) -> None:
    panel.set_title(f"Inferred latents of {d.conditions.aggregate_images} images against the prior")
    panel.set_xlabel("latent, top layer first")
    panel.set_ylabel("over images, one draw each" if d.conditions.normal_prior else "over images, in the prior's sd")
    for index, (at, layer) in enumerate(zip(_latents(d), d.aggregates, strict=True)):
        colour, name = _colour(index), layer_names(len(d.aggregates))[index]
        words = f"z² {layer.second_moment:.2f}" if d.prior_fit is None else f"prior fit {d.prior_fit[index]:.2f}"
        panel.plot(at, layer.variance, "o", markersize=3, color=colour, label=f"{name}: {words}")
        panel.plot(at, layer.mean, "x", markersize=3, color=colour, alpha=0.6)
    panel.axhline(1, color=GREY, linewidth=1)
    panel.axhline(0, color=GREY, linewidth=1)
    panel.plot([], [], "o", markersize=3, color=GREY, label="variance (prior 1)")
    panel.plot([], [], "x", markersize=3, color=GREY, label="mean (prior 0)")
    low, high = panel.get_ylim()
    panel.set_ylim(low, high + 0.6 * (high - low))  # room for the legend
    panel.legend(fontsize=7, loc="upper right", ncols=2)


def _activity(panel: Axes, d: Diagnosis) -> None:
    panel.set_title("Which latents are in use?")
    panel.set_xlabel("latent, top layer first")
    panel.set_ylabel("variance of the posterior mean")
    threshold, names = d.aggregates[0].threshold, layer_names(len(d.aggregates))
    for index, (at, layer) in enumerate(zip(_latents(d), d.aggregates, strict=True)):
        values = [max(value, threshold / 10) for value in layer.mean_variance]
        words = f"{names[index]}: {layer.active} of {len(at)} active"
        panel.plot(at, values, "o", markersize=3, color=_colour(index), label=words)
    panel.axhline(threshold, color=GREY, linestyle="--", linewidth=1, label=f"{threshold:.2g}: active above")
    panel.set_yscale("log")
    panel.set_ylim(bottom=threshold / 20)
    panel.legend(fontsize=7, loc="lower left", frameon=True, framealpha=0.8, edgecolor="none")


def _ranks(panel: Axes, d: Diagnosis, layer: LayerRanks) -> None:
    c = d.calibration
    rows = max(1, sum(layer.histogram) // max(1, c.simulations))
    expected = c.simulations * rows / c.bins
    panel.set_title(f"Calibration, {layer.name}: {shape_of(layer, c.simulations).title}")
    panel.bar([(i + 0.5) / c.bins for i in range(c.bins)], layer.histogram, width=0.92 / c.bins, color=COLOURS[0])
    # counts of a bin, about binomial: the projections of a layer are nearly independent
    noise = 2.6 * math.sqrt(expected * (1 - 1 / c.bins))
    panel.axhspan(expected - noise, expected + noise, color=GREY, alpha=0.35, linewidth=0, label="99% if uniform")
    panel.axhline(expected, color=GREY, linewidth=1)
    panel.set_xlim(0, 1)
    panel.set_xlabel(f"rank of the truth among {c.draws} draws, 0 to 1")
    what = f" x {rows} projections" if rows > 1 else ""
    panel.set_ylabel(f"of {c.simulations} simulations{what}", fontsize=8)
    panel.set_ylim(0, 1.35 * max(*layer.histogram, expected + noise))
    words = f"adjusted p {layer.p_adjusted:.2g}, spread {layer.spread:.2f}, shift {layer.shift:+.2f} ({layer.shifted})"
    panel.legend(fontsize=7, loc="upper left", title=words, title_fontsize=7, alignment="left")
