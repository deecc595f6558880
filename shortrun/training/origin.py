"""What a run learned from, kept with it, so that neither it nor a command goes on with something else unsaid."""

import hashlib
from typing import Any

from shortrun.config import Config
from shortrun.data import Dataset, ImageSet
from shortrun.errors import InputError, damaged, undamaged
from shortrun.files import read_json, write_json
from shortrun.training.record import flat_settings
from shortrun.training.run_folder import RunFolder


def write_origin(run: RunFolder, config: Config, dataset: Dataset) -> None:
    """Keep what a run begins with."""
    kept: dict[str, Any] = {"data": dataset.name, "settings": flat_settings(config), "images": _images(dataset)}
    write_json(run.origin, {**kept, "classes": list(dataset.classes)} if dataset.classes else kept)


def kept_classes(run: RunFolder) -> list[str]:
    """Return the names of the classes that a run's images had, by label; empty where none were kept."""
    classes = _kept(run).get("classes", [])
    return [str(name) for name in classes] if isinstance(classes, list) else []


def check_origin(run: RunFolder, dataset: Dataset) -> None:
    """Raise InputError where images are others than those that a run learned from; a run of before is not checked."""
    before, now = _kept(run).get("images"), _images(dataset)
    if before is None or before == now:
        return
    with undamaged(run.origin):
        counts = [
            f"{each['train']['count']} for training and {each['test']['count']} for testing" for each in (before, now)
        ]
    found = f"{counts[1]}, before {counts[0]}" if counts[0] != counts[1] else f"{counts[0]} as before, but others"
    raise InputError(
        "data.source",
        problem=f"{run.path} learned from other images than are there now ({found})",
        instead="put back those that it began with, or train anew",
    )


def check_settings(run: RunFolder, config: Config) -> None:
    """Raise InputError where the config.toml of a run that goes on is not what it began with.

    Where its images lie is left out: a folder may be moved, and what is in it is compared by `check_origin`.
    """
    before, now = _kept(run).get("settings"), flat_settings(config)
    if before is None:
        return
    if not isinstance(before, dict):
        raise damaged(run.origin, "its settings are not a table")
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise InputError(
                str(run.config),
                problem=f"{name} is {now.get(name)!r}, the run began with {before.get(name)!r}",
                instead="put that back, or train anew",
            )


def _kept(run: RunFolder) -> dict[str, Any]:
    kept = read_json(run.origin) if run.origin.is_file() else {}
    if not isinstance(kept, dict):
        raise damaged(run.origin, "it is not a table")
    return kept


def _images(dataset: Dataset) -> dict[str, Any]:
    parts = {"train": dataset.train, "test": dataset.test}
    return {name: {"count": len(part), "sha256": part.digest(), **_masks(part)} for name, part in parts.items()}


def _masks(part: ImageSet) -> dict[str, str]:
    return {} if part.masks is None else {"masks": hashlib.sha256(part.masks.contiguous().numpy().data).hexdigest()}
