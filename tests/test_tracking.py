"""The page on trackers: its programs run, with modules in the trackers' places that keep what they are given."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from shortrun import Config, ModelConfig, TrainingConfig, load_dataset, train
from shortrun.training.watching import Moment

PAGE = (Path(__file__).parent.parent / "docs" / "tracking.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n# (\w+)_run.py\n(.*?)```", PAGE, flags=re.DOTALL)
SMALL = "TrainingConfig(epochs=2, fit_images=0), data=shortrun.DataConfig(train_limit=1200, test_limit=20)"


class Kept(ModuleType):
    """A tracker: every function of it, and of what that returns, keeps how it was called."""

    def __init__(self, name: str, calls: list[tuple[str, Any, Any]]) -> None:
        super().__init__(name)
        self.calls = calls

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*arguments: Any, **options: Any) -> "Kept":
            self.calls.append((name, arguments, options))
            return self

        return call

    def __enter__(self) -> "Kept":
        return self

    def __exit__(self, *_: object) -> None:
        """End nothing."""


def test_the_page_has_three_trackers() -> None:
    assert [name for name, _ in PROGRAMS] == ["wandb", "mlflow", "trackio"]


@pytest.mark.parametrize(("tracker", "program"), PROGRAMS)
def test_a_tracker_is_given_what_updates_measured(
    tracker: str, program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, Any, Any]] = []
    monkeypatch.setitem(sys.modules, tracker, Kept(tracker, calls))
    monkeypatch.chdir(tmp_path)
    assert "TrainingConfig(epochs=2)" in program
    exec(program.replace("TrainingConfig(epochs=2)", SMALL), {"__name__": tracker})
    logged = [(arguments[0], options) for name, arguments, options in calls if name in ("log", "log_metrics")]
    numbers = [(values, options["step"]) for values, options in logged if "mse" in values]
    assert [step for _, step in numbers] == [20]
    assert all(isinstance(value, float) for value in numbers[0][0].values())
    assert 0 < numbers[0][0]["mse"] < 1
    if tracker == "wandb":
        assert [len(values["samples"]) for values, _ in logged if "samples" in values] == [16, 16]


def test_what_is_watched_is_what_metrics_are_the_means_of(tmp_path: Path) -> None:
    moments: list[Moment] = []
    config = Config(
        model=ModelConfig(latents=(2, 3), width=8),
        training=TrainingConfig(updates=4, batch_size=20, fit_images=0, log_steps=4),
    )
    digits = load_dataset("digits", train_limit=60, test_limit=20)
    run = train(config, tmp_path / "run", device="cpu", dataset=digits, watch=moments.append)
    assert [moment.step for moment in moments] == [1, 2, 3, 4]
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    for name in ("mse", "second_moment"):
        values = torch.tensor([moment.statistics[name] for moment in moments])
        assert float(values.mean()) == pytest.approx(line[name], rel=1e-5)
