"""What is compared: a configuration for each learner that the command line names, with settings of its own."""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

from shortrun.commands.options import option_names
from shortrun.commands.own import AS_PUBLISHED, Arguments, with_own
from shortrun.commands.parsing import parse
from shortrun.commands.recipes import read
from shortrun.config import Config
from shortrun.errors import InputError, nearest
from shortrun.registry import LEARNERS, check_name


def entrants(
    kind: type[Arguments], command: str, recipe: str, learners: Iterable[str], words: list[str]
) -> dict[str, Config]:
    """Return what is compared, by the name of its folder.

    kind: the arguments of the command.
    command: as it was typed, for its help.
    recipe: its name or path.
    learners: the names, or paths of recipes, each with settings of its own after commas.
    words: the options, which are for all of them.
    """
    configs: dict[str, Config] = {}
    for entry in learners:
        learner, *settings = entry.split(",")
        own = [*words, *options(entry, settings)]
        if learner.endswith(".toml"):
            name, config = Path(learner).stem, read_options(kind, command, learner, None, own).alone()
        else:
            check_name(LEARNERS, learner, "learners")
            name, config = learner, read_options(kind, command, recipe, learner, own).alone()
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


def read_options(kind: type[Arguments], command: str, recipe: str, learner: str | None, words: list[str]) -> Arguments:
    """Read a command's options on top of a recipe as a learner has it; see `entrants`."""
    default = with_own(kind, read(recipe, learner, words), words)
    return parse(type(default), words, f"shortrun {command} {recipe}", default)
