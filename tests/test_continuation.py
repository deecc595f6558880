"""Values continued into holes: against planes, scikit-image, and the definition itself."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from shortrun.continuation import continued, grid_laplacian


def holes(height: int, width: int, seed: int) -> Tensor:
    """A hole in the middle, one at the border and single pixels; true where seen."""
    rng = torch.Generator().manual_seed(seed)
    seen = torch.rand(height, width, generator=rng) > 0.1
    seen[height // 3 : height // 2, width // 3 : width // 2 + 1] = False
    seen[:2, -3:] = False
    return seen


@settings(max_examples=20, deadline=None)
@given(st.integers(5, 14), st.integers(5, 14), st.integers(0, 1000))
def test_a_continuation_is_the_smoothest_one(height: int, width: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    values = torch.randn(2, 3, height, width, generator=rng, dtype=torch.float64)
    seen = holes(height, width, seed)
    found = continued(values, seen)
    assert found.shape == values.shape
    assert torch.equal(found[..., seen], values[..., seen])
    # the gradient of |L u|^2 vanishes where u is free
    laplacian = torch.from_numpy(grid_laplacian(height, width).toarray())
    bent = (laplacian @ laplacian @ found.flatten(2)[..., None])[..., 0].unflatten(2, (height, width))
    assert bent[..., ~seen].abs().max() < 1e-8
    # what lies in the hole is not looked at
    spoiled = torch.where(seen, values, torch.nan)
    assert torch.equal(continued(spoiled, seen), found)


def test_a_plane_is_continued_as_a_plane() -> None:
    plane = 0.3 * torch.arange(20).double()[:, None] - 0.2 * torch.arange(30).double() + 1
    seen = torch.ones(20, 30, dtype=torch.bool)
    seen[4:12, 5:9] = seen[14:17, 20:26] = False
    torch.testing.assert_close(continued(torch.where(seen, plane, 0.0), seen), plane)


def test_nothing_seen_gives_zeros_and_everything_seen_the_values() -> None:
    values = torch.randn(3, 4, 5)
    assert not continued(values, torch.zeros(4, 5, dtype=torch.bool)).any()
    assert torch.equal(continued(values, torch.ones(4, 5, dtype=torch.bool)).float(), values)


def test_it_is_nearly_what_scikit_image_fills_in() -> None:
    restoration = pytest.importorskip("skimage.restoration")
    y, x = torch.meshgrid(torch.linspace(0, 3, 32), torch.linspace(0, 2, 32), indexing="ij")
    image = (torch.sin(y * 2) * torch.cos(x * 3)).double()
    seen = torch.ones(32, 32, dtype=torch.bool)
    seen[10:18, 12:20] = False
    theirs = torch.from_numpy(restoration.inpaint_biharmonic(image.numpy(), (~seen).numpy()))
    ours = continued(image, seen)
    hole = ~seen
    assert (ours - theirs)[hole].abs().max() < 0.1 * (image - image[seen].mean())[hole].abs().max()
    assert (ours - image)[hole].abs().max() < 0.1
