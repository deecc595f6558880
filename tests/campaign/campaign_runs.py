"""Small runs that take a second, and what of them has to come out alike bit for bit."""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

LEAST = [
    *("--model.width", "8", "--data.train-limit", "60", "--data.test-limit", "20", "--training.batch-size", "20"),
    *(
        "--training.threads",
        "1",
        "--training.fit-images",
        "40",
        "--inference.steps",
        "2",
        "--inference.test-steps",
        "2",
    ),
]
SMALL = [
    *LEAST,
    *("--model.latents", "2", "3", "--training.epochs", "2", "--training.log-steps", "1"),
    *("--training.picture-epochs", "1"),
]
SHORTEST = [
    *(*LEAST, "--model.latents", "2", "3", "--training.updates", "2", "--training.log-steps", "1"),
    *("--training.picture-epochs", "100"),
]
LONGER = [*LEAST, "--model.latents", "2", "3", "--training.epochs", "12", "--training.log-steps", "2"]
MIXTURE = ["--inference.start", "regression", "--model.prior", "mixture", "--model.components", "3"]
SETTINGS = {
    "short_run": MIXTURE,
    "vae": ["--learner", "vae"],
    "persistent": ["--learner", "persistent", "--persistent.fresh-steps", "2"],
    "persistent_disk": ["--learner", "persistent", "--persistent.store", "disk", "--persistent.fresh-steps", "2"],
    "glow": ["--learner", "glow", "--glow.flows", "2", "--glow.width", "8"],
}
"""Words of the command line that choose a learner."""
TIMES = {"seconds", "cpu_seconds", "tuning_seconds", "date", "updates_a_second", "seconds_an_update"}
"""What measures time, which no two runs have in common."""


def train(learner: str, out: Path, every: float, settings: list[str] = SMALL) -> list[str]:
    """Return the words that train on digits; every: seconds from one checkpoint to the next."""
    words = ["train", "digits", "--out", str(out), "--training.checkpoint-seconds", str(every)]
    return [*words, *settings, *SETTINGS[learner]]


def again(out: Path, words: list[str]) -> list[str]:
    """Return the words that go on with a run, or those that began it where nothing is there to go on with."""
    return ["train", "--resume", str(out)] if (out / "config.toml").is_file() else words


def digests(out: Path) -> dict[str, str]:
    """Return a digest of everything in a run, or in a comparison of runs, that does not measure time.

    Left out are TensorBoard's files, whose records hold the time, config.toml and origin.json, which the run began
    with, and who worked on it: a kill after result.json leaves that, and a finished run is not worked on again.
    """
    found = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name = path.relative_to(out).as_posix()
        if "tensorboard" in path.parts or path.name in (".lock", ".holder", "config.toml", "origin.json", "curves.png"):
            continue
        if path.suffix == ".safetensors":
            content = tensors(path)
        elif path.suffix == ".json":
            content = json.dumps(timeless(json.loads(path.read_text())), sort_keys=True).encode()
        elif path.suffix in (".md", ".csv"):
            continue  # the columns of the table are those of the JSON files, with the times among them
        else:
            content = path.read_bytes()
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def tensors(path: Path) -> bytes:
    """Return all tensors of a file, without its header, which holds times."""
    with safe_open(path, framework="np") as file:
        return b"".join(name.encode() + file.get_tensor(name).tobytes() for name in sorted(file.keys()))


def timeless(values: Any) -> Any:
    """Return nested values without those that measure time."""
    if isinstance(values, dict):
        return {key: timeless(value) for key, value in values.items() if key not in TIMES}
    return [timeless(value) for value in values] if isinstance(values, list) else values


def differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Return the files that are not alike."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
