"""Modes of PyTorch that the caller's code is in change no figure, or are refused in one line."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import shortrun
from shortrun import Config, InferenceConfig, InputError, ModelConfig, ShortRun, TrainingConfig, load_dataset
from shortrun.tasks import encode, inpaint

X = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
SMALL = Config(
    model=ModelConfig(latents=(2,), width=8),
    inference=InferenceConfig(steps=2),
    training=TrainingConfig(updates=3, batch_size=20, fit_images=0, threads=1),
)


@contextmanager
def gradients_off() -> Iterator[None]:
    torch.set_grad_enabled(False)
    try:
        yield
    finally:
        torch.set_grad_enabled(True)


@contextmanager
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    ShortRun.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8), InferenceConfig(steps=2)).save_pretrained(tmp_path)
    return tmp_path


USES: dict[str, Callable[[shortrun.Learner, torch.Tensor], torch.Tensor]] = {
    "reconstruct": lambda learner, x: learner.reconstruct(x, rng()),
    "encode": lambda learner, x: encode(learner, x, rng()).z,
    "inpaint": lambda learner, x: inpaint(learner, x, torch.zeros(1, 1, 4, 4), rng(), completions=2).mean,
    "sample": lambda learner, x: learner.sample(3, rng()),
}


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, gradients_off])
@pytest.mark.parametrize("use", USES)
def test_uses_are_the_same_in_every_mode(saved: Path, mode: Callable, use: str) -> None:
    wanted = USES[use](shortrun.load(saved), X)
    with mode():
        assert torch.equal(USES[use](shortrun.load(saved), X * 1.0), wanted)
        learner = shortrun.load(saved)
    assert torch.equal(USES[use](learner, X), wanted), "it was loaded in that mode and is used outside of it"


def test_a_default_of_double_precision_changes_nothing_loaded(saved: Path) -> None:
    wanted = USES["reconstruct"](shortrun.load(saved), X)
    with double():
        assert torch.equal(USES["reconstruct"](shortrun.load(saved), X), wanted)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, gradients_off, double])
def test_training_learns_the_same_in_every_mode(tmp_path: Path, mode: Callable) -> None:
    digits = load_dataset("digits", train_limit=60, test_limit=20)
    wanted = shortrun.load(shortrun.train(SMALL, tmp_path / "a", device="cpu", dataset=digits)).state_dict()
    with mode():
        found = shortrun.load(shortrun.train(SMALL, tmp_path / "b", device="cpu", dataset=digits)).state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("use", USES)
def test_a_model_in_double_precision_is_refused(saved: Path, use: str) -> None:
    with pytest.raises(InputError, match=r"^learner: got weights of torch.float64; call its float\(\) first"):
        USES[use](shortrun.load(saved).double(), X)
