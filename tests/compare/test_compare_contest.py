"""What trains, resumes, measures and keeps, for a comparison and for experiments."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from shortrun.compare.contest import Turn, hold, recorded, turns
from shortrun.config import Config, DataConfig, ModelConfig, TrainingConfig
from shortrun.config.settings import InferenceConfig
from shortrun.training.loop import read_dataset
from shortrun.training.watching import Moment, Watch

CONFIG = Config(
    data=DataConfig("digits", train_limit=60, test_limit=20),
    model=ModelConfig(latents=(2,), width=8),
    inference=InferenceConfig(steps=2),
    training=TrainingConfig(updates=2, batch_size=30, picture_epochs=99, fit_images=20, threads=1),
)
WIDER = dataclasses.replace(CONFIG, model=ModelConfig(latents=(2,), width=9))


def test_turns_are_all_models_seed_by_seed(tmp_path: Path) -> None:
    found = list(turns({"a": CONFIG, "b": WIDER}, tmp_path, 2))
    assert [(turn.name, turn.seed) for turn in found] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert [turn.config.training.seed for turn in found] == [0, 0, 1, 1]
    assert found[1].config.model.width == 9
    assert found[2].record == tmp_path / "a" / "seed_1" / "evaluation.json"
    # a single configuration may have its seeds in the folder itself
    assert next(turns({"": CONFIG}, tmp_path, 1)).run.path == tmp_path / "seed_0"


def test_what_is_finished_is_kept_and_the_rest_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset, seen, written = read_dataset(CONFIG), [], []

    def watch(turn: Turn) -> Watch:
        def look(moment: Moment) -> None:
            seen.append((turn.name, moment.step))
            if (turn.name, moment.step) == ("b", 1) and len(seen) == 3:
                raise KeyboardInterrupt

        return look

    def measure(turn: Turn) -> dict[str, Any]:
        return {"mse": json.loads(turn.run.result.read_text())["mse"]["value"], "order": len(written)}

    def held() -> dict[str, list[Any]]:
        models = (turn._replace(said=f"now {turn.name}") for turn in turns({"a": CONFIG, "b": WIDER}, tmp_path, 1))
        return hold(models, dataset, recorded(measure), lambda records: written.append(dict(records)), watch=watch)

    with pytest.raises(KeyboardInterrupt):
        held()
    assert [list(records) for records in written] == [["a"]]
    found = held()
    assert found == {"a": [{"mse": found["a"][0]["mse"], "order": 0}], "b": [{"mse": found["b"][0]["mse"], "order": 2}]}
    assert [list(records) for records in written] == [["a"], ["a"], ["a", "b"]]
    assert seen[:3] == [("a", 1), ("a", 2), ("b", 1)]
    assert {name for name, _ in seen[3:]} == {"b"}
    assert capsys.readouterr().out.count("now a") == 1
    assert held() == found
    assert "now" not in capsys.readouterr().out
