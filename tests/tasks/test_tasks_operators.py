import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shortrun.errors import InputError
from shortrun.model.linear_map import LinearMap, Operator
from shortrun.tasks import masks
from shortrun.tasks.operators import blur, chained, downsample, identity, mask

SHAPES = st.tuples(st.sampled_from([1, 3]), st.sampled_from([4, 8]), st.sampled_from([4, 12]))


def made(kind: str, number: float, shape: tuple[int, int, int]) -> Operator:
    """Return an operator of a kind; number: in (0, 1)."""
    _, h, w = shape
    return {
        "identity": identity,
        "blur": lambda: blur(0.2 + 3 * number),
        "downsample": lambda: downsample(2 if number < 0.5 else 4),
        "mask": lambda: mask(masks.random_pixels(1, h, w, torch.Generator().manual_seed(0), number)),
        "chained": lambda: chained(blur(0.2 + number), downsample(2)),
    }[kind]()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["identity", "blur", "downsample", "mask", "chained"]),
    st.floats(0.05, 0.95),
    SHAPES,
    st.integers(0, 1000),
)
def test_operators_are_linear_and_their_gradient_is_the_adjoint(
    kind: str, number: float, shape: tuple[int, int, int], seed: int
) -> None:
    operator, rng = made(kind, number, shape), torch.Generator().manual_seed(seed)
    x, other = torch.randn(2, 3, *shape, generator=rng, dtype=torch.float64)
    a, b = torch.randn(2, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(operator(a * x + b * other), a * operator(x) + b * operator(other))
    x.requires_grad_()
    y = operator(x)
    v = torch.randn(y.shape, generator=rng, dtype=torch.float64)
    (adjoint,) = torch.autograd.grad((y * v).sum(), x)
    # <A u, v> = <u, A^T v> for any u
    torch.testing.assert_close((operator(other) * v).sum(), (other * adjoint).sum())
    linear = LinearMap(operator, shape)
    grouped = linear.grouped(v)
    torch.testing.assert_close(linear.transposed(grouped), adjoint, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        linear(x.detach())[..., 0],
        x.detach().reshape(3, linear.groups, -1) @ linear.matrix.T.double(),
        atol=1e-5,
        rtol=1e-5,
    )
    assert linear.groups == (shape[0] if kind != "mask" or shape[0] == 1 else linear.groups)


def test_a_blur_keeps_constants_and_sums_of_what_lies_inside() -> None:
    constant = torch.full((1, 1, 3, 5), 0.7, dtype=torch.float64)
    for width in (0.1, 1.0, 30.0):
        torch.testing.assert_close(blur(width)(constant), constant)
    dot = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    dot[..., 20, 20] = 1
    blurred = blur(2.0)(dot)[0, 0]
    offsets = torch.arange(41).double() - 20
    assert float(blurred.sum()) == pytest.approx(1)
    assert float((blurred.sum(0) * offsets**2).sum()) == pytest.approx(4.0, rel=0.01)
    torch.testing.assert_close(blurred, blurred.T)


def test_downsampling_takes_means_and_a_mask_takes_pixels() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert downsample(2)(x).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert downsample(4)(x).flatten().tolist() == [7.5]
    assert mask(masks.half(1, 4, 4, keep="top"))(x).tolist() == [list(range(8))]


def test_a_map_of_unlike_channels_is_one_group() -> None:
    weights = torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    assert LinearMap(lambda x: x * weights, (3, 2, 2)).groups == 1
    assert LinearMap(lambda x: x.mean(1, keepdim=True), (3, 2, 2)).matrix.shape == (4, 12)
    assert LinearMap(lambda x: x.flip(1), (3, 2, 2)).groups == 1


def test_numbers_out_of_range() -> None:
    for width in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match=r"^width: got"):
            blur(width)
    with pytest.raises(InputError, match=r"^factor: got 0"):
        downsample(0)
    with pytest.raises(InputError, match=r"^factor: got 3; write one that divides 4 and 6"):
        downsample(3)(torch.zeros(1, 1, 4, 6))
