"""The state of an unfinished run in one file, so that a kill at any moment leaves a state that fits together."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from shortrun.errors import InputError
from shortrun.files import replacing
from shortrun.learners import Learner


@dataclass
class Position:
    """Where a run stands; the noise and the order of the images follow from the seed and the step."""

    step: int = 0
    total: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    metrics_bytes: int = 0
    retried: int = 0
    failed: int = 0
    skipped: int = 0
    tunings: int = 0
    tuning_seconds: float = 0.0
    window: dict[str, float] = field(default_factory=dict)
    """Sums of the statistics since the last line of metrics."""


def save_state(
    path: Path,
    learner: Learner,
    modules: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    position: Position,
) -> None:
    """Write weights, what the learner keeps for training, the optimizer's moments and the position, in one file."""
    tensors = {
        f"{part}/{name}": value for part, module in modules.items() for name, value in module.state_dict().items()
    }
    tensors |= {f"kept/{name}": value for name, value in learner.training_state().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value for name, value in state.items()}
    with replacing(path) as temporary:
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
            temporary,
            metadata={"position": json.dumps(asdict(position))},
        )


def load_state(
    path: Path, learner: Learner, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer
) -> Position:
    """Put back what `save_state` wrote; raise InputError where the file is damaged or of another model."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
            position = Position(**json.loads(file.metadata()["position"]))
        for part, module in modules.items():
            prefix = f"{part}/"
            module.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
        learner.load_training_state({n.removeprefix("kept/"): t for n, t in tensors.items() if n.startswith("kept/")})
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        words = " ".join(str(error).split())[:200]
        raise InputError(
            str(path), problem=f"cannot be used ({words})", instead="train again, or restore it from a copy"
        ) from None
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/")
            state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return position
