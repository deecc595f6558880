"""What the command line calls an argument: the option, where Python has a name or a path."""

import doctest
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest
import tyro

from shortrun.cli import COMMANDS, main, option
from shortrun.commands import options
from shortrun.commands.compare import Compare
from shortrun.commands.entrants import entrants
from shortrun.commands.options import option_names
from shortrun.commands.own import with_own
from shortrun.commands.train import Train
from shortrun.config import Config, InferenceConfig, ModelConfig, TrainingConfig, load_config
from shortrun.experiments import EXPERIMENTS

Call = Callable[..., tuple[int, str, str]]
WORDS = {"train": ["digits"], "compare": ["digits"]}
"""What a command wants before it answers --help with its options."""


@dataclass(frozen=True)
class Inner:
    two_words: int = 0
    bare: Annotated[int, tyro.conf.arg(prefix_name=False)] = 0
    other: Annotated[int, tyro.conf.arg(name="its-name")] = 0
    apart: Annotated[int, tyro.conf.arg(name="whole-name", prefix_name=False)] = 0


@dataclass(frozen=True)
class Middle:
    inner_table: Inner = field(default_factory=Inner)


@dataclass(frozen=True)
class Outer:
    place: Annotated[Path, tyro.conf.Positional]
    words: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="WORDS...")]
    two_words: int | None = None
    middle: Middle = field(default_factory=Middle)


def test_options_follow_from_the_dataclasses(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    names = option_names([Outer])
    assert names == {
        "place": "place",
        "words": "WORDS...",
        "two_words": "--two-words",
        "middle.inner_table.two_words": "--middle.inner-table.two-words",
        "middle.inner_table.bare": "--bare",
        "middle.inner_table.other": "--middle.inner-table.its-name",
        "middle.inner_table.apart": "--whole-name",
    }
    with pytest.raises(SystemExit):
        tyro.cli(Outer, args=["--help"])
    said = capsys.readouterr().out
    assert [name for name in names.values() if name not in said] == []
    assert not doctest.testmod(options).failed


def helps() -> list[list[str]]:
    """Return the words that ask each command for its options."""
    experiments = [["experiment", name, "digits"] for name in EXPERIMENTS]
    return [*experiments, *([name, *WORDS.get(name, [])] for name in COMMANDS if name != "experiment")]


def test_every_option_of_every_command_is_one_that_tyro_has(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    said: dict[str, str] = {}
    for words in helps():
        with pytest.raises(SystemExit) as caught:
            main([*words, "--help"])
        assert not caught.value.code
        said[words[0]] = said.get(words[0], "") + capsys.readouterr().out
    said["train"] += "--resume"  # its own form of the command, which the usage shows
    for command, text in said.items():
        module = importlib.import_module(f"shortrun.commands.{command}")
        for argument, name in option_names(module.ARGUMENTS).items():
            shown = [name, name.replace("--", "--no-", 1), f"{name.rpartition('.')[0]}.no-{name.rpartition('.')[2]}"]
            assert any(form in text for form in shown), f"{command}: {argument} is no {name}"


@pytest.mark.parametrize(
    ("command", "argument", "name"),
    [
        ("train", "model.latents", "--model.latents"),
        ("train", "inference.step_size", "--inference.step-size"),
        ("train", "inference.tuning.start", "--inference.tuning.start"),
        ("train", "training.seed", "--seed"),
        ("train", "data.dir", "--data-dir"),
        ("train", "out", "--out"),
        ("train", "resume", "--resume"),
        ("train", "recipe", "recipe"),
        ("sample", "source", "--from"),
        ("sample", "run", "RUN"),
        ("encode", "no_noise", "--no-noise"),
        ("encode", "data.source", "data.source"),
        ("experiment", "images", "--images"),
        ("experiment", "variants", "--variants"),
        ("info", "runs/digits/config.toml", "runs/digits/config.toml"),
        ("nonsense", "command", "command"),
    ],
)
def test_an_argument_that_is_no_option_keeps_its_name(command: str, argument: str, name: str) -> None:
    assert option(command, argument) == name


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["train", "digits", "--model.latents", 0], "--model.latents: got 0; "),
        (["train", "digits", "--inference.tuning.images", 1], "--inference.tuning.images: got 1; "),
        (["train", "digits", "--seed", -1], "--seed: got -1; "),
        (["train", "digits", "--learner", "nope"], "--learner: got 'nope'; "),
        (["train", "digits", "--data.source", "not/there.npz"], "--data.source: not/there.npz does not exist; "),
        (["train", "digits", "--data.crop", 99], "--data.crop: got 99, "),
        (["train", "digits", "--data.held-out", 5000], "--data.held-out: got 5000 of "),
        (["train", "mnist", "--data-dir", "not/there"], "--data-dir: "),
        (["train", "nope"], "recipe: got 'nope'; "),
        (["compare", "digits", "--learners", "vae", "vae,data.test-limit=20"], "--learners: vae,data.test-limit=20 "),
        (["experiment", "figure5", "digits", "--images", 1], "--images: got 1; "),
        (["experiment", "step_sizes", "digits", "--learner", "vae"], "--learner: got 'vae'; "),
        (["info", "not/there"], "not/there: "),
        (["nope"], "command: got 'nope'; "),
    ],
)
def test_the_line_names_the_option(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[object], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = call(*words)
    assert code == 2
    assert err.startswith(f"shortrun: error: {line}")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["evaluate", "RUN", "--features-size", 9], "--features-size: got 9; "),
        (["inpaint", "RUN", "--mask", "none.png"], "--mask: none.png does not exist; "),
        (["reconstruct", "RUN", "--images", "none.png"], "--images: none.png does not exist; "),
        (["traverse", "RUN", "--layer", 9], "--layer: got 9; "),
        (["tune", "RUN", "--step-sizes", 0], "--step-sizes: got 0.0; "),
        (["diagnose", "RUN", "--step-size", 0], "--step-size: got [0.0]; "),
        (["evaluate", "CHECKPOINT"], "RUN: "),
    ],
)
def test_the_line_names_the_option_of_a_use(call: Call, trained: Path, words: list[object], line: str) -> None:
    places = {"RUN": trained, "CHECKPOINT": trained / "checkpoint"}
    code, _, err = call(*(places.get(word, word) if isinstance(word, str) else word for word in words))
    assert code == 2
    assert err.startswith(f"shortrun: error: {line}"), err
    assert err.count("\n") == 1


def test_as_published_is_the_inference_of_the_paper_and_other_options_still_override() -> None:
    words = ["--as-published", "--inference.steps", "7"]
    recipe = Config(
        model=ModelConfig(prior="mixture", width=24),
        inference=InferenceConfig(start="regression", steps=4, step_size=0.3, step_decay=0.5, candidates=8),
        training=TrainingConfig(step_size_schedule=((0.0, 1.0), (1.0, 0.5))),
    )
    plain = tyro.cli(Train, args=words, default=with_own(Train, recipe, words)).alone()
    chain = plain.inference
    assert (chain.start, chain.candidates, chain.step_size, chain.step_decay) == ("prior", 1, "tuned", 1.0)
    assert (chain.tuning.estimator, chain.tuning.over, chain.steps) == ("conditional", "one", 7)
    assert (plain.model.prior, plain.model.width, plain.training.step_size_schedule) == ("normal", 24, ())
    assert with_own(Train, recipe, []).inference.start == "regression"


def test_an_entrant_of_a_comparison_may_be_as_published() -> None:
    both = ["short_run,inference.start=regression", "short_run,as-published"]
    configs = entrants(Compare, "compare", "digits", both, [])
    own = load_config("digits").inference.step_size
    assert [config.inference.step_size for config in configs.values()] == [own, "tuned"]
    assert [config.inference.start for config in configs.values()] == ["regression", "prior"]
