"""The names of the classes of a folder: kept with the run, shown, and written beside the labels."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from shortrun.training import info

Call = Callable[..., tuple[int, str, str]]


def test_a_run_keeps_and_shows_the_names_of_its_classes(tmp_path: Path, call: Call, plain: str) -> None:
    rng = np.random.default_rng(0)
    for i in range(24):
        place = tmp_path / "pictures" / ("dog", "cat", "emu")[i % 3]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(place / f"{i}.png")
    small = ["--model.latents", "4", "--model.width", "16", "--inference.steps", "2", "--training.updates", "2"]
    small += ["--training.batch-size", "10", "--training.fit-images", "0", "--training.precision", "float32"]
    run = tmp_path / "run"
    assert call("train", plain, "--data.source", tmp_path / "pictures", "--out", run, *small)[0] == 0
    assert json.loads((run / "origin.json").read_text())["classes"] == ["cat", "dog", "emu"]
    assert re.search(r"  classes +3: cat, dog, emu\n", call("info", run)[1])
    assert call("encode", run, "--out", tmp_path / "codes")[0] == 0
    with np.load(tmp_path / "codes" / "latents.npz") as made:
        assert made["classes"].tolist() == ["cat", "dog", "emu"]
        assert made["labels"].max() < 3
    origin = json.loads((run / "origin.json").read_text())
    del origin["classes"]  # as runs of before have it
    (run / "origin.json").write_text(json.dumps(origin))
    assert "classes" not in info(run)
