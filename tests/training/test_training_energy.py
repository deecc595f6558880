"""A whole training with an energy prior: stopped and resumed, in two processes, and used through the command line."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

import shortrun
from shortrun.cli import main
from shortrun.config import Config, DataConfig, EnergyConfig, InferenceConfig, ModelConfig, TrainingConfig
from shortrun.data import Dataset
from shortrun.errors import Interrupted
from shortrun.learners.latent_learner import WINDOW
from shortrun.training.watching import Moment

STATE = "checkpoint/training.safetensors"
TOTAL = 2 * WINDOW + 5


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return shortrun.load_dataset("digits", train_limit=200, test_limit=40)


def config_of(learner: str) -> Config:
    training = TrainingConfig(
        updates=TOTAL,
        batch_size=20,
        log_steps=7,
        picture_epochs=99,
        fit_images=20,
        ema_decay=0.9,
        threads=1,
        precision="float32",
    )
    energy = EnergyConfig(width=16, steps=4, learning_rate=1e-2)
    model = ModelConfig(latents=(3, 5), width=16, prior="energy", energy=energy)
    inference = InferenceConfig(steps=2, step_size=0.1, start="regression")
    return Config(DataConfig(source="given"), model, inference, training, learner=learner)


def stop_after(updates: int) -> Callable[[Moment], None]:
    """Have Ctrl-C pressed before the last of so many updates, which is still finished."""

    def watch(moment: Moment) -> None:
        if moment.step == updates - 1:
            signal.raise_signal(signal.SIGINT)

    return watch


@pytest.mark.parametrize("learner", ["short_run", "persistent", "vae"])
def test_stopped_it_goes_on_as_the_unbroken_run(learner: str, digits: Dataset, tmp_path: Path) -> None:
    whole, broken = shortrun.train(config_of(learner), tmp_path / "whole", dataset=digits), tmp_path / "broken"
    with pytest.raises(Interrupted):
        shortrun.train(config_of(learner), broken, dataset=digits, watch=stop_after(7))
    with pytest.raises(Interrupted):
        shortrun.resume(broken, dataset=digits, watch=stop_after(WINDOW + 9))
    shortrun.resume(broken, dataset=digits)
    for name in ("metrics.jsonl", "checkpoint/model.safetensors", "figures/samples.png"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name
    states = [load_file(run / STATE) for run in (whole, broken)]
    assert states[0].keys() == states[1].keys()
    assert all(states[0][name].equal(states[1][name]) for name in states[0])
    assert states[0]["weights/generator.prior.taken"] == 2 * WINDOW * 20 / 100
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["energy_gap"] != 0
    assert lines[-1]["energy_left_out"] == 0
    # a prior without its constant has no nats to compare the fitted density with
    record = json.loads((whole / "result.json").read_text())["latent_density"]
    assert record["prior_nats"] is None
    assert record["nats"] is not None


WORDS = [
    *("train", "digits", "--model.prior", "energy", "--model.energy.width=8", "--model.energy.steps=3"),
    *("--training.updates=12", "--training.batch-size=50", "--training.log-steps=7", "--training.picture-epochs=99"),
    *("--model.latents", "4", "6", "--model.width=32", "--inference.steps=2", "--inference.test-steps=3"),
    *("--training.threads=1", "--training.precision=float32", "--training.fit-images=0", "--device=cpu"),
    *("--data.train-limit=400", "--data.test-limit=40"),
]
OFTEN = """
import sys
import shortrun.learners.latent_learner
shortrun.learners.latent_learner.WINDOW = 4
from shortrun.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""The command line, with a fit after 4 updates."""


@pytest.mark.slow
def test_two_processes_learn_the_same_energy(tmp_path: Path) -> None:
    """The sums of gradients run in another order: numbers agree to rounding, which training amplifies a little."""
    script, one, two = tmp_path / "often.py", tmp_path / "one", tmp_path / "two"
    script.write_text(OFTEN)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for launched in ([str(script), *WORDS, "--out", str(one)], [*torchrun, str(script), *WORDS, "--out", str(two)]):
        done = subprocess.run(
            [sys.executable, *launched],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
    states = [load_file(path / STATE) for path in (one, two)]
    name = "weights/generator.prior.weights"
    assert states[0][name][-9:].abs().max() > 1e-4  # the last layer, which was 0
    assert (states[0][name] - states[1][name]).abs().max() < 1e-4


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main([*WORDS, "--training.updates=22", "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize(
    "words",
    [
        ["sample", "--n", "4"],
        ["inpaint", "--n", "2"],
        ["traverse", "--n", "2"],
        ["traverse", "--prior", "--n", "2"],
        ["interpolate", "--n", "2"],
        ["reconstruct", "--n", "2"],
        ["encode", "--n", "2"],
        ["info"],
    ],
    ids=" ".join,
)
def test_every_command_takes_the_model(words: list[str], run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command, *more = words
    assert main([command, str(run), *more]) == 0, capsys.readouterr().err


def test_its_evaluation_quotes_the_constant_and_leaves_out_what_it_cannot_say(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--samples=40", "--likelihood-images=2", "--temperatures=5", "--importance-samples=4", "--gap=2"]
    assert main(["evaluate", str(run), *words, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "evaluation.json").read_text())
    for name in ("nats", "bits_per_dim", "importance_nats"):
        assert found[name]["value"] is not None
    for name in ("nats", "importance_nats"):
        assert found[name]["log_z_error"] > 0
        assert "too low on average" in found[name]["log_z_is"]
    assert "no exact draws of the prior" in found["annealing_gap"]["left_out"]
    assert "prior_fit" not in found
    assert main(["diagnose", str(run)]) == 2
    said = capsys.readouterr()
    assert "model.prior: no exact draws of the prior are known" in said.err
    assert "Traceback" not in said.err


def test_settings_of_the_energy_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option, words in {
        "--model.energy.steps=0": "model.energy.steps: got 0; write a whole number of at least 1",
        "--model.energy.step-size=-1": "model.energy.step_size: got -1.0; write a positive number",
        "--model.energy.penalty=-1": "model.energy.penalty: got -1.0; write 0 or more",
    }.items():
        assert main([*WORDS, option, "--out", str(tmp_path / "no")]) == 2
        assert words.replace("_", "-") in capsys.readouterr().err.replace("_", "-")
        assert not (tmp_path / "no").exists()
