"""What training leaves behind to sample from: a density fitted to the latents, and a prior learned on the way."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import shortrun
from shortrun.config import (
    Config,
    DataConfig,
    InferenceConfig,
    ModelConfig,
    TrainingConfig,
    checked_settings,
    load_config,
)
from shortrun.data import Dataset, ImageSet
from shortrun.errors import InputError
from shortrun.learners.latent_learner import WINDOW
from shortrun.model.mixture import WAIT
from shortrun.training.watching import Moment

FIRST_FIT = WINDOW * WAIT
"""Updates before the mixture is fitted for the first time."""


def striped(n: int, seed: int) -> ImageSet:
    """Images of one bright row each, noise elsewhere."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 1, 6, 6, generator=rng) * 0.1 - 0.7
    x[torch.arange(n), 0, torch.randint(6, (n,), generator=rng)] = 0.7
    return ImageSet(x.clamp(-1, 1))


@pytest.fixture(scope="module")
def stripes() -> Dataset:
    return Dataset("stripes", striped(120, 0), striped(24, 1))


def small(prior: str = "normal", **training: int | float | tuple) -> Config:
    settings = {"epochs": 4, "batch_size": 40, "log_steps": 1, "picture_epochs": 9, "ema_decay": 0.9, **training}
    return Config(
        DataConfig(source="given"),
        ModelConfig(latents=(3, 5), width=16, prior=prior, components=4),  # pyright: ignore[reportArgumentType]
        InferenceConfig(steps=3, step_size=0.1),
        TrainingConfig(**settings),  # pyright: ignore[reportArgumentType]
    )


def test_a_run_leaves_a_fitted_density_behind(stripes: Dataset, tmp_path: Path) -> None:
    run = shortrun.train(small(), tmp_path / "run", dataset=stripes)
    record = json.loads((run / "result.json").read_text())["latent_density"]
    assert record["images"] == 120
    assert record["held_out_images"] == 24
    assert record["nats"] == max(found["nats"] for found in record["candidates"])
    assert record["better_than_prior"] == (record["nats"] > record["prior_nats"])
    assert (run / "figures" / "samples_fitted.png").is_file()
    learner = shortrun.load(run)
    assert learner.latent_density is not None
    assert json.loads(json.dumps(dataclasses.asdict(learner.latent_density.record))) == record
    assert learner.sample(3, torch.Generator().manual_seed(0), "fitted").shape == (3, 1, 6, 6)
    # it is fitted to what the learner infers: more likely under it than under a far away one
    z = learner.draw_posterior(stripes.train.images(), torch.Generator().manual_seed(0))
    assert float(learner.latent_density.mixture.log_prob(z).mean()) > float(
        learner.latent_density.mixture.log_prob(z + 2).mean()
    )


@pytest.mark.parametrize(("fit_images", "fitted_to"), [(0, None), (50, 50)])
def test_it_can_be_left_out_or_fitted_to_fewer(
    stripes: Dataset, tmp_path: Path, fit_images: int, fitted_to: int | None
) -> None:
    run = shortrun.train(small(fit_images=fit_images), tmp_path / "run", dataset=stripes)
    record = json.loads((run / "result.json").read_text())["latent_density"]
    assert (record and record["images"]) == fitted_to
    files = [run / "checkpoint" / "latent_density.safetensors", run / "figures" / "samples_fitted.png"]
    assert [path.is_file() for path in files] == [fitted_to is not None] * 2
    assert (shortrun.load(run).latent_density is None) == (fitted_to is None)


def test_fewer_than_ten_images_are_refused() -> None:
    config = load_config("digits")
    for count in (-1, 9):
        with pytest.raises(InputError, match=f"training.fit_images: got {count}"):
            checked_settings(
                dataclasses.replace(config, training=dataclasses.replace(config.training, fit_images=count))
            )


class StopError(Exception):
    pass


def stop(moment: Moment) -> None:
    if moment.step == FIRST_FIT + 7:
        raise StopError


def test_a_run_with_a_learned_prior_is_resumed_bit_for_bit(stripes: Dataset, tmp_path: Path) -> None:
    config = small("mixture", checkpoint_seconds=1e-6, threads=1, updates=FIRST_FIT + 10)
    whole = shortrun.train(config, tmp_path / "whole", dataset=stripes)
    with pytest.raises(StopError):
        shortrun.train(config, tmp_path / "broken", dataset=stripes, watch=stop)
    broken = shortrun.resume(tmp_path / "broken", dataset=stripes)
    for name in ("model.safetensors", "latent_density.safetensors"):
        assert (whole / "checkpoint" / name).read_bytes() == (broken / "checkpoint" / name).read_bytes()
    one, other = (json.loads((run / "result.json").read_text()) for run in (whole, broken))
    assert one["mse"] == other["mse"]
    assert one["latent_density"] == other["latent_density"]
    # the model that is saved, that of the moving average, has the prior too
    start = shortrun.ShortRun.build((1, 6, 6), config.model).state_dict()
    saved = load_file(whole / "checkpoint" / "model.safetensors")
    of_prior = {name.removeprefix("generator.prior.") for name in saved if name.startswith("generator.prior.")}
    assert of_prior == {"log_weights", "means", "roots", "inverse", "fits", "sums.total"}
    assert all(not torch.equal(saved[f"generator.prior.{name}"], start[f"generator.prior.{name}"]) for name in of_prior)
    assert shortrun.load(whole).sample(5, torch.Generator().manual_seed(0)).shape == (5, 1, 6, 6)
