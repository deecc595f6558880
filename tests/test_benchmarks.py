"""Each benchmark runs to its table on a small model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import shortrun
from shortrun.config import Config, InferenceConfig, ModelConfig, TrainingConfig, load_config

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_inpainting_writes_a_table_with_both_rivals(tmp_path: Path) -> None:
    config = Config(
        model=ModelConfig(latents=(4, 4), width=16),
        inference=InferenceConfig(steps=2),
        training=TrainingConfig(epochs=1, batch_size=200),
    )
    run = shortrun.train(config, tmp_path / "run")
    words = [sys.executable, str(BENCHMARKS / "inpainting.py"), str(run), "--images", "6", "--steps", "2", "3"]
    done = subprocess.run([*words, "--out", str(tmp_path / "out")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert len(lines) == 2 + 2 * 2
    assert all(line.count("|") == lines[0].count("|") for line in lines)
    # the Gaussian knows digits, the model has learned next to nothing and biharmonic knows no data at all
    gaussian, biharmonic = (float(lines[2].split("|")[column].split()[0]) for column in (5, 6))
    assert 0 < gaussian < biharmonic < 1
    assert json.loads((tmp_path / "out" / "conditions.json").read_text())["test_images"] == 6
    assert (tmp_path / "out" / "centre_3_steps.png").is_file()


def test_starts_compares_prior_and_regression(tmp_path: Path) -> None:
    config = Config(
        model=ModelConfig(latents=(4, 4), width=16),
        inference=InferenceConfig(steps=4, start="regression"),
        training=TrainingConfig(updates=60, batch_size=100, fit_images=0),
    )
    run = shortrun.train(config, tmp_path / "run")
    words = [sys.executable, str(BENCHMARKS / "starts.py"), str(run), "--images", "60", "--steps", "1", "4"]
    done = subprocess.run([*words, "--other", "digits"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    errors, heights, conditions = (
        done.stdout.strip().split("\n\n")[0],
        *done.stdout.strip().split("\n\n")[1].rsplit("\n", 1),
    )
    rows = [line.split(" | ") for line in errors.splitlines()[2:]]
    assert [row[1] for row in rows] == ["prior", "regression"] * 7
    # what 60 updates have found puts the start nearer than the prior does
    assert float(rows[1][2]) < float(rows[0][2])
    assert len(heights.splitlines()) == len(errors.splitlines())
    assert json.loads(conditions)["test_images"] == 60


@pytest.mark.slow
def test_speed_prints_a_line_for_each_recipe_and_batch() -> None:
    words = [sys.executable, "-m", "benchmarks.speed", "--small", "--eager", "--turns", "1", "--threads", "1"]
    words += ["--recipes", "digits", "svhn5", "--batches", "4", "6"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=BENCHMARKS.parent)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    chains, updates = lines[:6], lines[6:]
    assert [line.split("|")[1].strip() for line in chains[2:]] == ["digits", "digits", "svhn5", "svhn5"]
    assert [line.split("|")[2].strip() for line in updates[2:]] == ["4", "4"]
    for table in (chains, updates):
        assert {line.count("|") for line in table} == {table[0].count("|")}
    assert all(float(line.split("|")[6]) > 0 for line in chains[2:])
    assert "memory at K = 100" in done.stdout


@pytest.mark.parametrize("path", sorted((BENCHMARKS / "race").rglob("*.toml")), ids=lambda path: path.stem)
def test_entrants_of_a_race_have_the_same_generator_of_the_same_images(path: Path) -> None:
    """Those in a folder are one entrant each, the others hold values for every learner."""
    alone = path.parent.name != "race"
    configs = [load_config(str(path), name).alone() for name in ("short_run", "vae", "ladder_vae")[: 1 if alone else 3]]
    if alone:
        configs.append(load_config(str(BENCHMARKS / "before" / f"{path.parent.name}.toml")))
    same = {
        (*config.model.latents, config.model.width, config.model.depth, config.model.sigma, config.data)
        for config in configs
    }
    assert len(same) == 1


def test_log_determinants_prints_a_row_for_each_spectrum() -> None:
    words = [sys.executable, "-m", "benchmarks.log_determinants", "--latents", "40", "--probes", "3", "--depth", "4"]
    done = subprocess.run(
        [*words, "--images", "50"], capture_output=True, text=True, check=False, cwd=BENCHMARKS.parent
    )
    assert done.returncode == 0, done.stderr
    rows = [line.strip("|").split("|") for line in done.stdout.splitlines() if line.startswith("|")][2:]
    assert len(rows) == 8
    for row in rows:
        bias, error = (float(word) for word in row[5].split(",")[0].split("±"))
        assert abs(bias) < 5 * error + 0.01 * abs(float(row[2])) + 0.02


def test_rates_prints_what_a_long_run_costs() -> None:
    words = [sys.executable, "-m", "benchmarks.rates", "digits", "--batches", "16", "--steps", "2", "--threads", "1"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=BENCHMARKS.parent)
    assert done.returncode == 0, done.stderr
    cells = [cell.strip() for cell in done.stdout.splitlines()[-1].strip("|").split("|")]
    assert cells[:5] == ["digits", "16", "2", "cpu", "no"]
    ms, images, hours = (float(cells[place].replace(",", "")) for place in (5, 6, 8))
    assert images == pytest.approx(16000 / ms, rel=0.02)
    assert hours == pytest.approx(120 * 182637 / images / 3600, rel=0.02)


def test_densities_prints_four_rows_for_each_density() -> None:
    words = [sys.executable, "-m", "benchmarks.densities", "--small"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=BENCHMARKS.parent)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()[2:-1]]
    assert [row[1] for row in rows] == ["conditional", "marginal", "path", "again"] * 5
    assert {len(row) for row in rows} == {11}
    assert all(float(row[2]) > 0 for row in rows)
    assert json.loads(done.stdout.splitlines()[-1])["seed"] == 0
