"""The learners with an encoder as a user has them: trained, resumed and used through the command line."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import shortrun
from shortrun.cli import main
from shortrun.config import Config, load_config, recipe_names
from shortrun.training.watching import Moment

LEARNERS = ["vae", "ladder_vae", "vlae"]
SMALL = [
    *("--training.epochs", "2", "--training.picture-epochs", "9", "--training.batch-size", "50"),
    *("--training.log-steps", "1", "--training.precision", "float32", "--model.latents", "2", "3", "4"),
    *("--model.prior", "normal", "--model.width", "16", "--data.train-limit", "200", "--data.test-limit", "30"),
]
UPDATES = 8


@pytest.fixture(scope="module", params=LEARNERS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A tiny finished run of each learner."""
    out = tmp_path_factory.mktemp("runs") / request.param
    assert main(["train", "digits", "--learner", request.param, *SMALL, "--out", str(out)]) == 0
    return request.param, out


def records(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_run_folder_says_what_was_learned(trained: tuple[str, Path]) -> None:
    learner, run = trained
    lines = records(run)
    assert [line["step"] for line in lines] == list(range(1, UPDATES + 1))
    for line in lines:
        assert line["elbo"] == pytest.approx(line["log_likelihood"] - line["kl"], rel=1e-4)
        assert line["kl"] == pytest.approx(line["kl_1"] + line["kl_2"] + line["kl_3"], rel=1e-4)
    assert lines[-1]["elbo"] > lines[0]["elbo"]
    result = json.loads((run / "result.json").read_text())
    assert result["mse"]["learner"] == learner
    assert result["mse"]["inference"] == "mean of the encoder"
    assert "steps" not in result["mse"]
    assert 0 < result["mse"]["value"] < 1
    assert len(result["second_moment"]["layers"]) == 3
    assert type(shortrun.load(run)).__name__ == {"vae": "Vae", "ladder_vae": "LadderVae", "vlae": "Vlae"}[learner]


def test_the_weight_of_the_divergence_follows_its_schedule(tmp_path: Path) -> None:
    """The loss is -(log_likelihood - weight kl), so the weight can be read off the log."""
    words = ["--training.kl-schedule", "0", "0", "0.5", "1"]
    out = tmp_path / "run"
    assert main(["train", "digits", "--learner", "vae", *SMALL, *words, "--out", str(out)]) == 0
    weights = [(line["loss"] + line["log_likelihood"]) / line["kl"] for line in records(out)]
    assert weights == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1, 1, 1], abs=1e-3)


class StoppedError(Exception):
    pass


def small_config(learner: str) -> Config:
    """The configuration of SMALL, through Python."""
    config = load_config("digits", learner)
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, train_limit=200, test_limit=30),
        model=dataclasses.replace(config.model, latents=(2, 3, 4), width=16, prior="normal"),
        training=dataclasses.replace(
            config.training,
            epochs=2,
            picture_epochs=9,
            batch_size=50,
            log_steps=1,
            precision="float32",
            checkpoint_seconds=1e-6,
        ),
    )


def test_an_interrupted_run_goes_on_as_the_unbroken_one(trained: tuple[str, Path], tmp_path: Path) -> None:
    learner, unbroken = trained

    def stop(moment: Moment) -> None:
        if moment.step == 6:
            raise StoppedError

    out = tmp_path / "run"
    with pytest.raises(StoppedError):
        shortrun.train(small_config(learner), out, watch=stop)
    assert main(["train", "--resume", str(out)]) == 0
    for name in ("metrics.jsonl", "checkpoint/model.safetensors", "figures/samples.png"):
        assert (out / name).read_bytes() == (unbroken / name).read_bytes(), name
    mse, expected = (json.loads((run / "result.json").read_text())["mse"]["value"] for run in (out, unbroken))
    assert mse == expected


USES = {
    "sample": ["samples/samples.npz"],
    "reconstruct": ["reconstructions/reconstructions.npz", "--n", "4"],
    "encode": ["latents/latents.npz", "--n", "4"],
    "inpaint": ["inpainting/inpainting.npz", "--n", "2", "--completions", "3", "--mask", "half"],
    "interpolate": ["interpolation/interpolation.npz", "--n", "2"],
    "traverse": ["traversal/traversal.npz", "--n", "2"],
}


@pytest.mark.parametrize("command", USES)
def test_every_use_of_a_model(
    command: str, trained: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, run = trained
    name, *words = USES[command]
    path = tmp_path / Path(name).name
    assert main([command, str(run), *words, "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""
    with np.load(path) as made:
        arrays = {key: made[key] for key in made.files}
    assert all(np.isfinite(array).all() for array in arrays.values() if array.dtype.kind == "f")
    assert not any(array.any() for key, array in arrays.items() if key == "failed")
    if command == "inpaint":
        missing = ~arrays["mask"]
        assert (arrays["uncertainty"][missing] > 0).any(), "completions do not differ"


def test_info_and_steps(trained: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learner, run = trained
    capsys.readouterr()
    assert main(["info", str(run)]) == 0
    said = capsys.readouterr().out
    assert ["learner", learner] in [line.split() for line in said.splitlines()]
    assert "an encoder of width " in said
    assert f"; {sum(weights.numel() for weights in shortrun.load(run).parameters()):,} weights" in said
    assert "mean of the encoder" in said
    out = ["--out", str(tmp_path / "out")]
    assert main(["reconstruct", str(run), "--steps", "5", *out]) == 2
    line = capsys.readouterr().err
    assert "--steps: got 5" in line
    assert line.count("\n") == 1
    assert main(["inpaint", str(run), "--n", "2", "--completions", "2", "--steps", "5", *out]) == 0
    assert "5 rounds" in capsys.readouterr().out


@pytest.mark.parametrize("recipe", recipe_names())
@pytest.mark.parametrize("learner", LEARNERS)
def test_every_recipe_has_what_the_learner_needs(recipe: str, learner: str) -> None:
    config = load_config(recipe, learner)
    assert config.learner == learner
    assert config.model.parameterization == {"ladder_vae": "conditional", "vlae": "ladder"}.get(
        learner, config.model.parameterization
    )
    if learner == "ladder_vae":
        assert config.training.kl_schedule[0] == (0.0, 0.0)
        assert config.training.kl_schedule[-1][1] == 1.0
