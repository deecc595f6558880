"""Figures for reading."""

import csv
from pathlib import Path

from shortrun.evaluation import Figure
from shortrun.evaluation.tables import markdown, rows, sections, shared, spread, with_error, write_csv

ERRORS, DRAWS, DENSITY = "reconstructions", "draws from the fitted density", "log p(x)"
PIXELS = {"images": 9, "pixels": "[0, 1]", "steps": 5}


def by_name(*figures: Figure) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures}


def test_sections_say_conditions_once() -> None:
    figures = by_name(
        Figure("mse", 0.01234567, group=ERRORS, conditions=PIXELS),
        Figure("psnr", left_out="no reason", group=ERRORS),
        Figure("ssim", 0.5, group=ERRORS, conditions={**PIXELS, "window": 7}, unit="of one"),
        Figure("fid_fitted", 2.0, group=DRAWS, conditions={"images": 8, "steps": 5}),
        Figure("nats", -3.0, group=DENSITY, conditions={"images": 4, "steps": 5}, own={"standard_error": 0.25}),
        Figure("gap", 1.0, group=DENSITY, conditions={"step_size": 4, "steps": 5}, own={"layers": [1.0, None]}),
    )
    assert sections(figures) == [
        "reconstructions: images 9, pixels [0, 1]",
        "  mse         0.01235",
        "  psnr        left out: no reason",
        "  ssim        0.5  (window 7, unit of one)",
        "draws from the fitted density",
        "  fid_fitted  2  (images 8)",
        "log p(x)",
        "  nats        -3 ± 0.25  (images 4)",
        "  gap         1  (layers 1 -, step size 4)",
        "all: steps 5",
    ]


def test_a_group_stands_together_and_a_note_is_said_of_what_is_measured() -> None:
    figures = by_name(
        Figure("a", 1, group="one", note="mind this"),
        Figure("b", 2, group="two"),
        Figure("c", left_out="why", group="one", note="not said"),
    )
    assert sections(figures) == ["one", "  a  1", "  c  left out: why", "two", "  b  2", "mind this", "all: "]


def test_rows_say_what_holds_for_all_last() -> None:
    there = {"split": "test", "noise": True}
    figures = by_name(
        Figure("mse", 0.0123456, conditions={"pixels": "[0, 1]", **there}),
        Figure("second_moment", 1.1, conditions=there, own={"layers": [1.0, 1.25]}),
        Figure("psnr", left_out="why"),
    )
    assert rows(figures) == [
        ("mse", "0.01235 (pixels [0, 1])"),
        ("second_moment", "1.1 (layers 1 1.25)"),
        ("measured", "split test, noise on"),
    ]
    assert rows({}) == []


def test_spread_keeps_two_digits_of_the_deviation() -> None:
    assert spread([0.01, 0.012, 0.014]) == "0.0120 ± 0.0020"
    assert spread([100.0, 120.0]) == "110 ± 14"
    assert spread([3, 4]) == "4"
    assert spread([1234567]) == "1,234,567"
    assert spread([0.123456]) == "0.1235"
    assert spread([]) == "-"
    assert with_error(1234.56, None) == "1235"
    assert with_error(1234.56, 123.4) == "1235 ± 1.2e+02"


def test_what_is_shared_is_alike_in_all() -> None:
    assert shared([{"a": 1, "b": 2}, {"b": 2, "a": 3}]) == {"b": 2}
    assert shared([{"a": 1}]) == {"a": 1}
    assert shared([]) == {}


def test_tables_are_the_same_in_markdown_and_csv(tmp_path: Path) -> None:
    cells = [["x", "1"], ["y, z", "2"]]
    assert markdown(["name", "n"], cells) == ["| name | n |", "| --- | --- |", "| x | 1 |", "| y, z | 2 |"]
    write_csv(["name", "n"], cells, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open() as file:
        assert list(csv.reader(file)) == [["name", "n"], *cells]
