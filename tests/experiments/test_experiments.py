"""The experiments, as a user calls them, on models that take seconds."""

import csv
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from shortrun.cli import main
from shortrun.config import Config, read_recipe
from shortrun.experiments import EXPERIMENTS
from shortrun.experiments.arguments import Experiment
from shortrun.experiments.figure5 import measured_epochs
from shortrun.experiments.step_sizes import VARIANTS

TINY = [
    *("--training.epochs", "2", "--training.picture-epochs", "9", "--training.precision", "float32"),
    *("--model.latents", "3", "4", "--model.width", "16", "--inference.steps", "3", "--data.test-limit", "40"),
]
Said = Callable[[], str]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return lambda: capsys.readouterr().out


@pytest.mark.slow
def test_figure5_measures_every_seed_and_epoch_and_goes_on(tmp_path: Path, said: Said) -> None:
    out = tmp_path / "figure5"
    words = ["experiment", "figure5", "digits", *TINY, "--seeds", "2", "--images", "4", "--out", str(out)]
    assert main(words) == 0
    found = json.loads((out / "figure5.json").read_text())
    assert [(record["seed"], record["epoch"]) for record in found["records"]] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    for record in found["records"]:
        for name in ("conditional", "marginal"):
            least = min(value for _, value, _ in record["curves"][name])
            by_size = {s: value for s, value, _ in record["curves"][name]}
            best = {
                tuner: by_size[min(by_size, key=lambda s: abs(s - at))] for tuner, at in record["best"][name].items()
            }
            assert min(best.values()) == least
    assert (out / "figure5.png").stat().st_size > 10_000
    table = (out / "figure5.md").read_text().splitlines()
    assert len(table) == 2 + 2
    assert table[2].count(",") == 5  # one between the two seeds in each column
    # what is there is not done again, what is missing is
    kept = out / "seed_0" / "curves" / "epoch_0001.json"
    before = kept.stat().st_mtime_ns
    said()
    assert main(words) == 0
    assert "looking" not in said()
    assert kept.stat().st_mtime_ns == before


def test_as_published_leaves_the_inference_of_the_recipe_aside(tmp_path: Path) -> None:
    recipe, out = tmp_path / "regression.toml", tmp_path / "out"
    recipe.write_text('[data]\nsource = "digits"\n[model]\nprior = "mixture"\n[inference]\nstart = "regression"\n')
    words = ["experiment", "figure5", str(recipe), "--as-published", *TINY, "--seeds", "1", "--images", "4"]
    assert main([*words, "--out", str(out)]) == 0
    (path,) = out.glob("seed_0/**/config.toml")
    config = read_recipe(str(path))
    assert (config.model.prior, config.inference.start, config.inference.steps) == ("normal", "prior", 3)
    assert config.inference.tuned


def test_measured_epochs_double_and_end_with_the_last() -> None:
    assert measured_epochs(1) == [1]
    assert measured_epochs(8) == [1, 2, 4, 8]
    assert measured_epochs(40) == [1, 2, 4, 8, 16, 32, 40]


@pytest.mark.slow
def test_step_sizes_compares_variants_and_goes_on(tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORTRUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("shortrun.experiments.step_sizes.TEMPERATURES", 5)
    out = tmp_path / "step_sizes"
    chosen = ["fixed_0.1", "marginal_schedule_K15"]
    words = [
        "experiment",
        "step_sizes",
        "digits",
        "--as-published",
        *TINY,
        "--seeds",
        "2",
        "--variants",
        *chosen,
        "--out",
        str(out),
    ]
    assert main(words) == 0
    with (out / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["variant"], row["seed"]) for row in rows] == [
        *((name, str(seed)) for name in chosen for seed in (0, 1)),
    ]
    for row in rows:
        assert 0 < float(row["mse"]) < 1
        assert float(row["fid"]) > 0
        assert (float(row["step_size"]) == pytest.approx(0.1)) == (row["variant"] == "fixed_0.1")
    steps = json.loads((out / "marginal_schedule_K15" / "seed_1" / "result.json").read_text())["mse"]["steps"]
    assert steps == 15
    assert len((out / "table.md").read_text().splitlines()) == 2 + 2
    stamp = (out / "fixed_0.1" / "seed_1" / "result.json").stat().st_mtime_ns
    (out / "fixed_0.1" / "seed_1" / "evaluation.json").unlink()
    assert main(words) == 0
    assert (out / "fixed_0.1" / "seed_1" / "result.json").stat().st_mtime_ns == stamp
    assert (out / "fixed_0.1" / "seed_1" / "evaluation.json").is_file()


def test_every_variant_is_a_valid_configuration() -> None:
    from shortrun.config import checked_settings, load_config

    for change in VARIANTS.values():
        checked_settings(change(load_config("digits")))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["figure6", "digits"], "did you mean 'figure5'"),
        (["figure5", "digit"], "did you mean 'digits'"),
        (["figure5", "digits", "--seeds", "0"], "--seeds: got 0"),
        (["figure5", "digits", "--images", "1"], "--images: got 1"),
        (["step_sizes", "digits", "--variants", "marginal"], "--variants: got 'marginal'"),
        (["step_sizes", "digits", "--inference.steps", "0"], "--inference.steps: got 0"),
        (["step_sizes", "digits", "--model.prior", "mixture"], "by acceptance the steps and the prior mixture"),
    ],
)
def test_refusals(words: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment", *words, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment", "--help"]) == 0
    assert "figure5" in capsys.readouterr().out
    assert main(["experiment"]) == 2


@dataclass(frozen=True)
class Loudness(Experiment):
    """Ask for a word and say it."""

    word: str = "quiet"
    """Which."""

    def run(self, config: Config, out: Path) -> str:
        """Say it."""
        assert type(config) is Config
        return f"{self.word}, {self.seeds} seeds, width {config.model.width}\n"


def test_an_experiment_is_a_module_and_a_line(said: Said, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = ModuleType("shortrun.experiments.loudness")
    module.Arguments = Loudness  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shortrun.experiments.loudness", module)
    monkeypatch.setitem(EXPERIMENTS, "loudness", "how loud it is")
    words = ["--model.width", "7", "--seeds", "2", "--word", "LOUD", "--out", str(tmp_path)]
    assert main(["experiment", "loudness", "digits", *words]) == 0
    assert said() == f"LOUD, 2 seeds, width 7\nwrote {tmp_path}\n"
