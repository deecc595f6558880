"""shortrun experiment: the experiments of the paper and our own, each from one command."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from shortrun.commands.entrants import entrants, read_options
from shortrun.commands.parsing import HELP, asks_for_help, recipe_to_explain
from shortrun.config import recipe_names
from shortrun.errors import InputError, Interrupted, did_you_mean
from shortrun.experiments import EXPERIMENTS, PAPER

if TYPE_CHECKING:
    from shortrun.experiments.arguments import Experiment, Several

ALL, SMALL = "all", "--small"
USAGE = f"""usage: shortrun experiment NAME [RECIPE] [OPTIONS]

Train and measure, for several seeds. NAME is one of:
{chr(10).join(f"  {name:<14} {words}" for name, words in EXPERIMENTS.items())}
  {ALL:<14} {", ".join(PAPER)} after one another: those of the paper
RECIPE is one of {", ".join(recipe_names())},
or the path of a .toml file; each experiment has one of its own, which it takes where none is named. {SMALL} makes it a
matter of minutes. Each value can be overridden: shortrun experiment NAME --help lists them. What is finished is kept:
the same command again, with the same --out, goes on where a kill has left it.
"""


def __getattr__(name: str) -> object:
    """Give ARGUMENTS, the dataclasses of all experiments, which are imported only when they are asked for."""
    if name != "ARGUMENTS":
        raise AttributeError(name)
    return tuple(arguments_of(each) for each in EXPERIMENTS)


def arguments_of(name: str) -> "type[Experiment | Several]":
    """Return the class of an experiment's options."""
    return importlib.import_module(f"shortrun.experiments.{name}").Arguments


def main(words: list[str]) -> int:
    """Parse, run the experiment, print its table."""
    helped = asks_for_help(words)
    words = [word for word in words if word not in HELP]
    if not words or (helped and words[0] not in EXPERIMENTS):
        print(USAGE, end="")
        return 0 if helped else 2
    name, *rest = words
    if name == ALL:
        return run_all(rest)
    if name not in EXPERIMENTS:
        raise InputError("experiment", repr(name), did_you_mean(name, [*EXPERIMENTS, ALL]))
    kind = arguments_of(name)
    if helped:
        rest = [recipe_to_explain(rest) or kind.recipe, "--help"]
    recipe = rest.pop(0) if rest and not rest[0].startswith("-") else kind.recipe
    if SMALL in rest:  # before the others, so that they count
        rest = [*kind.reduced, *rest]
    arguments = read_options(kind, f"experiment {name}", recipe, None, rest)
    out = arguments.out or Path("runs") / f"{name}_{Path(recipe).stem}"
    try:
        made = run(arguments, f"experiment {name}", recipe, rest, out)
    except KeyboardInterrupt:
        raise Interrupted("stopped; the same command goes on where it stands") from None
    print(f"{made}wrote {out}")
    return 0


def run(arguments: "Experiment | Several", command: str, recipe: str, words: list[str], out: Path) -> str:
    """Run an experiment on its configuration, or on those of its learners, and return its table."""
    from shortrun.experiments.arguments import Several
    from shortrun.learners import checked_for_learner

    if not isinstance(arguments, Several):
        return arguments.run(checked_for_learner(arguments.alone()), out)
    configs = entrants(type(arguments), command, recipe, arguments.learners, words)
    return arguments.compete({name: checked_for_learner(config) for name, config in configs.items()}, out)


def run_all(words: list[str]) -> int:
    """Run all experiments of the paper with the same options, on the same models where they have the same learners."""
    recipe = [words[0]] if words and not words[0].startswith("-") else []
    rest, out = words[len(recipe) :], Path("runs") / "_".join(["paper", *(Path(each).stem for each in recipe)])
    joined = [word for word in rest if word.startswith("--out=")]
    if joined:
        out, rest = Path(joined[-1].removeprefix("--out=")), [word for word in rest if word not in joined]
    elif "--out" in rest:
        at = rest.index("--out")
        if at + 1 == len(rest):
            raise InputError("out", problem="has no value", instead="write the path of a folder after it")
        out, rest = Path(rest[at + 1]), rest[:at] + rest[at + 2 :]
    for name in PAPER:
        print(f"{name}: {EXPERIMENTS[name]}", flush=True)
        shared = (
            ["--models", str(out / "models")] if "models" in vars(arguments_of(name))["__dataclass_fields__"] else []
        )
        main([name, *recipe, *rest, "--out", str(out / name), *shared])
    return 0
