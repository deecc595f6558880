"""A learner on disk: config.json, which a person can read, and model.safetensors. Nothing is unpickled."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from shortrun import config
from shortrun.config import LearnerConfig
from shortrun.errors import InputError
from shortrun.files import replacing, write_json
from shortrun.learners.latent_density import read_density
from shortrun.learners.settings import checked, learner_class
from shortrun.mapping import from_mapping, to_mapping
from shortrun.registry import LEARNERS, name_of

if TYPE_CHECKING:
    from shortrun.learners.learner import Learner

Kind = TypeVar("Kind")  # a class of learners: a bound would be a circle


def write_model(weights: dict[str, torch.Tensor], description: LearnerConfig | None, folder: Path) -> None:
    """Write config.json and model.safetensors into a folder, each of them whole or not at all."""
    if description is None:
        raise InputError(
            "save_pretrained",
            problem="this learner was put together by hand",
            instead="make it by ShortRun.build(...), or its class",
        )
    description = config.checked(description)  # values may have been set by hand since it was built
    write_weights(weights, folder / "model.safetensors")
    write_json(folder / "config.json", to_mapping(description))


def write_weights(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write tensors as safetensors, whole or not at all."""
    with replacing(path) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read tensors from safetensors; raise InputError where the file is absent or damaged."""
    if not path.is_file():
        raise InputError(str(path), problem="does not exist", instead="give the folder of a run or of a saved model")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(
            str(path), problem=f"is damaged ({error})", instead="train again, or restore it from a copy"
        ) from None


def read_model(folder: Path) -> tuple[LearnerConfig, dict[str, torch.Tensor]]:
    """Read what `write_model` wrote; raise InputError where it is absent, damaged or not of this package."""
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(
            str(folder), problem="holds no config.json", instead="give the folder of a run or of a saved model"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(str(path), problem=f"is damaged ({error})", instead="restore it from a copy") from None
    return from_mapping(LearnerConfig, values, "config.json"), read_weights(folder / "model.safetensors")


def rebuilt(kind: type[Kind], folder: Path, decoder: nn.Module | None) -> Kind:
    """Return the learner that `write_model` wrote into a folder, ready to use, as `kind` or a class below it.

    decoder: the user's own module, where the model was built with one. Raises InputError where a file is absent,
    damaged, does not fit, or holds another learner; the settings are checked before anything is allocated.
    """
    description, weights = read_model(folder)
    if description.own_decoder and decoder is None:
        raise InputError(
            "decoder",
            problem=f"{folder} was trained with a decoder of its own",
            instead="give it, decoder=MyDecoder()",
        )
    if decoder is not None and not description.own_decoder:
        raise InputError("decoder", problem=f"{folder} has a decoder of this package", instead="leave the argument out")
    found = _class_of(description, kind)
    if not issubclass(found, kind):
        raise InputError(
            str(folder), problem=f"holds a {found.__name__}, no {kind.__name__}", instead="load it with shortrun.load"
        )
    learner = found.from_description(checked(description, found), decoder)
    try:
        learner.load_state_dict(weights)
    except RuntimeError as error:
        words = " ".join(str(error).split())[:200]
        raise InputError(str(folder), problem=f"the weights do not fit the configuration ({words})") from None
    learner.latent_density = read_density(folder, learner.dim)
    return cast(Kind, learner.eval())


def _class_of(description: LearnerConfig, kind: Any) -> "type[Learner]":
    """Return the class that a description is of: `kind` where it is meant, else what its name says.

    So a class that is defined where nothing can import it, in a notebook for example, loads its own models.
    """
    _, colon, name = description.learner.partition(":")
    if description.learner == name_of(LEARNERS, kind) or (colon and name == kind.__qualname__):
        return kind
    return learner_class(description.learner)
