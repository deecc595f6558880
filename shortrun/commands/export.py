"""shortrun export: write the decoder of a model to a file that runs without this package."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shortrun.commands.inputs import Run
from shortrun.commands.outputs import choose_place
from shortrun.commands.parsing import parse
from shortrun.errors import InputError

COMMAND = "shortrun export"


@dataclass(frozen=True)
class Export:
    """Write the decoder of a learned model to a file: latents (n, d) in, images (n, c, h, w) out, any n.

    The file says which layers of latents it takes and the range of its pixels, and the command prints that.
    """

    run: Run
    """Folder of a run that shortrun train made, or of a saved model; or pretrained:digits, which is brought along."""
    format: Literal["onnx", "torch-export"] = "onnx"
    """onnx, which needs shortrun[onnx]; or torch-export, which torch.export.load reads."""
    out: Path | None = None
    """File to write; export/decoder.onnx or export/decoder.pt2 under RUN where not given."""
    pixel_range: Literal["unit", "signed"] = "signed"
    """Of the images: unit, [0, 1], or signed, [-1, 1]."""


ARGUMENTS = (Export,)


def main(words: list[str]) -> int:
    """Parse, export, say what the file takes and gives."""
    arguments = parse(Export, words, COMMAND)

    from shortrun.tasks.export import FILES, MADE_BY, export
    from shortrun.training import load

    out = arguments.out or choose_place(arguments.run) / "export" / FILES[arguments.format]
    learner = load(arguments.run)
    if out.is_dir() or (out.exists() and MADE_BY.encode() not in out.read_bytes()):
        raise InputError("out", problem=f"{out} is there and not from {COMMAND}", instead="write another file")
    about = export(learner, out, arguments.format, arguments.pixel_range)
    width = max(map(len, about))
    print("\n".join(f"  {name:<{width}}  {value}" for name, value in about.items()))
    print(f"wrote {out}")
    return 0
