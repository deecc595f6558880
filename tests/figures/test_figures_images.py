from pathlib import Path

import numpy as np
import torch
from PIL import Image

from shortrun.figures.images import captioned_rows, heat, shade_missing, titled, write_png


def test_heat_is_black_at_zero_white_at_the_top_and_ever_lighter() -> None:
    values = torch.linspace(0, 0.4, 33).reshape(1, 1, 1, 33)
    colours = heat(values, 0.4)
    assert colours.shape == (1, 3, 1, 33)
    assert (colours[..., 0] == -1).all()
    assert torch.allclose(colours[..., -1], torch.ones(1))
    lightness = torch.einsum("nchw,c->w", colours, torch.tensor([0.299, 0.587, 0.114]))
    assert (lightness.diff() > 0).all()
    assert (heat(torch.zeros(1, 1, 2, 2), 0.0) == -1).all()
    assert torch.allclose(heat(torch.full((1, 1, 1, 1), 2.0), 0.4), torch.ones(1))


def test_missing_pixels_are_blue_and_the_others_as_they_were() -> None:
    x, mask = torch.rand(2, 1, 4, 4) * 2 - 1, torch.ones(1, 1, 4, 4)
    mask[..., :2] = 0
    shaded = shade_missing(x, mask)
    assert torch.equal(shaded[..., 2:], x.expand(-1, 3, -1, -1)[..., 2:])
    red, green, blue = shaded[..., :2].unbind(1)
    assert ((blue > red + 0.5) & (blue > green)).all()
    assert (shaded[0, :, 0, 0] != shaded[0, :, 0, 1]).all()  # a checker
    red, green, blue = shade_missing(x.expand(-1, 3, -1, -1), mask)[..., :2].unbind(1)
    assert torch.equal(red, green)
    assert torch.equal(red, blue)


def test_titles_and_notes(tmp_path: Path) -> None:
    picture = captioned_rows([("row", torch.zeros(2, 1, 8, 8))])
    with_title = titled(picture, "a rather long line of words over two small images, wider than they are")
    assert with_title.width > picture.width
    assert np.array_equal(np.asarray(with_title)[26:, : picture.width], np.asarray(picture))
    write_png(with_title, tmp_path / "a.png", {"made_by": "a test"})
    with Image.open(tmp_path / "a.png") as read:
        assert read.info["made_by"] == "a test"
        assert read.size == with_title.size
