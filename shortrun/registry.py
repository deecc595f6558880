"""The names that a configuration can say, and where the things that they name live: one line for a new one.

What is named is imported when it is asked for, so that reading a recipe waits for nothing. In place of a name stands
`module:Name` for something outside of the package, in any module that can be imported or lies in the present folder.
"""

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shortrun.errors import InputError, did_you_mean

Names = Mapping[str, str]

LEARNERS: Names = {
    "short_run": "shortrun.learners.short_run:ShortRun",
    "vae": "shortrun.learners.vae:Vae",
    "ladder_vae": "shortrun.learners.ladder_vae:LadderVae",
    "persistent": "shortrun.learners.persistent:Persistent",
    "vlae": "shortrun.learners.vlae:Vlae",
    "rae": "shortrun.learners.rae:Rae",
    "glow": "shortrun.learners.glow:Glow",
}
LIKELIHOODS: Names = {
    "gaussian": "shortrun.model.gaussian:Gaussian",
    "bernoulli": "shortrun.model.bernoulli:Bernoulli",
    "logistic": "shortrun.model.discretized_logistic:DiscretizedLogistic",
}
PRIORS: Names = {
    "normal": "shortrun.model.prior:Normal",
    "mixture": "shortrun.model.mixture:Mixture",
    "energy": "shortrun.model.energy:Energy",
}
DECODERS: Names = {
    "dense": "shortrun.model.decoders:dense_decoder",
    "conv": "shortrun.model.decoders:conv_decoder",
}
ENCODERS: Names = {
    "dense": "shortrun.model.encoders:dense_encoder",
    "conv": "shortrun.model.encoders:conv_encoder",
}


def listed(names: Names) -> str:
    """Return the names in words, for help: `dense, conv, or module:Name of your own`."""
    return f"{', '.join(names)}, or module:Name of your own"


def check_name(names: Names, word: str, argument: str) -> None:
    """Raise InputError where a word is none of the names and not module:Name; nothing is imported.

    names: of a registry.
    word: what was written.
    argument: whose value the word is, for the error.
    """
    module, colon, name = word.partition(":")
    if word not in names and not (colon and module and name):
        raise InputError(argument, repr(word), f"{did_you_mean(word, names)} (or module:Name of your own)")


def find(names: Names, word: str, argument: str) -> Any:
    """Return what a word names: one of the names, or module:Name.

    names: of a registry.
    word: what was written.
    argument: whose value the word is, for the error.

    Raises InputError for a word that is neither, for a module that cannot be imported, and for a name that is no class
    or function in it.
    """
    check_name(names, word, argument)
    module, _, name = names.get(word, word).partition(":")
    if word not in names and not {"", str(Path.cwd())} & set(sys.path):
        sys.path.append(str(Path.cwd()))  # a console script does not look there by itself
    try:
        found: Any = importlib.import_module(module)
    except ImportError as error:
        raise InputError(argument, repr(word), f"write a module that can be imported: {error}") from None
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None and module == "__main__":
        raise InputError(
            argument,
            problem=f"{name} was defined in a script or a notebook",
            instead="put it into a module that can be imported, or give the class itself in Python: learner=...",
        )
    if not callable(found):  # all that can be named here is a class or a function
        raise InputError(argument, repr(word), f"write a class or a function that the module {module} has")
    return found


def name_of(names: Names, thing: Any) -> str:
    """Return the name that `find` gives a class or function back by: the registered one, or module:Name.

    names: of a registry.
    thing: the class or function.
    """
    place = f"{thing.__module__}:{thing.__qualname__}"
    return next((name for name, home in names.items() if home == place), place)
