"""What the tabs of the page do, without a page."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from task_learners import images, rng, small_learner
from torch import Tensor

from shortrun.config import ModelConfig
from shortrun.errors import InputError
from shortrun.figures.images import to_bytes
from shortrun.learners import ShortRun, Vae
from shortrun.pages.play import MOST_COLUMNS, Play, View
from shortrun.pages.strokes import read_strokes
from shortrun.pages.uploads import SIDE, read_upload
from shortrun.tasks import inpaint

H, W = 6, 5
PAINTED = "7,3,20"
"""Of 30 pixels, the eighth to the tenth."""


@pytest.fixture
def play() -> Play:
    return Play(small_learner(), images(4))


def mask() -> Tensor:
    observed = torch.ones(H * W)
    observed[7:10] = 0
    return observed.view(1, 1, H, W)


def runs(painted: Tensor) -> str:
    """Return what the browser sends of a painted picture."""
    lengths, value = [0], False
    for each in painted.flatten().tolist():
        if each != value:
            lengths.append(0)
            value = each
        lengths[-1] += 1
    return ",".join(map(str, lengths))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31))
def test_strokes_come_back_as_they_were_painted(h: int, w: int, seed: int) -> None:
    painted = torch.rand(h, w, generator=rng(seed)) > 0.5
    painted[0, 0] = True
    assert torch.equal(read_strokes(runs(painted), (h, w)), painted)


@pytest.mark.parametrize(
    "words", ["", "4", "0,5", "1,2,2", "-1,5", "1,,3", "1;3", "a", "4" * 9999, "9" * 3_000_000, "１,3"]
)
def test_other_strokes_are_refused(words: str) -> None:
    with pytest.raises(InputError, match="picture"):
        read_strokes(words, (2, 2))


def test_what_is_painted_over_is_filled_in_along_the_chain(play: Play) -> None:
    views = list(play.inpaint(2, None, PAINTED, 30, 5, 7))
    assert [view.words for view in (views[0], views[-1])] == ["Step 0 of 30.", "Step 30 of 30."]
    assert 10 < len(views) < 20
    wanted = inpaint(play.learner, play.x[1:2], mask(), torch.Generator().manual_seed(7), completions=5, steps=30)
    given, mean, deviation, singles = (picture for _, picture in views[-1].pictures)
    assert np.array_equal(np.asarray(mean), to_bytes(wanted.mean)[0, ..., 0])
    assert given.size == mean.size == deviation.size == (W, H)
    assert singles.width > 5 * 40
    whole = to_bytes(play.x[1:2])[0, ..., 0]
    seen = mask()[0, 0].numpy() > 0.5
    for view in views:
        assert np.array_equal(np.asarray(view.pictures[1][1])[seen], whole[seen])
        assert (np.asarray(view.pictures[2][1])[seen] == 0).all()


def test_the_seed_decides(play: Play) -> None:
    def last(seed: int) -> bytes:
        *_, view = play.inpaint(1, None, PAINTED, 5, 4, seed)
        return view.pictures[1][1].tobytes()

    assert last(3) == last(3) != last(4)


def test_two_visitors_do_not_meet(play: Play) -> None:
    alone = [list(play.inpaint(number, None, PAINTED, 6, 3, number)) for number in (1, 2)]
    both = zip(*(play.inpaint(number, None, PAINTED, 6, 3, number) for number in (1, 2)), strict=True)
    for one, other in zip(zip(*alone, strict=True), both, strict=True):
        assert [pixels(view) for view in one] == [pixels(view) for view in other]


def pixels(view: View) -> list[bytes]:
    return [picture.tobytes() for _, picture in view.pictures]


def test_all_of_an_image_may_be_painted_over(play: Play) -> None:
    *_, view = play.inpaint(1, None, "0,30", 3, 2, 0)
    assert len(view.pictures) == 4


def test_a_chain_that_fails_is_said(play: Play) -> None:
    learner = play.learner
    assert isinstance(learner, ShortRun)
    learner.step_size.scale_from(1.0, 1e30)
    *_, view = play.inpaint(1, None, PAINTED, 2, 3, 0)
    assert "3 chains stayed non-finite" in view.words


def test_a_learner_without_chains_fills_in_at_once() -> None:
    learner = Vae.build((1, H, W), ModelConfig(latents=(2, 3), width=8)).eval()
    (view,) = Play(learner, images(2)).inpaint(1, None, PAINTED, 7, 2, 0)
    assert view.words == "Done."


def test_a_picture_of_ones_own_is_filled_in_at_its_own_size(play: Play, tmp_path: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (30, 47, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "own.png")
    grey = np.asarray(Image.fromarray(photo).convert("L"))
    painted = torch.zeros(30, 47, dtype=torch.bool)
    painted[10:20, 5:30] = True
    assert np.array_equal(np.asarray(play.canvas(1, str(tmp_path / "own.png"))), grey)
    for view in play.inpaint(1, str(tmp_path / "own.png"), runs(painted), 5, 3, 0):
        made = np.asarray(view.pictures[1][1])
        assert np.array_equal(made[~painted.numpy()], grey[~painted.numpy()])
        assert (made[painted.numpy()] != grey[painted.numpy()]).any()
    with pytest.raises(InputError, match="all of it is painted over"):
        list(play.inpaint(1, str(tmp_path / "own.png"), f"0,{30 * 47}", 5, 3, 0))
    with pytest.raises(InputError, match="another picture"):
        list(play.inpaint(1, str(tmp_path / "own.png"), PAINTED, 5, 3, 0))


def test_an_upload_is_refused_by_what_is_in_it(tmp_path: Path) -> None:
    noise = os.urandom(200)
    files = {"damaged.png": b"\x89PNG\r\n\x1a\n" + noise, "program.png": b"%!PS-Adobe-3.0 EPSF-3.0\n", "empty.jpg": b""}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    Image.new("1", (5000, 4001)).save(tmp_path / "large.png")
    Image.new("L", (50, 10)).save(tmp_path / "long.png")
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60), dtype=np.uint8)).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:2000])
    said = {**dict.fromkeys([*files, "cut.png"], "damaged"), "large.png": "20,000,000", "long.png": "4 to 1"}
    for name, words in said.items():
        with pytest.raises(InputError, match=words) as error:
            read_upload(tmp_path / name, grey=True)
        assert str(tmp_path) not in str(error.value), "a visitor need not know where uploads lie"


@pytest.mark.parametrize(("size", "kept"), [((600, 300), (256, SIDE)), ((300, 600), (SIDE, 256)), ((7, 5), (5, 7))])
def test_a_large_upload_is_made_smaller(size: tuple[int, int], kept: tuple[int, int], tmp_path: Path) -> None:
    Image.new("RGB", size).save(tmp_path / "own.png")
    assert read_upload(tmp_path / "own.png", grey=False).shape == (3, *kept)


def test_layers_walks_and_samples(play: Play) -> None:
    turned = play.turn(1, 2, 9, 0)
    assert "Layer 2 of 3 is drawn anew" in turned.words
    assert [picture.size for _, picture in turned.pictures[:2]] == [(W, H)] * 2
    assert turned.pictures[2][1].height > 2 * 48, "two rows"
    walked = play.walk(1, 3, 4, 0)
    assert np.array_equal(np.asarray(walked.pictures[0][1]), to_bytes(play.x[:1])[0, ..., 0])
    assert np.array_equal(np.asarray(walked.pictures[2][1]), to_bytes(play.x[2:3])[0, ..., 0])
    assert play.samples(3, "prior", 1).pictures[0][0] == "3 images, none left out"
    for tab in (lambda seed: play.turn(1, 1, 3, seed), lambda seed: play.walk(1, 2, 3, seed)):
        assert pixels(tab(5)) == pixels(tab(5)) != pixels(tab(6))


BAD = [None, "x", True, 0.5, float("nan"), float("inf"), -1, 10**9]


@pytest.mark.parametrize("value", BAD)
def test_what_is_no_number_or_out_of_range_is_refused(play: Play, value: float) -> None:
    calls = [
        lambda: list(play.inpaint(value, None, PAINTED, 3, 2, 0)),
        lambda: list(play.inpaint(1, None, PAINTED, value, 2, 0)),
        lambda: list(play.inpaint(1, None, PAINTED, 3, value, 0)),
        lambda: play.canvas(value),
        lambda: play.turn(1, value, 2, 0),
        lambda: play.turn(1, 1, value, 0),
        lambda: play.walk(1, value, 3, 0),
        lambda: play.walk(1, 2, value, 0),
        lambda: play.samples(value, None, 0),
    ]
    for call in calls:
        with pytest.raises(InputError):
            call()
    with pytest.raises(InputError):
        play.samples(1, None, 2**40 if value == 10**9 else value)


def test_sources_and_limits(play: Play) -> None:
    with pytest.raises(InputError, match="no density was fitted"):
        play.samples(2, "fitted", 0)
    with pytest.raises(InputError, match="write prior or fitted"):
        play.samples(2, "other", 0)
    with pytest.raises(InputError, match=f"from 2 to {MOST_COLUMNS}"):
        play.walk(1, 2, 1, 0)
    with pytest.raises(InputError, match="nothing is painted over"):
        list(play.inpaint(1, None, "30", 3, 2, 0))
    with pytest.raises(InputError, match="another picture"):
        list(play.inpaint(1, None, None, 3, 2, 0))
