"""A learner on disk: config.json, which a person can read, and model.safetensors. Nothing is unpickled."""

from pathlib import Path
from typing import TypeVar, cast

from torch import Tensor, nn

from shortrun.config import LearnerConfig, checked_settings
from shortrun.errors import InputError, in_one_line
from shortrun.files import read_json, write_json
from shortrun.learners.declared import Declared, checked_for_learner, declared_class
from shortrun.learners.latent_density import read_density
from shortrun.learners.size import check_size
from shortrun.learners.weights import read_weights, write_weights
from shortrun.mapping import from_mapping, to_mapping
from shortrun.registry import LEARNERS, name_of

Kind = TypeVar("Kind", bound=Declared)


def write_model(weights: dict[str, Tensor], description: LearnerConfig | None, folder: Path) -> None:
    """Write config.json and model.safetensors into a folder, each of them whole or not at all."""
    if description is None:
        raise put_together_by_hand()
    description = checked_settings(description)  # values may have been set by hand since it was built
    write_weights(weights, folder / "model.safetensors")
    write_json(folder / "config.json", to_mapping(description))


def put_together_by_hand() -> InputError:
    """Return the error of a learner of which nothing says how to rebuild it."""
    return InputError(
        "learner",
        problem="put together by hand, so that nothing says how to rebuild it",
        instead="make it by ShortRun.build(...), or that of its class",
    )


def read_description(folder: Path) -> LearnerConfig:
    """Read the config.json that `write_model` wrote; raise InputError where it is absent or damaged."""
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(
            str(folder), problem="no config.json in it", instead="give the folder of a run or of a saved model"
        )
    return from_mapping(LearnerConfig, read_json(path), "config.json")


def rebuilt(kind: type[Kind], folder: Path, decoder: nn.Module | None) -> Kind:
    """Return the learner that `write_model` wrote into a folder, ready to use, as `kind` or a class below it.

    decoder: the user's own module, where the model was built with one. Raises InputError where a file is absent,
    damaged, does not fit, or holds another learner; the settings are checked before anything is allocated.
    """
    description = read_description(folder)
    if description.own_decoder and decoder is None:
        raise InputError(
            "decoder",
            problem=f"{folder} was trained with a decoder of its own",
            instead="give it, decoder=MyDecoder()",
        )
    if decoder is not None and not description.own_decoder:
        raise InputError("decoder", problem=f"{folder} has a decoder of this package", instead="leave the argument out")
    try:
        found = _class_of(description, kind)
        description = checked_for_learner(description, found)
    except InputError as error:  # the settings are the file's, not the caller's
        raise error.renamed(f"config.json.{error.argument}") from None
    if not issubclass(found, kind):
        problem = f"a {found.__name__} in it, no {kind.__name__}"
        raise InputError(str(folder), problem=problem, instead="load it with shortrun.load")
    try:
        check_size(found, description)
    except InputError as error:
        raise error.renamed("config.json.model") from None
    weights = read_weights(folder / "model.safetensors")
    learner = found.from_description(description, decoder)
    try:
        learner.load_state_dict(weights)
    except RuntimeError as error:
        problem = f"weights that do not fit the configuration in it ({in_one_line(error)})"
        raise InputError(str(folder), problem=problem) from None
    learner.latent_density = read_density(folder, learner.dim)
    return cast(Kind, learner.eval())


def _class_of(description: LearnerConfig, kind: type[Declared]) -> type[Declared]:
    """Return the class that a description is of: `kind` where it is meant, else what its name says.

    So a class that is defined where nothing can import it, in a notebook for example, loads its own models.
    """
    _, colon, name = description.learner.partition(":")
    if description.learner == name_of(LEARNERS, kind) or (colon and name == kind.__qualname__):
        return kind
    return declared_class(description.learner)
