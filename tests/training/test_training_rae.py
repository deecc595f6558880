"""The learner `rae` as a user has it: trained, resumed, used and compared through the command line."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import shortrun
from shortrun.cli import main
from shortrun.config import load_config, recipe_names
from shortrun.learners import Rae, checked_for_learner
from shortrun.learners.rae import RaeSettings
from shortrun.training.watching import Moment

SMALL = [
    *("--training.epochs", "2", "--training.picture-epochs", "1", "--training.batch-size", "50"),
    *("--training.log-steps", "1", "--training.precision", "float32", "--model.latents", "2", "3", "4"),
    *("--model.width", "16", "--data.train-limit", "200", "--data.test-limit", "30"),
]
GRADIENT = ["--own.regularizer", "gradient", "--own.regularizer-weight", "1e-3", "--own.beta", "1e-3"]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("SHORTRUN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny finished run with the gradient penalty, which draws random numbers while it learns."""
    out = tmp_path_factory.mktemp("runs") / "rae"
    assert main(["train", "digits", "--learner", "rae", *SMALL, *GRADIENT, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def unfitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny finished run that nothing can be drawn from."""
    out = tmp_path_factory.mktemp("runs") / "unfitted"
    words = ["--learner", "rae", *SMALL, "--training.fit-images", "0"]
    assert main(["train", "digits", *words, "--out", str(out)]) == 0
    return out


def test_the_run_folder_says_what_was_learned(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 8
    assert {"mse", "second_moment", "regularizer"} <= lines[0].keys()
    assert not {"sigma", "elbo", "kl"} & lines[0].keys()
    assert lines[-1]["mse"] < lines[0]["mse"]
    result = json.loads((trained / "result.json").read_text())
    assert result["mse"]["learner"] == "rae"
    assert result["mse"]["inference"] == "a deterministic encoder"
    assert len(result["second_moment"]["layers"]) == 3
    record = result["latent_density"]
    assert (record["images"], record["prior_nats"], record["better_than_prior"]) == (200, None, None)
    pictures = {path.name for path in (trained / "figures").iterdir()}
    assert pictures == {"epoch_0001.png", "epoch_0002.png", "samples_fitted.png", "reconstructions.png"}
    learner = shortrun.load(trained)
    assert isinstance(learner, Rae)
    assert learner.own == RaeSettings(1e-3, "gradient", 1e-3)


class StoppedError(Exception):
    pass


def test_an_interrupted_run_goes_on_as_the_unbroken_one(trained: Path, tmp_path: Path) -> None:
    def stop(moment: Moment) -> None:
        if moment.step == 6:
            raise StoppedError

    config, out = load_config("digits", "rae"), tmp_path / "run"
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, train_limit=200, test_limit=30),
        model=dataclasses.replace(config.model, latents=(2, 3, 4), width=16),
        training=dataclasses.replace(
            config.training,
            epochs=2,
            picture_epochs=1,
            batch_size=50,
            log_steps=1,
            precision="float32",
            checkpoint_seconds=1e-6,
        ),
        own={"beta": 1e-3, "regularizer": "gradient", "regularizer_weight": 1e-3},
    )
    with pytest.raises(StoppedError):
        shortrun.train(config, out, watch=stop)
    assert main(["train", "--resume", str(out)]) == 0
    kept = ["metrics.jsonl", "figures/samples_fitted.png"]
    kept += [f"checkpoint/{name}.safetensors" for name in ("model", "latent_density")]
    for name in kept:
        assert (out / name).read_bytes() == (trained / name).read_bytes(), name


USES = {
    "sample": ["samples/samples.npz"],
    "reconstruct": ["reconstructions/reconstructions.npz", "--n", "4", "--no-noise"],
    "encode": ["latents/latents.npz", "--n", "4"],
    "inpaint": ["inpainting/inpainting.npz", "--n", "2", "--completions", "3", "--mask", "half", "--steps", "5"],
    "interpolate": ["interpolation/interpolation.npz", "--n", "2"],
    "traverse": ["traversal/traversal.npz", "--n", "2"],
}


@pytest.mark.parametrize("command", USES)
def test_every_use_of_a_model(command: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, *words = USES[command]
    capsys.readouterr()
    assert main([command, str(trained), *words, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    with np.load(tmp_path / Path(name).name) as made:
        arrays = {key: made[key] for key in made.files}
    assert all(np.isfinite(array).all() for array in arrays.values() if array.dtype.kind == "f")
    assert not any(array.any() for key, array in arrays.items() if key == "failed")
    if command == "inpaint":
        assert (arrays["uncertainty"][~arrays["mask"]] > 0).any(), "completions do not differ"
        assert "5 rounds of the deterministic encoder" in said.out
    if command == "sample":
        assert "latents from the fitted density" in said.out
        assert "the prior" not in said.out
        expected = shortrun.load(trained).sample(64, torch.Generator().manual_seed(0), "fitted")
        assert np.array_equal(arrays["images"], ((expected + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy())


REFUSED = {
    "sample --from prior": "--from: got 'prior'; {run} has no prior: write fitted",
    "traverse --prior": "--prior: rae has no prior; draw from the density fitted to its latents",
    "tune": "run: {run} is a model of rae; this command is for those of short_run",
    "diagnose": "run: {run} is a model of rae; this command is for those of short_run",
    "encode --steps 3": "--steps: got 3; an encoder takes none unless pixels are missing: leave it out",
}


def refusal(words: str, run: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the line that a command ends with."""
    command, *options = words.split()
    capsys.readouterr()
    assert main([command, str(run), *options, "--out", str(out)]) == 2
    line = capsys.readouterr().err
    assert line.startswith("shortrun: error: ")
    assert line.count("\n") == 1
    assert not out.exists()
    return line.removeprefix("shortrun: error: ")


@pytest.mark.parametrize("words", REFUSED)
def test_what_it_cannot_do_is_one_clear_line(
    words: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(words, trained, tmp_path / "out", capsys)
    assert line.removeprefix("RUN: ").startswith(REFUSED[words].format(run=trained).removeprefix("run: "))


@pytest.mark.parametrize("words", ["sample", "sample --from fitted", "interpolate --n 2", "traverse --n 2"])
def test_without_a_fitted_density_there_is_nothing_to_draw_from(
    words: str, unfitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(words, unfitted, tmp_path / "out", capsys)
    assert line.endswith("train it with training.fit_images of at least 10\n")
    assert not (unfitted / "figures" / "samples_fitted.png").exists()
    assert main(["reconstruct", str(unfitted), "--n", "2", "--out", str(tmp_path / "other")]) == 0


def test_info_says_what_it_is(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["info", str(trained)]) == 0
    said = capsys.readouterr().out
    assert "; squared error, beta 0.001, gradient 0.001; " in said
    assert "a deterministic encoder of width 16 and depth 1" in said
    assert f"; {sum(weights.numel() for weights in shortrun.load(trained).parameters()):,} weights" in said


def test_an_evaluation_leaves_out_what_needs_a_prior_or_a_likelihood(
    trained: Path, unfitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torchmetrics")
    words = ["--samples", "40", "--likelihood-images", "2", "--gap", "2"]
    found = {}
    for run in (trained, unfitted):
        out = tmp_path / run.name
        assert main(["evaluate", str(run), *words, "--out", str(out)]) == 0
        assert "no prior: its draws are those of the fitted density" in capsys.readouterr().out
        found[run] = json.loads((out / "evaluation.json").read_text())
    made = found[trained]
    assert made["fid_fitted"]["drawn_from"].startswith("mixture of ")
    assert made["mse_point"]["value"] == pytest.approx(made["mse"]["value"])
    assert made["probe"]["value"] > 0.1
    reasons = {name: figure["left_out"] for name, figure in made.items() if "left_out" in figure}
    prior = {name for name in made if name.endswith("_prior")}
    assert reasons.keys() == {*prior, "mse_draw", "nats", "bits_per_dim", "importance_nats", "annealing_gap"}
    assert len(prior) == 6
    assert "deterministic" in reasons["mse_draw"]
    assert reasons["nats"] == "the learner has no generator p(x, z), and so no likelihood"
    assert "no density was fitted" in found[unfitted]["fid_fitted"]["left_out"]


@pytest.mark.slow  # two trainings, features and a density
def test_it_is_compared_and_rebuilds_better_than_the_vae(tmp_path: Path) -> None:
    """At equal epochs on all digits; all that a comparison writes has a place for it."""
    pytest.importorskip("torchmetrics")
    out = tmp_path / "race"
    words = ["--budget", "15epochs", "--seeds", "1", "--samples", "60", "--likelihood-images", "1", "--points", "2"]
    words += ["--training.precision", "float32", "--model.width", "128"]
    assert main(["compare", "digits", "--learners", "vae", "rae", *words, "--out", str(out)]) == 0
    with (out / "table.csv").open() as file:
        vae, rae = csv.DictReader(file)
    assert float(rae["mse_point"]) < float(vae["mse_point"])
    assert rae["parameters"] == vae["parameters"]
    assert [rae[name] for name in ("mse_draw", "fid_prior", "nats", "importance_nats")] == [""] * 4
    assert float(rae["fid_fitted"]) > 0
    assert "| rae | 1 | - |" in (out / "table.md").read_text()
    curve = json.loads((out / "rae" / "seed_0" / "curve.json").read_text())
    assert [sorted(point) for point in curve] == [["mse", "seconds", "step"]] * 2
    assert all((out / name).stat().st_size > 5_000 for name in ("images.png", "curves.png"))


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_is_for_it_too(recipe: str) -> None:
    assert checked_for_learner(load_config(recipe, "rae")).learner == "rae"


def test_a_saved_model_can_be_moved(trained: Path, tmp_path: Path) -> None:
    shortrun.load(trained).save_pretrained(tmp_path / "saved")
    copied = Path(shutil.copytree(tmp_path / "saved", tmp_path / "copied"))
    assert main(["sample", str(copied), "--n", "3"]) == 0
