"""shortrun compare: train and evaluate several learners side by side."""

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from shortrun.commands.options import option_names
from shortrun.commands.own import AS_PUBLISHED, AsPublished, with_own
from shortrun.commands.parsing import HELP, asks_for_help, parse, recipe_to_explain
from shortrun.config import Config, read_recipe, recipe_names
from shortrun.errors import InputError, Interrupted, nearest, renaming
from shortrun.registry import LEARNERS, check_name

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
    """Folder to write to; runs/compare_RECIPE_BUDGET where not given."""
    samples: int = 10_000
    """Draws that the distances between sets of images are measured on."""
    likelihood_images: int = 48
    """Test images that log p(x) is estimated of; 0 for none."""
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


def main(words: list[str]) -> int:
    """Parse, compare, print the table."""
    helped = asks_for_help(words)
    if not words or (helped and recipe_to_explain(words) is None):
        print(USAGE, end="")
        return 0 if words else 2
    if helped:
        words = [word for word in words if word not in HELP]
        read_options(words[0], None, [*words[1:], "--help"])
    recipe, *rest = words
    if any(word.split("=")[0] == "--learner" for word in rest):
        raise InputError(
            "learner", problem="a comparison has several", instead="write --learners short_run vae for example"
        )
    arguments = read_options(recipe, None, rest)
    if not arguments.learners or len(set(arguments.learners)) < len(arguments.learners):
        got = repr(" ".join(arguments.learners)) if arguments.learners else "none"
        raise InputError("learners", got, "write each one once")
    configs = entrants(recipe, arguments.learners, rest)

    from shortrun.compare import Budget, compare

    budget = Budget.parse(arguments.budget)
    out = arguments.out or Path("runs") / f"compare_{Path(recipe).stem}_{budget}"
    try:
        with renaming({"configs": "learners"}):
            table = compare(
                configs,
                out,
                budget=budget,
                seeds=arguments.seeds,
                samples=arguments.samples,
                likelihood_images=arguments.likelihood_images,
                rate_images=arguments.rate_images,
                points=arguments.points,
                device=arguments.device,
            )
    except KeyboardInterrupt:
        raise Interrupted("stopped; the same command goes on where it stands") from None
    print(f"{table}wrote {out}")
    return 0


def entrants(recipe: str, learners: Iterable[str], words: list[str]) -> dict[str, Config]:
    """Return what is compared, by the name of its folder; words: the options, which are for all of them."""
    configs: dict[str, Config] = {}
    for entry in learners:
        learner, *settings = entry.split(",")
        own = [*words, *options(entry, settings)]
        if learner.endswith(".toml"):
            name, config = Path(learner).stem, read_options(learner, None, own).alone()
        else:
            check_name(LEARNERS, learner, "learners")
            name, config = learner, read_options(recipe, learner, own).alone()
        name = re.sub(r"[\s/\\:]+", "_", ",".join([name, *settings]))
        if name in configs:
            raise InputError("learners", problem=f"two are named {name}", instead="rename the .toml file")
        configs[name] = config
    return configs


def options(entry: str, settings: list[str]) -> list[str]:
    """Return the settings of one learner, each KEY=VALUE or as-published, as options of the command line."""
    found: list[str] = []
    for setting in settings:
        if setting.strip() == AS_PUBLISHED.removeprefix("--"):
            found.append(AS_PUBLISHED)
            continue
        key, equals, value = (part.strip() for part in setting.partition("="))
        if not (key and equals and value):
            raise InputError("learners", repr(entry), "write settings as vae,training.learning-rate=2e-3")
        known = [name for name in option_names([Config]) if not name.startswith("own.")]
        name = key.replace("-", "_")
        if name.split(".")[0] not in {field.name for field in dataclasses.fields(Config)}:
            raise InputError("learners", repr(setting), "a setting of one learner is one of its recipe's")
        if name not in known and not name.startswith("own."):
            near = nearest(name, known)
            instead = f"did you mean {near}?" if near else "see the options of shortrun compare RECIPE --help"
            raise InputError("learners", repr(setting), instead)
        found += [f"--{key.replace('_', '-')}", *value.split()]
    return found


def read_options(recipe: str, learner: str | None, words: list[str]) -> Compare:
    """Read the options on top of a recipe as a learner has it."""
    default = with_own(Compare, read_recipe(recipe, learner), words)
    return parse(type(default), words, f"shortrun compare {recipe}", default)
