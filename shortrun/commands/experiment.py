"""shortrun experiment: the experiments of the paper and our own, each from one command."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from shortrun.commands.own import with_own
from shortrun.commands.parsing import HELP, asks_for_help, parse, recipe_to_explain
from shortrun.config import read_recipe, recipe_names
from shortrun.errors import InputError, Interrupted, did_you_mean
from shortrun.experiments import EXPERIMENTS

if TYPE_CHECKING:
    from shortrun.experiments.arguments import Experiment

USAGE = f"""usage: shortrun experiment NAME RECIPE [OPTIONS]

Train and measure, for several seeds. NAME is one of:
{chr(10).join(f"  {name:<11} {words}" for name, words in EXPERIMENTS.items())}
RECIPE is one of {", ".join(recipe_names())}, or the path of a .toml file; each of its values can be
overridden: shortrun experiment NAME RECIPE --help lists them. What is finished is kept: the same command
again, with the same --out, goes on where a kill has left it.
"""


def __getattr__(name: str) -> object:
    """Give ARGUMENTS, the dataclasses of all experiments, which are imported only when they are asked for."""
    if name != "ARGUMENTS":
        raise AttributeError(name)
    return tuple(arguments_of(each) for each in EXPERIMENTS)


def arguments_of(name: str) -> "type[Experiment]":
    """Return the class of an experiment's options."""
    return importlib.import_module(f"shortrun.experiments.{name}").Arguments


def main(words: list[str]) -> int:
    """Parse, run the experiment, print its table."""
    helped = asks_for_help(words)
    words = [word for word in words if word not in HELP]
    if (helped or len(words) < 2) and not (helped and words and words[0] in EXPERIMENTS):
        print(USAGE, end="")
        return 0 if helped else 2
    if helped:
        words = [words[0], recipe_to_explain(words[1:]) or "digits", "--help"]
    name, recipe_name, *rest = words
    if name not in EXPERIMENTS:
        raise InputError("experiment", repr(name), did_you_mean(name, EXPERIMENTS))
    recipe = read_recipe(recipe_name)
    default = with_own(arguments_of(name), recipe, rest)
    arguments = parse(type(default), rest, f"shortrun experiment {name} {recipe_name}", default)
    out = arguments.out or Path("runs") / f"{name}_{Path(recipe_name).stem}"

    from shortrun.learners import checked_for_learner

    config = checked_for_learner(arguments.alone())
    try:
        made = arguments.run(config, out)
    except KeyboardInterrupt:
        raise Interrupted("stopped; the same command goes on where it stands") from None
    print(f"{made}wrote {out}")
    return 0
