"""The state of an unfinished run in one file, so that a kill at any moment leaves a state that fits together."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import safe_open
from torch import nn

from shortrun.errors import InputError, undamaged
from shortrun.files import to_text
from shortrun.learners.pretrained import write_model
from shortrun.learners.weights import RETRAIN, check_finite, write_weights
from shortrun.training.divergence import finite_weights
from shortrun.training.position import Position
from shortrun.training.run_folder import RunFolder
from shortrun.training.step import State
from shortrun.training.tracking import Metrics
from shortrun.training.watching import Clock

Kind = TypeVar("Kind")
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What Adam keeps for each parameter."""


class Checkpoints:
    """Writes the model and the state of training, at once or when it is time again.

    seconds: from one to the next; metrics: None in all processes but the first, which write nothing.
    """

    def __init__(self, run: RunFolder, state: State, clock: Clock, metrics: Metrics | None, seconds: float) -> None:
        self.run, self.state, self.clock, self.metrics, self.seconds = run, state, clock, metrics, seconds
        self.saved = time.monotonic()

    def save(self) -> None:
        """Write a checkpoint; where the last update has left weights that are not finite the one before is kept."""
        self.clock.stop()
        if self.metrics is not None and finite_weights(self.state.learner):
            self.state.position.metrics_bytes = self.metrics.length()
            averaged = self.state.averaged
            write_model(averaged.state_dict(), averaged.description, self.run.checkpoint)
            save_state(self.run.state, self.state)
        self.saved = time.monotonic()

    def save_if_due(self) -> None:
        """Write a checkpoint where the last one is old enough."""
        if time.monotonic() - self.saved > self.seconds:
            self.save()


def modules_of(state: State) -> dict[str, nn.Module]:
    """Return the modules whose tensors a checkpoint holds, by the name they have there."""
    return {"weights": state.learner, "average": state.average}


def save_state(path: Path, state: State) -> None:
    """Write weights, what the learner keeps for training, the optimizer's moments and the position, in one file."""
    tensors = {
        f"{part}/{name}": value
        for part, module in modules_of(state).items()
        for name, value in module.state_dict().items()
    }
    tensors |= {f"kept/{name}": value for name, value in state.learner.training_state().items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value for name, value in moments.items()}
    write_weights(tensors, path, {"position": to_text(asdict(state.position))})


def check_state(path: Path, state: State) -> None:
    """Raise InputError where what `save_state` wrote is of a model with other parameters; nothing is loaded.

    A parameter that an earlier version learned by gradient may be gone, or be solved for now. Moments of the optimizer
    then belong to none of the model's parameters, and the run cannot go on as it began.
    """
    with undamaged(path, RETRAIN):
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        moments = {_moment(name): shape for name, shape in below("optimizer/", shapes).items()}
    own = {f"weights/{name}" for name in state.learner.state_dict()}
    parameters = [tuple(each.shape) for each in state.learner.parameters()]
    strange = [name.removeprefix("weights/") for name in shapes if name.startswith("weights/") and name not in own]
    for (index, _), shape in moments.items():
        if index >= len(parameters) or shape not in ((), parameters[index]):
            strange.append(f"moments of parameter {index}")
    if strange:
        raise InputError(
            str(path),
            problem=f"of a model with other parameters than this version's ({', '.join(sorted(set(strange))[:3])})",
            instead="finish the run with the version that began it, or train anew",
        )


def load_state(path: Path, state: State) -> None:
    """Put back what `save_state` wrote; raise InputError where the file is damaged or of another model."""
    with undamaged(path, RETRAIN), safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        state.position = Position.from_mapping(json.loads(file.metadata()["position"]))
    for part in modules_of(state):  # what is kept beside them may be NaN: latents whose chain failed
        check_finite(below(f"{part}/", tensors), path)
    with undamaged(path, RETRAIN):
        for part, module in modules_of(state).items():
            module.load_state_dict(below(f"{part}/", tensors))
        state.learner.load_training_state(below("kept/", tensors))
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in below("optimizer/", tensors).items():
            index, key = _moment(name)
            moments.setdefault(index, {})[key] = tensor
        groups = state.optimizer.state_dict()["param_groups"]
        state.optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _moment(name: str) -> tuple[int, str]:
    """Return which parameter a moment of the optimizer is of, and which moment it is; ValueError for no such name."""
    index, key = name.split("/")
    if key not in MOMENTS:
        raise ValueError(f"{name} is no moment of the optimizer")
    return int(index), key


def below(prefix: str, tensors: dict[str, Kind]) -> dict[str, Kind]:
    """Return what has a name that begins with a prefix, by the name without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
