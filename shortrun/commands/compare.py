"""shortrun compare: train and evaluate several learners side by side."""

from dataclasses import dataclass
from pathlib import Path

from shortrun.commands.entrants import entrants, read_options
from shortrun.commands.inputs import Flag
from shortrun.commands.own import AsPublished
from shortrun.commands.parsing import HELP, asks_for_help, recipe_to_explain
from shortrun.config import Config, recipe_names
from shortrun.errors import InputError, Interrupted, renaming
from shortrun.registry import LEARNERS

DEFAULT: tuple[str, ...] = ("short_run", "vae", "ladder_vae")
USAGE = f"""usage: shortrun compare RECIPE [--learners NAME ...] [--seeds N] [--budget 60s|20epochs] [OPTIONS]

Train and evaluate several learners on the same images with the same budget: {", ".join(LEARNERS)},
module:Name of your own, or recipes of your own (.toml), each named by its file. Settings of one learner alone follow
it after commas: vae,training.learning-rate=2e-3; short_run,as-published has the inference of the paper.
To choose settings, measure on train images: --data.held-out 2000.
RECIPE is one of {", ".join(recipe_names())},
or the path of a .toml file; each of its values can be overridden, for all learners:
shortrun compare RECIPE --help lists them. What is finished is kept: the same command again, with the same --out, goes
on where a kill has left it.
"""


@dataclass(frozen=True)
class Compare(Config):
    """Train and evaluate several learners side by side; the defaults shown are the recipe's."""

    learners: tuple[str, ...] = DEFAULT
    """Which; names of learners, or paths of .toml recipes, each with settings of its own: vae,model.width=64."""
    seeds: int = 3
    """Models of each: seeds 0, 1, ..."""
    budget: str = "60s"
    """Of each training: seconds of this machine, 60s, or epochs, 20epochs."""
    out: Path | None = None
    """Folder to write to; runs/compare_RECIPE_BUDGET where not given, with _fast behind it for --fast."""
    samples: int = 10_000
    """Draws that the distances between sets of images are measured on."""
    likelihood_images: int = 48
    """Test images that log p(x) is estimated of; 0 for none."""
    no_likelihood: Flag = False
    """Leave log p(x) out, which takes the longest to measure."""
    fast: Flag = False
    """Spend no longer on measuring than on training, unless that takes only seconds: errors of reconstructions and
    distances of draws alone, on at most 500 test images. What is left out is said."""
    rate_images: int = 0
    """Test images that error is measured on against the nats that latents say of an image; 0 for none."""
    points: int = 6
    """Of the curves of quality against time; 0 for none."""
    as_published: AsPublished = False
    """The inference of Nijkamp et al. 2020 in place of the recipe's: start and prior N(0, I), 25 steps of one size that
    is tuned by the paper's estimator."""
    device: str | None = None
    """cpu or cuda; the best there is where not given."""


ARGUMENTS = (Compare,)


def check_fast(arguments: Compare) -> None:
    """Raise InputError where --fast stands beside what it chooses."""
    for name in ("samples", "likelihood_images", "rate_images", "points"):
        if arguments.fast and getattr(arguments, name) != getattr(Compare, name):
            raise InputError(name, problem="--fast chooses it", instead="drop one of the two")


def main(words: list[str]) -> int:
    """Parse, compare, print the table."""
    helped = asks_for_help(words)
    if not words or (helped and recipe_to_explain(words) is None):
        print(USAGE, end="")
        return 0 if words else 2
    if helped:
        words = [word for word in words if word not in HELP]
        read_options(Compare, "compare", words[0], None, [*words[1:], "--help"])
    recipe, *rest = words
    if any(word.split("=")[0] == "--learner" for word in rest):
        raise InputError(
            "learner", problem="a comparison has several", instead="write --learners short_run vae for example"
        )
    arguments = read_options(Compare, "compare", recipe, None, rest)
    if not arguments.learners or len(set(arguments.learners)) < len(arguments.learners):
        got = repr(" ".join(arguments.learners)) if arguments.learners else "none"
        raise InputError("learners", got, "write each one once")
    configs = entrants(Compare, "compare", recipe, arguments.learners, rest)

    from shortrun.compare import Budget, compare

    check_fast(arguments)
    budget = Budget.parse(arguments.budget)
    how = "_fast" if arguments.fast else ""
    out = arguments.out or Path("runs") / f"compare_{Path(recipe).stem}_{budget}{how}"
    try:
        with renaming({"configs": "learners"}):
            table = compare(
                configs,
                out,
                budget=budget,
                seeds=arguments.seeds,
                samples=arguments.samples,
                likelihood_images=0 if arguments.no_likelihood else arguments.likelihood_images,
                rate_images=arguments.rate_images,
                points=arguments.points,
                fast=arguments.fast,
                device=arguments.device,
            )
    except KeyboardInterrupt:
        raise Interrupted("stopped; the same command goes on where it stands") from None
    print(f"{table}wrote {out}")
    return 0
