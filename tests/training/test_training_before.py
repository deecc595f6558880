"""Run folders and checkpoints that an earlier version wrote still load, resume and can be used (tests/runs_before)."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import shortrun
from shortrun.cli import main

BEFORE = Path(__file__).parent.parent / "runs_before"
KINDS = {"finished": "ShortRun", "persistent": "Persistent", "vae": "Vae"}
RESUMED = {"interrupted": ("finished", 0.086792)}
"""The unbroken run, and the test MSE to which the version that wrote the interrupted one took it."""
LOST = {"persistent_interrupted": "persistent"}
"""A mixture prior was learned by gradient then and is fitted by sums now: such a run cannot go on as it began."""
INTERRUPTED = {"interrupted": "finished", **LOST}


@pytest.fixture
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy that may be written to."""
    return Path(shutil.copytree(BEFORE / request.param, tmp_path / request.param))


def records(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("run", RESUMED, indirect=True)
def test_an_interrupted_run_goes_on_to_where_it_would_have_come(run: Path) -> None:
    name, expected = RESUMED[run.name]
    assert main(["train", "--resume", str(run), "--device", "cpu"]) == 0
    assert json.loads((run / "result.json").read_text())["mse"]["value"] == pytest.approx(expected, abs=1e-4)
    unbroken = records(BEFORE / name)
    assert len(records(run)) == len(unbroken)
    # the line at update 16 is the mean over two updates before the stop and two after it
    for line, other in zip(records(run), unbroken, strict=True):
        assert line == pytest.approx(other, rel=1e-2)


@pytest.mark.parametrize("run", LOST, indirect=True)
@pytest.mark.parametrize("store", ["memory", "disk"])
def test_a_run_whose_prior_was_learned_by_gradient_is_not_resumed(
    run: Path, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run / "config.toml"
    config.write_text(config.read_text().replace('store = "memory"', f'store = "{store}"'))
    assert f'store = "{store}"' in config.read_text()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main(["train", "--resume", str(run), "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"shortrun: error: {run / 'checkpoint' / 'training.safetensors'}: of a model with other")
    assert "generator.prior.logits" in said
    assert said.endswith("; finish the run with the version that began it, or train anew\n")
    assert said.count("\n") == 1
    (run / ".lock").unlink()  # empty, of the process that looked
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("run", KINDS, indirect=True)
def test_a_finished_run_is_left_as_it_is(run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main(["train", "--resume", str(run)]) == 0
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("run", ["finished", "vae"], indirect=True)
def test_a_finished_run_whose_figures_are_gone_gets_them_again(run: Path) -> None:
    mse = json.loads((run / "result.json").read_text())["mse"]
    (run / "result.json").unlink()
    assert main(["train", "--resume", str(run), "--device", "cpu"]) == 0
    again = json.loads((run / "result.json").read_text())["mse"]
    # the group under which a figure stands is said since
    assert again == {**mse, "group": "reconstructions", "value": pytest.approx(mse["value"], abs=1e-4)}


@pytest.mark.parametrize("run", [*KINDS, *INTERRUPTED], indirect=True)
def test_it_loads_and_draws_images(run: Path) -> None:
    learner = shortrun.load(run)
    kind = KINDS[INTERRUPTED.get(run.name, run.name)]
    assert type(learner).__name__ == kind
    assert learner.sample(3, torch.Generator().manual_seed(0)).shape == (3, 1, 8, 8)


@pytest.mark.parametrize("run", KINDS, indirect=True)
def test_every_use_of_a_model_takes_it(run: Path) -> None:
    for command in ("sample", "reconstruct", "encode", "inpaint", "interpolate", "traverse"):
        assert main([command, str(run), "--n", "2"]) == 0, command
    assert main(["sample", str(run), "--n", "2", "--from", "fitted", "--out", str(run / "fitted")]) == 0


@pytest.mark.parametrize("run", [*KINDS, *INTERRUPTED], indirect=True)
def test_info_tells_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(run)]) == 0
    said = capsys.readouterr().out
    assert ("checkpoint at step 14 of 24" if run.name in INTERRUPTED else "finished, 24 updates") in said


@pytest.mark.parametrize("run", KINDS, indirect=True)
def test_evaluate_measures_it(run: Path) -> None:
    words = ["--samples", "20", "--likelihood-images", "2", "--temperatures", "5", "--importance-samples", "10"]
    assert main(["evaluate", str(run), *words, "--out", str(run / "measured")]) == 0
    assert list((run / "measured").iterdir())
