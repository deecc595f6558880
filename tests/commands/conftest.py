import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shortrun.cli import main

Call = Callable[..., tuple[int, str, str]]
TINY = [
    *("--training.epochs", "2", "--training.picture-epochs", "9", "--training.precision", "float32"),
    *("--model.latents", "4", "5", "--model.width", "32", "--inference.steps", "3", "--data.test-limit", "60"),
]


@pytest.fixture(scope="session")
def plain() -> str:
    """The path of a recipe of the digits whose chains start from N(0, I) and are as long afterwards as while learning.

    What recipes do now has tests in test_commands_closed_form.py.
    """
    return str(Path(__file__).parents[2] / "benchmarks" / "before" / "digits.toml")


@pytest.fixture(scope="session")
def trained(plain: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny finished run on the digits, for all tests of a session; none may write into it."""
    run = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", plain, "--out", str(run), *TINY]) == 0
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it that the test may write into."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process; return its exit code and what it said on stdout and stderr."""

    def run_command(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run_command


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of three images of the model's shape, of noise."""
    folder = tmp_path / "own"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    for name, pixels in zip("abc", noise, strict=True):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder
