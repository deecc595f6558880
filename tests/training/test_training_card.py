"""The card beside a saved model: what it says, that its snippet runs, and what is uploaded."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi, ModelCard

import shortrun
from shortrun import InputError, ModelConfig, ShortRun, ShortRunEstimator
from shortrun.learners import Learner

RUNS = Path(__file__).parent.parent / "runs_before"


def saved(learner: Learner, folder: Path, **said: Any) -> str:
    learner.save_pretrained(folder, model_card_kwargs=said)
    return (folder / "README.md").read_text(encoding="utf-8")


def snippet(card: str) -> str:
    (found,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    return found


def test_a_card_says_data_figures_with_conditions_settings_time_and_limits(tmp_path: Path) -> None:
    words = saved(shortrun.load("pretrained:digits"), tmp_path)
    result = json.loads((Path(shortrun.__file__).parent / "pretrained" / "digits" / "result.json").read_text())
    for part in (
        "| source | digits |",
        "| training images | 1,437 |",
        "| test images | 360 |",
        "| size | 1x8x8 (channels x height x width) |",
        "| pixels of the source | 17 levels |",
        "| licence of the images | CC BY 4.0",
        f"| mse | {result['mse']['value']:.4g}",
        "| measured | split test, images 360, learner short_run, steps 32, steps_while_learning 8",
        "| processor time | 50.7 s |",
        "training.learning_rate = 0.001",
        "Whether its samples repeat training images has not been measured.",
    ):
        assert part in words, part
    head = ModelCard(words).data.to_dict()
    assert head["library_name"] == "shortrun"
    assert "langevin" in head["tags"]
    assert str(Path.cwd()) not in words


def test_the_snippet_of_a_card_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = saved(shortrun.load(RUNS / "finished"), tmp_path / "model")
    monkeypatch.chdir(tmp_path / "model")
    names: dict[str, Any] = {}
    exec(snippet(words), names)
    assert names["images"].shape == (16, 1, 8, 8)
    assert names["z"].shape == (16, 5)


def test_a_model_that_is_loaded_and_saved_again_has_the_same_card(tmp_path: Path) -> None:
    run = Path(shutil.copytree(RUNS / "finished", tmp_path / "run"))
    learner = shortrun.load(run)
    first = saved(learner, tmp_path / "one")
    shutil.rmtree(run)
    assert saved(shortrun.load(tmp_path / "one"), tmp_path / "two") == first
    assert "- It takes and makes" in saved(learner, tmp_path / "gone")  # its run is gone: only that is not told


def test_a_path_stays_on_this_machine_and_what_is_unknown_is_said_so(tmp_path: Path) -> None:
    run = Path(shutil.copytree(RUNS / "vae", tmp_path / "run"))
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace('source = "digits"', f'source = "{tmp_path}/secret/cats"'))
    learner = shortrun.load(run)
    words = saved(learner, tmp_path / "model")
    assert "| source | cats |" in words
    assert "| licence of the images | unknown |" in words
    assert str(tmp_path) not in words + (tmp_path / "model" / "record.json").read_text()
    told = saved(learner, tmp_path / "told", data_license="my own", license="mit", notes="Made for a test.")
    assert "| licence of the images | my own |" in told
    assert "Made for a test." in told
    assert ModelCard(told).data.to_dict()["license"] == "mit"


def test_a_model_of_which_nothing_is_known_has_a_card_too(tmp_path: Path) -> None:
    words = saved(ShortRun.build((1, 4, 4), ModelConfig(latents=(2,), width=8)), tmp_path / "new")
    assert "None are recorded." in words
    assert "| source | unknown |" in words
    assert not (tmp_path / "new" / "record.json").exists()
    unfinished = saved(shortrun.load(RUNS / "interrupted"), tmp_path / "unfinished")
    assert "None are recorded." in unfinished
    assert "| source | digits |" in unfinished


def test_a_damaged_result_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    run = Path(shutil.copytree(RUNS / "finished", tmp_path / "run"))
    (run / "result.json").write_text('{"mse": ')
    learner = shortrun.load(run)
    with pytest.raises(InputError, match=r"result.json: damaged"):
        learner.save_pretrained(tmp_path / "model")
    assert not list((tmp_path / "model").iterdir())


@pytest.mark.filterwarnings("ignore:test images are rebuilt")
def test_what_an_estimator_learned_says_that_there_were_no_test_images(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).random((20, 16))
    model = ShortRunEstimator(latents=(2,), width=8, epochs=1, steps=1, test_steps=1, device="cpu").fit(pixels)
    words = saved(model.learner_, tmp_path)
    assert "| source | X |" in words
    assert "Its figures are of images that it learned from" in words


def test_an_upload_has_a_card_that_names_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded: dict[str, bytes] = {}

    def create_repo(_: HfApi, **arguments: Any) -> SimpleNamespace:
        return SimpleNamespace(repo_id=arguments["repo_id"])

    def upload_folder(_: HfApi, *, folder_path: Path, **__: Any) -> str:
        uploaded.update({path.name: path.read_bytes() for path in Path(folder_path).iterdir()})
        return "https://huggingface.co/someone/digits"

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    learner = shortrun.load("pretrained:digits")
    learner.push_to_hub("someone/digits", model_card_kwargs={"license": "apache-2.0"})
    card = uploaded["README.md"].decode()
    assert set(uploaded) == {
        "README.md",
        "config.json",
        "latent_density.safetensors",
        "model.safetensors",
        "record.json",
    }
    assert 'shortrun.Learner.from_pretrained("someone/digits")' in snippet(card)
    assert ModelCard(card).data.to_dict()["license"] == "apache-2.0"
    assert card.split("---")[2].strip().startswith("# digits")


def test_the_snippet_of_an_upload_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    learner = shortrun.load("pretrained:digits")
    learner.save_pretrained(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: str(tmp_path))
    names: dict[str, Any] = {}
    exec(snippet(str(learner.generate_model_card(repo_id="someone/digits"))), names)
    assert torch.isfinite(names["images"]).all()
    assert names["learner"].record() == learner.record()  # pyright: ignore[reportOptionalCall]
