"""A budget in words, and as updates."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortrun.compare import Budget
from shortrun.compare.budget import updates_a_second
from shortrun.config import load_config
from shortrun.errors import InputError
from shortrun.training.setup import read_dataset


@pytest.mark.parametrize(
    ("words", "budget"),
    [
        ("60s", Budget(60.0, "s")),
        ("1.5s", Budget(1.5, "s")),
        ("20epochs", Budget(20.0, "epochs")),
        ("1 epoch", Budget(1.0, "epochs")),
    ],
)
def test_budgets_are_read(words: str, budget: Budget) -> None:
    assert Budget.parse(words) == budget


@pytest.mark.parametrize("words", ["", "60", "60m", "0s", "-1s", "0.5epochs", "epochs", "1e9s", "infs", "60s 2epochs"])
def test_what_is_no_budget_is_refused(words: str) -> None:
    with pytest.raises(InputError, match=r"^budget: got .*60s or 20epochs for example$"):
        Budget.parse(words)


@given(st.integers(1, 10_000))
def test_words_and_budget_are_the_same(amount: int) -> None:
    for unit in ("s", "epochs"):
        assert Budget.parse(str(Budget.parse(f"{amount}{unit}"))) == Budget.parse(f"{amount}{unit}")


def test_updates_follow_from_rate_or_epochs() -> None:
    assert Budget(60.0, "s").updates(12.5, 14) == 750
    assert Budget(20.0, "epochs").updates(12.5, 14) == 280
    assert Budget(0.001, "s").updates(1.0, 14) == 1


@pytest.mark.slow
def test_more_steps_of_the_chain_learn_more_slowly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shortrun.compare.budget.WINDOW_SECONDS", 0.2)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    config = load_config("digits")
    dataset = read_dataset(config)
    rates = [
        updates_a_second(
            dataclasses.replace(config, inference=dataclasses.replace(config.inference, steps=steps)), dataset, "cpu"
        )
        for steps in (2, 40)
    ]
    # ten times as fast, but for what else the machine does; on a GPU steps cost next to nothing
    assert rates[0] > 2 * rates[1]
    assert not list(tmp_path.glob("shortrun-*"))  # what was trained for the clock is thrown away
