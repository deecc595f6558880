"""The page on the package beside other tools: its examples run, in their order, made small."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from shortrun.cli import main
from shortrun.errors import installed

PAGE = (Path(__file__).parent.parent / "docs" / "in_practice.md").read_text(encoding="utf-8")
SMALL = (
    ("ShortRunEstimator()", "ShortRunEstimator(epochs=1, width=8, steps=1, test_steps=2)"),
    ("epochs=60", "epochs=1, width=8, steps=1, test_steps=2"),
    ("[:1000]", "[:60]"),
    ("X[1000:]", "X[1000:1040]"),
    ("cv=3", "cv=2"),
    ("max_iter=1000", "max_iter=5"),
    ('[0.1, 0.2], "latents": [(8, 16), (16, 16)]', '[0.1], "latents": [(8, 16)]'),
)
WITH_ONNX = all(map(installed, ("onnx", "onnxscript", "onnxruntime")))


def examples() -> list[tuple[str, str]]:
    """Return the examples of the page, each with its language."""
    return re.findall(r"```(python|sh)\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.filterwarnings("ignore")
def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for language, text in examples():
        if language == "sh":
            for line in text.splitlines():
                words = shlex.split(line)[1:]
                assert main(words) == (0 if WITH_ONNX or "onnx" not in words else 2), capsys.readouterr().err
        elif WITH_ONNX or "onnx" not in text.splitlines()[0]:
            for long, short in SMALL:
                text = text.replace(long, short)
            exec(text, names)
    assert names["z"].shape[0] == (5 if WITH_ONNX else 40)
    assert names["rebuilt"].shape == (40, 64)
    assert names["new"].shape == (16, 64)
    assert names["log_p"].shape == (10,)
    assert names["best"]["sigma"] == 0.1
    assert names["images"].shape == (5, 1, 8, 8)
    assert '"pixel_range": "[0, 1]"' in str(names["extra"]["shortrun.json"])
    assert (tmp_path / "my-model" / "README.md").is_file()
    if WITH_ONNX:
        assert (names["about"]["latents"], names["about"]["pixel_range"]) == ("8 16 16", "[-1, 1]")
