"""InputError: its fields, the line that it prints, and how a caller gives it the name of an argument of its own."""

import doctest
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import shortrun
from shortrun import InputError, errors
from shortrun.compare.budget import Budget
from shortrun.config import Config, DataConfig, InferenceConfig, ModelConfig, TrainingConfig, checked_settings
from shortrun.errors import reason, renaming
from shortrun.experiments.figure5 import figure5
from shortrun.training.loop import read_dataset


def test_the_fields_make_the_line() -> None:
    error = InputError("steps", 0, "write a whole number of at least 1")
    assert (error.argument, error.got, error.instead) == ("steps", 0, "write a whole number of at least 1")
    assert str(error) == "steps: got 0; write a whole number of at least 1"
    assert error.said_of("--steps") == "--steps: got 0; write a whole number of at least 1"
    assert str(InputError("images", problem="there are none", instead="give one")) == "images: there are none; give one"
    assert isinstance(error, ValueError)
    assert not doctest.testmod(errors).failed


def test_what_shows_itself_in_several_lines_is_said_in_one() -> None:
    got = torch.full((3, 2), torch.nan)
    error = InputError("step_size", got, "write a\r\npositive number")
    assert str(error).startswith("step_size: got tensor([[nan, nan], [nan, nan], [nan, nan]]); write a positive number")
    assert error.got is got


def test_a_caller_names_the_argument_that_the_value_came_in_under() -> None:
    with pytest.raises(InputError, match=r"^images: cannot be read; give others$") as caught, renaming({"x": "images"}):
        raise InputError("x", 3, "give others", problem="cannot be read")
    assert (caught.value.argument, caught.value.got) == ("images", 3)
    with pytest.raises(InputError, match=r"^y: "), renaming({"x": "images"}):
        raise InputError("y", 3)
    # two names may be exchanged, and each caller renames what it calls
    swapped = {"x": "y", "y": "x"}
    with pytest.raises(InputError, match=r"^z: "), renaming({"y": "z"}), renaming(swapped):
        raise InputError("x", 3)


def test_the_cause_of_a_library_is_its_first_line() -> None:
    assert reason(ValueError(" broken header.\nmore of it")) == "broken header"
    assert reason(KeyError()) == "KeyError"


def settings_of(**changes: object) -> Config:
    return replace(Config(), **changes)


@pytest.mark.parametrize(
    ("call", "argument", "got"),
    [
        (lambda: checked_settings(settings_of(model=ModelConfig(latents=(8, 0)))), "model.latents", 0),
        (lambda: checked_settings(settings_of(inference=InferenceConfig(step_size=-1.0))), "inference.step_size", -1.0),
        (lambda: checked_settings(settings_of(training=TrainingConfig(seed=-1))), "training.seed", -1),
        (lambda: shortrun.load_dataset("digitz"), "source", "'digitz'"),
        (lambda: shortrun.load_dataset("digits", image_size=0), "image_size", 0),
        (lambda: shortrun.load_dataset("digits", train_limit=0), "train_limit", 0),
        (lambda: shortrun.load_dataset("mnist", data_dir=Path("not/there")), "data_dir", None),
        (lambda: read_dataset(settings_of(data=DataConfig(source="digitz"))), "data.source", "'digitz'"),
        (lambda: read_dataset(settings_of(data=DataConfig(image_size=0))), "data.image_size", 0),
        (lambda: read_dataset(settings_of(data=DataConfig("mnist", Path("not/there")))), "data.dir", None),
        (lambda: read_dataset(settings_of(data=DataConfig(held_out=0))), "data.held_out", "0 of 1437 training images"),
        (lambda: shortrun.read_images(Path("not/there")), "path", None),
        (lambda: shortrun.read_mask(Path("not/there"), (2, 2)), "path", None),
        (lambda: shortrun.train("digits", device="abacus"), "device", "'abacus'"),
        (lambda: Budget.parse("5"), "budget", "'5'"),
        (lambda: figure5(Config(), Path("out"), images=1), "images", 1),
    ],
)
def test_python_reads_python_names(call: Callable[[], object], argument: str, got: object) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert (caught.value.argument, caught.value.got) == (argument, got)
    assert str(caught.value).startswith(f"{argument}: ")
    assert "--" not in str(caught.value)
