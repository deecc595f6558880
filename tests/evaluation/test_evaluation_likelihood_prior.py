"""Annealed importance sampling where the prior is a mixture, against log p(x) in closed form."""

import math

import torch
from mixtures import mixture_of
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from shortrun.evaluation import annealing_gap, log_likelihood_figures
from shortrun.evaluation.likelihood import simulate
from shortrun.learners import ShortRun
from shortrun.model import Gaussian, TopDown

LATENTS, PIXELS, SIGMA = (1, 2), 5, 0.6


def numbers(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(PIXELS, sum(LATENTS), generator=numbers(3), dtype=torch.float64))

    def forward(self, *z: Tensor) -> Tensor:
        return (torch.cat(z, dim=1) @ self.weight.T)[:, None, None, :]


def linear() -> tuple[ShortRun, MixtureSameFamily]:
    """Return a linear generator with a prior of three normals, and its exact p(x), a mixture of normals too."""
    log_weights = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64).log_softmax(0)
    means = 1.5 * torch.randn(3, 3, generator=numbers(1), dtype=torch.float64)
    tilted = 0.4 * torch.randn(3, 3, 3, generator=numbers(2), dtype=torch.float64)
    roots = torch.linalg.cholesky(torch.eye(3, dtype=torch.float64) + tilted @ tilted.mT)
    assert means.norm(dim=1).max() > 1, "too near to one normal to say anything"
    decoder = Linear()
    generator = TopDown(decoder, Gaussian(SIGMA).double(), LATENTS, mixture_of(log_weights, means, roots))
    w = decoder.weight.detach()
    covariance = w @ roots @ roots.mT @ w.T + SIGMA**2 * torch.eye(PIXELS, dtype=torch.float64)
    exact = MixtureSameFamily(Categorical(logits=log_weights), MultivariateNormal(means @ w.T, covariance))
    return ShortRun(generator), exact


def test_estimates_agree_with_the_exact_value() -> None:
    learner, exact = linear()
    n = 300
    x, z = simulate(learner.generator, n, numbers(0))
    # simulated images follow p(x), and their latents p(z)
    entropy = -exact.log_prob(x.flatten(1))
    assert z.shape == (n, 3)
    found = log_likelihood_figures(learner, x, numbers(1), temperatures=150, chains=4, leapfrog=5, batch_size=n)["nats"]
    assert found.value is not None
    assert abs(found.value + float(entropy.mean())) < 0.1
    # against N(0, I) in the prior's place the same figure would be far off
    normal = TopDown(learner.generator.decoder, learner.generator.likelihood, LATENTS)
    wrong = log_likelihood_figures(ShortRun(normal), x, numbers(1), temperatures=150, leapfrog=5, batch_size=n)
    assert wrong["nats"].value is not None
    assert abs(wrong["nats"].value + float(entropy.mean())) > 0.3


def test_simulated_images_follow_the_exact_density() -> None:
    learner, exact = linear()
    n = 20_000
    x, _ = simulate(learner.generator, n, numbers(0))
    rows = x.flatten(1)
    assert ((rows.mean(0) - exact.mean).abs() < 4.5 * rows.std(0) / math.sqrt(n)).all()
    torch.testing.assert_close(rows.var(0), exact.variance, rtol=0.08, atol=0)


def test_the_bounds_meet() -> None:
    learner, _ = linear()
    gap = annealing_gap(learner, 200, numbers(2), temperatures=400, chains=2, leapfrog=5)
    assert gap.value is not None
    assert -4.5 * gap.own["standard_error"] < gap.value < 0.15
