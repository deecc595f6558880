"""A run without numbers at its end says so in one line, keeps its last sound state, and writes no NaN anywhere."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import shortrun
from shortrun import Config, Dataset, InferenceConfig, InputError, ModelConfig, TrainingConfig, load_dataset
from shortrun.cli import main
from shortrun.data import ImageSet
from shortrun.training import resume, train
from shortrun.training.divergence import learned_nothing
from shortrun.training.watching import Moment

CONFIG = Config(
    model=ModelConfig(latents=(2,), width=8),
    inference=InferenceConfig(steps=2),
    training=TrainingConfig(updates=6, batch_size=20, fit_images=0, threads=1, log_steps=1),
)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", train_limit=60, test_limit=20)


def with_settings(**tables: dict[str, Any]) -> Config:
    return replace(CONFIG, **{name: replace(getattr(CONFIG, name), **values) for name, values in tables.items()})


def refused(call: object, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        call()  # pyright: ignore[reportCallIssue]
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def strictly(words: str) -> Any:
    """Return what JSON says that has no NaN and no Infinity in it."""
    return json.loads(words, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def sound(run: Path) -> None:
    """Check that what a diverged run has left is finite, valid, and can be used."""
    assert not (run / "result.json").exists()
    assert all(value.isfinite().all() for value in shortrun.load(run).state_dict().values())
    with safe_open(run / "checkpoint/training.safetensors", "pt") as file:
        strictly(file.metadata()["position"])
        assert all(bool(file.get_tensor(name).isfinite().all()) for name in file.keys())  # noqa: SIM118
    for line in (run / "metrics.jsonl").read_text().splitlines():
        strictly(line)


@pytest.mark.parametrize("spoilt", [{"model": {"sigma": 1e-6}}, {"inference": {"step_size": 10.0}}])
def test_a_run_that_diverges_ends_early_and_keeps_a_sound_state(tmp_path: Path, digits: Dataset, spoilt: dict) -> None:
    tables = {name: replace(getattr(CONFIG, name), **values) for name, values in spoilt.items()}
    config = replace(CONFIG, training=replace(CONFIG.training, updates=3000), **tables)
    run = tmp_path / "run"
    refused(
        lambda: train(config, run, device="cpu", dataset=digits),
        "training.learning_rate: training diverged",
        "write a smaller one, a smaller inference.step_size, or a larger model.sigma",
    )
    sound(run)


@pytest.mark.parametrize("updates", [3, 20, 60])
@pytest.mark.parametrize(
    ("start", "prior"), [("prior", "normal"), ("regression", "normal"), ("prior", "mixture"), ("regression", "mixture")]
)
def test_weights_that_are_thrown_far_off_are_seen_though_all_is_finite(
    tmp_path: Path, digits: Dataset, start: Literal["prior", "regression"], prior: str, updates: int
) -> None:
    """Outputs of tanh are then -1 and 1, where its gradient is exactly 0."""
    config = replace(
        CONFIG,
        model=replace(CONFIG.model, prior=prior),
        inference=replace(CONFIG.inference, start=start),
        training=replace(CONFIG.training, updates=updates, learning_rate=1e6),
    )
    run = tmp_path / "run"
    last = min(updates, 51)
    refused(
        lambda: train(config, run, device="cpu", dataset=digits),
        f"training.learning_rate: training diverged: the last {last - 1} updates up to {last} had a gradient of",
        "exactly 0, from which nothing is learned; write a smaller one",
    )
    assert not (run / "result.json").exists()
    assert all(float(value.abs().max()) < 1e3 for value in shortrun.load(run).state_dict().values())


def test_a_short_run_that_was_never_finite_is_seen(tmp_path: Path, digits: Dataset) -> None:
    config = replace(CONFIG, learner="vae", training=replace(CONFIG.training, updates=20, learning_rate=1e6))
    refused(
        lambda: train(config, tmp_path / "run", device="cpu", dataset=digits),
        "training diverged: the last 19 updates up to 20 had no finite chain, gradient or size of the latents",
    )


NEVER = {
    "step": {"inference": {"step_size": 1e25, "retries": 0}},
    "sigma": {"model": {"sigma": 1e-30}},
    "rate": {"training": {"learning_rate": 1e38}},
}


@pytest.mark.parametrize("updates", [1, 3])
@pytest.mark.parametrize("name", NEVER)
def test_a_run_without_numbers_at_its_end_has_diverged_however_short_it_is(
    name: str, updates: int, tmp_path: Path, digits: Dataset
) -> None:
    tables = {**NEVER[name], "training": {**NEVER[name].get("training", {}), "updates": updates}}
    run = tmp_path / "run"
    refused(
        lambda: train(with_settings(**tables), run, device="cpu", dataset=digits),
        "training.learning_rate: training diverged: ",
        f"the last sound state is in {run}",
    )
    sound(run)


@pytest.mark.parametrize(("learner", "rate"), [("vae", 10.0), ("vae", 1e38), ("glow", 10.0), ("rae", 1e38)])
def test_the_line_names_the_settings_that_a_learner_has(
    learner: str, rate: float, tmp_path: Path, digits: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = ["--learner", learner, "--training.learning-rate", str(rate), "--training.updates", "6", "--out", str(run)]
    words += ["--data.train-limit", "60", "--data.test-limit", "20", "--training.batch-size", "20", "--device", "cpu"]
    words += ["--glow.flows", "1", "--glow.width", "8"] if learner == "glow" else ["--model.width", "8"]
    assert main(["train", "digits", *words, "--training.checkpoint-seconds", "1e-9"]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("shortrun: error: --training.learning-rate: training diverged: the last ")
    assert "updates up to 6 had no finite chain, gradient or size of the latents; write a smaller one" in said
    assert "inference.step_size" not in said
    assert ("model.sigma" in said) == (learner == "vae")
    sound(run)


def bad_from(first: int, last: int, updates: int) -> Config:
    """A run whose chains fail from one update to another: the step size is 10^24 there, and no chain is tried again."""
    at = [(first - 1) / updates - 1e-3, (first - 1) / updates, last / updates - 1e-3, last / updates]
    pairs = [(0.0, 1.0), (at[0], 1.0), (at[1], 1e25), (at[2], 1e25), *([(at[3], 1.0)] if last < updates else [])]
    return with_settings(
        inference={"retries": 0},
        training={"updates": updates, "step_size_schedule": tuple(pair for pair in pairs if pair[0] >= 0)},
    )


@pytest.mark.parametrize(("first", "last"), [(3, 3), (8, 22)])
def test_bad_updates_that_others_follow_are_forgiven(
    first: int, last: int, tmp_path: Path, digits: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(bad_from(first, last, 24), tmp_path / "run", device="cpu", dataset=digits)
    result = strictly((run / "result.json").read_text())
    assert result["training"]["failed_chains"] == 20 * (last - first + 1)
    assert math.isfinite(result["mse"]["value"])
    assert "finite" not in capsys.readouterr().err


@pytest.mark.parametrize("first", [24, 20])
def test_a_run_whose_chains_fail_from_some_update_to_its_end_has_diverged(
    first: int, tmp_path: Path, digits: Dataset
) -> None:
    """Few updates of many: the model that is left fails on test images too."""
    run = tmp_path / "run"
    refused(
        lambda: train(bad_from(first, 24, 24), run, device="cpu", dataset=digits),
        "training diverged: after 24 updates no chain of a test image was finite",
    )
    sound(run)
    refused(lambda: resume(run, device="cpu", dataset=digits), "training diverged")


class Steep(torch.nn.Module):
    """From an update on its gradient is not finite, although its output is: the square root of a number that is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.root, self.steep = torch.nn.Linear(2, 64), torch.nn.Parameter(torch.zeros(1)), False

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        shift = (self.root if self.steep else self.root.square() + 1).sqrt()
        return (self.linear(z) + shift - shift.detach()).unflatten(1, (1, 8, 8))


@pytest.mark.parametrize(("updates", "bad", "ends"), [(24, 1, "warns"), (24, 9, "warns"), (24, 10, "no"), (4, 2, "no")])
def test_bad_updates_at_the_end_are_forgiven_where_they_are_few_and_the_model_is_finite(
    updates: int, bad: int, ends: str, tmp_path: Path, digits: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    decoder, run = Steep(), tmp_path / "run"

    def watch(moment: Moment) -> None:
        decoder.steep = moment.step >= updates - bad

    def call() -> None:
        config = with_settings(training={"updates": updates})
        train(config, run, device="cpu", dataset=digits, decoder=decoder, watch=watch)

    words = f"the last {bad} updates up to {updates} had no finite chain, gradient or size of the latents"
    if ends == "warns":
        call()
        assert f"warning: training.learning_rate: {words}, and the model is still finite" in capsys.readouterr().err
        assert strictly((run / "result.json").read_text())["training"]["skipped_updates"] == bad
    else:
        refused(call, f"training diverged: {words}")
        assert not (run / "result.json").exists()


def test_a_checkpoint_is_not_written_over_with_weights_that_are_not_finite(tmp_path: Path, digits: Dataset) -> None:
    """Adam moves each weight by its rate, which float32 cannot hold, in an update whose numbers are all finite."""
    config = with_settings(training={"updates": 1, "learning_rate": 1e39, "checkpoint_seconds": 1e-9})
    run = tmp_path / "run"
    refused(
        lambda: train(config, run, device="cpu", dataset=digits),
        "training diverged: after 1 updates the weights are not finite",
    )
    sound(run)


def test_a_state_of_before_that_is_not_finite_is_refused(tmp_path: Path, digits: Dataset) -> None:
    run = train(CONFIG, tmp_path / "run", device="cpu", dataset=digits)
    (run / "result.json").unlink()
    path, name = run / "checkpoint/training.safetensors", "generator.decoder.body.0.1.bias"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors[f"average/module.{name}"][0] = math.inf
    save_file(tensors, path, metadata)
    refused(lambda: resume(run, device="cpu", dataset=digits), f"{path}: damaged (module.{name} is not finite); train")


def test_an_error_above_the_variance_of_test_images_is_said(tmp_path: Path, digits: Dataset) -> None:
    x = torch.rand(50, 1, 3, 3, generator=torch.Generator().manual_seed(0)).mul(2).sub(1).double()
    around_mean = (((x - x.mean(0)) / 2) ** 2).sum() / (49 * 9)
    test = ImageSet(x.float())
    assert learned_nothing(float(around_mean) * (1 - 1e-4), test) == ""
    assert f"{float(around_mean):.3g}; train longer" in learned_nothing(float(around_mean) * (1 + 1e-4), test)
    assert learned_nothing(1.0, test.take(1)) == "", "one image has no variance"
    assert learned_nothing(0.0, ImageSet(torch.ones(5, 1, 3, 3))) == "", "nor have images that are all the same"


def test_a_run_that_is_finite_and_has_learned_nothing_says_so(
    tmp_path: Path, digits: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(with_settings(training={"updates": 1, "learning_rate": 30.0}), tmp_path / "run", dataset=digits)
    result, said = strictly((run / "result.json").read_text()), capsys.readouterr().err
    variance = float(digits.test.images().var(0).mean()) / 4
    assert result["mse"]["value"] > variance
    assert f"warning: {result['warning']}" in said
    assert f"has {variance:.3g}; train longer" in result["warning"]
    assert result["warning"] in shortrun.info(run)


def test_a_run_that_has_learned_says_nothing(
    tmp_path: Path, digits: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    config = with_settings(
        model={"latents": (8,), "width": 32},
        training={"updates": 100, "learning_rate": 1e-2, "ema_decay": 0.9},
    )
    config = replace(config, learner="rae")
    run = train(config, tmp_path / "run", dataset=digits)
    assert "warning" not in capsys.readouterr().err
    assert "warning" not in strictly((run / "result.json").read_text())
