"""What the words of a command change of a recipe before its values are read: `--as-published`, `--own.NAME VALUE`."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, TypeVar

import tyro

from shortrun.config import Config, as_published
from shortrun.mapping import from_mapping

Arguments = TypeVar("Arguments", bound=Config)
AsPublished = Annotated[bool, tyro.conf.FlagCreatePairsOff]
AS_PUBLISHED = "--as-published"


def with_own(kind: type[Arguments], recipe: Config, words: Sequence[str]) -> Arguments:
    """Return a command's arguments as the recipe has them, with options for settings of the learner's own.

    Where the words ask for the inference of the paper, the recipe's own is left aside; other options still override.

    kind: the arguments of the command. recipe: whose learner it is. words: of the command line. A built-in learner's
    class is imported for that only where the words or the recipe ask for such settings, since it takes seconds.
    """
    values = dict(vars(as_published(recipe) if AS_PUBLISHED in words else recipe))
    if ":" in recipe.learner or recipe.own or any(word.startswith("--own.") for word in words):
        from shortrun.learners import learner_class

        if (settings := learner_class(recipe.learner).Settings) is not None:
            own = values["own"] = from_mapping(settings, recipe.own, "own")
            field = dataclasses.field(default_factory=lambda: own)
            doc = kind.__doc__
            kind = dataclasses.make_dataclass(kind.__name__, [("own", settings, field)], bases=(kind,), frozen=True)
            kind.__doc__ = doc
    return kind(**values)
