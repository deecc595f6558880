"""shortrun tune, as a user calls it."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import shortrun
from shortrun.commands.outputs import MADE_BY

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def numbers(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str, Path]:
    """What one call of the command wrote and said."""
    import contextlib
    import io

    from shortrun.cli import main

    out, said = tmp_path_factory.mktemp("tune"), io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(["tune", str(trained), "--n", "6", "--over", "schedule", "--out", str(out)]) == 0
    return json.loads((out / "step_size.json").read_text()), said.getvalue(), out


def test_curves_have_error_bars_and_minima_of_grid_and_gradient(numbers: tuple[dict, str, Path]) -> None:
    found, said, _ = numbers
    assert set(found["curves"]) == {"conditional", "marginal", "path"}
    for name, curve in found["curves"].items():
        sizes = [point["step_size"] for point in curve]
        assert sizes == sorted(sizes)
        assert sizes[0] == pytest.approx(0.001)
        assert sizes[-1] == pytest.approx(10)
        finite = [point for point in curve if point["value"] is not None]
        assert all(point["standard_error"] > 0 for point in finite)
        least = min(point["value"] for point in finite)
        for tuner in ("grid", "gradient"):
            minimum = found["minima"][name][tuner]
            # the curve holds what either tuner saw, so neither is below its least point
            assert least <= minimum["value"] <= min(point["value"] for point in finite[:5])
            assert f"minimum by {tuner}: s = {minimum['step_size']:.3g}" in said
    assert min(found["minima"]["marginal"][tuner]["value"] for tuner in ("grid", "gradient")) == pytest.approx(
        min(point["value"] for point in found["curves"]["marginal"] if point["value"] is not None)
    )


def test_what_is_printed_is_short_and_the_curves_are_a_table(numbers: tuple[dict, str, Path]) -> None:
    found, said, out = numbers
    assert len(said.splitlines()) < 20
    with (out / "step_size.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name, curve in found["curves"].items():
        ours = [row for row in rows if row["estimator"] == name]
        assert [float(row["step_size"]) for row in ours] == [point["step_size"] for point in curve]
        assert [row["value"] == "" for row in ours] == [point["value"] is None for point in curve]


def test_grid_and_gradient_agree(numbers: tuple[dict, str, Path]) -> None:
    minima = numbers[0]["minima"]["marginal"]
    assert minima["grid"]["step_size"] == pytest.approx(minima["gradient"]["step_size"], rel=0.1)


def test_more_settings_are_never_worse_than_one(numbers: tuple[dict, str, Path]) -> None:
    found = numbers[0]
    assert found["over"]["settings"] == "schedule"
    assert found["over"]["step_decay"] > 0
    assert found["over"]["value"] <= found["minima"]["marginal"]["grid"]["value"] + 0.5
    assert 0.001 < found["acceptance_step_size"] < 10
    rates = found["acceptance_per_image"]
    assert len(rates) == 6
    assert sum(rates) / 6 == pytest.approx(0.574, abs=0.03)
    assert 0 <= min(rates) < max(rates) <= 1


def test_what_was_measured_and_how_stands_in_the_file(numbers: tuple[dict, str, Path]) -> None:
    found, _, out = numbers
    assert (found["images"], found["steps"], found["noise"], found["latents"]) == (6, 3, True, 9)
    assert found[MADE_BY] == "shortrun tune"
    with Image.open(out / "step_size.png") as picture:
        assert picture.width > 1000
        assert picture.info[MADE_BY] == "shortrun tune"


def test_the_same_seed_gives_the_same_numbers_and_the_model_stays(run: Path, call: Call, tmp_path: Path) -> None:
    weights = (run / "checkpoint" / "model.safetensors").read_bytes()
    written = []
    for name in ("one", "two"):
        words = ("tune", run, "--n", 3, "--estimators", "marginal", "--seed", 5, "--out", tmp_path / name)
        assert call(*words)[0] == 0
        found = json.loads((tmp_path / name / "step_size.json").read_text())
        written.append({key: found[key] for key in ("curves", "minima", "acceptance_step_size")})
    assert written[0] == written[1]
    assert (run / "checkpoint" / "model.safetensors").read_bytes() == weights


def test_of_a_model_whose_steps_fall_it_says_the_first(run: Path, call: Call) -> None:
    said = {}
    for decay in (1.0, 0.25):
        learner = shortrun.ShortRun.from_pretrained(run / "checkpoint")
        learner.step_size.log_decay.fill_(math.log(decay))
        learner.save_pretrained(run / "checkpoint")
        words = ("tune", run, "--n", 3, "--step-sizes", 0.1, "--estimators", "path", "--tuners")
        code, out, _ = call(*words)
        assert code == 0
        assert ("falling to 0.25 of it" in out) == (decay < 1)
        said[decay] = json.loads((run / "tune" / "step_size.json").read_text())["acceptance_step_size"]
    # the adjusted steps are as long as the last one: the first is then about four times that
    assert said[0.25] > 2 * said[1.0]


def test_without_noise_only_the_conditional_density_is_there(run: Path, call: Call) -> None:
    code, _, error = call("tune", run, "--no-noise", "--n", 3)
    assert code == 2
    assert error.startswith("shortrun: error: --estimators: without noise")
    assert not (run / "tune").exists()
    code, said, _ = call("tune", run, "--no-noise", "--n", 3, "--estimators", "conditional")
    assert code == 0
    assert "acceptance" not in said


def test_step_sizes_of_which_none_gives_finite_chains_are_refused(run: Path, call: Call) -> None:
    code, _, said = call("tune", run, "--n", 3, "--step-sizes", 1e25, 1e30, "--tuners")
    assert code == 2
    assert said == "shortrun: error: --step-sizes: conditional is finite at none of them; write smaller ones\n"
    assert not (run / "tuned").exists()


def test_curves_alone_at_the_step_sizes_given(run: Path, call: Call) -> None:
    code, said, _ = call("tune", run, "--n", 3, "--step-sizes", 0.05, 0.2, "--tuners")
    assert code == 0
    assert "minimum by" not in said
    assert said.count("of those looked at") == 3
    found = json.loads((run / "tune" / "step_size.json").read_text())
    for curve in found["curves"].values():
        assert [point["step_size"] for point in curve] == pytest.approx([0.05, 0.2])
    assert found["minima"] == {"conditional": {}, "marginal": {}, "path": {}}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--estimators", "marginal", "marginal"], "--estimators: got 'marginal marginal'; write each one once"),
        (["--n", "0"], "--n: got 0"),
        (["--n", "61"], "--n: got 61; there are 60 test images"),
        (["--steps", "0"], "--steps: got 0"),
        (["--step-sizes", "0.1", "-0.2"], "--step-sizes: got -0.2"),
    ],
)
def test_refusals_leave_nothing_behind(run: Path, call: Call, words: list[str], complaint: str) -> None:
    code, _, error = call("tune", run, *words)
    assert (code, error.count("\n")) == (2, 1)
    assert complaint in error
    assert not (run / "tune").exists()


def test_a_file_of_other_making_is_not_overwritten(run: Path, call: Call) -> None:
    (run / "tune").mkdir()
    (run / "tune" / "step_size.json").write_text('{"mine": 1}')
    code, _, error = call("tune", run, "--n", 3)
    assert code == 2
    assert "not from shortrun tune" in error
    assert (run / "tune" / "step_size.json").read_text() == '{"mine": 1}'
