"""Learners whose prior is an energy: where chains start, what they climb, what is logged, and what is refused."""

import math
from pathlib import Path

import pytest
import torch
from energies import linear_energy
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from shortrun import EncoderConfig, ModelConfig, ShortRun, Vae
from shortrun.config import EnergyConfig, InferenceConfig, LearnerConfig
from shortrun.diagnosis.measure import diagnose
from shortrun.errors import InputError
from shortrun.inference import DrawnNoise
from shortrun.learners import Persistent
from shortrun.learners.latent_learner import WINDOW
from shortrun.model import Gaussian, TopDown
from shortrun.tasks import inpaint, interpolate, traverse
from shortrun.training.tuning import divergence_curves, tune

SHAPE = (1, 2, 2)
SLOPE = torch.tensor([1.0, -0.5])
WEIGHT = torch.tensor([[1.0, 0.5], [-0.5, 1.0], [0.3, -0.8], [0.0, 0.6]])
MODEL = ModelConfig(latents=(2, 3), width=8, prior="energy", energy=EnergyConfig(width=8, steps=3))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Linear(nn.Module):
    """x = W z, four pixels of two latents."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(WEIGHT.clone())

    def forward(self, *z: Tensor) -> Tensor:
        return (torch.cat(z, 1) @ self.weight.T).view(-1, *SHAPE)


def linear(steps: int = 60, step_size: float = 0.3, candidates: int = 1) -> ShortRun:
    """Return a linear generator with the prior N(-slope, I), as an energy."""
    generator = TopDown(Linear(), Gaussian(0.8), (1, 1), linear_energy(SLOPE))
    return ShortRun(generator, steps, step_size, candidates=candidates)


def posterior(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and covariance of p(z | x)."""
    covariance = torch.linalg.inv(torch.eye(2) + WEIGHT.T @ WEIGHT / 0.8**2)
    return covariance @ (WEIGHT.T @ x.flatten() / 0.8**2 - SLOPE), covariance


IMAGE = torch.tensor([0.9, -0.4, 0.1, 0.3]).view(1, *SHAPE)


def assert_posterior(z: Tensor, tolerance: float, of_covariance: float = 0.05) -> None:
    mean, covariance = posterior(IMAGE)
    assert ((z.mean(0) - mean).abs() < 4.5 * (covariance.diagonal() / len(z)).sqrt() + tolerance).all()
    torch.testing.assert_close(torch.cov(z.T), covariance, atol=of_covariance, rtol=0)


def test_chains_climb_to_the_posterior_with_the_tilted_prior() -> None:
    assert_posterior(linear().infer(IMAGE.expand(5000, -1, -1, -1), rng()).z, 0.02)


def test_candidates_of_the_normal_are_chosen_with_the_tilt() -> None:
    """By p(x | z) exp(-f(z)): the start is a draw of the posterior where there are many."""
    learner = linear(steps=1, step_size=1e-6, candidates=1500)
    z = torch.cat([learner.infer(IMAGE, rng(seed)).z for seed in range(150)])
    assert_posterior(z, 0.02, 0.25)


def test_the_start_has_the_density_of_the_normal() -> None:
    start = linear().start(IMAGE.expand(9, -1, -1, -1), DrawnNoise(rng(), 1, (9, 2)))
    assert start.initial.standard
    assert start.component.tolist() == [0] * 9


def test_tuning_finds_what_it_finds_with_the_same_prior_as_a_normal() -> None:
    """The divergence lacks the constant log Z: its differences, and its minimum, are those with the normal N(-a, I)."""
    x = IMAGE.expand(6, -1, -1, -1)
    learner = linear(steps=4)
    curves = divergence_curves(learner, x, rng(), ["marginal", "path"], [0.2, 0.6], tuners=[])
    log_z = float(SLOPE @ SLOPE) / 2
    moved = MultivariateNormal(-SLOPE, torch.eye(2))
    z = torch.randn(5, 2, generator=rng())
    torch.testing.assert_close(learner.generator.log_prior(z) - log_z, moved.log_prob(z))
    for points in (curves.points("marginal"), curves.points("path")):
        assert all(math.isfinite(value) for _, value, _ in points)
    found = tune(learner, x, rng(), steps=4)
    assert 0.05 < float(found.settings[0].exp()) < 3


def test_a_layer_is_redrawn_given_the_others_and_walks_are_those_of_the_normal() -> None:
    learner = linear()
    z = learner.draw_prior(2000, rng())
    assert ((z.mean(0) + SLOPE).abs() < 0.15).all()
    again = learner.redraw(z, 1, 2, rng(1))
    assert torch.equal(again[:, 0], z[:, 0])
    assert abs(float(again[:, 1].mean()) - 0.5) < 0.15
    assert learner.frame(z) is None
    assert learner.prior_fit(z) is None
    x = IMAGE.expand(2, -1, -1, -1)
    assert torch.isfinite(interpolate(learner, x, x.flip(3), rng(), columns=3).images).all()
    assert torch.isfinite(traverse(learner, z[:2], layer=1, rng=rng(), columns=3).images).all()
    mask = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 1, 2, 2)
    assert torch.isfinite(inpaint(learner, x, mask, rng()).completions).all()


def test_diagnose_is_refused_in_a_line() -> None:
    with pytest.raises(InputError, match=r"^model.prior: no exact draws of the prior are known[^\n]*$"):
        diagnose(linear(), IMAGE.expand(8, -1, -1, -1), rng())


def losses(learner: ShortRun | Persistent | Vae, count: int) -> list[dict[str, Tensor]]:
    x = 2 * torch.rand(20, 1, 4, 4, generator=rng(3)) - 1
    rows = torch.arange(20)
    return [learner.loss(x, rng(seed), rows=rows)[1] for seed in range(count)]


@pytest.mark.parametrize("kind", ["short_run", "persistent", "vae"])
def test_it_learns_every_so_many_updates_and_says_how(kind: str) -> None:
    description = LearnerConfig((1, 4, 4), None, False, MODEL, InferenceConfig(steps=2), kind)
    if kind == "vae":
        learner = Vae.build((1, 4, 4), MODEL, EncoderConfig(width=8))
    else:
        learner = (ShortRun if kind == "short_run" else Persistent).from_description(description)
        if isinstance(learner, Persistent):
            learner.start_training(images=20, seed=0, folder=Path())
    said = losses(learner, WINDOW)
    prior = learner.generator.prior
    assert not prior.settled
    said += losses(learner, 1)
    assert prior.settled
    assert prior.taken == WINDOW * 20 / 100
    for one in said:
        assert {"energy_gap", "energy_left_out"} <= one.keys()
        # log p(x) of no bound is said, whose constant is not known
        assert not {"elbo", "kl", "prior_fit"} & one.keys()
    assert said[0]["energy_gap"] == 0
    assert said[-1]["energy_gap"] != 0


def test_before_it_has_learned_chains_are_those_of_the_normal() -> None:
    x = 2 * torch.rand(4, 1, 4, 4, generator=rng(3)) - 1
    normal = ModelConfig(latents=(2, 3), width=8)
    learners = [ShortRun.build((1, 4, 4), model, InferenceConfig(steps=3)) for model in (MODEL, normal)]
    one, other = (learner.infer(x, rng()).z for learner in learners)
    assert torch.equal(one, other)
    one, other = (learner.sample(5, rng()) for learner in learners)
    assert torch.equal(one, other)
    one, other = (learner.loss(x, rng())[0] for learner in learners)
    assert torch.equal(one, other)


def test_saved_and_loaded_it_draws_the_same(tmp_path: Path) -> None:
    learner = ShortRun.build((1, 4, 4), MODEL, InferenceConfig(steps=2))
    losses(learner, WINDOW + 1)
    learner.save_pretrained(tmp_path)
    again = ShortRun.from_pretrained(tmp_path)
    assert again.description == learner.description
    assert torch.equal(again.sample(5, rng()), learner.sample(5, rng()))
    assert again.generator.prior.settled


def test_tuning_by_acceptance_is_refused() -> None:
    inference = InferenceConfig(step_size="tuned")
    with pytest.raises(InputError, match="by acceptance the steps and the prior energy"):
        ShortRun.build(
            (1, 4, 4), MODEL, InferenceConfig(step_size="tuned", tuning=type(inference.tuning)(tuner="acceptance"))
        )
