"""A learner on disk: config.json, which a person can read, and model.safetensors. Nothing is unpickled."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from shortrun.config import LearnerConfig
from shortrun.errors import InputError
from shortrun.files import replacing, write_json
from shortrun.mapping import from_mapping, to_mapping


def write_model(weights: dict[str, torch.Tensor], description: LearnerConfig | None, folder: Path) -> None:
    """Write config.json and model.safetensors into a folder, each of them whole or not at all."""
    if description is None:
        raise InputError(
            "save_pretrained",
            problem="this learner was put together by hand",
            instead="make it by ShortRun.build(...), or its class",
        )
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
