"""Runs whose step size is tuned on the way: it moves, is written down, is resumed bit for bit, and is counted."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import shortrun
from shortrun.cli import main
from shortrun.config import Config, DataConfig, InferenceConfig, ModelConfig, TrainingConfig, TuningConfig
from shortrun.data import Dataset, ImageSet
from shortrun.interruption import Stop
from shortrun.training import Interrupted, info, loop
from shortrun.training.tuning import MOVES, tune
from shortrun.training.tuning_schedule import tuning_steps

LATENTS, TOTAL = (3, 5), 27


@pytest.fixture(scope="module")
def stripes() -> Dataset:
    """Images of one bright row each."""

    def striped(n: int, seed: int) -> ImageSet:
        rng = torch.Generator().manual_seed(seed)
        x = torch.randn(n, 1, 6, 6, generator=rng) * 0.1 - 0.7
        x[torch.arange(n), 0, torch.randint(6, (n,), generator=rng)] = 0.7
        return ImageSet(x.clamp(-1, 1))

    return Dataset("stripes", striped(120, 0), striped(24, 1))


def small(step_size: Any = "tuned", step_decay: float = 1.0, precision: Any = "float32", **tuning: Any) -> Config:
    """27 updates; of the work so much is for tuning that there are several."""
    return Config(
        DataConfig(source="given"),
        ModelConfig(latents=LATENTS, width=16),
        InferenceConfig(3, step_size, step_decay, tuning=TuningConfig(**{"share": 0.99, "images": 2, **tuning})),
        TrainingConfig(epochs=9, batch_size=40, log_steps=1, picture_epochs=99, precision=precision),
    )


def read(run: Path) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, torch.Tensor]]:
    """The lines of metrics, the result, and the state of the step size in weights, average and model."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    state = load_file(run / "checkpoint" / "training.safetensors") | load_file(run / "checkpoint" / "model.safetensors")
    sizes = {name: value for name, value in state.items() if "step_size" in name}
    return lines, json.loads((run / "result.json").read_text()), sizes


WAYS = [(tuner, over) for tuner in ("grid", "gradient") for over in ("one", "layers", "schedule", "both")]


@pytest.mark.parametrize(("tuner", "over"), [*WAYS, ("acceptance", "one")])
def test_the_step_size_moves_and_is_written_down(tuner: str, over: str, stripes: Dataset, tmp_path: Path) -> None:
    config = small(tuner=tuner, over=over)
    run = shortrun.train(config, tmp_path / "run", dataset=stripes)
    lines, result, sizes = read(run)
    values, decay = result["mse"]["step_size"], result["mse"]["step_decay"]
    assert len(values) == (2 if over in ("layers", "both") else 1)
    assert all(abs(value - 0.1) > 1e-4 for value in values)
    assert (abs(decay - 1) > 1e-3) == (over in ("schedule", "both"))
    assert len(set(values)) == len(values)
    assert lines[-1]["step_size"] == pytest.approx(sum(values) / len(values))
    assert lines[-1]["step_decay"] == pytest.approx(decay)
    # it changes where it is tuned and nowhere else; a line is written after its update
    tuned = tuning_steps(config, sum(LATENTS), TOTAL)
    assert result["training"]["tunings"] == len(tuned) > ((tuner, over) != ("gradient", "both"))
    seen = [(0.1, 1.0), *((line["step_size"], line["step_decay"]) for line in lines)]
    assert {step for step in range(TOTAL) if seen[step] != pytest.approx(seen[step + 1], rel=1e-6)} == tuned
    assert 0 <= result["training"]["tuning_seconds"] <= result["training"]["seconds"] + 0.1
    # the average of the weights carries the last value, and a loaded model has it
    assert {name.split("step_size.")[0] for name in sizes} == {"weights/", "average/module.", ""}
    learner = shortrun.ShortRun.from_pretrained(run / "checkpoint")
    assert learner.step_size.values == pytest.approx(values)
    assert learner.step_size.decay == pytest.approx(decay)
    assert torch.equal(learner.step_size.log_values, sizes["weights/step_size.log_values"])
    words = next(line for line in info(run).splitlines() if line.startswith("  inference"))
    assert " ".join(f"{value:.3g}" for value in values) in words
    assert f"(tuned: {'acceptance' if tuner == 'acceptance' else 'marginal'}, {over})" in words
    assert (f"falling to {decay:.3g} of it" in words) == (over in ("schedule", "both"))


def from_candidates(config: Config, mixture: bool = False) -> Config:
    """The same with chains that start from 16 candidates, of a mixture that is learned too."""
    model = dataclasses.replace(config.model, prior="mixture", components=3) if mixture else config.model
    return dataclasses.replace(config, model=model, inference=dataclasses.replace(config.inference, candidates=16))


@pytest.mark.parametrize(
    ("tuner", "start"),
    [
        ("grid", "prior"),
        ("gradient", "prior"),
        pytest.param("acceptance", "prior", marks=pytest.mark.slow),
        pytest.param("grid", "candidates", marks=pytest.mark.slow),
        ("acceptance", "candidates"),
        ("grid", "mixture"),
    ],
)
def test_it_comes_nearer_to_what_tuning_the_finished_model_finds(
    tuner: Any, start: str, stripes: Dataset, tmp_path: Path
) -> None:
    config = dataclasses.replace(
        small(tuner=tuner, start=0.06, images=6),
        model=ModelConfig(latents=LATENTS, width=32, sigma=0.2),
        training=TrainingConfig(epochs=44, batch_size=40, learning_rate=1e-2, precision="float32"),
    )
    config = config if start == "prior" else from_candidates(config, start == "mixture")
    run = shortrun.train(config, tmp_path / "run", dataset=stripes)
    learner = shortrun.ShortRun.from_pretrained(run / "checkpoint")
    best = tune(learner, stripes.test.images(), torch.Generator().manual_seed(0), tuner=tuner)
    reached, best = learner.step_size.values[0], float(best.settings[0].exp())
    assert 0.06 < best < 1
    assert best / 1.5 < reached < 1.5 * best
    if start == "mixture":
        # a scale that is free goes up with the steps, here to 9
        assert read(run)[0][-1]["second_moment"] < 3


@pytest.mark.parametrize(("step_size", "decay"), [(0.1, 0.5), ((0.2, 0.1), 1.0)])
def test_a_fixed_step_size_is_never_changed(step_size: Any, decay: float, stripes: Dataset, tmp_path: Path) -> None:
    run = shortrun.train(small(step_size, decay), tmp_path / "run", dataset=stripes)
    lines, result, sizes = read(run)
    expected = list(step_size) if isinstance(step_size, tuple) else [step_size]
    assert result["training"]["tunings"] == 0
    assert result["mse"]["step_size"] == pytest.approx(expected)
    assert len({(line["step_size"], line["step_decay"]) for line in lines}) == 1
    for name, value in sizes.items():
        exact = torch.tensor(expected).log() if name.endswith("log_values") else torch.tensor(decay).log()
        assert torch.equal(value, exact), name
    assert "tuned" not in info(run)


def test_tuning_takes_no_random_number_from_the_chains(
    stripes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tuner that does not move leaves the run of the fixed step size."""
    fixed = shortrun.train(small(0.1), tmp_path / "fixed", dataset=stripes)
    monkeypatch.setitem(MOVES, "grid", lambda objective, start, width: start + 0 * objective(start).sum())
    still = shortrun.train(small(), tmp_path / "still", dataset=stripes)
    assert read(still)[1]["training"]["tunings"] > 0
    assert [line["loss"] for line in read(still)[0]] == pytest.approx([line["loss"] for line in read(fixed)[0]])


def test_bfloat16_tunes_too(stripes: Dataset, tmp_path: Path) -> None:
    _, result, _ = read(shortrun.train(small(precision="bfloat16"), tmp_path / "run", dataset=stripes))
    assert 0.02 < result["mse"]["step_size"][0] != pytest.approx(0.1)


@contextmanager
def stopped_after(updates: int) -> Iterator[None]:
    """Have the loop find the stop signal set once so many updates are done."""

    class Signalled(Stop):
        seen = 0

        @property
        def asked(self) -> bool:
            self.seen += 1
            return self.seen >= updates

        @asked.setter
        def asked(self, value: bool) -> None:
            """It is told how often it has been looked at, and nothing else."""

    made = iter([Stop(), Signalled()])  # that of the making of the folder, then that of the loop

    @contextmanager
    def signals() -> Iterator[Stop]:
        yield next(made)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "finishing", signals)
        yield


@pytest.mark.parametrize(
    ("tuner", "over", "start"),
    [
        ("grid", "both", "prior"),
        ("gradient", "layers", "prior"),
        ("gradient", "one", "mixture"),
        ("acceptance", "one", "prior"),
        ("acceptance", "one", "candidates"),
    ],
)
def test_interrupted_before_at_and_after_a_tuning_it_resumes_bit_for_bit(
    tuner: str, over: str, start: str, stripes: Dataset, tmp_path: Path
) -> None:
    config = small(tuner=tuner, over=over)
    config = config if start == "prior" else from_candidates(config, start == "mixture")
    at = max(tuning_steps(config, sum(LATENTS), TOTAL))
    assert 1 < at < TOTAL - 1
    unbroken = shortrun.train(config, tmp_path / "unbroken", dataset=stripes)
    # updates done: the tuning is two away, next, just done
    for stop in (at - 1, at, at + 1) if tuner == "grid" else (at,):
        run = tmp_path / f"stopped_{stop}"
        with stopped_after(stop), pytest.raises(Interrupted):
            shortrun.train(config, run, dataset=stripes)
        assert not (run / "result.json").exists()
        if stop == at - 1:
            assert "(tuned: " in info(run)
        shortrun.resume(run, dataset=stripes)
        assert (run / "metrics.jsonl").read_bytes() == (unbroken / "metrics.jsonl").read_bytes()
        for name in ("checkpoint/model.safetensors", "figures/samples.png"):
            assert (run / name).read_bytes() == (unbroken / name).read_bytes(), name
        states = [load_file(path / "checkpoint" / "training.safetensors") for path in (run, unbroken)]
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
        results = [read(path)[1] for path in (run, unbroken)]
        assert results[0]["mse"] == results[1]["mse"]
        assert results[0]["training"]["tunings"] == results[1]["training"]["tunings"]


WORDS = ["--training.batch-size=50", "--training.epochs=6", "--model.latents", "4", "6", "--model.width=32"]
WORDS += ["--inference.steps=3", "--training.threads=1", "--data.train-limit=200", "--data.test-limit=20"]
WORDS += ["--training.precision=float32", "--training.log-steps=1", "--device=cpu", "--training.picture-epochs=9"]
TUNED = ["--inference.step-size", "tuned", "--inference.tuning.share=0.9", "--inference.tuning.images=2"]


def test_two_processes_tune_to_the_same_step_size(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(["train", "digits", *WORDS, *TUNED, "--out", str(one)]) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    launched = subprocess.run(
        [*torchrun, "-m", "shortrun", "train", "digits", *WORDS, *TUNED, "--out", str(two)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert launched.returncode == 0, launched.stderr
    (lines, result, _), (others, other, _) = read(one), read(two)
    assert result["training"]["tunings"] == other["training"]["tunings"] > 2
    assert abs(result["mse"]["step_size"][0] - 0.1) > 0.01
    assert [line["step_size"] for line in lines] == pytest.approx([line["step_size"] for line in others], rel=1e-4)


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["tuned"], "tuned"), (["0.1"], 0.1), (["0.1", "0.2", "0.3"], (0.1, 0.2, 0.3))],
    ids=["tuned", "one", "each"],
)
def test_the_command_line_knows_all_kinds(words: list[str], expected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given_: list[Config] = []

    def train(config: Config, out: Path | None, device: str | None) -> Path:
        given_.append(config)
        raise Interrupted("stopped")

    monkeypatch.setattr("shortrun.training.train", train)
    more = ["--inference.tuning.over", "both", "--inference.tuning.estimator", "path"]
    assert main(["train", "digits", "--inference.step-size", *words, *more]) == 130
    assert given_[0].inference.step_size == expected
    assert given_[0].inference.tuned == (expected == "tuned")
    assert (given_[0].inference.tuning.over, given_[0].inference.tuning.estimator) == ("both", "path")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--inference.step-size", "-1"], "--inference.step-size: got -1.0; write a positive number"),
        (["--inference.tuning.start", "-1", *TUNED], "--inference.tuning.start: got -1.0; write a positive number"),
        (["--inference.tuning.images", "1", *TUNED[:2]], "--inference.tuning.images: got 1; write a whole number of"),
        ([*TUNED, "--training.step-size-schedule", "0", "1"], "--training.step-size-schedule: the step size is tuned"),
    ],
)
def test_wrong_values_are_one_line(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "digits", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"shortrun: error: {line}")
    assert said.count("\n") == 1


@pytest.mark.parametrize("words", [["fast"], ["0.1", "fast"], ["tuned", "0.1"]])
def test_a_word_that_is_none_is_refused_by_name(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "digits", "--inference.step-size", *words]) == 2
    said = capsys.readouterr().err
    got = " ".join(words) if "fast" not in words else "fast"
    line = f"--inference.step-size: got '{got}'; write a number or a list of numbers or one of tuned"
    assert said == f"shortrun: error: {line}\n"
