"""shortrun tune: the step size that variational optimization would choose, and the curves that it minimizes."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from shortrun.commands.inputs import ImageArguments, random_numbers, read_given, read_short_run
from shortrun.commands.outputs import choose_folder, write_numbers
from shortrun.commands.parsing import parse
from shortrun.errors import InputError
from shortrun.progress import announced

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from shortrun.inference.tuning import Tuned
    from shortrun.learners import ChainLearner
    from shortrun.training.tuning import Curves

COMMAND = "shortrun tune"
IMAGES = 16
PICTURE, NUMBERS, TABLE = "step_size.png", "step_size.json", "step_size.csv"
Estimator = Literal["conditional", "marginal", "path"]


@dataclass(frozen=True)
class Tune(ImageArguments):
    """Show which step size variational optimization would choose for a learned model, by each estimator.

    Draws E[log q - log p(x, z)], the divergence of the chain's ends from the posterior up to a constant, over constant
    step sizes, and looks for its minimum by grid and by gradient; and the step at which a Metropolis-adjusted chain
    accepts 57.4%. Without --n: the first 16 test images; time goes with n, K and the number of latents. Prints the
    minima and writes the curves: step_size.png, step_size.csv and step_size.json. The model is left as it is.
    """

    estimators: tuple[Estimator, ...] = ("conditional", "marginal", "path")
    """conditional (the paper's), marginal, path: of the divergence."""
    step_sizes: tuple[float, ...] = ()
    """Step sizes to look at before the tuners look closer; 13 from 0.001 to 10 where not given."""
    tuners: tuple[Literal["grid", "gradient"], ...] = ("grid", "gradient")
    """What looks for the minimum; write --tuners with nothing for the curves alone."""
    over: Literal["one", "layers", "schedule", "both"] = "one"
    """What marginal's optimum is looked for over, besides one step size: layers, a decay along the chain, or both."""


ARGUMENTS = (Tune,)


def main(words: list[str]) -> int:
    """Parse, tune, print, draw, write."""
    arguments = parse(Tune, words, COMMAND)
    check_options(arguments)
    learner = read_short_run(arguments)
    folder = choose_folder(arguments, COMMAND, "tune", [PICTURE, NUMBERS, TABLE])
    given = read_given(learner, arguments, default=IMAGES)
    learner.steps = arguments.steps or learner.steps
    learner.noise = learner.noise and not arguments.no_noise
    if not learner.noise and arguments.estimators != ("conditional",):
        raise InputError(
            "estimators",
            problem="without noise the chain's density is the conditional one",
            instead="write conditional",
        )

    from shortrun.evaluation.tables import write_csv
    from shortrun.training.tuning import divergence_curves

    print(f"{len(given.x)} {given.name}s, {learner.steps} steps", flush=True)
    if not learner.generator.prior.exact:
        print("log p(x, z) is known up to a constant here, so values below tell step sizes apart and are no nats")
    curves = divergence_curves(
        learner,
        given.x,
        random_numbers(arguments.seed),
        arguments.estimators,
        arguments.step_sizes or None,
        arguments.tuners,
        shown=announced,
    )
    for name in arguments.estimators:
        if not any(math.isfinite(value) for _, value, _ in curves.points(name)):
            raise InputError("step_sizes", problem=f"{name} is finite at none of them", instead="write smaller ones")
        print("\n".join(_lines(curves, name)))
    numbers = {
        "images": len(given.x),
        "steps": learner.steps,
        "noise": learner.noise,
        "latents": learner.generator.dim,
        **({} if learner.generator.prior.exact else {"values_are": "up to a constant, that of the prior"}),
        "model_step_size": learner.step_size.values,
        "model_step_decay": learner.step_size.decay,
        "curves": {name: _curve(curves, name) for name in arguments.estimators},
        "minima": {name: _minima(curves, name) for name in arguments.estimators},
    }
    if learner.noise:
        numbers |= acceptance(learner, given.x, arguments.seed)
    if arguments.over != "one":
        numbers["over"] = minimum_over(learner, given.x, arguments)
    print(f"the model's own step size is {' '.join(f'{s:.3g}' for s in learner.step_size.values)}")
    write_numbers(folder, COMMAND, arguments, {PICTURE: draw(curves, numbers)}, numbers, NUMBERS)
    points = [[name, *map(_plain, point)] for name in arguments.estimators for point in curves.points(name)]
    write_csv(["estimator", "step_size", "value", "standard_error"], points, folder / TABLE)
    print(f"wrote {folder / TABLE}")
    return 0


def check_options(arguments: Tune) -> None:
    """Raise InputError for estimators and step sizes that cannot be."""
    if not arguments.estimators or len(set(arguments.estimators)) < len(arguments.estimators):
        got = repr(" ".join(arguments.estimators)) if arguments.estimators else "none"
        raise InputError("estimators", got, "write each one once")
    for s in arguments.step_sizes:
        if not 0 < s < math.inf:
            raise InputError("step_sizes", s, "write positive numbers, 0.05 0.1 0.2 for example")


def acceptance(learner: "ChainLearner", x: "torch.Tensor", seed: int) -> dict[str, Any]:
    """Find the step size that 57.4% of proposals are accepted with, print it, and return it for the file."""
    from shortrun.inference import Space
    from shortrun.training.tuning import image_acceptance, tune

    found = tune(learner, x, random_numbers(seed), tuner="acceptance")
    # the chain falls as the model's does: the setting is its geometric mean, what a user types is s_0
    space = Space("one", learner.generator.latents, learner.step_size.decay)
    s, decay = (float(part.exp()) for part in space.parts(found.settings))
    rates = image_acceptance(learner, x, random_numbers(seed), found.settings)
    print(
        f"acceptance of 57.4% at s = {s:.3g}{'' if decay == 1 else f' falling to {decay:.3g} of it'}: "
        f"{float(rates.mean()):.1%} on average, "
        f"{float(rates.min()):.0%} to {float(rates.max()):.0%} over the images"
    )
    return {"acceptance_step_size": s, "acceptance_per_image": rates.tolist()}


def minimum_over(learner: "ChainLearner", x: "torch.Tensor", arguments: Tune) -> dict[str, Any]:
    """Find marginal's minimum over the settings that were asked for, print it, and return it for the file."""
    from shortrun.inference import Space
    from shortrun.training.tuning import tune

    found = tune(learner, x, random_numbers(arguments.seed), over=arguments.over)
    space = Space(arguments.over, learner.generator.latents, learner.step_size.decay)
    each, decay = (part.exp().tolist() for part in space.parts(found.settings))
    print(
        f"marginal over {arguments.over}: s_0 = {' '.join(f'{s:.3g}' for s in each)}, r = {decay:.3g}: "
        f"{_on_new_draws(found)}{'' if found.improved else '; nothing better than the present one'}"
    )
    found_here = {"settings": arguments.over, "step_size": each, "step_decay": decay, "value": _plain(found.value)}
    return found_here | _fresh(found)


def _curve(curves: "Curves", name: str) -> list[dict[str, float | None]]:
    keys = ("step_size", "value", "standard_error")
    return [dict(zip(keys, map(_plain, point), strict=True)) for point in curves.points(name)]


def _minima(curves: "Curves", name: str) -> dict[str, dict[str, Any]]:
    return {
        tuner: {
            "step_size": float(found.settings[0].exp()),
            "value": _plain(found.value),
            "standard_error": _plain(found.error),
            **_fresh(found),
            "better_than_start": found.improved,
        }
        for tuner, found in curves.minima[name].items()
    }


def _fresh(found: "Tuned") -> dict[str, float | None]:
    """Return the objective at a minimum on draws that did not choose it, for the file."""
    return {"fresh_value": _plain(found.fresh_value), "fresh_standard_error": _plain(found.fresh_error)}


def _on_new_draws(found: "Tuned") -> str:
    """Say the objective at a minimum: on new draws, and on those that chose it, where it is too low."""
    return f"{found.fresh_value:.2f} ± {found.fresh_error:.2f} on new draws ({found.value:.2f} on those that chose it)"


def _plain(value: float) -> float | None:
    """Return a number as JSON knows it: one that is not finite is null."""
    return value if abs(value) < float("inf") else None


def _lines(curves: "Curves", name: str) -> list[str]:
    """Say one estimator's minima; where nothing looked for them, the lowest of the values that are known."""
    lines = []
    for tuner, found in curves.minima[name].items():
        words = "" if found.improved else "; nothing better was found than where it began, the model's mean step size"
        s = float(found.settings[0].exp())
        lines.append(f"{name}: minimum by {tuner}: s = {s:.3g} with {_on_new_draws(found)}{words}")
    if not lines:
        finite = [point for point in curves.points(name) if _plain(point[1]) is not None]
        s, value, error = min(finite, key=lambda point: point[1])
        lines.append(f"{name}: lowest at s = {s:.3g} with {value:.5g} ± {error:.2g}, of those looked at")
    return lines


def draw(curves: "Curves", numbers: dict[str, Any]) -> "Image.Image":
    """Draw each estimator's curve with its standard errors, and the minima that the tuners found."""
    from shortrun.figures.charts import COLOURS, log_sizes, page

    names = list(curves.values)
    with page(1, len(names), (4.6, 3.4)) as sheet:
        for panel, name in zip(sheet.panels, names, strict=True):
            points = [point for point in curves.points(name) if _plain(point[1]) is not None]
            least = min(value for _, value, _ in points)
            # what the curve does beyond twice the draw from the prior would hide its minimum
            ceiling = least + 1.15 * (points[0][1] - least)
            near = [point for point in points if point[1] <= ceiling]
            s, value, error = zip(*near, strict=True)
            panel.errorbar(s, value, error, marker="o", markersize=3, linewidth=1, capsize=2, color=COLOURS[0])
            for (tuner, found), mark, colour in zip(
                curves.minima[name].items(), ("D", "+"), COLOURS[1:3], strict=False
            ):
                at = float(found.settings[0].exp())
                panel.plot(at, found.value, mark, markersize=8, color=colour, label=f"{tuner}: {at:.3g}", zorder=3)
            for size in numbers["model_step_size"]:
                panel.axvline(size, linestyle=":", color="grey", label=f"the model's: {size:.3g}")
            log_sizes(panel)
            panel.set(xlabel="step size s", ylabel="E[log q − log p(x, z)], nats")
            panel.set_title(f"{name}: {numbers['images']} images, K = {numbers['steps']}")
            panel.legend()
        return sheet.picture()
