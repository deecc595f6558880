"""Files are old or new, never half-written."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

import shortrun.files
from shortrun.files import replacing, to_text, write_json, write_text


def test_what_fails_on_the_way_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "table.md"
    write_text(path, "old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_words_are_utf_8_in_folders_that_are_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "words.txt"
    write_text(path, "1 ± 2")
    assert path.read_bytes() == "1 ± 2".encode()


@pytest.mark.parametrize(("indent", "lines"), [(2, 3), (None, 1)])
def test_json_ends_in_a_line_break(tmp_path: Path, indent: int | None, lines: int) -> None:
    path = tmp_path / "numbers.json"
    write_json(path, {"mse": 0.5}, indent)
    words = path.read_text()
    assert json.loads(words) == {"mse": 0.5}
    assert words.count("\n") == lines
    assert words.endswith("}\n")


def test_numbers_that_are_not_finite_are_null_however_deep_they_lie() -> None:
    values = {"a": math.nan, "b": [1.0, (-math.inf, {"c": np.float64("inf")})], "d": Path("x/y"), "e": True}
    assert to_text(values) == '{"a": null, "b": [1.0, [null, {"c": null}]], "d": "x/y", "e": true}'


def test_no_other_file_of_the_package_makes_json() -> None:
    """The others could write NaN or Infinity, which no other program reads."""
    package = Path(shortrun.files.__file__).parent
    makers = [path.name for path in package.rglob("*.py") if re.search(r"json\.dumps?\(", path.read_text("utf-8"))]
    assert makers == ["files.py"]
