"""shortrun score, and runs that a class was left out of."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import shortrun
from shortrun.data import read_images

Call = Callable[..., tuple[int, str, str]]


def table(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_own_images_are_scored_by_file(call: Call, trained: Path, own: Path, tmp_path: Path) -> None:
    (own / "deep").mkdir()
    (own / "a.png").rename(own / "deep" / "z.png")
    out = tmp_path / "out"
    words = ["score", trained, "--images", own, "--out", out, "--by", "error", "bound", "--importance-samples", 3]
    code, said, err = call(*words)
    assert (code, err) == (0, "")
    head, *rows = table(out / "scores.csv")
    assert head == ["image", "error", "bound", "failed"]
    assert [row[0] for row in rows] == ["b.png", "c.png", "deep/z.png"]
    with np.load(out / "scores.npz") as made:
        assert [[float(row[1]), float(row[2])] for row in rows] == np.stack([made["error"], made["bound"]], 1).tolist()
    rng = torch.Generator().manual_seed(0)
    found = shortrun.anomaly_scores(
        shortrun.load(trained), read_images(own), rng, ["error", "bound"], importance_samples=3
    )
    assert found.scores["error"].tolist() == [float(row[1]) for row in rows]
    assert "larger is stranger; mean of 4 times 3 steps, with noise, seed 0" in said
    assert call(*words)[0] == 0, "its own files may be written again"
    (out / "scores.npz").unlink()
    code, _, err = call(*words)
    assert code == 2
    assert "scores.csv is there and not from shortrun score" in err


def test_test_images_are_scored_with_their_labels(call: Call, trained: Path, tmp_path: Path) -> None:
    assert call("score", trained, "--n", 5, "--out", tmp_path, "--chains", 1)[0] == 0
    head, *rows = table(tmp_path / "scores.csv")
    assert head == ["image", "joint", "error", "prior", "failed", "labels"]
    assert [row[0] for row in rows] == ["0", "1", "2", "3", "4"]
    labels = shortrun.load_dataset("digits").test.labels
    assert labels is not None
    assert [int(row[-1]) for row in rows] == labels[:5].tolist()


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--by", "nope"], "--by: got 'nope'; choose one of bound, error, joint, prior"),
        (["--chains", 0], "--chains: got 0; "),
        (["--importance-samples", 0], "--importance-samples: got 0; "),
        (["--images", "EMPTY"], "--images: "),
        (["--n", 10_000], "--n: got 10000; "),
    ],
)
def test_what_cannot_be_used_is_one_line(
    call: Call, trained: Path, tmp_path: Path, more: list[object], line: str
) -> None:
    (tmp_path / "empty").mkdir()
    more = [tmp_path / "empty" if word == "EMPTY" else word for word in more]
    code, _, err = call("score", trained, *more, "--out", tmp_path / "out")
    assert code == 2
    assert err.startswith(f"shortrun: error: {line}")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_run_keeps_what_was_left_out(call: Call, plain: str, tmp_path: Path) -> None:
    small = ["--model.latents", 4, "--model.width", 16, "--inference.steps", 2, "--training.updates", 2]
    small += ["--training.fit-images", 0, "--training.precision", "float32", "--data.test-limit", 60]
    run = tmp_path / "run"
    assert call("train", plain, "--data.leave-out", 4, 9, "--out", run, *small)[0] == 0
    assert json.loads((run / "origin.json").read_text())["settings"]["data.leave_out"] == [4, 9]
    assert "digits, without 4 9" in call("info", run)[1]
    assert call("score", run, "--out", tmp_path / "scores")[0] == 0
    with np.load(tmp_path / "scores" / "scores.npz") as made:
        assert set(made["labels"].tolist()) == {0, 1, 2, 3, 5, 6, 7, 8}
    code, _, err = call("train", plain, "--data.leave-out", "cat", "--out", tmp_path / "none", *small)
    assert (code, err) == (2, "shortrun: error: --data.leave-out: got 'cat'; digits has the classes 0 to 9\n")
    assert not (tmp_path / "none").exists()
