"""`shortrun compare` as a user calls it, on models that take seconds."""

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from shortrun.cli import main
from shortrun.compare import comparison
from shortrun.evaluation import Figure

TINY = [
    *("--training.precision", "float32", "--model.latents", "3", "4", "--model.width", "16", "--inference.steps", "3"),
    *("--data.train-limit", "300", "--data.test-limit", "40", "--seeds", "2", "--budget", "2epochs"),
    *("--samples", "60", "--likelihood-images", "0", "--points", "2"),
]
TIMES = {"seconds", "cpu_seconds", "tuning_seconds"}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("SHORTRUN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "table.csv").open() as file:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]


def test_a_comparison_leaves_a_table_and_pictures_and_goes_on_after_a_kill(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    words = ["compare", "digits", "--learners", "short_run", "vae", *TINY, "--out"]
    assert main([*words, str(whole)]) == 0
    said = capsys.readouterr().out
    assert "4 of 4: vae, seed 1, 6 updates" in said
    table = (whole / "table.md").read_text()
    assert table in said
    assert "| short_run | 2 |" in table
    assert "| vae | 2 |" in table
    assert all((whole / name).stat().st_size > 5_000 for name in ("images.png", "curves.png"))
    assert [(row["learner"], row["seed"]) for row in rows(whole)] == [
        ("short_run", "0"),
        ("short_run", "1"),
        ("vae", "0"),
        ("vae", "1"),
    ]
    assert len({row["mse"] for row in rows(whole)}) == 4
    curve = json.loads((whole / "vae" / "seed_1" / "curve.json").read_text())
    assert [point["step"] for point in curve] == [3, 6]
    assert 0 < curve[0]["seconds"] < curve[1]["seconds"]

    # killed in the third evaluation: what was finished stays, the rest comes out the same
    assess, calls = comparison.assess, []

    def killed(*arguments: object, **named: object) -> dict[str, Figure]:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return assess(*arguments, **named)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(comparison, "assess", killed)
    assert main([*words, str(broken)]) == 130
    first = (broken / "vae" / "seed_0" / "evaluation.json").stat().st_mtime_ns
    assert len(rows(broken)) == 2
    assert main([*words, str(broken)]) == 0
    assert len(calls) == 5
    assert (broken / "vae" / "seed_0" / "evaluation.json").stat().st_mtime_ns == first
    assert rows(broken) == rows(whole)


def test_seconds_become_updates_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shortrun.compare.budget.WINDOW_SECONDS", 0.05)
    out = tmp_path / "out"
    words = ["compare", "digits", "--learners", "short_run", "vae", *TINY, "--seeds", "1", "--points", "0"]
    assert main([*words, "--budget", "0.2s", "--out", str(out)]) == 0
    rates = json.loads((out / "rates.json").read_text())["updates_a_second"]
    for row in rows(out):
        assert int(row["updates"]) == max(1, round(0.2 * rates[row["learner"]]))
    assert not (out / "curves.png").exists()


def test_a_recipe_of_ones_own_competes(tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text('learner = "vae"\n[data]\nsource = "digits"\n[training]\nlearning_rate = 3e-3\nthreads = 1\n')
    words = ["compare", "digits", *TINY, "--seeds", "1", "--points", "1", "--out", str(tmp_path / "out")]
    assert main([*words, "--learners", "vae"]) == 0
    pictures = [(tmp_path / "out" / name).stat().st_size for name in ("images.png", "curves.png")]
    # one that comes later has its place beside those that are there
    assert main([*words, "--learners", str(own)]) == 0
    assert [row["learner"] for row in rows(tmp_path / "out")] == ["vae", "mine"]
    assert (tmp_path / "out" / "images.png").stat().st_size > pictures[0]
    assert (tmp_path / "out" / "curves.png").stat().st_size > pictures[1]
    config = (tmp_path / "out" / "mine" / "seed_0" / "config.toml").read_text()
    assert "learning_rate = 0.003" in config
    assert "width = 16" in config


def test_error_is_measured_against_rate_and_drawn_where_it_is_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["compare", "digits", "--learners", "vae", *TINY, "--seeds", "1", "--points", "0", "--out", str(out)]
    assert main([*words, "--rate-images", "2"]) == 0
    (row,) = rows(out)
    assert float(row["rate_at_0.05"]) > float(row["rate_at_0.5"])
    assert 0 < float(row["error_at_0.05"]) < 1
    assert "rate at 0.5" in (out / "table.md").read_text()
    assert (out / "rate.png").stat().st_size > 5_000
    assert main([*words, "--rate-images", "3"]) == 2  # the folder holds another comparison


def test_a_fast_comparison_measures_little_and_says_what_it_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    few = [*TINY[:-6], "--learners", "short_run", "rae", "--seeds", "1", "--fast", "--out", str(out)]
    assert main(["compare", "digits", *few]) == 0
    table = (out / "table.md").read_text()
    said = capsys.readouterr().out
    assert table in said
    assert re.search(r"a model took \d+\.\d s to train and \d+\.\d s to measure", said)
    assert "Left out: log p(x), nats; its own bound, nats; bits/dim: likelihood_images = 0.  " in table
    assert "Left out: linear probe: left out by --fast.  " in table
    assert "rae without FID, prior; precision" in table
    assert "the learner has no prior" in table
    amounts = json.loads((out / "fast.json").read_text())
    record = json.loads((out / "short_run" / "seed_0" / "evaluation.json").read_text())
    assert amounts == {"test_images": 40, "samples": 500}
    assert record["mse_draw"]["images"] == 40
    assert record["fid_prior"]["samples"] == 500
    assert record["evaluation"]["seconds"] > 0
    assert not (out / "curves.png").exists()
    assert main(["compare", "digits", *few, "--samples", "50"]) == 2
    assert "--samples: --fast chooses it; drop one of the two" in capsys.readouterr().err


def test_the_likelihood_is_left_out_in_a_word(tmp_path: Path) -> None:
    words = ["compare", "digits", "--learners", "vae", *TINY, "--seeds", "1", "--points", "0"]
    assert main([*words, "--likelihood-images", "2", "--no-likelihood", "--out", str(tmp_path / "out")]) == 0
    assert "nats" not in rows(tmp_path / "out")[0]


def test_settings_are_chosen_by_train_images(tmp_path: Path) -> None:
    out = tmp_path / "out"
    faster, slower = "vae,training.learning-rate=4e-3", "vae,training.kl_schedule=0 0 0.2 1,training.threads=1"
    words = ["compare", "digits", "--learners", "vae", faster, slower, *TINY, "--seeds", "1", "--points", "0"]
    assert main([*words, "--data.held-out", "100", "--out", str(out)]) == 0
    folders = ["vae", faster, slower.replace(" ", "_")]
    assert [row["learner"] for row in rows(out)] == folders
    plain, fast, slow = ((out / name / "seed_0" / "config.toml").read_text() for name in folders)
    before, after = plain.split("[training]")  # an energy prior has a learning rate of its own
    assert "learning_rate = 0.001" in after
    changed = after.replace("learning_rate = 0.001", "learning_rate = 0.004")
    assert f"{before}[training]{changed}" == fast
    assert re.sub(r"\s", "", slow).count("[0.0,0.0,],[0.2,1.0,]") == 1
    assert len({row["mse"] for row in rows(out)}) == 3
    for name in folders:
        for file in ("evaluation.json", "result.json"):
            of = json.loads((out / name / "seed_0" / file).read_text())
            assert of["mse"]["split"] == "held-out train"
            assert of["mse"]["images"] == 100
        assert of["training"]["images"] == 200


def test_images_without_labels_are_compared_by_rotations(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", x=rng.integers(0, 256, (200, 8, 8, 1), dtype=np.uint8))
    words = ["compare", "digits", "--learners", "vae", *TINY, "--data.train-limit", "150", "--seeds", "1"]
    out = tmp_path / "out"
    assert main([*words, "--data.source", str(tmp_path / "mine.npz"), "--out", str(out)]) == 0
    (row,) = rows(out)
    assert float(row["mse_draw"]) > 0
    assert float(row["fid_prior"]) > 0
    assert "features own classifier of rotations of mine" in (out / "table.md").read_text()
    assert (out / "curves.png").stat().st_size > 5_000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--learners", "vae,training.learning-rate"],
            "--learners: got 'vae,training.learning-rate'; write settings as",
        ),
        (["--learners", "vae,seeds=2"], "--learners: got 'seeds=2'; a setting of one learner is one of its recipe's"),
        (["--learners", "vae", "vae,model.width=0"], "--model.width: got 0"),
        (
            ["--learners", "vae", "vae,data.test-limit=20"],
            "--learners: vae,data.test-limit=20 has other images than vae",
        ),
        (["--data.held-out", "0"], "--data.held-out: got 0; write a whole number of at least 1"),
        (["--data.held-out", "300"], "--data.held-out: got 300 of 300 training images"),
        (["--learners", "vea"], "--learners: got 'vea'; did you mean 'vae'?"),
        (["--learners", "vae", "vae"], "--learners: got 'vae vae'; write each one once"),
        (["--learners"], "--learners: got none; write each one once"),
        (["--learner", "vae"], "--learner: a comparison has several"),
        (["--budget", "60"], "--budget: got '60'; write seconds or whole epochs"),
        (["--seeds", "0"], "--seeds: got 0; write a whole number of at least 1"),
        (["--samples", "1"], "--samples: got 1; write a whole number of at least 2"),
        (["--model.width", "0"], "--model.width: got 0"),
        (["--training.batch-size", "301"], "--training.batch-size: got 301 for 300 training images"),
        (["--inference.step-size", "tuned"], "--inference.step-size: only learners of short runs tune it"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["compare", "digits", "--learners", "short_run", "vae", *TINY, "--out", str(out), *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("shortrun: error: ")
    assert said in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_without_the_extra_nothing_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    assert main(["compare", "digits", "--learners", "vae", *TINY, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.endswith("pip install 'shortrun[metrics]'\n")
    assert not (tmp_path / "out").exists()


def test_another_comparison_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["compare", "digits", "--learners", "vae", *TINY, "--seeds", "1", "--points", "0", "--out", str(out)]
    assert main(words) == 0
    before = (out / "table.md").read_text()
    for changed, said in (
        (["--budget", "1epochs"], "at 2epochs"),
        (["--model.width", "8"], "other settings of vae"),
        (["--samples", "50"], "a comparison with samples = 60; write that, or another folder"),
        (["--likelihood-images", "2"], "a comparison with likelihood_images = 0"),
        (["--points", "1"], "a comparison with points = 0"),
        (["--learners", "ladder_vae", "--data.test-limit", "30"], "a comparison on other images"),
    ):
        assert main([*words, *changed]) == 2
        assert said in capsys.readouterr().err
    assert (out / "table.md").read_text() == before
    # what an older version wrote lacks a setting that has come since, and goes on
    record = json.loads((out / "comparison.json").read_text())
    del record["configs"]["vae"]["encoder"]["draws"]
    (out / "comparison.json").write_text(json.dumps(record))
    assert main(words) == 0
    assert (out / "table.md").read_text() == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("keep")
    assert main([*words[:-1], str(other)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in other.iterdir()] == ["mine.txt"]
