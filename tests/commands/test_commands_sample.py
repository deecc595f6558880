import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import shortrun
from shortrun.cli import main

Call = Callable[..., tuple[int, str, str]]
TINY = [
    *("--training.epochs", "2", "--training.picture-epochs", "9", "--training.precision", "float32"),
    *("--model.latents", "4", "5", "--model.width", "32", "--inference.steps", "3", "--data.test-limit", "60"),
]


@pytest.fixture(scope="module")
def mixed(plain: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny finished run with a learned prior and no fitted density."""
    run = tmp_path_factory.mktemp("runs") / "mixed"
    more = ["--model.prior", "mixture", "--model.components", "3", "--training.fit-images", "0"]
    # the prior is fitted for the first time after 200 updates
    more += ["--training.updates", "230", "--training.batch-size", "20"]
    assert main(["train", plain, "--out", str(run), *TINY, *more]) == 0
    return run


def drawn(path: Path) -> np.ndarray:
    with np.load(path / "samples.npz") as file:
        return file["images"]


def test_samples_come_from_what_was_asked_for_and_it_is_said(call: Call, trained: Path, tmp_path: Path) -> None:
    code, out, _ = call("sample", trained, "--n", 40, "--out", tmp_path / "prior")
    assert code == 0
    assert "latents from the prior, N(0, I)" in out
    assert call("sample", trained, "--n", 40, "--from", "prior", "--out", tmp_path / "again")[0] == 0
    code, out, _ = call("sample", trained, "--n", 40, "--from", "fitted", "--out", tmp_path / "fitted")
    assert code == 0
    record = json.loads((trained / "result.json").read_text())["latent_density"]
    assert "latents from the fitted density" in out
    assert f"{record['components']} normal" in out
    assert "fitted to the latents of 1437 training images" in out
    gain = record["nats"] - record["prior_nats"]
    assert f"{abs(gain):.1f} nats {'better' if gain > 0 else 'worse'} than the prior" in out
    assert np.array_equal(drawn(tmp_path / "prior"), drawn(tmp_path / "again"))
    assert not np.array_equal(drawn(tmp_path / "prior"), drawn(tmp_path / "fitted"))
    expected = shortrun.load(trained).sample(40, torch.Generator().manual_seed(0), "fitted")
    pixels = ((expected + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    assert np.array_equal(drawn(tmp_path / "fitted"), pixels)


def test_a_learned_prior_is_named(call: Call, mixed: Path, tmp_path: Path) -> None:
    code, out, _ = call("sample", mixed, "--n", 4, "--out", tmp_path)
    assert code == 0
    assert "latents from the prior, a mixture of 3 normals fitted to the latents" in out


def test_what_is_not_there_is_refused(call: Call, mixed: Path, run: Path, tmp_path: Path) -> None:
    code, _, err = call("sample", mixed, "--from", "fitted", "--out", tmp_path / "a")
    assert code == 2
    assert err.startswith(f"shortrun: error: --from: got 'fitted'; {mixed} has no fitted density")
    assert not (tmp_path / "a").exists()
    (run / "checkpoint" / "latent_density.safetensors").write_bytes(b"damage")
    code, _, err = call("sample", run, "--out", tmp_path / "a")
    assert code == 2
    assert "latent_density.safetensors: damaged" in err


def test_a_run_with_a_learned_prior_is_tuned(call: Call, mixed: Path, tmp_path: Path) -> None:
    words = ["--n", 4, "--step-sizes", "0.1", "0.2", "--tuners", "grid", "--over", "schedule", "--out", tmp_path]
    code, out, err = call("tune", mixed, *words)
    assert code == 0, err
    assert out.count("minimum by grid") == 3
    assert "acceptance of 57.4% at s = " in out


def test_a_saved_model_keeps_its_density(call: Call, trained: Path, tmp_path: Path) -> None:
    shortrun.load(trained).save_pretrained(tmp_path / "saved")
    copied = Path(shutil.copytree(tmp_path / "saved", tmp_path / "copied"))
    code, out, _ = call("sample", copied, "--n", 3, "--from", "fitted")
    assert code == 0
    assert "fitted density" in out
