"""Where a run stands: what is a mean, what is a count, and what checkpoints of other versions say of it."""

import json
import math
from dataclasses import asdict

import pytest
import torch

from shortrun.files import to_text
from shortrun.training.position import Position, Window
from shortrun.training.processes import Processes

ALONE = Processes(0, 1, torch.device("cpu"))
WRITTEN = {
    **{"step": 14, "total": 24, "seconds": 1.5, "cpu_seconds": 1.25, "metrics_bytes": 922, "retried": 3, "failed": 1},
    **{"skipped": 2, "tunings": 4, "tuning_seconds": 0.5},
    "window": {"loss": 500.0, "mse": 0.25, "retried": 2.0, "failed": 0.0, "steps": 2.0},
}
"""As version 0.1 wrote it."""


def test_whole_numbers_are_counted_and_the_others_averaged() -> None:
    position = Position()
    for mse, failed in ((0.25, 2), (0.75, 1)):
        statistics = {"mse": torch.tensor(mse), "failed": torch.tensor(failed), "divisions": torch.tensor(failed)}
        assert position.tally(statistics, ALONE, stop=False)[0] is False
    assert position.window.means() == {"mse": 0.5}
    assert position.counts == {"retried": 0, "failed": 3, "divisions": 3}
    assert (position.retried, position.failed) == (0, 3)
    assert position.tally({}, ALONE, stop=True) == (True, {})


def test_what_is_written_is_read() -> None:
    position = Position(3, 9, counts={"retried": 2, "failed": 1}, window=Window(2, {"loss": 5.0, "failed_twice": 1.0}))
    assert Position.from_mapping(json.loads(json.dumps(asdict(position)))) == position


def test_sums_that_are_not_finite_are_null_in_a_file_and_never_finite_again() -> None:
    window = Window(2, {"loss": math.inf, "mse": math.nan, "kl": 3.0})
    words = to_text(asdict(Position(3, 9, window=window)))
    assert '"sums": {"loss": null, "mse": null, "kl": 3.0}' in words
    read = Position.from_mapping(json.loads(words)).window
    assert (read.steps, read.sums["kl"]) == (2, 3.0)
    assert math.isnan(read.sums["loss"])
    assert math.isnan(read.sums["mse"])


def test_files_from_before_that_hold_words_that_are_no_json_are_read() -> None:
    words = '{"step": 3, "window": {"steps": 2, "sums": {"loss": Infinity, "mse": NaN, "kl": -Infinity}}}'
    sums = Position.from_mapping(json.loads(words)).window.sums
    assert (sums["loss"], sums["kl"]) == (math.inf, -math.inf)
    assert math.isnan(sums["mse"])


def test_a_position_with_a_flat_window_is_read() -> None:
    position = Position.from_mapping(WRITTEN)
    assert position == Position(
        *(14, 24, 1.5, 1.25, 922, 2, 4, 0.5), {"retried": 3, "failed": 1}, Window(2, {"loss": 500.0, "mse": 0.25})
    )
    assert position.window.means() == {"loss": 250.0, "mse": 0.125}
    assert Position.from_mapping({**WRITTEN, "window": {}}).window == Window()


def test_keys_that_are_absent_or_unknown_do_no_harm() -> None:
    assert Position.from_mapping({}) == Position()
    assert Position.from_mapping({"step": 5, "phase_of_the_moon": "full"}) == Position(step=5)
    assert Position.from_mapping({"counts": {"failed": 2}}).counts == {"retried": 0, "failed": 2}


@pytest.mark.parametrize("values", [{"window": 3}, {"window": {"sums": {}}}, {"counts": 3}])
def test_what_is_damaged_is_an_error_that_resume_names(values: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError, KeyError)):
        Position.from_mapping(values)
