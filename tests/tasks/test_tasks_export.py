"""A decoder in a file gives the images of the learner."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shortrun import InputError, ModelConfig, ShortRun, Vae, export
from shortrun.errors import installed
from shortrun.learners import Learner
from shortrun.tasks.export import ABOUT, Format

WITH_ONNX = all(map(installed, ("onnx", "onnxscript", "onnxruntime")))
FORMATS = [
    "torch-export",
    pytest.param("onnx", marks=pytest.mark.skipif(not WITH_ONNX, reason="needs shortrun[onnx]")),
]
LEARNERS = {
    "dense": ((1, 8, 8), {"blocks": "dense"}),
    "conv": ((3, 12, 12), {"blocks": "conv", "parameterization": "conditional", "likelihood": "logistic"}),
}


def learner_of(name: str, **more: Any) -> ShortRun:
    shape, model = LEARNERS[name]
    return ShortRun.build(shape, ModelConfig(latents=(2, 3), width=8, **model, **more))


def images_of(path: Path, format: Format, z: Tensor) -> tuple[Tensor, dict[str, str]]:
    """Return what a file makes of latents, and what it says of itself, by nothing of this package."""
    if format == "onnx":
        import onnxruntime  # pyright: ignore[reportMissingImports]

        session = onnxruntime.InferenceSession(path)
        return torch.from_numpy(session.run(["images"], {"z": z.numpy()})[0]), (
            session.get_modelmeta().custom_metadata_map
        )
    extra = {ABOUT: ""}
    program = torch.export.load(path, extra_files=extra)
    return program.module()(z), json.loads(extra[ABOUT])


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", LEARNERS)
def test_a_file_gives_the_images_of_the_learner(name: str, format: Format, tmp_path: Path) -> None:
    learner, path = learner_of(name), tmp_path / "folder" / "decoder"
    about = export(learner, path, format)
    for n in (1, 7):
        z = torch.randn(n, 5, generator=torch.Generator().manual_seed(n))
        images, said = images_of(path, format, z)
        torch.testing.assert_close(images, learner.decode(z), atol=1e-5, rtol=0)
        assert said == about
    assert about["latents"] == "2 3"
    assert about["pixel_range"] == "[-1, 1]"
    assert about["image_shape"] == " ".join(map(str, LEARNERS[name][0]))
    assert [path.name for path in path.parent.iterdir()] == ["decoder"]


def test_pixels_may_be_of_0_to_1_and_the_model_stays_as_it_was(tmp_path: Path) -> None:
    learner: Learner = Vae.build((1, 4, 4), ModelConfig(latents=(2,), width=8))
    about = export(learner, tmp_path / "decoder.pt2", "torch-export", "unit")
    z = torch.randn(3, 2)
    made, _ = images_of(tmp_path / "decoder.pt2", "torch-export", z)
    torch.testing.assert_close(2 * made - 1, learner.decode(z))
    assert about["pixel_range"] == "[0, 1]"
    assert all(parameter.requires_grad for parameter in learner.parameters())


class Looping(nn.Module):
    """A decoder whose path follows from the numbers in it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 16)

    def forward(self, z: Tensor) -> Tensor:
        x = self.linear(z)
        return torch.tanh(x if float(x.sum()) > 0 else 2 * x).unflatten(1, (1, 4, 4))


def test_what_cannot_be_exported_is_refused_in_a_line_and_leaves_nothing(tmp_path: Path) -> None:
    learner = ShortRun.build((1, 4, 4), ModelConfig(latents=(2,), width=8), decoder=Looping())
    for arguments, words in (
        ((learner, tmp_path / "a", "torch-export"), r"^learner: its decoder cannot be exported \("),
        ((learner_of("dense"), tmp_path / "a", "torch-export", "byte"), r"^pixel_range: got 'byte'"),
        ((learner_of("dense"), tmp_path / "a", "onxx"), r"^format: got 'onxx'; did you mean 'onnx'"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            unchecked(*arguments)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def unchecked(*arguments: Any) -> None:
    """Call `export` without the check of types that tests have, which would come first."""
    getattr(export, "__wrapped__", export)(*arguments)


def test_without_the_extra_a_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shortrun.errors.installed", lambda package: package != "onnxscript" and installed(package))
    with pytest.raises(InputError, match=r"^onnx\w*: not installed; pip install 'shortrun\[onnx\]'$"):
        export(learner_of("dense"), tmp_path / "decoder.onnx")
    assert not list(tmp_path.iterdir())
