"""The experiment on incomplete images, as a user calls it, on models that take seconds."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from shortrun.cli import main
from shortrun.config import load_config
from shortrun.experiments.incomplete import Arguments, masks, said

TINY = [
    *("--small", "--budget", "1epochs", "--samples", "40", "--training.fit-images", "100", "--data.test-limit", "30"),
    *("--data.train-limit", "200", "--model.width", "8", "--model.latents", "2", "3", "--training.batch-size", "50"),
    *("--training.precision", "float32", "--images", "12", "--completions", "2", "--missing", "0.5"),
    *("--learners", "short_run", "vae", "vae,encoder.missing=mask,encoder.draws=20"),
]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    pytest.importorskip("torchmetrics")
    monkeypatch.setenv("SHORTRUN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def test_it_measures_all_learners_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["experiment", "incomplete", *TINY, "--out", str(tmp_path)]
    assert main(words) == 0
    table = (tmp_path / "incomplete.md").read_text().splitlines()
    assert [line.split(" | ")[1:3] for line in table[2:]] == [
        ["whole images", "short_run"],
        ["whole images", "vae"],
        ["50% hidden", "short_run"],
        ["50% hidden", "vae, mean-filled"],
        ["50% hidden", "vae, masked input, draws 20"],
    ]
    found = json.loads((tmp_path / "incomplete.json").read_text())
    assert found["images"] == 12
    for each in found["found"]:
        assert 0 < each["mean"][0] <= each["one"][0] < 1
        assert len(each["train"]) == (1 if each["learned_at"] else 0)
        assert each["fid_prior"][0] > 0
    picture = Image.open(tmp_path / "incomplete.png")
    assert picture.height > 5 * 48
    assert "vae,encoder.missing=mask" in Arguments().learners
    (tmp_path / "records" / "learned_0.5" / "vae" / "completed_0.5_seed_0.json").unlink()
    capsys.readouterr()
    assert main(words) == 0
    again = capsys.readouterr().out
    assert "50% hidden, vae, mean-filled from 50% hidden, seed 0" in again
    assert again.count("seed 0") == 1, "what is kept is neither trained nor measured again"
    assert (tmp_path / "incomplete.md").read_text().splitlines() == table
    for options, message in [
        (["--data.missing", "0.3"], "write --missing"),
        (["--missing", "0.5", "0.5"], "write different shares"),
        (["--missing", "0.99"], "a share from 0 to 0.95"),
        (["--learners", "glow"], "glow does not learn from incomplete images"),
    ]:
        assert main([*words[:-2], *options, "--out", str(tmp_path / "none")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_all_learners_complete_the_same_images() -> None:
    x = torch.zeros(3, 1, 8, 8)
    assert masks(x, 0.5, "pixels").equal(masks(x, 0.5, "pixels"))
    assert masks(x, 0.5, "blocks").sum(dim=(1, 2, 3)).tolist() == [28.0] * 3
    configs = {"vae": load_config("digits", "vae"), "short_run": load_config("digits")}
    wanted = Arguments(shape="blocks").at(0.3, configs)
    assert {config.data.missing_shape for config in wanted.values()} == {"blocks"}
    assert said("vae", wanted["vae"], 0.3) == "vae, mean-filled"
    assert said("vae", configs["vae"], 0.0) == "vae"
