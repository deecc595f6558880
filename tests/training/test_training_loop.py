"""The loop through Python: the user's own decoder and images, counts of what went wrong, what a run folder holds."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

import shortrun
from shortrun.config import Config, DataConfig, InferenceConfig, ModelConfig, TrainingConfig
from shortrun.data import Dataset, ImageSet
from shortrun.training.average import moving_average
from shortrun.training.schedules import interpolate
from shortrun.training.watching import Moment


def striped(n: int, seed: int) -> ImageSet:
    """Images of one bright row each, noise elsewhere."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 1, 6, 6, generator=rng) * 0.1 - 0.7
    x[torch.arange(n), 0, torch.randint(6, (n,), generator=rng)] = 0.7
    return ImageSet(x.clamp(-1, 1))


@pytest.fixture
def stripes() -> Dataset:
    return Dataset("stripes", striped(120, 0), striped(24, 1))


def small(model: ModelConfig | None = None, **training: int | float | tuple) -> Config:
    settings = {"epochs": 3, "batch_size": 40, "log_steps": 1, "picture_epochs": 2, **training}
    return Config(
        DataConfig(source="given"),
        model or ModelConfig(latents=(3, 5), width=16),
        InferenceConfig(steps=3, step_size=0.1),
        TrainingConfig(**settings),  # pyright: ignore[reportArgumentType]
    )


class OwnDecoder(nn.Module):
    """A user's module: called with the layers, top first, returns the image."""

    def __init__(self) -> None:
        super().__init__()
        self.top, self.low, self.out = nn.Linear(3, 20), nn.Linear(5, 20), nn.Linear(20, 36)

    def forward(self, z2: torch.Tensor, z1: torch.Tensor) -> torch.Tensor:
        h = nn.functional.silu(self.top(z2) + self.low(z1))
        return torch.tanh(self.out(h)).unflatten(1, (1, 6, 6))


def test_a_run_folder_holds_what_the_readme_says(stripes: Dataset, tmp_path: Path) -> None:
    run = shortrun.train(small(), tmp_path / "run", dataset=stripes)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 10))
    assert {"loss", "mse", "second_moment", "learning_rate", "sigma", "retried", "failed", "skipped"} <= lines[0].keys()
    result = json.loads((run / "result.json").read_text())
    assert result["mse"] | {"value": 0} == {
        "group": "reconstructions",
        "value": 0,
        "pixels": "[0, 1]",
        "split": "test",
        "images": 24,
        "learner": "short_run",
        "steps": 3,
        "step_size": [pytest.approx(0.1)],
        "step_decay": 1.0,
        "noise": True,
        "weights": "moving average",
        "precision": "float32",
        "seed": 0,
    }
    assert 0 < result["mse"]["value"] < 1
    names = {path.name for path in (run / "figures").iterdir()}
    assert names == {"epoch_0002.png", "samples.png", "samples_fitted.png", "reconstructions.png"}
    assert {path.name for path in (run / "checkpoint").iterdir()} == {
        "config.json",
        "model.safetensors",
        "training.safetensors",
        "latent_density.safetensors",
    }
    assert list((run / "tensorboard").iterdir())
    learner = shortrun.load(run)
    assert learner.sample(2, torch.Generator().manual_seed(0)).shape == (2, 1, 6, 6)


def test_learning_lowers_the_error_far_below_the_mean_image(stripes: Dataset, tmp_path: Path) -> None:
    config = Config(
        model=ModelConfig(latents=(4, 8), width=64, sigma=0.2),
        inference=InferenceConfig(steps=20, step_size=0.1),
        training=TrainingConfig(epochs=60, batch_size=40, learning_rate=5e-3, ema_decay=0.98),
    )
    run = shortrun.train(config, tmp_path / "run", dataset=stripes)
    x = stripes.test.images()
    of_the_mean = float(((x - stripes.train.images().mean(0)) ** 2).mean()) / 4
    assert json.loads((run / "result.json").read_text())["mse"]["value"] < 0.4 * of_the_mean


def test_own_decoder_trains_resumes_and_loads(stripes: Dataset, tmp_path: Path) -> None:
    run = shortrun.train(small(), tmp_path / "run", dataset=stripes, decoder=OwnDecoder())
    (run / "result.json").unlink()
    assert shortrun.resume(run, dataset=stripes, decoder=OwnDecoder()) == run
    assert (run / "result.json").is_file()
    with pytest.raises(shortrun.InputError, match="decoder"):
        shortrun.load(run)
    learner = shortrun.load(run, decoder=OwnDecoder())
    assert learner.sample(3, torch.Generator().manual_seed(0)).shape == (3, 1, 6, 6)


class Steep(nn.Module):
    """Its output is finite and, in some updates, its gradient is not: the square root of a number that is 0 then."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.root = nn.Linear(8, 36), nn.Parameter(torch.zeros(1))
        self.steep = False

    def forward(self, z2: torch.Tensor, z1: torch.Tensor) -> torch.Tensor:
        shift = (self.root if self.steep else self.root.square() + 1).sqrt()
        return (self.linear(torch.cat([z2, z1], 1)) + shift - shift.detach()).unflatten(1, (1, 6, 6))


def steep_in(updates: set[int], decoder: Steep, kept: dict[int, torch.Tensor]) -> Callable[[Moment], None]:
    """Return what makes a decoder steep in some updates, and keeps its weights after each."""
    decoder.steep = 1 in updates

    def watch(moment: Moment) -> None:
        kept[moment.step] = decoder.linear.weight.detach().clone()
        decoder.steep = moment.step + 1 in updates

    return watch


def test_updates_that_are_not_finite_are_skipped_and_counted(stripes: Dataset, tmp_path: Path) -> None:
    decoder, weights = Steep(), {}
    watch = steep_in({4, 5}, decoder, weights)
    run = shortrun.train(small(), tmp_path / "run", dataset=stripes, decoder=decoder, watch=watch)
    assert json.loads((run / "result.json").read_text())["training"]["skipped_updates"] == 2
    assert weights[5].equal(weights[4])
    assert weights[4].equal(weights[3])
    assert not weights[6].equal(weights[5])
    lines = [json.loads(line, parse_constant=pytest.fail) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["skipped"] for line in lines] == [0, 0, 0, 1, 2, 2, 2, 2, 2]
    assert [line["step"] for line in lines if line["grad_norm"] is None] == [4, 5]


def test_chains_that_overflow_are_counted_and_the_run_goes_on(stripes: Dataset, tmp_path: Path) -> None:
    config = small(step_size_schedule=((0.0, 1.0), (0.2, 1.0), (0.21, 1e25), (0.4, 1e25), (0.41, 1.0), (1.0, 1.0)))
    config = replace(config, inference=replace(config.inference, retries=1))
    run = shortrun.train(config, tmp_path / "run", dataset=stripes)
    training = json.loads((run / "result.json").read_text())["training"]
    assert (training["failed_chains"], training["retried_chains"]) == (80, 80)


def test_schedules_reach_the_likelihood_and_the_chain(stripes: Dataset, tmp_path: Path) -> None:
    config = small(sigma_schedule=((0.0, 0.4), (1.0, 0.2)), step_size_schedule=((0.0, 1.0), (1.0, 0.5)))
    run = shortrun.train(config, tmp_path / "run", dataset=stripes)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["sigma"] == pytest.approx(0.4)
    assert lines[-1]["sigma"] == pytest.approx(0.4 - 0.2 * 8 / 9)
    assert lines[-1]["step_size"] == pytest.approx(0.1 * (1 - 0.5 * 8 / 9))


def test_sigma_can_be_learned(stripes: Dataset, tmp_path: Path) -> None:
    model = ModelConfig(latents=(3, 5), width=16, sigma=0.8, learn_sigma=True)
    run = shortrun.train(small(model, epochs=20, learning_rate=1e-2), tmp_path / "run", dataset=stripes)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["sigma"] < 0.7


@pytest.mark.parametrize("likelihood", ["bernoulli", "logistic"])
def test_the_other_likelihoods_learn_digits(likelihood: str, tmp_path: Path) -> None:
    config = Config(
        DataConfig(binarize=likelihood == "bernoulli", train_limit=200, test_limit=20),
        ModelConfig(latents=(3, 5), width=16, likelihood=likelihood),  # pyright: ignore[reportArgumentType]
        InferenceConfig(steps=4, step_size=0.1),
        TrainingConfig(epochs=8, batch_size=50, learning_rate=1e-2),
    )
    run = shortrun.train(config, tmp_path / "run")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"]


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 10)), min_size=1, max_size=5),
    st.floats(0, 1),
)
def test_a_schedule_stays_between_its_values(pairs: list[tuple[float, float]], progress: float) -> None:
    pairs.sort()
    values = [value for _, value in pairs]
    assert min(values) * (1 - 1e-9) <= interpolate(pairs, progress) <= max(values) * (1 + 1e-9)
    assert math.isclose(interpolate(((0.0, 1.0), (1.0, 3.0)), progress), 1 + 2 * progress, rel_tol=1e-12)


def test_moving_average_follows_its_formula() -> None:
    average, expected = [torch.zeros(2)], 0.0
    update = moving_average(0.5)
    for t, value in enumerate([1.0, 4.0, -2.0, 8.0, 8.0, 8.0, 8.0, 8.0], start=1):
        update(average, [torch.full((2,), value)], torch.tensor(t))
        d = min(0.5, (1 + t) / (10 + t))
        expected = d * expected + (1 - d) * value
    assert np.allclose(average[0], expected)


def test_training_leaves_the_global_random_state_alone(stripes: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    shortrun.train(small(), tmp_path / "run", dataset=stripes)
    assert torch.get_rng_state().equal(before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_training_on_cuda_resumed_or_not_recorded_or_not_gives_the_same_weights(
    stripes: Dataset, tmp_path: Path
) -> None:
    def stop(moment: Moment) -> None:
        if moment.step == 70:
            raise KeyboardInterrupt

    config = small(
        ModelConfig(latents=(3, 5), width=16, prior="mixture", components=2), updates=90, checkpoint_seconds=1e-6
    )
    config = replace(config, inference=replace(config.inference, start="regression"))
    plain = replace(config, training=replace(config.training, cuda_graphs="never"))
    runs = [
        shortrun.train(each, tmp_path / name, dataset=stripes, device="cuda")
        for each, name in ((config, "recorded"), (plain, "plain"))
    ]
    with pytest.raises(KeyboardInterrupt):
        shortrun.train(config, tmp_path / "broken", dataset=stripes, device="cuda", watch=stop)
    runs.append(shortrun.resume(tmp_path / "broken", dataset=stripes, device="cuda"))
    assert json.loads((runs[0] / "result.json").read_text())["mse"]["value"] < 1
    whole, *others = [load_file(run / "checkpoint/training.safetensors") for run in runs]
    assert all(whole[name].equal(other[name]) for other in others for name in whole)
