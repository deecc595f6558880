"""Every command on a model whose chains start from a regression and whose prior is a fitted mixture."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shortrun.cli import main

Call = Callable[..., tuple[int, str, str]]
SMALL = [
    *("--training.updates", "230", "--training.batch-size", "20", "--training.picture-epochs", "99"),
    *("--training.precision", "float32", "--training.fit-images", "0", "--training.threads", "1"),
    *("--model.latents", "4", "5", "--model.width", "16", "--model.prior", "mixture", "--model.components", "3"),
    *("--inference.steps", "3", "--inference.start", "regression", "--data.train-limit", "400"),
    *("--data.test-limit", "40"),
]


@pytest.fixture(scope="module", params=["short_run", "vae"])
def fitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose prior was fitted twice; --inference.start says nothing to a learner without chains."""
    run = tmp_path_factory.mktemp("runs") / request.param
    assert main(["train", "digits", "--learner", request.param, "--out", str(run), *SMALL]) == 0
    return run


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize(
    "words",
    [
        ("sample", "--n", 5),
        ("reconstruct", "--n", 3),
        ("encode", "--n", 3),
        ("interpolate", "--n", 4),
        ("traverse", "--n", 2),
        ("traverse", "--n", 2, "--layer", 2, "--coordinate", 1),
        ("traverse", "--prior", "--layer", 1),
        ("inpaint", "--n", 2, "--mask", "half", "--completions", 3),
        ("inpaint", "--n", 2, "--mask", "random", "--missing", 0.9, "--completions", 3),
    ],
    ids=lambda words: " ".join(map(str, words)),
)
def test_it_is_used_twice_with_the_same_result(call: Call, fitted: Path, tmp_path: Path, words: tuple) -> None:
    made = []
    for name in ("one", "again"):
        code, _, err = call(words[0], fitted, *words[1:], "--out", tmp_path / name)
        assert code == 0, err
        (path,) = (tmp_path / name).glob("*.npz")
        made.append(arrays(path))
    assert made[0].keys() == made[1].keys()
    for name, value in made[0].items():
        if value.dtype.kind in "fbiu":
            assert np.array_equal(value, made[1][name]), name


def test_where_nothing_is_observed_completions_are_draws_of_the_prior(call: Call, fitted: Path, tmp_path: Path) -> None:
    Image.new("L", (8, 8), 0).save(tmp_path / "black.png")
    words = ["--n", 30, "--mask", tmp_path / "black.png", "--completions", 20, "--steps", 5]
    code, _, err = call("inpaint", fitted, *words, "--out", tmp_path / "filled")
    assert code == 0, err
    assert call("sample", fitted, "--n", 600, "--out", tmp_path / "drawn")[0] == 0
    filled = arrays(tmp_path / "filled" / "inpainting.npz")["completions"].reshape(600, 64) / 255
    drawn = arrays(tmp_path / "drawn" / "samples.npz")["images"].reshape(600, 64) / 255
    assert not arrays(tmp_path / "filled" / "inpainting.npz")["mask"].any()
    # rounds of an encoder forget their start slowly; chains start from the prior and stay there
    if fitted.name == "short_run":
        assert np.abs(filled.mean(0) - drawn.mean(0)).max() < 0.06
        assert np.abs(filled.std(0) - drawn.std(0)).max() < 0.06


def test_its_figures_say_how_latents_fit_the_prior(call: Call, fitted: Path, tmp_path: Path) -> None:
    words = ["--samples", 20, "--likelihood-images", 4, "--temperatures", 60, "--importance-samples", 200]
    code, out, err = call("evaluate", fitted, *words, "--gap", 4, "--out", tmp_path)
    assert code == 0, err
    found = json.loads((tmp_path / "evaluation.json").read_text())
    trained = json.loads((fitted / "result.json").read_text())
    for name in ("second_moment", "prior_fit"):
        assert found[name]["value"] == pytest.approx(trained[name]["value"], rel=1e-5)
        assert len(found[name]["layers"]) == 2
    assert "prior_fit: latents in units of the normals of the prior that they are of, 1 where they follow it" in out
    gap = found["annealing_gap"]
    assert -3 * gap["standard_error"] < gap["value"] < 3
    # both are below log p(x) on average; the encoder's is the looser one
    assert found["importance_nats"]["value"] < found["nats"]["value"] + 3
    assert "prior_fit" in call("info", fitted)[1]


def test_its_inference_is_diagnosed_and_tuned_or_the_command_is_refused(
    call: Call, fitted: Path, tmp_path: Path
) -> None:
    diagnosed = call("diagnose", fitted, "--n", 8, "--out", tmp_path / "d")
    tuned = call("tune", fitted, "--n", 4, "--step-sizes", 0.1, 0.2, "--tuners", "grid", "--out", tmp_path / "t")
    if fitted.name == "vae":
        for code, _, err in (diagnosed, tuned):
            assert (code, err.count("\n")) == (2, 1)
        return
    assert diagnosed[0] == tuned[0] == 0, (diagnosed[2], tuned[2])
    assert "with noise, from the regression, Gaussian sigma 0.1, Mixture prior" in diagnosed[1]
    assert "in units of the prior" in diagnosed[1]
    numbers = json.loads((tmp_path / "d" / "diagnosis.json").read_text())
    assert numbers["conditions"]["start"] == "regression"
    assert len(numbers["prior_fit"]) == 2
    assert tuned[1].count("minimum by grid") == 3
