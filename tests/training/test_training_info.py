import json
from pathlib import Path

import pytest
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from task_learners import small_learner

from shortrun.errors import InputError
from shortrun.training import info

RESULT = {
    "mse": {"value": 0.0123456, "pixels": "[0, 1]", "split": "test", "steps": 25, "noise": True},
    "second_moment": {"value": 1.1, "layers": [1.0, 1.25], "split": "test", "steps": 25, "noise": True},
    "training": {"seconds": 61.2, "updates": 2800},
    "machine": {"cores": 2},
    "date": "2025-01-01",
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder as training leaves it at its start."""
    run = tmp_path / "run"
    small_learner().save_pretrained(run / "checkpoint")
    (run / "config.toml").write_text(
        '[data]\nsource = "digits"\n[model]\nlatents = [2, 3, 4]\nwidth = 16\n[inference]\nsteps = 7\nstep_size = 0.1\n'
        "noise = false\n[training]\nepochs = 3\nbatch_size = 50\n"
    )
    return run


def write_position(run: Path, **values: int) -> None:
    path = run / "checkpoint" / "training.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={"position": json.dumps(values)})


def test_an_unfinished_run_says_where_it_is_and_how_to_go_on(run: Path) -> None:
    write_position(run, step=17)
    text = info(run)
    for words in (
        "step 17;",
        f"shortrun train --resume {run}",
        "7 steps of size 0.1, without noise",
        "2 3 4",
        "digits",
    ):
        assert words in text
    write_position(run, step=17, total=84)
    assert "step 17 of 84;" in info(run)


def test_weights_are_counted_without_reading_them(run: Path) -> None:
    count = sum(weights.numel() for weights in small_learner().parameters())
    assert f"{count:,} weights" in info(run)


def test_a_finished_run_says_its_figures_with_their_conditions(run: Path) -> None:
    (run / "result.json").write_text(json.dumps(RESULT))
    (run / "figures").mkdir()
    for name in ("samples.png", "reconstructions.png"):
        (run / "figures" / name).touch()
    text = info(run)
    lines = {line.strip().split("  ")[0]: line for line in text.splitlines()[1:]}
    assert "0.01235 (pixels [0, 1])" in lines["reconstruction error"]
    assert "1.1 (layers 1 1.25)" in lines["latents' variance"]
    assert lines["latents' variance"].endswith("; 1 in N(0, I); second_moment in files")
    assert lines["measured"].split("  ")[-1].strip() == "split test, steps 25, noise on"
    assert "finished, 2800 updates in 61 s" in lines["state"]
    assert lines["pictures"].endswith(str(run / "figures" / "samples.png"))
    assert str(run / "figures" / "reconstructions.png") in lines, "a path a line"
    assert "--resume" not in text
    assert "cores" not in text


def test_a_saved_model_has_no_state(run: Path) -> None:
    text = info(run / "checkpoint")
    assert "weights" in text
    assert "state" not in text


def test_what_is_no_run_or_is_damaged_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: not a folder; "):
        info(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"not a run \(no config.toml in it\); "):
        info(tmp_path)
    for damage in ("{", "[]"):
        (run / "result.json").write_text(damage)
        with pytest.raises(InputError, match=r"result\.json: damaged"):
            info(run)
    (run / "result.json").unlink()
    state = run / "checkpoint" / "training.safetensors"
    state.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"training\.safetensors: damaged"):
        info(run)
    save_arrays({}, state)  # no metadata
    with pytest.raises(InputError, match=r"training\.safetensors: damaged"):
        info(run)
    state.unlink()
    (run / "checkpoint" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"model\.safetensors: damaged"):
        info(run)
