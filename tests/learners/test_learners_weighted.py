"""Several draws from q(z|x) for each image: the bound by their weights, and the one that is taken by its weight."""

import math
from pathlib import Path

import pytest
import torch
from encoder_learners import KINDS, SHAPE, images, learner_of, mixed_learner_of, rng
from torch import Tensor
from torch.distributions import Normal

from shortrun.config import Config, EncoderConfig, LearnerConfig, ModelConfig
from shortrun.errors import InputError
from shortrun.evaluation.importance import importance_bound
from shortrun.inference import DrawnNoise
from shortrun.learners import EncoderLearner, Vae, checked_for_learner
from shortrun.learners.latent_learner import WINDOW
from shortrun.learners.weighted import importance_weighted, resampled

every_kind = pytest.mark.parametrize("kind", KINDS)


def log_weights(learner: EncoderLearner, x: Tensor, count: int, seed: int = 0) -> Tensor:
    """Return log w of each of several draws, (m, n), one draw at a time."""
    numbers = rng(seed)
    found = []
    for _ in range(count):
        z, log_q = learner.propose(x, numbers)
        found.append(learner.generator.log_joint(x, z) - log_q)
    return torch.stack(found)


@every_kind
@pytest.mark.parametrize("make", [learner_of, mixed_learner_of])
def test_the_loss_is_the_bound_of_the_same_draws_one_by_one(kind: str, make) -> None:
    learner, x = make(kind), images(4)
    learner.draws = 5
    with torch.no_grad():
        loss, statistics = learner.loss(x, rng())
        log_w = log_weights(learner, x, 5)
    torch.testing.assert_close(-loss, (torch.logsumexp(log_w, 0) - math.log(5)).mean())
    torch.testing.assert_close(statistics["elbo"], log_w.mean())
    assert -loss > statistics["elbo"], "Jensen's inequality"
    learner.kl_weight = 0.0
    assert learner.loss(x, rng())[0] < loss, "without the divergence"


def test_the_bound_rises_with_draws_to_what_the_importance_bound_finds() -> None:
    learner, x = learner_of("vae", sigma=1.5), images(3)
    bounds = []
    for count in (1, 8, 2000):
        learner.draws = count
        with torch.no_grad():
            bounds.append(-float(torch.stack([learner.loss(x, rng(seed))[0] for seed in range(5)]).mean()))
    assert bounds[0] < bounds[1] < bounds[2]
    assert bounds[2] == pytest.approx(float(importance_bound(learner, x, rng(), samples=20000).log_p.mean()), abs=0.3)


@pytest.mark.parametrize("kind", ["vae", "ladder_vae"])
def test_the_loss_teaches_every_weight_and_keeps_every_draw(kind: str) -> None:
    learner = learner_of(kind, prior="mixture", components=2)
    learner.draws = 3
    loss, _ = learner.loss(images(5), rng())
    for gradient in torch.autograd.grad(loss, list(learner.parameters())):
        assert torch.isfinite(gradient).all()
        assert gradient.abs().sum() > 0
    learner.start_training(30, 0, Path())
    learner.train()
    learner.loss(images(5), rng())
    assert learner.latest[0][0].shape == (15, 5)
    for update in range(WINDOW):
        learner.loss(images(5), rng(update))
    assert len(learner.latest) < WINDOW, "fitted, and begun again"


def test_the_bound_of_two_weights() -> None:
    log_w = torch.tensor([[0.5, -1.0], [2.0, -1.0]], dtype=torch.float64)
    expected = [math.log((math.exp(0.5) + math.exp(2)) / 2), -1.0]
    torch.testing.assert_close(importance_weighted(log_w), torch.tensor(expected, dtype=torch.float64))


def test_what_is_taken_by_weight_is_of_the_posterior() -> None:
    """From N(0, 1) towards N(1, 0.5^2): mean and spread of what is taken, within five standard errors."""
    target, n = Normal(1.0, 0.5), 4000

    def weigh(numbers: Tensor) -> tuple[Tensor, Tensor]:
        return numbers, (target.log_prob(numbers) - Normal(0.0, 1.0).log_prob(numbers)).squeeze(1)

    taken = resampled(weigh, DrawnNoise(rng(), 200, (n, 1)))
    assert float(taken.mean()) == pytest.approx(1, abs=5 * 0.5 / math.sqrt(n))
    assert float(taken.std()) == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(2 * n))
    one = resampled(weigh, DrawnNoise(rng(), 1, (n, 1)))
    assert torch.equal(one, torch.randn(n, 1, generator=rng()))


def test_a_weight_that_is_no_number_is_not_taken() -> None:
    def weigh(numbers: Tensor) -> tuple[Tensor, Tensor]:
        return numbers, torch.where(numbers[:, 0] > 0, math.nan, -numbers[:, 0].square())

    taken = resampled(weigh, DrawnNoise(rng(), 60, (200, 1)))
    assert (taken < 0).all()
    spoiled = resampled(lambda z: (z, torch.full((len(z),), math.nan)), DrawnNoise(rng(), 5, (3, 1)))
    assert torch.equal(spoiled, torch.randn(3, 1, generator=rng())), "the first, where none is sound"


@every_kind
def test_parts_of_a_batch_draw_what_the_whole_does(kind: str) -> None:
    learner, x = learner_of(kind), images(6)
    learner.draws = 4
    whole = learner.infer(x, rng(), noise=True).z
    parts = [learner.infer(part, rng(), noise=True, part=(i, 3)).z for i, part in enumerate(x.split(2))]
    torch.testing.assert_close(torch.cat(parts), whole)
    assert torch.equal(whole, learner.draw_posterior(x, rng()))
    assert not torch.equal(whole, learner.propose(x, rng()).z)
    assert learner.describe_inference(noise=True) == "one of 4 draws from the encoder, by its weight"
    assert learner.describe_inference() == "mean of the encoder"


def test_completions_by_weight_are_nearer_to_the_observed_pixels() -> None:
    """Of an encoder that has learned nothing: what is taken of many draws explains the observed pixels better."""
    learner = learner_of("vae", encoder=EncoderConfig(missing="mask"))
    x, mask = images(200), torch.ones(1, 1, *SHAPE[1:])
    mask[..., 2:] = 0

    def explained(steps: int | None) -> float:
        z = learner.infer(torch.where(mask > 0.5, x, math.nan), rng(), mask=mask, steps=steps).z
        with torch.no_grad():
            decoded = learner.generator.decoder(*learner.generator.split(z))
        return float(learner.generator.likelihood.log_prob(x, decoded, mask).mean())

    assert explained(None) == explained(1)
    assert explained(1) < explained(10) < explained(200)


def test_draws_are_for_encoders() -> None:
    for learner in ("short_run", "rae", "persistent"):
        with pytest.raises(InputError, match=rf"^encoder\.draws: {learner} has no encoder q\(z\|x\) to draw from"):
            checked_for_learner(Config(learner=learner, encoder=EncoderConfig(draws=2)))
    with pytest.raises(InputError, match=r"encoder\.draws: got 0"):
        checked_for_learner(Config(learner="vae", encoder=EncoderConfig(draws=0)))
    settings = LearnerConfig(SHAPE, model=ModelConfig(latents=(2, 3)), learner="vae", encoder=EncoderConfig(draws=7))
    assert "7 draws of each image by importance weights" in Vae.describe_settings(settings)
    assert Vae.from_description(settings).draws == 7
