"""shortrun experiment: the experiments of the paper and our own, each from one command."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from shortrun.config import Config, read_recipe, recipe_names
from shortrun.errors import InputError, Interrupted, did_you_mean

EXPERIMENTS = {
    "figure5": "the best step size as the model learns, and the curves behind it (Figure 5 of the paper)",
    "step_sizes": "the models that fixed and tuned step sizes learn, measured side by side",
}
USAGE = f"""usage: shortrun experiment NAME RECIPE [OPTIONS]

Train and measure, for several seeds. NAME is one of:
{chr(10).join(f"  {name:<11} {words}" for name, words in EXPERIMENTS.items())}
RECIPE is one of {", ".join(recipe_names())}, or the path of a .toml file; each of its values can be
overridden: shortrun experiment NAME RECIPE --help lists them. What is finished is kept: the same command
again, with the same --out, goes on where a kill has left it.
"""


@dataclass(frozen=True)
class Experiment(Config):
    """Train and measure, for several seeds; the defaults shown are the recipe's."""

    out: Path | None = None
    """Folder to write to; runs/NAME_RECIPE where not given."""
    seeds: int = 3
    """Models of each kind: seeds 0, 1, ..."""
    device: str | None = None
    """cpu or cuda; the best there is where not given."""


@dataclass(frozen=True)
class Figure5(Experiment):
    """Measure the best step size as the model learns."""

    images: int = 16
    """Test images that the curves are measured on."""


@dataclass(frozen=True)
class StepSizes(Experiment):
    """Compare the models that fixed and tuned step sizes learn."""

    variants: tuple[str, ...] = ()
    """fixed_0.05, marginal_grid, ...: those to compare; all where not given."""
    likelihood_images: int = 48
    """Test images that log p(x) is estimated of."""


ARGUMENTS = (Figure5, StepSizes)


def main(words: list[str]) -> int:
    """Parse, run the experiment, print its table."""
    if len(words) < 2 or words[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if words and words[0] in ("-h", "--help") else 2
    name, recipe_name, *rest = words
    if name not in EXPERIMENTS:
        raise InputError("experiment", f"{name!r}", str(did_you_mean(name, EXPERIMENTS)))
    recipe = read_recipe(recipe_name)
    kind = Figure5 if name == "figure5" else StepSizes
    default = kind(**vars(recipe))
    arguments = tyro.cli(kind, args=rest, default=default, prog=f"shortrun experiment {name} {recipe_name}")
    config = arguments.alone()
    out = arguments.out or Path("runs") / f"{name}_{Path(recipe_name).stem}"

    try:
        made = measured(arguments, config, out)
    except Interrupted:
        raise Interrupted("stopped; the same command goes on where it stands") from None
    print(f"{made}wrote {out}")
    return 0


def measured(arguments: Figure5 | StepSizes, config: Config, out: Path) -> str:
    """Run the experiment that the arguments are of and return its table."""
    if isinstance(arguments, Figure5):
        from shortrun.experiments.figure5 import figure5

        return figure5(config, out, seeds=arguments.seeds, images=arguments.images, device=arguments.device)
    from shortrun.experiments.step_sizes import VARIANTS, step_sizes

    chosen = arguments.variants or tuple(VARIANTS)
    images = arguments.likelihood_images
    return step_sizes(
        config, out, variants=chosen, seeds=arguments.seeds, likelihood_images=images, device=arguments.device
    )
