"""Images are looked at where they come in: what is no image in [-1, 1] is refused in one line, not inferred."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from shortrun import InferenceConfig, InputError, ModelConfig, ShortRun, Vae
from shortrun.learners import Learner
from shortrun.learners.images import check_images, check_pixels
from shortrun.tasks import encode

X = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
WRONG: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "0 to 255": (lambda x: (x + 1) * 127.5, "got pixels from"),
    "not a number": (lambda x: torch.where(x > 0.9, torch.nan, x), "not finite"),
    "infinite": (lambda x: torch.where(x > 0.9, torch.inf, x), "not finite"),
    "channels last": (lambda x: x.permute(0, 2, 3, 1), "got images of 4x4x1; the model has 1x4x4"),
    "none": (lambda x: x[:0], "give at least one image, (n, c, h, w)"),
}


@pytest.fixture(params=[ShortRun, Vae])
def learner(request: pytest.FixtureRequest) -> Learner:
    model = ModelConfig(latents=(2, 3), width=8)
    if request.param is Vae:
        return Vae.build((1, 4, 4), model)
    return ShortRun.build((1, 4, 4), model, InferenceConfig(steps=2))


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_image_of_the_model_is_refused(learner: Learner, name: str) -> None:
    change, words = WRONG[name]
    for use in (learner.reconstruct, lambda x, rng: encode(learner, x, rng)):
        with pytest.raises(InputError) as caught:
            use(change(X), torch.Generator())
        assert caught.value.argument == "x"
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_single_image_and_8_bit_pixels_are_refused(learner: Learner) -> None:
    with pytest.raises(InputError, match=r"^x: got an array of shape \(1, 4, 4\); give at least one image"):
        check_images(learner.description, X[0])
    with pytest.raises(InputError, match=r"^x: got pixels of torch.uint8; give floats in \[-1, 1\]"):
        check_pixels((X > 0).to(torch.uint8))


def test_rounding_is_let_through(learner: Learner) -> None:
    assert learner.reconstruct((X * 1.0001).clamp(-1.0005, 1.0005), torch.Generator()).shape == X.shape
