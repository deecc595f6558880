"""What a run began with, who works on it, and where it lies: nothing goes on with something else unsaid."""

import errno
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import shortrun
from shortrun import Config, Dataset, InferenceConfig, InputError, ModelConfig, TrainingConfig, load_dataset
from shortrun.cli import main
from shortrun.training import resume, train
from shortrun.training.lock import locked
from shortrun.training.run_folder import RunFolder, create_run

CONFIG = Config(
    model=ModelConfig(latents=(2,), width=8),
    inference=InferenceConfig(steps=2),
    training=TrainingConfig(updates=6, batch_size=20, fit_images=0, threads=1),
)


@pytest.fixture
def digits() -> Dataset:
    return load_dataset("digits", train_limit=60, test_limit=20)


def stop(moment: object) -> None:
    raise KeyboardInterrupt


def stopped(out: Path, dataset: Dataset | None = None, config: Config = CONFIG) -> Path:
    """Return a run that was stopped after its first update."""
    with pytest.raises(KeyboardInterrupt):
        train(config, out, device="cpu", dataset=dataset, watch=stop)
    return out


def refused(call: object, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        call()  # pyright: ignore[reportCallIssue]
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_goes_on_with_its_own_images_only(tmp_path: Path, digits: Dataset) -> None:
    run = stopped(tmp_path / "run", digits)
    fewer = replace(digits, train=digits.train.take(40))
    refused(lambda: resume(run, device="cpu", dataset=fewer), "data.source", "40 for training", "60 for training")
    other = replace(digits, test=digits.test.select(torch.arange(19, -1, -1)))
    refused(
        lambda: resume(run, device="cpu", dataset=other), "60 for training and 20 for testing as before, but others"
    )
    assert resume(run, device="cpu", dataset=digits) == run


def test_commands_refuse_a_folder_whose_images_have_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "images.npz"
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(source, x=images)
    run = tmp_path / "run"
    small = ["--model.latents", "2", "--model.width", "8", "--training.updates", "3", "--training.batch-size", "20"]
    small += ["--inference.steps", "2", "--inference.test-steps", "2", "--training.fit-images", "0"]
    assert main(["train", "digits", "--data.source", str(source), "--out", str(run), *small]) == 0
    assert main(["reconstruct", str(run), "--n", "2", "--out", str(tmp_path / "a")]) == 0
    np.savez(source, x=images[10:])
    for words in (["reconstruct", str(run), "--n", "2"], ["evaluate", str(run)]):
        capsys.readouterr()
        assert main([*words, "--out", str(tmp_path / "b")]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "learned from other images" in err
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("content", ["[1]", '{"settings": 3}', '{"images": {"train": 0.5}}', '{"images": 1.5}', "{"])
def test_a_damaged_record_of_the_beginning_is_refused(content: str, tmp_path: Path, digits: Dataset) -> None:
    run = stopped(tmp_path / "run", digits)
    (run / "origin.json").write_text(content)
    refused(lambda: resume(run, device="cpu", dataset=digits), "origin.json: damaged (")


def test_a_run_goes_on_with_its_own_settings_only(tmp_path: Path, digits: Dataset) -> None:
    run = stopped(tmp_path / "run", digits)
    text = (run / "config.toml").read_text()
    before, after = text.split("[training]")  # an energy prior has a learning rate of its own
    changed = after.replace("learning_rate = 0.001", "learning_rate = 0.5")
    (run / "config.toml").write_text(f"{before}[training]{changed}")
    refused(
        lambda: resume(run, device="cpu", dataset=digits),
        "config.toml: training.learning_rate is 0.5, the run began with 0.001; put that back",
    )
    (run / "config.toml").write_text(text)
    assert resume(run, device="cpu", dataset=digits) == run


def test_images_may_be_moved(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "here.npz", x=images)
    config = replace(CONFIG, data=replace(CONFIG.data, source=str(tmp_path / "here.npz")))
    run = stopped(tmp_path / "run", None, config)
    (tmp_path / "here.npz").rename(tmp_path / "there.npz")
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace("here.npz", "there.npz"))
    assert resume(run, device="cpu") == run


def test_a_run_of_before_has_no_origin_and_goes_on(tmp_path: Path, digits: Dataset) -> None:
    run = stopped(tmp_path / "run", digits)
    (run / "origin.json").unlink()
    assert resume(run, device="cpu", dataset=digits) == run


HOLD = """
import sys, time
from pathlib import Path
from shortrun.training.lock import locked
from shortrun.training.run_folder import RunFolder
with locked(RunFolder(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(600)
"""


def test_one_process_at_a_time_works_on_a_run_and_a_kill_leaves_no_lock(tmp_path: Path, digits: Dataset) -> None:
    run = stopped(tmp_path / "run", digits)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        refused(lambda: resume(run, device="cpu", dataset=digits), f"process {holder.pid} is training this run")
        holder.kill()
    assert resume(run, device="cpu", dataset=digits) == run
    assert not (run / ".holder").exists()


def test_two_runs_that_begin_in_one_second_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made: list[Path] = []
    threads = [threading.Thread(target=lambda: made.append(create_run(CONFIG, "digits", None).path)) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(set(made)) == 6
    assert all((path / "config.toml").is_file() for path in made)


def test_what_a_kill_leaves_before_the_run_began_is_taken_up(tmp_path: Path, digits: Dataset) -> None:
    out = tmp_path / "run"
    (out / "figures").mkdir(parents=True)
    (out / ".config.partial.toml").write_text("[da")
    assert train(CONFIG, out, device="cpu", dataset=digits) == out
    refused(lambda: train(CONFIG, out, device="cpu", dataset=digits), "is not empty")


@pytest.mark.parametrize("name", ["checkpoint", "figures", "metrics.jsonl", ".lock", ".holder"])
def test_a_link_in_a_run_is_not_written_through(name: str, tmp_path: Path, digits: Dataset) -> None:
    run = stopped(tmp_path / "run", digits)
    outside = tmp_path / "outside"
    if (run / name).exists():
        (run / name).rename(outside)
    else:
        outside.mkdir()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("outside/**/*")}
    (run / name).symlink_to(outside)
    refused(lambda: resume(run, device="cpu", dataset=digits), f"{name}: a link; put what it leads to in its place")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("outside/**/*")} == before


def test_a_link_of_a_temporary_name_is_replaced(tmp_path: Path, digits: Dataset) -> None:
    run = stopped(tmp_path / "run", digits)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("checkpoint/.training.partial.safetensors", "checkpoint/.model.partial.safetensors"):
        (run / name).symlink_to(victim)
    (run / ".result.partial.json").symlink_to(victim)
    assert resume(run, device="cpu", dataset=digits) == run
    assert victim.read_text() == "precious"


def test_files_have_the_rights_that_the_umask_gives(tmp_path: Path, digits: Dataset) -> None:
    before = os.umask(0o022)
    try:
        run = train(CONFIG, tmp_path / "run", device="cpu", dataset=digits)
    finally:
        os.umask(before)
    files = [
        path for path in run.rglob("*") if path.is_file() and path.suffix in (".json", ".toml", ".safetensors", ".png")
    ]
    assert len(files) >= 7
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o644"}


def test_a_density_that_cannot_be_fitted_is_left_out_with_its_reason(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("Input X contains NaN.\nmore")

    monkeypatch.setattr("shortrun.training.report.fit_latent_density", fail)
    config = replace(CONFIG, training=replace(CONFIG.training, fit_images=30))
    run = train(config, tmp_path / "run", device="cpu", dataset=digits)
    result = json.loads((run / "result.json").read_text())
    assert result["latent_density"] is None
    assert result["latent_density_left_out"] == "Input X contains NaN. more"
    assert "left out: Input X contains NaN. more" in shortrun.info(run)


def test_a_full_disk_ends_training_in_a_line_that_says_how_to_go_on(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    run = stopped(tmp_path / "run", digits)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        refused(
            lambda: resume(run, device="cpu", dataset=digits),
            "No space left on device",
            f"then go on with: shortrun train --resume {run}",
        )
    assert resume(run, device="cpu", dataset=digits) == run


def test_training_gives_back_the_threads_that_it_took(tmp_path: Path, digits: Dataset) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        train(CONFIG, tmp_path / "run", device="cpu", dataset=digits)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_holder_of_a_lock_may_be_unknown(tmp_path: Path) -> None:
    with locked(RunFolder(tmp_path)):
        (tmp_path / ".holder").unlink()
        refused(lambda: locked(RunFolder(tmp_path)).__enter__(), "another process is training this run")


@pytest.mark.parametrize("name", [".lock", ".holder", "figures"])
def test_a_folder_with_a_link_is_not_empty(name: str, tmp_path: Path, digits: Dataset) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path)
    refused(lambda: train(CONFIG, tmp_path / "run", device="cpu", dataset=digits), "is not empty")


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["train", "digits", "--help"], ["train", "digits"]])
def test_output_that_nobody_reads_is_no_error(words: list[str], tmp_path: Path) -> None:
    more = ["--out", str(tmp_path / "run"), "--training.updates", "3", "--training.threads", "1"]
    command = [sys.executable, "-m", "shortrun", *words, *(more if words == ["train", "digits"] else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as done:
        assert done.stdout is not None
        assert done.stderr is not None
        done.stdout.close()  # what `head` does when it has enough
        said = done.stderr.read()
    assert (done.returncode, said) == (141, "")
