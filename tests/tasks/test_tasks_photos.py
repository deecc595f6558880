"""Photos of any size filled in by a model of small images."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from task_learners import linear_learner, rng, small_learner
from torch import Tensor

from shortrun.errors import InputError
from shortrun.tasks.photos import (
    MOST_UNKNOWN,
    Filled,
    fill,
    paste,
    rest_continued,
    seen_through,
    watch_filling,
    windows,
)

SHAPE = (3, 8, 8)


def plane(height: int, width: int) -> Tensor:
    """A photo whose colours change linearly."""
    down, across = torch.arange(height)[:, None] / height, torch.arange(width) / width
    return torch.stack(
        [60 + 100 * down + 0 * across, 200 - 90 * across + 0 * down, 90 + 50 * down + 40 * across]
    ).byte()


def damage(height: int, width: int) -> Tensor:
    """True where observed: a hole in the middle third."""
    observed = torch.ones(height, width, dtype=torch.bool)
    observed[height // 3 : height // 2, width // 3 : 2 * width // 3] = False
    return observed


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300))
def test_windows_cover_a_photo_and_are_as_few_as_can_be(height: int, width: int) -> None:
    parts = windows(height, width)
    covered = torch.zeros(height, width, dtype=torch.bool)
    for part in parts:
        assert part.side == min(height, width)
        rows, columns = part.box
        assert 0 <= rows.start < rows.stop <= height
        assert 0 <= columns.start < columns.stop <= width
        covered[rows, columns] = True
    assert covered.all()
    assert len(parts) == -(-max(height, width) // min(height, width))


def test_what_lies_under_the_damage_gets_into_no_pixel() -> None:
    photo, observed = plane(40, 40), damage(40, 40)
    painted = torch.where(observed, photo, torch.tensor(255, dtype=torch.uint8))
    (window,) = windows(40, 40)
    clean, spoiled = (seen_through(each, observed, window, (8, 8)) for each in (photo, painted))
    torch.testing.assert_close(clean.x, spoiled.x)
    whole = seen_through(photo, torch.ones_like(observed), window, (8, 8))
    torch.testing.assert_close(clean.x, whole.x, atol=0.01, rtol=0)
    assert clean.observed.sum() < 64
    assert whole.observed.all()


def flat_learner():
    """A model that decodes grey, whatever its latents: all that it leaves over is continued."""
    return linear_learner(torch.zeros(192, 3), SHAPE, sigma=0.2, steps=2, step_size=0.1)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (40, 40), (30, 75), (75, 30)])
def test_a_hole_in_a_plane_is_filled_with_the_plane_and_the_rest_is_left_to_the_last_bit(
    height: int, width: int
) -> None:
    photo, observed = plane(height, width), damage(height, width)
    painted = torch.where(observed, photo, torch.tensor(255, dtype=torch.uint8))
    parts = windows(height, width)
    seen = [seen_through(painted, observed, part, SHAPE[1:]) for part in parts]
    filled = fill(flat_learner(), seen, rng(), completions=2)
    assert filled.completions.shape == (2, len(parts), *SHAPE)
    made = paste(painted, observed, parts, filled)
    assert torch.equal(made.pixels[:, observed], photo[:, observed])
    assert (made.pixels.int() - photo.int()).abs().max() <= 2
    assert made.deviation.abs().max() < 1e-5, "a model without latents is sure"


def test_uncertainty_is_that_of_the_completions_and_zero_where_observed() -> None:
    learner, observed = small_learner(image_shape=(1, 6, 6)), damage(24, 24)
    photo = (255 * torch.rand(1, 24, 24, generator=rng(3))).byte()
    parts = windows(24, 24)
    seen = [seen_through(photo, observed, part, (6, 6)) for part in parts]
    filled = fill(learner, seen, rng(), completions=5)
    for one in filled.completions[:, 0]:
        torch.testing.assert_close(one[:, seen[0].observed], seen[0].x[:, seen[0].observed])
    made = paste(photo, observed, parts, filled)
    assert (made.deviation[observed] == 0).all()
    assert made.deviation[~observed].max() > 0.01
    again = fill(learner, seen, rng(), completions=5)
    assert torch.equal(again.completions, filled.completions)


def test_each_window_fills_its_side_of_the_photo() -> None:
    photo, observed = torch.full((1, 10, 20), 100, dtype=torch.uint8), torch.ones(10, 20, dtype=torch.bool)
    observed[4:6, 2:4] = observed[4:6, 15:17] = False
    parts = windows(10, 20)
    # left window black, right one white, and nothing to continue since both agree with themselves
    levels = torch.tensor([-1.0, 1.0])[None, :, None, None, None].expand(1, 2, 1, 10, 10)
    made = paste(photo, observed, parts, Filled(levels.clone(), torch.zeros(1, 2, dtype=torch.bool)))
    # the rest, 100 less the level, is continued, so that no seam shows whatever the window says
    assert (made.pixels.int() - 100).abs().max() <= 1


def test_a_very_large_hole_is_continued_at_a_lower_resolution() -> None:
    side = 300
    ramp = torch.arange(float(side)).expand(1, side, side)
    seen = torch.ones(side, side, dtype=torch.bool)
    seen[20:280, 20:280] = False
    assert int((~seen).sum()) > MOST_UNKNOWN
    found = rest_continued(ramp, seen)
    assert torch.equal(found[:, seen].float(), ramp[:, seen])
    assert (found - ramp).abs().max() < 2


def test_a_whole_photo_is_given_back_and_windows_must_fit() -> None:
    photo, observed = plane(9, 9), torch.ones(9, 9, dtype=torch.bool)
    empty = Filled(torch.zeros(2, 0, *SHAPE), torch.zeros(2, 0, dtype=torch.bool))
    assert torch.equal(paste(photo, observed, [], empty).pixels, photo)
    with pytest.raises(InputError, match="filled: got 0 windows for 1"):
        paste(photo, observed, windows(9, 9), empty)


def test_watched_windows_end_as_those_that_are_not() -> None:
    learner, photo, observed = small_learner(image_shape=SHAPE), plane(30, 50), damage(30, 50)
    seen = [seen_through(photo, observed, part, SHAPE[1:]) for part in windows(30, 50)]
    *way, end = watch_filling(learner, seen, rng(), every=2, completions=3, steps=5)
    wanted = fill(learner, seen, rng(), completions=3, steps=5)
    assert torch.equal(end.found.completions, wanted.completions)
    assert torch.equal(end.found.failed, wanted.failed)
    assert [stage.step for stage in way] == [0, 2, 4]
