"""What a run folder says of a model's training, in words for its card: no path of this machine is in it."""

from pathlib import Path
from typing import Any

from shortrun.config import Config, read_recipe
from shortrun.data import NAMES
from shortrun.errors import undamaged
from shortrun.evaluation.tables import number, rows
from shortrun.files import read_json
from shortrun.mapping import to_mapping
from shortrun.metrics.figure import from_json


def read_record(config_file: Path, result_file: Path, origin_file: Path) -> dict[str, Any]:
    """Return what files of a run say of its data, settings, figures and training; empty where the run is gone.

    config_file: its config.toml.
    result_file: its result.json, which is there where it is finished.
    origin_file: its origin.json, which runs of before do not have.

    Raises InputError where a file is damaged.
    """
    if not config_file.is_file():
        return {}
    config = read_recipe(str(config_file))
    record: dict[str, Any] = {
        "data": _data(origin_file, config),
        "settings": {name: number(value) for name, value in flat_settings(config).items()},
    }
    if not result_file.is_file():
        return record
    result = read_json(result_file)
    with undamaged(result_file):
        figures = from_json(result)
        splits = {str(figure.conditions["split"]) for figure in figures.values() if "split" in figure.conditions}
        record |= {"figures": [list(row) for row in rows(figures)], "split": " and ".join(sorted(splits)) or "test"}
        kept = ("training", "machine", "date", "shortrun", "warning")
        record |= {name: result[name] for name in kept if name in result}
    return record


def flat_settings(config: Config) -> dict[str, Any]:
    """Return all settings by their full names, but for where the images lie.

    config: of the run.
    """
    flat = _flat(to_mapping(config.alone()), "")
    return {name: value for name, value in flat.items() if name not in ("data.dir", "data.source", "data.masks")}


def _flat(values: dict[str, Any], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{where}{key}.") if isinstance(value, dict) else {f"{where}{key}": value}
    return found


def _data(origin_file: Path, config: Config) -> dict[str, Any]:
    """Return what images the model learned from: their source by its name, and how many they were."""
    data, kept = config.data, read_json(origin_file) if origin_file.is_file() else {}
    hub = data.source.removeprefix("hub:") if data.source.startswith("hub:") else None
    usual = hub or (data.source if data.source in NAMES else Path(data.source).name)
    found: dict[str, Any] = {}
    with undamaged(origin_file):
        source = str(kept.get("data", usual))
        found |= {"source": source, "named": data.source in NAMES and source.split(" ")[0] == data.source}
        if hub is not None and source == hub:
            found |= {"source": hub.split(":")[0], "hub": True}
        for part, images in kept.get("images", {}).items():
            found["training images" if part == "train" else f"{part} images"] = int(images["count"])
        if kept.get("classes"):
            found["classes"] = len(kept["classes"])
    return found
