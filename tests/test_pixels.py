"""Pixels of [-1, 1] in [0, 1], and errors between images there."""

import torch

from shortrun.pixels import difference, mse, squared_error, to_unit


def test_to_unit_takes_the_ends_to_0_and_1_and_clips_beyond() -> None:
    assert to_unit(torch.tensor([-1.5, -1.0, 0.0, 1.0, 3.0])).tolist() == [0, 0, 0.5, 1, 1]


def test_errors_are_those_of_the_images_in_0_to_1() -> None:
    x, y = torch.rand(2, 5, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(difference(x, y), to_unit(x) - to_unit(y))
    torch.testing.assert_close(squared_error(x, y), (to_unit(x) - to_unit(y)) ** 2)
    torch.testing.assert_close(mse(x, y), ((to_unit(x) - to_unit(y)) ** 2).mean((1, 2, 3)))


def test_halving_before_the_square_loses_no_digit() -> None:
    x, y = torch.randn(2, 50, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(mse(x, y), ((x - y) ** 2).flatten(1).mean(1) / 4)
