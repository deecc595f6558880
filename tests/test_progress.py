"""A bar on a terminal; elsewhere nothing, or one line."""

import io
import sys

import pytest

from shortrun.progress import announced, shown, silent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Stand a terminal in for stderr; to be called in a test, as pytest puts its own stream there before each."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


@pytest.mark.parametrize("show", [silent, shown, announced])
def test_the_items_come_back_in_order(show) -> None:
    assert list(show([3, 1, 2], "words")) == [3, 1, 2]


def test_elsewhere_nothing_is_shown_but_what_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(shown(range(3), "sampling")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
    assert list(announced([1, 2], "short runs")) == [1, 2]
    assert capsys.readouterr() == ("measuring: short runs\n", "")


def test_a_terminal_has_a_bar_with_words_and_unit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = terminal(monkeypatch)
    list(shown(range(3), "sampling", "image"))
    assert "sampling: " in screen.getvalue()
    assert "image/s" in screen.getvalue()
    list(announced([1], "short runs"))
    assert "short runs: " in screen.getvalue()
    assert capsys.readouterr().out == ""


def test_few_items_have_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    list(shown([1], "decoding"))
    list(shown(iter(range(5)), "reading", "image", total=5, unshown=5))
    assert screen.getvalue() == ""
    list(shown(iter(range(5)), "reading", "image", total=5, unshown=4))
    assert "/5 [" in screen.getvalue()
