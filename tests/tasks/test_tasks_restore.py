import math
from collections.abc import Callable

import pytest
import torch
from task_learners import images, linear_learner, mixed_learner, rng, small_learner
from torch import Tensor

from shortrun.config import ModelConfig
from shortrun.errors import InputError
from shortrun.learners import Rae, Vae
from shortrun.model import Bernoulli
from shortrun.model.linear_map import LinearMap
from shortrun.tasks import masks, operators, restore
from shortrun.tasks.restore import checked_measurements

SHAPE, D, S = (1, 4, 6), 3, 0.2
OPERATORS = {
    "noise": operators.identity(),
    "blur": operators.blur(0.8),
    "downsample": operators.downsample(2),
    "both": operators.chained(operators.blur(0.8), operators.downsample(2)),
    "mask": operators.mask(masks.half(1, 4, 6)),
    "sums of rows": lambda x: x.sum(3).flatten(1),
}


def setting() -> tuple[Tensor, Tensor]:
    """Weights W (pixels, d), small enough that nothing is clamped, and images from the model."""
    weights = 0.15 * torch.randn(24, D, generator=rng(2))
    z = torch.randn(4, D, generator=rng(3))
    return weights, (z @ weights.T + 0.05 * torch.randn(4, 24, generator=rng(4))).unflatten(1, SHAPE)


def closed_form(weights: Tensor, a: Tensor, y: Tensor, sigma: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean and covariance of z and of x given y = A x + noise, by conditioning the joint normal, in float64."""
    w, a, y = weights.double(), a.double(), y.flatten(1).double()
    prior = w @ w.T + S**2 * torch.eye(len(w)).double()
    gain = torch.linalg.inv(a @ prior @ a.T + sigma**2 * torch.eye(len(a)).double())
    z = y @ (gain @ a @ w)
    z_covariance = torch.eye(D).double() - w.T @ a.T @ gain @ a @ w
    return z, z_covariance, y @ (gain @ a @ prior), prior - prior @ a.T @ gain @ a @ prior


@pytest.mark.parametrize("name", OPERATORS)
def test_long_chains_on_a_linear_generator_draw_from_the_exact_posterior(name: str) -> None:
    weights, x = setting()
    operator, sigma, draws = OPERATORS[name], 0.1, 800
    y = operator(x)
    y = y + sigma * torch.randn(y.shape, generator=rng(6))
    learner = linear_learner(weights, SHAPE, S, steps=30, step_size=0.15)
    made = restore(learner, y, operator, sigma, rng(), draws=draws, batch_size=6000)
    z, z_covariance, mean, covariance = closed_form(weights, LinearMap(operator, SHAPE).matrix, y, sigma)
    z_error = (made.z.mean(0) - z).abs() / (z_covariance.diagonal() / draws).sqrt()
    assert float(z_error.max()) < 5
    spread = torch.stack([torch.cov(made.z[:, image].T.double()) for image in range(len(x))]).mean(0)
    # steps of a finite size add a few percent
    assert float((spread - z_covariance).norm() / z_covariance.norm()) < 0.1
    deviation = covariance.diagonal().sqrt().reshape(SHAPE)
    assert float(((made.mean - mean.reshape(x.shape)) / deviation).abs().max()) < 5 / math.sqrt(draws) + 0.01
    torch.testing.assert_close(2 * made.deviation.mean(0).double(), deviation, rtol=0.03, atol=1e-3)
    assert not made.failed.any()


def test_the_start_alone_is_nearly_the_posterior_where_the_generator_is_linear() -> None:
    """Of regressed draws of the model: one step of no length leaves the latents where they started."""
    weights, x = setting()
    learner = linear_learner(weights, SHAPE, S, steps=1, step_size=1e-6)
    y = operators.blur(0.8)(x)
    made = restore(learner, y, operators.blur(0.8), 0.1, rng(), draws=1000, batch_size=4000)
    z, z_covariance, *_ = closed_form(weights, LinearMap(operators.blur(0.8), SHAPE).matrix, y, 0.1)
    assert float((made.z.mean(0) - z).abs().max()) < 0.15
    torch.testing.assert_close(made.z.var(0).mean(0).double(), z_covariance.diagonal(), rtol=0.1, atol=0.02)


@pytest.mark.parametrize("parameterization", ["ladder", "conditional"])
def test_colour_images_of_a_generator_that_bends(parameterization: str) -> None:
    learner, x = small_learner(parameterization, (3, 6, 4)), images(3, (3, 6, 4))
    y = operators.downsample(2)(x)
    made = restore(learner, y, operators.downsample(2), 0.1, rng(), draws=5, batch_size=4)
    assert made.draws.shape == (5, 3, 3, 6, 4)
    assert made.draws.abs().max() <= 1
    torch.testing.assert_close(made.mean, made.draws.mean(0))
    spread = (made.draws / 2).var(0, correction=0)
    torch.testing.assert_close(made.deviation, (spread + made.open**2).sqrt())
    assert made.open.shape == (3, 6, 4)
    assert len({tuple(one.flatten().tolist()) for one in made.draws[:, 0]}) == 5
    again = restore(learner, y, operators.downsample(2), 0.1, rng(), draws=5, batch_size=4)
    assert torch.equal(made.draws, again.draws)
    # what was measured is kept, as far as noise allows: the decoder alone knows nothing of these images
    assert float((operators.downsample(2)(made.mean) - y).abs().mean()) < 0.1


def test_candidates_and_a_mixture_prior() -> None:
    learner, _ = mixed_learner()
    learner.candidates = 20
    made = restore(learner, images(2), operators.identity(), 0.3, rng(), draws=6)
    assert made.draws.isfinite().all()
    assert len({tuple(one.flatten().tolist()) for one in made.draws[:, 0]}) == 6


def test_an_encoders_model_is_restored_by_chains_on_its_decoder() -> None:
    learner = Vae.build((1, 6, 5), ModelConfig(latents=(2, 3), width=8)).eval()
    made = restore(learner, images(2), operators.identity(), 0.3, rng(), draws=2, steps=5)
    assert made.draws.isfinite().all()
    assert not made.failed.any()


def test_of_a_likelihood_without_a_sigma_only_the_expected_image_counts() -> None:
    learner = small_learner()
    learner.generator.likelihood = Bernoulli()
    made = restore(learner, images(2), operators.identity(), 0.3, rng(), draws=3)
    assert float(made.open.max()) == 0
    torch.testing.assert_close(made.draws[0], learner.decode(made.z[0]))


def test_a_restoration_inside_no_grad_and_inference_mode_is_the_same() -> None:
    learner, y = small_learner(), images(2)
    expected = restore(learner, y, operators.identity(), 0.3, rng(), draws=2).draws
    with torch.no_grad():
        assert torch.equal(restore(learner, y, operators.identity(), 0.3, rng(), draws=2).draws, expected)
    with torch.inference_mode():
        assert torch.equal(restore(learner, y + 0, operators.identity(), 0.3, rng(), draws=2).draws, expected)


def couples(x: Tensor) -> Tensor:
    return x - x.mean(0, keepdim=True)


WRONG: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "not linear": (lambda x: x**2, "operator: is not linear"),
    "affine": (lambda x: x + 1, "operator: is not linear"),
    "of other images": (couples, "operator: couples the images|operator: is not linear"),
    "no tensor": (lambda x: x.tolist(), "operator: got list; return finite floats"),
    "whole numbers": (lambda x: x.long(), "operator: got torch.int64"),
    "not finite": (lambda x: x / 0, "operator: got torch.float32 of shape .* that are not all finite"),
    "without images": (lambda x: x.sum(), "operator: got torch.float32 of shape"),
    "nothing": (lambda x: x[:, :0], "operator: got torch.float32 of shape"),
    "detached": (lambda x: x.detach(), "operator: its gradient"),
    "half detached": (lambda x: x + x.detach(), "operator: its gradient"),
}


@pytest.mark.parametrize("name", WRONG)
def test_operators_that_are_none_are_refused(name: str) -> None:
    operator, line = WRONG[name]
    with pytest.raises(InputError, match=f"^({line})"):
        restore(small_learner(), images(2), operator, 0.3, rng())  # pyright: ignore[reportArgumentType]


def test_other_input_that_cannot_be_used() -> None:
    learner, y, operator = small_learner(), images(2), operators.identity()
    for sigma in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match=r"^sigma: got"):
            restore(learner, y, operator, sigma, rng())
    with pytest.raises(InputError, match=r"^y: got torch.float32 of shape \(2, 1, 3, 3\); give floats \(n, 1, 6, 5\)"):
        restore(learner, torch.zeros(2, 1, 3, 3), operator, 0.3, rng())
    with pytest.raises(InputError, match=r"^y: got torch.float32 of shape \(0, 1, 6, 5\)"):
        restore(learner, y[:0], operator, 0.3, rng())
    with pytest.raises(InputError, match=r"^y: got torch.int64"):
        checked_measurements(y.long(), LinearMap(operator, (1, 6, 5)))
    with pytest.raises(InputError, match=r"^y: got numbers that are not finite"):
        restore(learner, y / 0, operator, 0.3, rng())
    with pytest.raises(InputError, match=r"^factor: got 4; write one that divides 6 and 5"):
        restore(learner, y, operators.downsample(4), 0.3, rng())
    with pytest.raises(InputError, match=r"^draws: got 0"):
        restore(learner, y, operator, 0.3, rng(), draws=0)
    with pytest.raises(InputError, match=r"^steps: got 0"):
        restore(learner, y, operator, 0.3, rng(), steps=0)
    with pytest.raises(InputError, match=r"^learner: got Rae; take one with a generator"):
        restore(Rae.build((1, 6, 5), ModelConfig(latents=(2, 3), width=8)), y, operator, 0.3, rng())
