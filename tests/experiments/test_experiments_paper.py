"""The experiments of the paper on models of several learners, as a user calls them, on models that take seconds."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shortrun.cli import main
from shortrun.commands import experiment
from shortrun.compare import Budget
from shortrun.config import load_config
from shortrun.data import load_dataset, require_labels
from shortrun.errors import InputError
from shortrun.experiments import EXPERIMENTS, PAPER
from shortrun.experiments.hierarchy import known
from shortrun.experiments.inpainting import inside, masks
from shortrun.experiments.models import cost
from shortrun.experiments.reconstruction import with_equal_steps
from shortrun.experiments.rivals import Gaussian, biharmonic, fitted_gaussian
from shortrun.training.run_folder import RunFolder

TINY = [
    *("--small", "--budget", "1epochs", "--samples", "40", "--training.fit-images", "100", "--data.test-limit", "30"),
    *("--data.train-limit", "300", "--model.width", "16", "--model.latents", "3", "4"),
    *("--training.precision", "float32", "--training.batch-size", "50"),
]
FAST = ["--learners", "short_run", "short_run,as-published,inference.steps=2", "vae"]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    pytest.importorskip("torchmetrics")
    monkeypatch.setenv("SHORTRUN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the models that the experiments of this file share."""
    return tmp_path_factory.mktemp("models") / "models"


def run(name: str, models: Path, out: Path, *more: str) -> None:
    words = ["experiment", name, "digits", *TINY, *FAST, *more, "--models", str(models), "--out", str(out)]
    assert main(words) == 0


def colours(path: Path) -> int:
    return len(np.unique(np.asarray(Image.open(path))))


def test_synthesis_draws_each_learner_and_the_models_are_shared(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("synthesis", models, tmp_path / "synthesis")
    said = capsys.readouterr().out
    assert "1 of 3: short_run, seed 0, 6 updates" in said
    cost, trained = said.index("3 trainings take about 0:0"), said.index("1 of 3")
    assert cost < trained, "what it costs is said before it starts"
    assert "at the rate of the first updates, each: short_run 0:0" in said
    assert "GPU" not in said
    table = (tmp_path / "synthesis" / "synthesis.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in table[2:]] == [
        "| short_run",
        "| short_run, as-published, steps 2",
        "| vae",
    ]
    assert all(float(line.split(" | ")[2]) > 0 for line in table[2:])
    picture = Image.open(tmp_path / "synthesis" / "synthesis.png")
    assert picture.width > 3 * 8 * 48
    assert colours(tmp_path / "synthesis" / "synthesis.png") > 50
    run("reconstruction", models, tmp_path / "reconstruction")
    again = capsys.readouterr().out
    assert "of 3" not in again, "the models are there"
    assert "trainings" not in again
    found = json.loads((tmp_path / "reconstruction" / "reconstruction.json").read_text())
    assert set(found["records"]) == {"short_run", "short_run,as-published,inference.steps=2", "vae"}
    assert found["machine"]["torch"] == torch.__version__
    assert (tmp_path / "reconstruction" / "reconstruction.png").stat().st_size > 3000


def test_a_run_of_days_on_a_cpu_is_advised_a_gpu(tmp_path: Path) -> None:
    configs = {"short_run": load_config("digits"), "vae": load_config("digits", "vae")}
    days = cost(configs, tmp_path, Budget(200_000.0, "s"), 3, "cpu")
    assert days.startswith("6 trainings take about 13 days 21 h here, on cpu (200000s of each training)")
    assert "made for a GPU" in days
    hours = cost(configs, tmp_path, Budget(3600.0, "s"), 3, "cpu")
    assert hours == "6 trainings take about 6:00:00 here, on cpu (3600s of each training)"
    finished = RunFolder(tmp_path / "vae" / "seed_1")
    finished.path.mkdir(parents=True)
    finished.result.write_text("{}")
    assert cost(configs, tmp_path, Budget(3600.0, "s"), 3, "cpu").startswith("5 trainings take about 5:00:00")


def test_inpainting_measures_all_methods_on_all_masks_and_goes_on(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "inpainting"
    few = ["--images", "12", "--completions", "3"]
    run("inpainting", models, out, *few)
    found = json.loads((out / "inpainting.json").read_text())["found"]
    methods = {each["method"] for each in found}
    assert {"short_run", "vae", "vae, Langevin on its decoder", "conditional Gaussian"} <= methods
    assert len(found) == len(methods) * len(masks(8, 8))
    for each in found:
        assert 0 < each["one"] < 1
        assert each["mean"] <= each["one"] + 1e-6 or each["method"] != "short_run"
        if each["inside_50"] is not None:
            assert each["inside_50"] <= each["inside_90"]
    capsys.readouterr()
    (out / "records" / "seed_0.json").unlink()
    run("inpainting", models, out, *few)
    said = capsys.readouterr().out
    assert "unlearned" not in said, "what is kept is not measured again"
    assert "seed 0: stripes, short_run" in said


def test_a_persistent_learner_gets_as_many_steps_as_the_others() -> None:
    changed = with_equal_steps(load_config("digits", "persistent"))
    assert changed.persistent.fresh_steps == changed.inference.test_steps == 32
    assert with_equal_steps(load_config("digits")) == load_config("digits")


def test_the_gaussian_is_calibrated_where_pixels_are_gaussian() -> None:
    rng = torch.Generator().manual_seed(0)
    root = torch.randn(9, 9, generator=rng).double() / 3
    x = torch.randn(4000, 9, generator=rng).double() @ root.T * 0.1 + 0.5
    seen = torch.arange(9) < 5
    mean, variance = fitted_gaussian(x[1000:], seen).conditional(x[:1000], seen)
    below = torch.special.ndtr((x[:1000, ~seen] - mean) / variance.sqrt())
    assert inside(below.flatten(), 50) == pytest.approx(0.5, abs=0.03)
    assert inside(below.flatten(), 90) == pytest.approx(0.9, abs=0.02)
    exact = Gaussian(x.mean(0), torch.cov(x.T)).conditional(x[:1000], seen)[0]
    assert torch.allclose(mean, exact, atol=6e-3)


def test_biharmonic_continues_a_ramp() -> None:
    pytest.importorskip("skimage")
    ramp = torch.linspace(-1, 1, 8).expand(1, 1, 8, 8).contiguous()
    mask = masks(8, 8)["box in the centre"]
    assert torch.allclose(biharmonic(torch.where(mask > 0.5, ramp, 0.0), mask), ramp, atol=0.02)


@pytest.mark.parametrize("name", [*EXPERIMENTS, "all"])
def test_an_unknown_recipe_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment", name, "digit"]) == 2
    assert "did you mean 'digits'" in capsys.readouterr().err


def test_all_of_the_paper_take_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value of an option is no recipe, and --out is shared out among them."""
    called: list[list[str]] = []
    monkeypatch.setattr(experiment, "main", lambda words: called.append(words) or 0)
    experiment.run_all(["--small", "--data-dir", "images", "--out", "there"])
    assert [words[0] for words in called] == list(PAPER)
    models = ["--models", str(Path("there") / "models")]
    assert called[0] == ["synthesis", "--small", "--data-dir", "images", "--out", str(Path("there/synthesis")), *models]
    assert called[-1] == ["figure5", "--small", "--data-dir", "images", "--out", str(Path("there/figure5"))]
    called.clear()
    experiment.run_all(["svhn", "--small", "--out=there"])
    assert called[0] == ["synthesis", "svhn", "--small", "--out", str(Path("there/synthesis")), *models]
    with pytest.raises(InputError, match="out: has no value"):
        experiment.run_all(["--out"])


def test_those_of_the_paper_are_experiments() -> None:
    assert set(PAPER) <= set(EXPERIMENTS)


def test_hierarchy_says_what_each_layer_holds(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "hierarchy"
    run("hierarchy", models, out, "--images", "30")
    found = json.loads((out / "hierarchy.json").read_text())["found"]["short_run"][0]
    assert found.keys() >= {"linear", "network", "changed", "pixels", "colour"}
    assert all(len(found[way]["class"]) == 2 for way in ("linear", "network", "changed"))
    assert all(value > 0 for value in found["pixels"]), "a layer that is redrawn changes the image"
    assert (out / "hierarchy_short_run.png").stat().st_size > 3000
    tables = (out / "hierarchy.md").read_text().split("\n\n")
    places = [line.split(" | ")[:2] for line in tables[0].splitlines()[2:4]]
    assert places == [["| short_run", "2"], ["| short_run", "1"]]
    capsys.readouterr()
    run("hierarchy", models, out, "--images", "30")
    assert "what each layer holds" not in capsys.readouterr().out, "what is kept is not measured again"


def test_hierarchy_measures_every_known_factor() -> None:
    """The factors where a set has them, else the labels, else nothing."""
    data = load_dataset("coloured_digits", train_limit=60, test_limit=20)
    found = known(data.train)
    assert list(found) == ["background", "ink", "digit", "right", "down", "thickness"]
    assert found["digit"].equal(require_labels(data.train, data.name))
    assert known(dataclasses.replace(data.train, factors=None)).keys() == {"class"}
    assert known(dataclasses.replace(data.train, factors=None, labels=None)) == {}


@pytest.mark.parametrize("name", ["inpainting", "hierarchy", "restoration"])
def test_what_fits_more_than_models_wants_whole_training_images(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["experiment", name, "digits", "--data.missing", "0.3", "--out", str(tmp_path / "out")]) == 2
    assert "wants whole training images; see shortrun experiment incomplete" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
