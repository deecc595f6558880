"""shortrun train: learn a model from images, or go on with an interrupted run."""

import inspect
import os
from dataclasses import dataclass
from pathlib import Path

from shortrun.commands.options import option_names
from shortrun.commands.own import AsPublished, with_own
from shortrun.commands.parsing import HELP, asks_for_help, parse, recipe_to_explain
from shortrun.commands.recipes import chosen, read
from shortrun.config import Config, is_folder, recipe_names
from shortrun.errors import InputError
from shortrun.registry import LEARNERS

USAGE = f"""usage: shortrun train RECIPE [OPTIONS]
       shortrun train FOLDER [OPTIONS]
       shortrun train --resume RUN [--device DEVICE]

Learn a model from images. RECIPE is one of {", ".join(recipe_names())}, or the path of a .toml
file; each of its values can be overridden: shortrun train RECIPE --help lists them. --learner help says in a sentence
what each learner is. FOLDER holds images of any size:
the settings are then chosen by their number and size, and said.
Several processes: torchrun --nproc-per-node 2 -m shortrun train RECIPE
"""


@dataclass(frozen=True)
class Train(Config):
    """Learn a model from images; the defaults shown are the recipe's."""

    out: Path | None = None
    """Folder of the run; a dated one under runs/ where not given."""
    as_published: AsPublished = False
    """The inference of Nijkamp et al. 2020 in place of the recipe's: start and prior N(0, I), 25 steps of one size that
    is tuned by the paper's estimator."""
    device: str | None = None
    """cpu or cuda; the best there is where not given."""


@dataclass(frozen=True)
class Resume:
    """Go on with an interrupted run."""

    resume: Path
    """Folder of the run."""
    device: str | None = None
    """cpu or cuda; the best there is where not given."""


ARGUMENTS = (Train, Resume)


def check_alone(words: list[str]) -> None:
    """Raise InputError for what cannot stand beside --resume."""
    if not words[0].startswith("-"):
        raise InputError("resume", problem="a run goes on with its own recipe", instead=f"drop {words[0]!r}")
    for word in words:
        name = word.split("=")[0].replace("_", "-")
        if name in option_names([Train]).values() and name != "--device":
            raise InputError(name, problem="cannot change beside --resume", instead="drop it, or train anew")


def learners_explained() -> str:
    """Return a line for each learner of the package: its name, and what it is in a sentence."""
    from shortrun.learners import learner_class

    docs = {name: inspect.cleandoc(learner_class(name).__doc__ or "").splitlines()[0] for name in LEARNERS}
    width = max(map(len, docs))
    return "".join(f"  {name:<{width}}  {words}\n" for name, words in docs.items())


def main(words: list[str]) -> int:
    """Parse, train, say where the run is."""
    helped, resumed = asks_for_help(words), any(word.split("=")[0] == "--resume" for word in words)
    if not words or (helped and not resumed and recipe_to_explain(words) is None):
        print(USAGE, end="")
        return 0 if words else 2
    if helped:
        words = [*(word for word in words if word not in HELP), "--help"]
    if resumed:
        if not helped:
            check_alone(words)
        arguments = parse(Resume, words, "shortrun train")
    else:
        if words[0].startswith("-"):
            instead = f"write a recipe's name first: shortrun train digits {words[0]} ..."
            raise InputError("recipe", repr(words[0]), instead)
        if chosen(words, "--learner") == "help":
            print(learners_explained(), end="")
            return 0
        default = with_own(Train, read(words[0], chosen(words, "--learner"), words), words)
        arguments = parse(type(default), words[1:], f"shortrun train {words[0]}", default)
        if is_folder(words[0]):
            from shortrun.training.photos import choice

            print(choice(arguments), flush=True)

    from shortrun.training import resume, train

    if isinstance(arguments, Resume):
        run = resume(arguments.resume, device=arguments.device)
    else:
        run = train(arguments.alone(), arguments.out, device=arguments.device)
    if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun started, one speaks
        from shortrun.training import info

        print(info(run))
    return 0
