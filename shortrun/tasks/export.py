"""The decoder of a model as a file that runs without this package: latents in, images out."""

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from shortrun.errors import InputError, did_you_mean, in_one_line, require_package
from shortrun.files import replacing, to_text
from shortrun.learners import Learner, with_generator
from shortrun.learners.declared import prior_class
from shortrun.model import TopDown
from shortrun.model.likelihood import Images
from shortrun.modes import own_modes
from shortrun.pixels import to_unit
from shortrun.version import __version__

Format = Literal["onnx", "torch-export"]
PixelRange = Literal["unit", "signed"]
FILES: dict[Format, str] = {"onnx": "decoder.onnx", "torch-export": "decoder.pt2"}
"""What a file of each format is called where nothing else is said."""
MADE_BY = "shortrun export"
"""What a file says of itself, by which it is known again."""
ABOUT = "shortrun.json"
"""The name, in a file of torch.export, of what it says of itself."""
TOLERANCE = 1e-4
"""Of pixels in [-1, 1], between the learner's images and those of the file."""


class Decoding(nn.Module):
    """z -> images, as the learner's `decode` makes them, in the range that is asked for.

    generator: p(x, z).
    pixel_range: signed, [-1, 1], or unit, [0, 1].
    """

    def __init__(self, generator: TopDown, pixel_range: PixelRange) -> None:
        super().__init__()
        self.generator, self.pixel_range = generator, pixel_range

    def forward(self, z: Float[Tensor, "n d"]) -> Images:
        x = self.generator.decode(z).clamp(-1, 1)
        return to_unit(x) if self.pixel_range == "unit" else x


def export(
    learner: Learner, out: str | Path, format: Format = "onnx", pixel_range: PixelRange = "signed"
) -> dict[str, str]:
    """Write the decoder of a model to a file, and return what the file says of itself.

    The file takes latents z, (n, d) float32 for any n, and gives the images of `learner.decode`, (n, c, h, w). It says
    which layers the latents have, what they follow before an image is seen, and the range of the pixels: in the
    metadata of an ONNX model, and in the extra file `shortrun.json` of a program of torch.export. The images of a few
    latents are compared with the learner's before the file is there.

    learner: ready to use, with a generator p(x, z).
    out: the file, which is replaced where it is there.
    format: onnx, or torch-export for a program that `torch.export.load` reads; that reads pickled weights, so load only
        what you trust.
    pixel_range: of the images, signed for [-1, 1], or unit for [0, 1].

    Raises InputError without the extra shortrun[onnx] where that is needed, for a learner without a generator, and for
    a decoder that cannot be exported.

    >>> import tempfile
    >>> from shortrun import ModelConfig, ShortRun
    >>> learner = ShortRun.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     about = export(learner, Path(folder) / "decoder.pt2", "torch-export")
    ...     decoder = torch.export.load(Path(folder) / "decoder.pt2").module()
    >>> z = torch.zeros(6, 5)
    >>> about["latents"], torch.allclose(decoder(z), learner.decode(z), atol=1e-5)
    ('2 3', True)
    """
    if format not in FILES:
        raise InputError("format", repr(format), did_you_mean(str(format), FILES))
    if pixel_range not in ("unit", "signed"):
        raise InputError("pixel_range", repr(pixel_range), "write unit or signed")
    if not with_generator(learner):
        raise InputError(
            "learner",
            problem="it has no decoder of latents",
            instead="export a model of another, short_run for example",
        )
    if format == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            require_package(package, "onnx")
    decoding = Decoding(copy.deepcopy(learner.generator).cpu(), pixel_range).eval().requires_grad_(False)
    about = described(learner, pixel_range)
    z = torch.randn(3, learner.dim, generator=torch.Generator().manual_seed(0))
    write = _write_onnx if format == "onnx" else _write_program
    try:
        with own_modes(), torch.no_grad(), _quiet(), replacing(Path(out)) as temporary:
            run = write(decoding, z, about, temporary)
            _check(run, decoding, z)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise InputError("learner", problem=f"its decoder cannot be exported ({in_one_line(error)})") from error
    except OSError as error:
        problem = f"{out} cannot be written ({error.strerror or error})"
        raise InputError("out", problem=problem, instead="write another file") from None
    return about


def described(learner: Learner, pixel_range: PixelRange) -> dict[str, str]:
    """Return what a file says of itself: words by name.

    learner: with a generator.
    pixel_range: of the images.
    """
    description = learner.description
    about = {
        "made_by": MADE_BY,
        "version": __version__,
        "input": f"z, float32 (n, {learner.dim}): the layers of latents side by side, top down",
        "latents": " ".join(map(str, learner.latents)),
        "output": "images, float32 (n, channels, height, width)",
        "pixel_range": "[-1, 1]" if pixel_range == "signed" else "[0, 1]",
    }
    if description is None:
        return about
    return {
        **about,
        "learner": description.learner,
        "parameterization": description.model.parameterization,
        "prior": prior_class(description.model).describe(description.model),
        "image_shape": " ".join(map(str, description.image_shape)),
    }


Run = Callable[[Tensor], Tensor]
"""Gives the images of latents, as a file that was written does."""


def _write_program(decoding: Decoding, z: Tensor, about: Mapping[str, str], path: Path) -> Run:
    torch.export.save(_program(decoding, z), path, extra_files={ABOUT: to_text(about)})
    return torch.export.load(path).module()


def _write_onnx(decoding: Decoding, z: Tensor, about: Mapping[str, str], path: Path) -> Run:
    import onnxruntime  # pyright: ignore[reportMissingImports]

    names: dict[str, Any] = {"input_names": ["z"], "output_names": ["images"]}
    program = torch.onnx.export(_program(decoding, z), dynamo=True, verbose=False, **names)
    assert program is not None
    program.model.metadata_props.update(about)
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda z: torch.from_numpy(session.run(None, {"z": z.numpy()})[0])


def _program(decoding: Decoding, z: Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(decoding, (z,), dynamic_shapes=({0: torch.export.Dim("n")},), strict=False)


def _check(run: Run, decoding: Decoding, z: Tensor) -> None:
    """Raise RuntimeError where a file gives other images, of one image and of several."""
    for part in (z, z[:1], torch.cat([z, z])):
        made, wanted = run(part), decoding(part)
        if made.shape != wanted.shape or not torch.allclose(made, wanted, atol=TOLERANCE):
            raise RuntimeError("the file gives other images than the model")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what the exporters say of libraries that they do without."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
