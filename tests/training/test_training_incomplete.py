"""Runs on incomplete images: what they keep, that they go on as if unbroken, and what the report says of them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from shortrun import Config, InferenceConfig, InputError, ModelConfig, TrainingConfig, load_dataset
from shortrun.cli import main
from shortrun.config import DataConfig, EncoderConfig
from shortrun.data.missing import hide_at_random
from shortrun.training import load, resume, train
from shortrun.training.setup import read_dataset, with_truth

CONFIG = Config(
    data=DataConfig(train_limit=200, test_limit=20, missing=0.5),
    model=ModelConfig(latents=(2, 3), width=8, prior="mixture", components=2),
    inference=InferenceConfig(steps=1, start="regression"),
    training=TrainingConfig(updates=30, batch_size=20, fit_images=40, threads=1, precision="float32"),
)


def stop_after(step: int):
    def stop(moment) -> None:
        if moment.step == step:
            raise KeyboardInterrupt

    return stop


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoint" / "model.safetensors")


@pytest.mark.parametrize("learner", ["short_run", "persistent", "vae"])
def test_a_run_that_was_stopped_equals_the_unbroken_one(tmp_path: Path, learner: str) -> None:
    config = replace(CONFIG, learner=learner)
    whole = train(config, tmp_path / "whole", device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "broken", device="cpu", watch=stop_after(24))
    broken = resume(tmp_path / "broken", device="cpu")
    one, other = weights(whole), weights(broken)
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    found, again = (json.loads((run / "result.json").read_text()) for run in (whole, broken))
    assert found["mse_hidden"] == again["mse_hidden"]
    assert found["mse"]["hidden_while_learning"] == 0.5
    assert found["mse_hidden"]["split"] == "train"
    assert found["training"]["hidden"] == "pixels drawn with seed 0"


def test_the_step_size_is_tuned_on_what_is_observed(tmp_path: Path) -> None:
    """Garbage in place of hidden pixels would move it."""
    inference = InferenceConfig(steps=2, step_size="tuned")
    config = replace(CONFIG, inference=inference, model=ModelConfig(latents=(2,), width=8))
    config = replace(config, training=replace(CONFIG.training, updates=6))
    data = read_dataset(config)
    assert data.train.masks is not None
    garbage = torch.randint(17, data.train.pixels.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    spoiled = replace(data, train=replace(data.train, pixels=torch.where(data.train.masks, data.train.pixels, garbage)))
    runs = [train(config, tmp_path / name, device="cpu", dataset=each) for name, each in (("a", data), ("b", spoiled))]
    one, other = map(weights, runs)
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_run_goes_on_with_its_own_masks_only(tmp_path: Path) -> None:
    digits = load_dataset("digits", train_limit=60, test_limit=20)
    config = replace(CONFIG, data=DataConfig())
    hidden = hide_at_random(digits, 0.5)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", device="cpu", dataset=hidden, watch=stop_after(1))
    for other in (digits, hide_at_random(digits, 0.5, seed=1)):
        with pytest.raises(InputError, match=r"data\.source: .*learned from other images"):
            resume(tmp_path / "run", device="cpu", dataset=other)
    kept = json.loads((tmp_path / "run" / "origin.json").read_text())["images"]
    assert len(kept["train"]["masks"]) == 64
    assert "masks" not in kept["test"]
    resume(tmp_path / "run", device="cpu", dataset=hidden)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert "mse_hidden" not in result, "nobody knows what images that were given in Python hide"
    assert result["training"]["hidden"] == "masks that were given"


def test_the_truth_is_known_of_what_the_configuration_hides() -> None:
    dataset = read_dataset(CONFIG)
    whole = with_truth(CONFIG, dataset)
    assert whole is not None
    assert whole.train.masks is None
    assert dataset.train.masks is not None
    seen = dataset.train.masks
    assert whole.train.pixels[seen].equal(dataset.train.pixels[seen])
    assert whole.train.pixels[~seen].float().mean() > 3, "dark pixels are no truth"
    assert with_truth(CONFIG, replace(dataset, train=dataset.train.take(10))) is None
    assert with_truth(CONFIG, whole) is whole
    held = read_dataset(replace(CONFIG, data=replace(CONFIG.data, held_out=50)))
    assert (len(held.test), held.test.masks) == (50, None), "images to test on are whole"
    assert len(held.train) == 150
    assert held.train.masks is not None


@pytest.mark.parametrize("missing", [None, "mask"])
def test_an_encoder_fills_in_the_mean_unless_told_otherwise(tmp_path: Path, missing: str | None) -> None:
    config = replace(CONFIG, learner="vae", encoder=EncoderConfig(missing=missing))  # pyright: ignore
    run = train(replace(config, training=replace(CONFIG.training, updates=2)), tmp_path / "run", device="cpu")
    learner = load(run)
    assert learner.description is not None
    assert learner.description.encoder.missing == (missing or "mean")
    if missing is None:
        torch.testing.assert_close(weights(run)["filling"], read_dataset(CONFIG).train.mean_image())
    else:
        assert "filling" not in weights(run)


TINY = [
    *("--data.train-limit", "200", "--data.test-limit", "20", "--model.width", "8", "--model.latents", "2", "3"),
    *("--training.updates", "3", "--training.batch-size", "20", "--training.fit-images", "0", "--device", "cpu"),
]


def test_masks_through_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks = np.random.default_rng(0).random((1797, 8, 8)) < 0.5
    masks[:, 4, 4] = True
    path, run = tmp_path / "masks.npy", tmp_path / "run"
    masks[:900] = True  # some test images stay whole
    np.save(path, masks)
    assert main(["train", "digits", *TINY, "--data.masks", str(path), "--out", str(run)]) == 0
    said = capsys.readouterr()
    assert "test images are incomplete and left out" in said.err
    assert f"masks of the training images in {path}" in said.out
    result = json.loads((run / "result.json").read_text())
    assert result["training"]["hidden"] == f"masks of {path}"
    assert main(["encode", str(run), "--split", "train", "--n", "12"]) == 0
    assert main(["reconstruct", str(run), "--n", "2"]) == 0
    capsys.readouterr()
    np.save(path, ~masks)
    assert main(["encode", str(run)]) == 2
    *said, line = capsys.readouterr().err.splitlines()
    assert line.startswith("shortrun: error")
    assert all("left out" in each or "smoothly continued" in each for each in said)
    masks[1] = False
    np.save(path, masks)
    for words, message in [
        ([str(path)], "hidden"),
        ([str(tmp_path / "none.npy")], "does not exist"),
        ([str(path), "--data.missing", "0.5"], "beside data.masks"),
        ([str(path), "--data.held-out", "20"], "have to be whole"),
        ([str(path), "--learner", "glow"], "glow does not learn from incomplete images"),
    ]:
        assert main(["train", "digits", *TINY, "--data.train-limit", "1437", "--data.masks", *words]) == 2
        line = capsys.readouterr().err
        assert message in line
        assert line.count("shortrun: error") == 1


def test_a_rate_through_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    blocks = ["--data.missing", "0.3", "--data.missing-shape", "blocks"]
    assert main(["train", "digits", *TINY, *blocks, "--out", str(run)]) == 0
    assert "30% of the training images' pixels hidden" in capsys.readouterr().out
    assert main(["inpaint", str(run), "--n", "2", "--completions", "2"]) == 0
    assert main(["encode", str(run), "--split", "train", "--n", "5"]) == 0
    for words, message in [
        (["--data.missing", "1"], "a share from 0 to 0.95"),
        (["--data.missing-seed", "1"], "no pixels are hidden"),
        (["--data.missing", "0.5", "--learner", "rae"], "rae does not learn from incomplete images"),
        (["--encoder.missing", "mask"], "short_run has no encoder"),
    ]:
        assert main(["train", "digits", *TINY, *words, "--out", str(tmp_path / "none")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
