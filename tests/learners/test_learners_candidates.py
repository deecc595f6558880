"""Chains whose start is drawn among candidates of the prior by their likelihood."""

import math
from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from shortrun.config import InferenceConfig, LearnerConfig, ModelConfig
from shortrun.errors import InputError
from shortrun.inference import DrawnNoise
from shortrun.learners import Persistent, ShortRun
from shortrun.learners.chain_start import draw_by
from shortrun.model import Gaussian, Mixture, TopDown
from shortrun.normals import inverses

SHAPE = (1, 2, 2)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


WEIGHT = torch.tensor([[1.0, 0.5], [-0.5, 1.0], [0.3, -0.8], [0.0, 0.6]])


class Linear(nn.Module):
    """x = W z, four pixels of two latents."""

    def __init__(self) -> None:
        super().__init__()
        self.pixel = nn.Parameter(torch.zeros(()))

    def forward(self, z: Tensor) -> Tensor:
        return (z @ WEIGHT.T + self.pixel).view(-1, *SHAPE)


STILL = 1e-6
"""A step so short that the chain ends where it starts."""


def linear(candidates: int, sigma: float = 0.8) -> ShortRun:
    return ShortRun(TopDown(Linear(), Gaussian(sigma), [2]), steps=1, step_size=STILL, candidates=candidates)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-2000, 2000), min_size=1, max_size=6),
    st.floats(0, 1, exclude_max=True, width=32),
)
def test_a_row_is_drawn_where_its_number_falls_in_the_running_sum(log_weights: list[float], uniform: float) -> None:
    weights = [math.exp(value - max(log_weights)) for value in log_weights]
    shares = [sum(weights[: i + 1]) / sum(weights) for i in range(len(weights))]
    chosen, tilt = draw_by(torch.tensor([log_weights], dtype=torch.float64), torch.tensor([uniform]))
    drawn = int(chosen)
    below = shares[drawn - 1] if drawn else 0.0
    assert below - 1e-9 <= uniform <= shares[drawn] + 1e-9
    mean = max(log_weights) + math.log(sum(weights) / len(weights))
    assert float(tilt) == pytest.approx(log_weights[drawn] - mean, abs=1e-9 * (1 + max(map(abs, log_weights))))


def test_what_is_not_finite_is_not_drawn() -> None:
    weights = torch.tensor([[math.nan, 0.0, math.inf], [-math.inf, math.nan, 5.0], [math.nan, math.nan, math.nan]])
    for uniform in (0.0, 0.5, 0.999):
        drawn, tilt = draw_by(weights, torch.full((3,), uniform))
        assert drawn[:2].tolist() == [1, 2]
        assert drawn[2] == int(3 * uniform)  # nothing speaks for any: all alike
        assert tilt.tolist() == pytest.approx([math.log(3), math.log(3), 0.0])


def test_with_many_candidates_the_start_is_a_draw_of_the_posterior() -> None:
    """N(S W^T x / sigma^2, S), S = (I + W^T W / sigma^2)^-1, of a linear generator."""
    learner, sigma = linear(4000), 0.8
    image = torch.tensor([0.9, -0.4, 0.1, 0.3]).view(1, *SHAPE)
    spread = torch.linalg.inv(torch.eye(2) + WEIGHT.T @ WEIGHT / sigma**2)
    mean = spread @ WEIGHT.T @ image.flatten() / sigma**2
    # new candidates now and then, for those of one batch are common to its images
    drawn = torch.cat([learner.infer(image.expand(200, -1, -1, -1), rng(seed)).z for seed in range(40)])
    torch.testing.assert_close(drawn.mean(0), mean, rtol=0, atol=0.03)
    torch.testing.assert_close(torch.cov(drawn.T), spread, rtol=0, atol=0.03)
    alone = torch.cat([linear(1).infer(image.expand(200, -1, -1, -1), rng(seed)).z for seed in range(40)])
    assert (alone.mean(0) - mean).abs().max() > 0.2  # of the prior, which the test would tell apart


def test_with_many_candidates_the_density_of_the_start_is_the_posteriors() -> None:
    """exp(tilt) N(z_0; 0, I), against the closed form."""
    learner, sigma, n = linear(20_000), 0.8, 200
    image = torch.tensor([0.9, -0.4, 0.1, 0.3])
    precision = torch.eye(2) + WEIGHT.T @ WEIGHT / sigma**2
    mean = torch.linalg.solve(precision, WEIGHT.T @ image) / sigma**2
    x, draws = image.view(1, *SHAPE).expand(n, -1, -1, -1), (DrawnNoise(rng(seed), 1, (n, 2)) for seed in (3, 3))
    z, component, initial = learner.start(x, next(draws))
    assert torch.equal(z, learner.start(x, next(draws)).z)
    assert not component.any()
    exact = MultivariateNormal(mean, precision_matrix=precision).log_prob(z)
    assert float((initial.log_prob(z) - exact).abs().max()) < 0.05
    assert len({*initial.tilt.tolist()}) > 1


def parted(apart: float) -> Mixture:
    """Two components, at -apart and apart in both latents, of unlike weight."""
    prior, means = Mixture(2, 2), torch.tensor([[-apart, -apart], [apart, apart]])
    roots = torch.tensor([[[1.0, 0.0], [0.5, 0.6]], [[0.8, 0.0], [-0.3, 1.0]]])
    parts = {"log_weights": torch.tensor([0.3, 0.7]).log(), "means": means, "roots": roots, "inverse": inverses(roots)}
    prior.load_state_dict(prior.state_dict() | parts)
    return prior


def test_the_density_of_a_start_without_candidates_is_the_priors() -> None:
    """Of a mixture, that of the latents and the component that they were drawn of."""
    plain, learned = linear(1), linear(1)
    learned.generator.prior = parted(0.5)
    for learner in (plain, learned):
        z, component, initial = learner.start(torch.zeros(50, *SHAPE), DrawnNoise(rng(), 1, (50, 2)))
        log_prior = learner.generator.prior.held(component)(z).double()
        torch.testing.assert_close(initial.log_prob(z), log_prior, rtol=1e-5, atol=1e-5)
        assert not any(part.requires_grad for part in initial)
    assert set(component.tolist()) == {0, 1}


def test_with_many_candidates_of_a_mixture_latents_and_component_are_the_posteriors() -> None:
    learner, sigma, n = linear(20_000), 0.8, 200
    learner.generator.prior = prior = parted(0.7)
    image = torch.tensor([0.9, -0.4, 0.1, 0.3])
    x = image.view(1, *SHAPE).expand(n, -1, -1, -1)
    z, component, initial = learner.start(x, DrawnNoise(rng(3), 1, (n, 2)))
    whole = WEIGHT @ (prior.roots @ prior.roots.mT) @ WEIGHT.T + sigma**2 * torch.eye(4)
    log_evidence = MultivariateNormal(prior.means @ WEIGHT.T, whole).log_prob(image) + prior.log_weights
    precision = prior.inverse.mT @ prior.inverse + WEIGHT.T @ WEIGHT / sigma**2
    pull = (prior.inverse.mT @ prior.inverse @ prior.means[..., None])[..., 0] + WEIGHT.T @ image / sigma**2
    mean = torch.linalg.solve(precision, pull)
    exact = MultivariateNormal(mean[component], precision_matrix=precision[component]).log_prob(z)
    exact += torch.log_softmax(log_evidence, 0)[component]
    assert float((initial.log_prob(z) - exact).abs().max()) < 0.05
    assert set(component.tolist()) == {0, 1}


def test_hidden_pixels_have_no_say() -> None:
    learner, mask = linear(500, sigma=0.05), torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, *SHAPE)
    z = torch.randn(50, 2, generator=rng(1))
    x = learner.generator.decode(z)
    spoiled = torch.where(mask > 0, x, torch.full_like(x, math.nan))
    found = learner.infer(spoiled, rng(), mask=mask)
    assert not found.failed.any()
    # two pixels determine two latents: the nearest of 500 candidates is near
    assert (found.z - z).norm(dim=1).median() < 0.2
    assert torch.equal(found.z, learner.infer(x, rng(), mask=mask.expand(50, -1, -1, -1)).z)


@pytest.mark.parametrize("prior", ["normal", "mixture"])
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli", "logistic"])
def test_the_start_is_one_of_the_candidates_and_parts_of_a_batch_share_them(
    likelihood: Literal["gaussian", "bernoulli", "logistic"], prior: Literal["normal", "mixture"]
) -> None:
    model = ModelConfig(latents=(2, 3), width=8, likelihood=likelihood, prior=prior, components=3)
    learner = ShortRun.build(SHAPE, model, InferenceConfig(steps=1, step_size=STILL, candidates=7), levels=2)
    x = torch.randint(2, (6, *SHAPE), generator=rng(2)).float() * 2 - 1
    whole = learner.infer(x, rng()).z
    candidates = learner.generator.prior.sample(7, rng())
    assert torch.cdist(whole, candidates).min(1).values.max() < 1e-4
    parts = [learner.infer(x[2 * i : 2 * i + 2], rng(), part=(i, 3)).z for i in range(3)]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_chains_start_in_the_component_that_explains_the_image() -> None:
    model = ModelConfig(latents=(2,), width=8, prior="mixture", components=2, sigma=0.1)
    starts = {}
    for candidates in (1, 50):
        settings = InferenceConfig(steps=1, step_size=STILL, candidates=candidates)
        learner = ShortRun.build(SHAPE, model, settings, levels=None, decoder=Linear())
        learner.generator.prior = parted(5.0)
        z = torch.where(torch.arange(40)[:, None] % 2 > 0, 5.0, -5.0).expand(40, 2)
        starts[candidates] = (torch.sign(learner.infer(learner.generator.decode(z), rng()).z) == torch.sign(z)).all(1)
    assert starts[50].all()
    assert 5 < starts[1].sum() < 35


def test_a_bad_image_harms_no_other() -> None:
    learner = ShortRun.build(
        SHAPE, ModelConfig(latents=(2,), width=8), InferenceConfig(steps=3, retries=1, candidates=9), levels=2
    )
    x = torch.randint(2, (5, *SHAPE), generator=rng(2)).float() * 2 - 1
    spoiled = x.clone()
    spoiled[3, 0, 1, 1] = math.nan
    clean, found = learner.infer(x, rng()), learner.infer(spoiled, rng())
    others = [0, 1, 2, 4]
    assert found.failed.tolist() == [False, False, False, True, False]
    assert torch.equal(found.z[others], clean.z[others])
    assert torch.isfinite(found.z).all()


def test_the_number_of_candidates_is_said_and_saved(tmp_path: Path) -> None:
    learner = ShortRun.build(SHAPE, ModelConfig(latents=(2,), width=8), InferenceConfig(candidates=5), levels=2)
    assert learner.conditions()["candidates"] == 5
    assert learner.describe_inference() == "25 steps, with noise, from 5 candidates of the prior"
    learner.save_pretrained(tmp_path / "model")
    assert ShortRun.from_pretrained(tmp_path / "model").candidates == 5
    assert "candidates" not in linear(1).conditions()


def test_persistent_chains_start_new_images_from_candidates() -> None:
    settings = InferenceConfig(steps=2, step_size=STILL, candidates=6)
    description = LearnerConfig(SHAPE, 2, False, ModelConfig(latents=(2,), width=8), settings, learner="persistent")
    learner = Persistent.from_description(description)
    z = learner.infer(torch.ones(4, *SHAPE), rng()).z
    assert torch.cdist(z, learner.generator.prior.sample(6, rng())).min(1).values.max() < 1e-3
    assert learner.describe_inference() == "100 steps, with noise, from 6 candidates of the prior"


def test_no_candidates_at_all_are_refused() -> None:
    with pytest.raises(InputError, match=r"candidates: got 0; write a whole number"):
        linear(0)
