import pytest
import torch
from task_learners import images, linear_learner, rng, small_learner
from torch import Tensor

from shortrun.errors import InputError
from shortrun.tasks import inpaint, masks, watch_inpainting

SHAPE, D, SIGMA = (1, 4, 5), 3, 0.2


def linear_setting() -> tuple[Tensor, Tensor, Tensor]:
    """Weights W (pixels, d), small enough that nothing is clamped; images from the model; masks, one for each."""
    weights = 0.15 * torch.randn(20, D, generator=rng(2))
    z = torch.randn(4, D, generator=rng(3))
    x = (z @ weights.T + 0.05 * torch.randn(4, 20, generator=rng(4))).unflatten(1, SHAPE)
    return weights, x, masks.random_pixels(4, *SHAPE[1:], rng(5), 0.5)


def conditional(weights: Tensor, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (n, pixels) and standard deviation of W z given the observed pixels, in closed form."""
    means, deviations = [], []
    for one, seen in zip(x.double().flatten(1), mask.flatten(1) > 0.5, strict=True):
        w = weights.double()
        covariance = torch.linalg.inv(torch.eye(D, dtype=torch.float64) + w[seen].T @ w[seen] / SIGMA**2)
        means.append(w @ (covariance @ (w[seen].T @ one[seen])) / SIGMA**2)
        deviations.append(torch.diag(w @ covariance @ w.T).sqrt())
    return torch.stack(means).float(), torch.stack(deviations).float()


def test_completions_start_from_candidates_of_their_own() -> None:
    """Of candidates common to a batch an image would take the likeliest each time, and its completions be alike."""
    weights, x, mask = linear_setting()
    learner = linear_learner(weights, SHAPE, SIGMA / 4, steps=1, step_size=1e-6)
    learner.candidates = 50
    filled = inpaint(learner, x, mask, rng(), completions=12, batch_size=1000)
    for image in range(len(x)):
        starts = filled.completions[:, image].flatten(1)
        assert len({tuple(row) for row in starts.round(decimals=4).tolist()}) == 12


def test_a_long_chain_on_a_linear_generator_gives_the_conditional_mean_and_its_spread() -> None:
    weights, x, mask = linear_setting()
    learner = linear_learner(weights, SHAPE, SIGMA, steps=150, step_size=0.3)
    filled = inpaint(learner, x, mask, rng(), completions=1500, batch_size=6000)
    mean, deviation = conditional(weights, x, mask)
    missing = mask.flatten(1) < 0.5
    error = (filled.mean.flatten(1) - mean)[missing]
    # 1500 completions: five standard errors of the mean; the step adds a few percent to the spread
    assert (error.abs() < 5 * deviation[missing] / 1500**0.5 + 1e-3).all()
    torch.testing.assert_close(2 * filled.uncertainty.flatten(1)[missing], deviation[missing], rtol=0.12, atol=0.002)
    # and it is not the mean given all the pixels: the mask counts
    whole, _ = conditional(weights, x, torch.ones_like(mask))
    assert (whole - mean)[missing].abs().mean() > 3 * error.abs().mean()


def test_what_lies_under_the_mask_is_never_looked_at() -> None:
    learner, mask = small_learner(), masks.centre_box(3, 6, 5)
    x = images(3)
    hidden = torch.where(mask > 0.5, x, float("nan"))
    first, second = inpaint(learner, x, mask, rng(), 4), inpaint(learner, hidden, mask, rng(), 4)
    assert torch.equal(first.completions, second.completions)
    assert first.completions.isfinite().all()
    assert not first.failed.any()


@pytest.mark.parametrize("parameterization", ["ladder", "conditional"])
def test_observed_pixels_are_kept_to_the_bit(parameterization: str) -> None:
    learner, x = small_learner(parameterization, (3, 6, 5)), images(3, (3, 6, 5))
    mask = masks.random_pixels(3, 6, 5, rng(), 0.4)
    filled = inpaint(learner, x, mask, rng(), completions=5)
    seen = (mask > 0.5).expand_as(x)
    assert filled.completions.shape == (5, 3, 3, 6, 5)
    for one in (*filled.completions, filled.mean):
        assert torch.equal(one[seen], x[seen])
    assert filled.uncertainty.shape == (3, 1, 6, 5)
    assert (filled.uncertainty[mask > 0.5] == 0).all()
    assert (filled.uncertainty[mask < 0.5] > 0).all()
    assert filled.failed.shape == (5, 3)
    assert filled.completions.abs().max() <= 1


def test_mean_and_uncertainty_are_those_of_the_completions() -> None:
    learner, x, mask = small_learner(image_shape=(3, 6, 5)), images(2, (3, 6, 5)), masks.half(1, 6, 5)
    filled = inpaint(learner, x, mask, rng(), completions=7)
    torch.testing.assert_close(filled.mean, filled.completions.mean(0))
    unit = (filled.completions + 1) / 2
    expected = ((unit - unit.mean(0)) ** 2).mean(0).sqrt().mean(1, keepdim=True)
    torch.testing.assert_close(filled.uncertainty, expected)
    assert (inpaint(learner, x, mask, rng(), completions=1).uncertainty == 0).all()


def test_completions_are_chains_of_their_own_and_follow_from_the_seed() -> None:
    learner, x, mask = small_learner(), images(1), masks.half(1, 6, 5)
    filled = inpaint(learner, x, mask, rng(), completions=6, batch_size=4)
    assert len({tuple(one.flatten().tolist()) for one in filled.completions}) == 6
    assert torch.equal(filled.completions, inpaint(learner, x, mask, rng(), 6, batch_size=4).completions)
    assert not torch.equal(filled.completions, inpaint(learner, x, mask, rng(1), 6, batch_size=4).completions)


def test_a_mask_for_each_channel_is_taken() -> None:
    learner, x = small_learner(image_shape=(3, 6, 5)), images(2, (3, 6, 5))
    mask = torch.ones(1, 3, 6, 5)
    mask[:, 1] = 0
    filled = inpaint(learner, x, mask, rng(), completions=3)
    assert torch.equal(filled.mean[:, [0, 2]], x[:, [0, 2]])
    assert not torch.equal(filled.mean[:, 1], x[:, 1])


@pytest.mark.parametrize("shape", [(3, 1, 6, 5), (2, 2, 6, 5), (2, 1, 5, 6), (1, 1, 7, 5)])
def test_a_mask_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"^mask: got"):
        inpaint(small_learner(), images(2), torch.ones(shape), rng())


def test_counts_below_one_and_other_images_are_refused() -> None:
    learner, mask = small_learner(), masks.half(1, 6, 5)
    with pytest.raises(InputError, match=r"^completions: got 0"):
        inpaint(learner, images(2), mask, rng(), completions=0)
    with pytest.raises(InputError, match=r"^steps: got 0"):
        inpaint(learner, images(2), mask, rng(), steps=0)
    with pytest.raises(InputError, match=r"^x: got images of 3x6x5; the model has 1x6x5"):
        inpaint(learner, images(2, (3, 6, 5)), mask, rng())


def test_watched_completions_end_as_those_that_are_not() -> None:
    learner, x, mask = small_learner(), images(3), masks.centre_box(3, 6, 5)
    *way, end = watch_inpainting(learner, x, mask, rng(), every=1, completions=4, steps=5)
    wanted = inpaint(learner, x, mask, rng(), completions=4, steps=5)
    assert all(torch.equal(one, other) for one, other in zip(end.found, wanted, strict=True))
    seen = (mask > 0.5).expand_as(x)
    assert [stage.step for stage in way] == [0, 1, 2, 3, 4]
    assert all(torch.equal(stage.found.mean[seen], x[seen]) for stage in way)


def test_watched_completions_of_candidates_differ_too() -> None:
    weights, x, mask = linear_setting()
    learner = linear_learner(weights, SHAPE, SIGMA / 4, steps=1, step_size=1e-6)
    learner.candidates = 50
    *_, end = watch_inpainting(learner, x, mask, rng(), every=1, completions=6)
    assert len({tuple(row) for row in end.found.completions[:, 0].flatten(1).round(decimals=4).tolist()}) == 6
