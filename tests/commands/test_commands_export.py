"""shortrun export: files, refusals."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import shortrun

Call = Callable[..., tuple[int, str, str]]


def test_a_decoder_is_written_and_said(run: Path, call: Call, tmp_path: Path) -> None:
    code, out, _ = call("export", run, "--format", "torch-export")
    path = run / "export" / "decoder.pt2"
    assert code == 0
    assert f"wrote {path}" in out
    assert "latents" in out
    assert "[-1, 1]" in out
    z = torch.zeros(2, 9)
    torch.testing.assert_close(torch.export.load(path).module()(z), shortrun.load(run).decode(z))
    before = path.read_bytes()
    assert call("export", run, "--format", "torch-export", "--pixel-range", "unit")[0] == 0  # its own file it replaces
    assert path.read_bytes() != before
    (tmp_path / "mine.onnx").write_text("mine")
    code, _, err = call("export", run, "--out", tmp_path / "mine.onnx")
    assert (code, err.count("\n")) == (2, 1)
    assert "mine.onnx is there and not from shortrun export" in err
    assert (tmp_path / "mine.onnx").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--format", "tflite"), "--format: got 'tflite'"),
        (
            ("--format", "torch-export", "--out", "/proc/no/decoder.pt2"),
            "--out: /proc/no/decoder.pt2 cannot be written",
        ),
    ],
)
def test_refusals_take_a_line(trained: Path, call: Call, words: tuple[str, ...], said: str) -> None:
    code, _, err = call("export", trained, *words)
    assert (code, err.count("\n")) == (2, 1)
    assert said in err
