"""shortrun experiment: the experiments of the paper and our own, each from one command."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from shortrun.commands.own import with_own
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
    if len(words) < 2 or words[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if words and words[0] in ("-h", "--help") else 2
    name, recipe_name, *rest = words
    if name not in EXPERIMENTS:
        raise InputError("experiment", repr(name), did_you_mean(name, EXPERIMENTS))
    recipe = read_recipe(recipe_name)
    default = with_own(arguments_of(name), recipe, rest)
    arguments = tyro.cli(type(default), args=rest, default=default, prog=f"shortrun experiment {name} {recipe_name}")
    out = arguments.out or Path("runs") / f"{name}_{Path(recipe_name).stem}"

    from shortrun.learners import checked_for_learner

    config = checked_for_learner(arguments.alone())
    try:
        made = arguments.run(config, out)
    except Interrupted:
        raise Interrupted("stopped; the same command goes on where it stands") from None
    print(f"{made}wrote {out}")
    return 0
