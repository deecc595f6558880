"""What progress shows: the statistics that the learner names, where there are any."""

import pytest
import torch

from shortrun.learners import Learner, learner_class
from shortrun.training.position import Position, Window
from shortrun.training.processes import Processes
from shortrun.training.tracking import Progress

STATISTICS = {"loss": 9.0, "second_moment": 1.0, "bits_per_dim": 3.0, "mse": 0.25, "elbo": -9.0}


def said(learner: type[Learner], statistics: dict[str, float], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the last line of a run of one update of 20 images."""
    position = Position(total=1)
    progress = Progress(position, 20, learner.progress, shown=True)
    position.tally(
        {name: torch.tensor(value) for name, value in statistics.items()}, Processes(0, 1, torch.device("cpu")), False
    )
    position.step = 1
    progress.advance(position, 1)
    progress.close()
    return capsys.readouterr().out


def test_a_learner_with_latents_shows_the_error_and_the_latents(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(learner_class("short_run"), STATISTICS, capsys).endswith("left  mse 0.2500  second_moment 1.0000\n")
    assert said(learner_class("vae"), STATISTICS, capsys).endswith("left  mse 0.2500  second_moment 1.0000\n")


def test_how_the_latents_fit_a_prior_is_shown_beside_them(capsys: pytest.CaptureFixture[str]) -> None:
    words = said(learner_class("vae"), {**STATISTICS, "prior_fit": 1.25}, capsys)
    assert words.endswith("left  mse 0.2500  second_moment 1.0000  prior_fit 1.2500\n")


def test_glow_shows_its_bits(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("normflows")
    assert said(learner_class("glow"), STATISTICS, capsys).endswith("left  bits_per_dim 3.0000  second_moment 1.0000\n")


def test_what_the_loss_does_not_return_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(learner_class("short_run"), {"mse": 0.5}, capsys).endswith("left  mse 0.5000\n")


def test_means_are_over_the_window() -> None:
    assert Window(4, {"mse": 1.0}).means() == {"mse": 0.25}
    assert Window().means() == {}


@pytest.mark.parametrize(
    ("total", "wanted"),
    [
        (1000, "the 990 updates left take about 16:30 at this rate, to the next picture of samples about 0:50\n"),
        (100, ""),  # what is soon over
        (
            100_000,
            "the 99,990 updates left take about 1 day 3 h at this rate, to the next picture of samples about 0:50; "
            "such a run is made for a GPU\n",
        ),
    ],
)
def test_a_long_run_says_once_how_long_it_takes(
    total: int, wanted: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("shortrun.training.tracking.time.monotonic", lambda: float(next(clock)))
    position = Position(total=total)
    progress = Progress(position, 20, (), shown=True, picture=60)
    for step in (10, 20):
        monkeypatch.setattr("shortrun.training.tracking.time.monotonic", lambda at=step: float(at))
        position.step = step
        progress.advance(position, 1)
    lines = capsys.readouterr().out.splitlines(keepends=True)
    assert "".join(line for line in lines if not line.startswith("epoch")) == wanted


def test_nothing_is_said_before_the_rate_is_known_or_by_other_processes(capsys: pytest.CaptureFixture[str]) -> None:
    position = Position(total=10**9)
    for shown in (True, False):
        progress = Progress(position, 20, (), shown=shown)
        position.step = 10
        progress.advance(position, 1)
    assert capsys.readouterr().out == ""
