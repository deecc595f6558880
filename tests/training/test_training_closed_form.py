"""Runs whose chains start from a regression and whose prior is a mixture: resumed, saved, in two processes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import shortrun
from shortrun.cli import main
from shortrun.config import Config, DataConfig, InferenceConfig, ModelConfig, PersistentConfig, TrainingConfig
from shortrun.data import Dataset
from shortrun.errors import Interrupted
from shortrun.learners.latent_learner import WINDOW
from shortrun.model.mixture import WAIT
from shortrun.training.info import info
from shortrun.training.watching import Moment

FIRST = WINDOW * WAIT
"""Updates before the first fit of the mixture."""
TOTAL = FIRST + 3 * WINDOW
STATE = "checkpoint/training.safetensors"


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return shortrun.load_dataset("digits", train_limit=200, test_limit=40)


def config_of(learner: str) -> Config:
    training = TrainingConfig(
        updates=TOTAL,
        batch_size=20,
        log_steps=7,
        picture_epochs=99,
        fit_images=0,
        ema_decay=0.9,
        threads=1,
        precision="float32",
    )
    return Config(
        DataConfig(source="given"),
        ModelConfig(latents=(3, 5), width=16, prior="mixture", components=4),
        InferenceConfig(steps=2, step_size=0.1, start="regression"),
        training,
        learner=learner,
        persistent=PersistentConfig(fresh_steps=4),
    )


@pytest.fixture(scope="module")
def finished(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of chains."""
    return shortrun.train(config_of("short_run"), tmp_path_factory.mktemp("runs") / "run", dataset=digits)


def stop_after(updates: int) -> Callable[[Moment], None]:
    """Have Ctrl-C pressed before the last of so many updates, which is still finished."""

    def watch(moment: Moment) -> None:
        if moment.step == updates - 1:
            signal.raise_signal(signal.SIGINT)

    return watch


def assert_same_run(one: Path, other: Path) -> None:
    """Compare everything that does not measure time."""
    for name in ("metrics.jsonl", "checkpoint/model.safetensors", "figures/samples.png", "figures/reconstructions.png"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    states = [load_file(run / STATE) for run in (one, other)]
    assert states[0].keys() == states[1].keys()
    assert all(states[0][name].equal(states[1][name]) for name in states[0])
    results = [json.loads((run / "result.json").read_text()) for run in (one, other)]
    for name in ("mse", "second_moment", "prior_fit"):
        assert results[0][name] == results[1][name]


@pytest.mark.parametrize("learner", ["short_run", "persistent", "vae"])
def test_stopped_with_latents_pending_it_goes_on_as_the_unbroken_run(
    learner: str, digits: Dataset, tmp_path: Path
) -> None:
    whole = shortrun.train(config_of(learner), tmp_path / "whole", dataset=digits)
    again = shortrun.train(config_of(learner), tmp_path / "again", dataset=digits)
    assert_same_run(whole, again)
    broken = tmp_path / "broken"
    # before there is a regression, before the mixture, with all latents of its first fit waiting, and after it
    for stop, pending in ((7, 7), (FIRST - 5, 15), (FIRST, 20), (FIRST + 27, 7)):
        begin = partial(shortrun.train, config_of(learner), broken)
        go_on = partial(shortrun.resume, broken) if broken.exists() else begin
        with pytest.raises(Interrupted):
            go_on(dataset=digits, watch=stop_after(stop))
        state = load_file(broken / STATE)
        assert state["kept/updates"] == pending
        assert state["kept/latents"].shape == (20 * pending, 8)
        assert state["weights/generator.prior.fits"] == (stop - 1) // WINDOW
        if learner != "vae":
            assert state["kept/features"].shape == (20 * pending, 65)
            assert state["weights/regression.fits"] == (stop - 1) // WINDOW
    shortrun.resume(broken, dataset=digits)
    assert_same_run(whole, broken)
    saved = load_file(whole / "checkpoint" / "model.safetensors")
    assert saved["generator.prior.fits"] == (TOTAL - 1) // WINDOW
    assert saved["generator.prior.means"].abs().max() > 0.1
    # the moving average is of what is learned by gradient; what is solved for is as it is in the end
    for name, value in load_file(whole / STATE).items():
        if name.startswith(("average/module.generator.prior.", "average/module.regression.")):
            assert saved[name.removeprefix("average/module.")].equal(value), name


def test_a_run_says_whether_its_latents_fit_the_prior(digits: Dataset, finished: Path) -> None:
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert all("prior_fit" in line for line in lines)
    # until the first fit the prior is N(0, I), and it is the mean square
    assert lines[0]["prior_fit"] == pytest.approx(lines[0]["second_moment"], rel=1e-4)
    found = json.loads((finished / "result.json").read_text())["prior_fit"]
    assert len(found["layers"]) == 2
    learner, rng = shortrun.load(finished), torch.Generator().manual_seed(0)
    z = learner.infer(digits.train.images(), rng).z
    fit = learner.prior_fit(z)
    assert fit is not None
    assert fit.shape == (200, 3)
    assert 0.5 < float(fit[:, 0].mean()) < 2
    # draws of the prior fit it exactly, all and layer by layer
    drawn = learner.prior_fit(learner.draw_prior(20_000, rng))
    assert drawn is not None
    torch.testing.assert_close(drawn.mean(0), torch.ones(3), rtol=0.03, atol=0)
    normal = shortrun.ShortRun.build((1, 8, 8), ModelConfig(latents=(3, 5), width=16))
    assert normal.prior_fit(z) is None


def test_a_saved_model_has_the_start_and_the_prior(digits: Dataset, finished: Path, tmp_path: Path) -> None:
    learner = shortrun.load(finished)
    learner.save_pretrained(tmp_path / "saved")
    again = shortrun.ShortRun.from_pretrained(tmp_path / "saved")
    assert again.description == learner.description
    assert again.description is not None
    assert again.description.inference.start == "regression"
    x, mask = digits.test.images(), (torch.arange(64).view(1, 1, 8, 8) < 32).float()
    for one in (None, mask):
        z, found = (each.infer(x, torch.Generator().manual_seed(1), mask=one).z for each in (learner, again))
        assert torch.equal(z, found)
    drawn = [each.sample(9, torch.Generator().manual_seed(2)) for each in (learner, again)]
    assert torch.equal(*drawn)
    words = info(finished)
    assert "prior a mixture of 4 normals fitted to the latents" in words
    assert "with noise, from the regression of latents on images" in words


RECIPE = """
[data]
source = "digits"
train_limit = 60
test_limit = 20
[model]
latents = [2, 3]
width = 8
prior = "mixture"
[inference]
start = "regression"
steps = 2
[training]
updates = 3
batch_size = 20
fit_images = 0
[learners.ladder_vae.model]
parameterization = "conditional"
"""


@pytest.mark.parametrize("learner", ["short_run", "persistent", "vae", "vlae", "ladder_vae"])
def test_a_recipe_with_a_start_serves_learners_that_start_no_chains_too(learner: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    assert main(["train", str(recipe), "--learner", learner, "--out", str(tmp_path / "run")]) == 0
    loaded = shortrun.load(tmp_path / "run")
    assert loaded.conditions().get("start") == ("regression" if learner in ("short_run", "persistent") else None)


OFTEN = """
import sys
import shortrun.learners.latent_learner, shortrun.model.mixture
shortrun.learners.latent_learner.WINDOW, shortrun.model.mixture.WAIT = 4, 2
from shortrun.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""The command line, with a fit after 4 updates, and the mixture's first after 8: rounding has no time to grow."""
WORDS = [
    *("train", "digits", "--inference.start=regression", "--model.prior=mixture", "--model.components=3"),
    *("--training.updates=24", "--training.batch-size=50", "--training.log-steps=7", "--training.picture-epochs=99"),
    *("--model.latents", "4", "6", "--model.width=32", "--inference.steps=2", "--persistent.fresh-steps=12"),
    *("--training.threads=1", "--training.precision=float32", "--training.fit-images=0", "--persistent.store=disk"),
    *("--data.train-limit=400", "--data.test-limit=40", "--device=cpu"),
]


@pytest.mark.parametrize(
    "learner",
    ["short_run", pytest.param("persistent", marks=pytest.mark.slow), pytest.param("vae", marks=pytest.mark.slow)],
)
def test_two_processes_fit_the_same_regression_and_the_same_prior(learner: str, tmp_path: Path) -> None:
    """The sums of gradients run in another order: numbers agree to rounding, which training amplifies a little."""
    script, one, two = tmp_path / "often.py", tmp_path / "one", tmp_path / "two"
    script.write_text(OFTEN)
    words = [str(script), *WORDS, "--learner", learner, "--out"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for launched in ([*words, str(one)], [*torchrun, *words, str(two)]):
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
    assert states[0]["weights/generator.prior.fits"] == 5
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        if name.startswith(("weights/", "kept/")):
            torch.testing.assert_close(states[1][name], value, rtol=2e-3, atol=2e-3, msg=name)
    if learner == "persistent":
        kept = [np.load(two / name) for name in ("chains.npy", "chains_1.npy")]
        assert np.array_equal(*kept), "the processes have another prior each"
