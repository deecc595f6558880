import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from task_learners import rng

from shortrun.errors import InputError
from shortrun.tasks import masks

SIZES = st.tuples(st.integers(1, 4), st.integers(2, 24), st.integers(2, 24))
SHARES = st.floats(0.02, 0.95)


def is_mask(mask: torch.Tensor, n: int, h: int, w: int) -> bool:
    return mask.shape == (n, 1, h, w) and mask.dtype == torch.float32 and bool(((mask == 0) | (mask == 1)).all())


@settings(max_examples=50, deadline=None)
@given(SIZES, SHARES, st.integers(0, 2**40))
def test_random_pixels_leave_out_the_share_asked_for(size: tuple[int, int, int], missing: float, seed: int) -> None:
    n, h, w = size
    mask = masks.random_pixels(n, h, w, rng(seed), missing)
    assert is_mask(mask, n, h, w)
    gone = (1 - mask).sum((1, 2, 3))
    assert ((gone - missing * h * w).abs() <= 1).all()
    assert ((gone >= 1) & (gone < h * w)).all()


@settings(max_examples=50, deadline=None)
@given(SIZES, SHARES, st.integers(0, 2**40))
def test_brush_leaves_out_at_least_the_share_asked_for(size: tuple[int, int, int], missing: float, seed: int) -> None:
    n, h, w = size
    mask = masks.brush(n, h, w, rng(seed), missing, 1)
    assert is_mask(mask, n, h, w)
    gone = (1 - mask).mean((1, 2, 3))
    assert (gone >= missing).all()
    # the last segment of a stroke one pixel thick is at most three pixels long, with its ends
    assert (gone <= missing + 6 / (h * w)).all()


def test_brush_strokes_are_connected_and_differ_from_image_to_image() -> None:
    mask = masks.brush(6, 32, 32, rng(), 0.2)
    assert len({tuple(one.flatten().tolist()) for one in mask}) == 6
    assert torch.equal(mask, masks.brush(6, 32, 32, rng(), 0.2))
    assert not torch.equal(mask, masks.brush(6, 32, 32, rng(1), 0.2))
    gone = 1 - mask
    around = torch.nn.functional.max_pool2d(gone, 3, 1, 1)
    lonely = (gone * (torch.nn.functional.avg_pool2d(gone, 3, 1, 1) * 9 < 2)).sum()
    assert lonely == 0  # strokes, not specks
    assert around.mean() > gone.mean()


def test_a_stroke_of_one_image_does_not_shift_those_of_the_next() -> None:
    few, many = masks.brush(3, 20, 20, rng(), 0.1), masks.brush(3, 20, 20, rng(), 0.6)
    # a longer list of strokes begins with the shorter one's, image by image
    assert (many <= few).all()


@settings(max_examples=50, deadline=None)
@given(SIZES, st.data())
def test_the_box_is_in_the_centre(size: tuple[int, int, int], data: st.DataObject) -> None:
    n, h, w = size
    side = data.draw(st.integers(1, min(h, w)))
    mask = masks.centre_box(n, h, w, side)
    assert is_mask(mask, n, h, w)
    gone = 1 - mask
    assert (gone.sum((1, 2, 3)) == side**2).all()
    rows, columns = gone[0, 0].any(1).nonzero()[:, 0], gone[0, 0].any(0).nonzero()[:, 0]
    for lines, length in ((rows, h), (columns, w)):
        assert len(lines) == side
        assert abs(int(lines[0]) - (length - 1 - int(lines[-1]))) <= 1


def test_the_box_is_half_of_the_side_where_not_said_otherwise() -> None:
    assert (1 - masks.centre_box(1, 28, 20)).sum() == 10**2


@settings(max_examples=50, deadline=None)
@given(SIZES, st.data())
def test_stripes_are_as_high_as_asked_for(size: tuple[int, int, int], data: st.DataObject) -> None:
    n, h, w = size
    width = data.draw(st.integers(1, h - 1))
    mask = masks.stripes(n, h, w, width)
    assert is_mask(mask, n, h, w)
    assert torch.equal(mask[0, 0, :, 0], torch.tensor([1.0 - (row // width) % 2 for row in range(h)]))
    assert (mask == mask[:1, :, :, :1]).all()
    assert 0 < mask.mean() < 1


@settings(max_examples=40, deadline=None)
@given(SIZES, st.sampled_from(["left", "right", "top", "bottom"]))
def test_the_half_named_is_kept(size: tuple[int, int, int], keep: str) -> None:
    n, h, w = size
    mask = masks.half(n, h, w, keep)  # pyright: ignore[reportArgumentType]
    assert is_mask(mask, n, h, w)
    lines = mask[0, 0, 0] if keep in ("left", "right") else mask[0, 0, :, 0]
    if keep in ("right", "bottom"):
        lines = lines.flip(0)
    kept = len(lines) - len(lines) // 2
    assert lines.tolist() == [1.0] * kept + [0.0] * (len(lines) // 2)
    assert mask.mean() == pytest.approx(kept / len(lines))


@pytest.mark.parametrize("missing", [0.0, 1.0, -0.2, 1.5, float("nan")])
def test_shares_out_of_range_are_refused(missing: float) -> None:
    with pytest.raises(InputError, match=r"^missing: got"):
        masks.random_pixels(1, 4, 4, rng(), missing)
    with pytest.raises(InputError, match=r"^missing: got"):
        masks.brush(1, 4, 4, rng(), missing)


def test_sizes_out_of_range_are_refused_with_those_in_range() -> None:
    for make, limit in ((masks.centre_box, 6), (masks.stripes, 7)):
        for size in (0, limit + 1):
            with pytest.raises(InputError, match=re.escape(f"size: got {size}") + f".*1 to {limit}"):
                make(1, 8, 6, size)
    with pytest.raises(InputError, match=r"size: got 7.*1 to 6"):
        masks.brush(1, 8, 6, rng(), 0.3, 7)
