import math

import torch
from encoder_learners import images, learner_of, rng
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from shortrun.learners import Vae
from shortrun.model import Gaussian, TopDown
from shortrun.model.encoders import Moments


def test_density_and_divergence_are_those_of_a_normal_distribution() -> None:
    learner, x = learner_of("vae"), images(6)
    with torch.no_grad():
        (moments,) = learner.encoder(x)
        noise = torch.randn(6, 5, generator=rng())
        z, log_q, kl, decoded = learner.draw(x, noise)
    q = Normal(moments.mu, moments.log_sigma.exp())
    torch.testing.assert_close(z, q.mean + q.stddev * noise)
    torch.testing.assert_close(log_q, q.log_prob(z).sum(1))
    expected = kl_divergence(q, Normal(torch.zeros(6, 5), torch.ones(6, 5)))
    torch.testing.assert_close(kl, torch.stack([expected[:, :2].sum(1), expected[:, 2:].sum(1)], 1))
    torch.testing.assert_close(decoded, learner.generator.decode(z))
    assert moments.mu.std(0).min() > 1e-2
    assert moments.log_sigma.std(0).min() > 1e-3


class Linear(nn.Module):
    """x = W z, with orthogonal columns: then the coordinates of z are independent given x."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weights)

    def forward(self, *z: Tensor) -> Tensor:
        return (torch.cat(z, 1) @ self.weight.T)[:, None, None, :]


class Exact(nn.Module):
    """The posterior of x = W z + sigma noise: N(W^T x / (sigma^2 + w^2), sigma^2 / (sigma^2 + w^2))."""

    def __init__(self, weights: Tensor, sigma: float) -> None:
        super().__init__()
        self.weight, self.variance = nn.Parameter(weights), sigma**2

    def forward(self, x: Tensor) -> list[Moments]:
        total = self.variance + self.weight.square().sum(0)
        mu = x.flatten(1) @ self.weight / total
        return [Moments(mu, (0.5 * torch.log(self.variance / total)).expand_as(mu))]


def test_with_the_exact_posterior_the_bound_is_log_p() -> None:
    directions = torch.linalg.qr(torch.randn(6, 3, generator=rng(), dtype=torch.float64))[0]
    weights = directions * torch.tensor([0.3, 1.0, 2.5], dtype=torch.float64)
    generator = TopDown(Linear(weights), Gaussian(0.4), (1, 2)).double()
    sigma = float(generator.likelihood.sigma)  # pyright: ignore[reportArgumentType]
    learner = Vae(generator, Exact(weights, sigma))
    x = torch.randn(5, 1, 1, 6, generator=rng(1), dtype=torch.float64)
    covariance = weights @ weights.T + sigma**2 * torch.eye(6, dtype=torch.float64)
    log_p = MultivariateNormal(torch.zeros(6, dtype=torch.float64), covariance).log_prob(x.flatten(1))

    with torch.no_grad():
        z, log_q = learner.propose(x, rng(2))
        torch.testing.assert_close(generator.log_joint(x, z) - log_q, log_p)
        # log p(x|z) is quadratic in z: its mean over these six points is its expectation
        points = torch.eye(3, dtype=torch.float64) * math.sqrt(3)
        bounds = []
        for noise in torch.cat([points, -points]):
            draw = learner.draw(x, noise.expand(5, 3))
            bounds.append(generator.likelihood.log_prob(x, draw.decoded) - draw.kl.sum(1))
        torch.testing.assert_close(torch.stack(bounds).mean(0), log_p)
        worse = learner.draw(x, torch.zeros(5, 3, dtype=torch.float64))
        assert not torch.allclose(generator.likelihood.log_prob(x, worse.decoded) - worse.kl.sum(1), log_p)


def test_the_posterior_is_of_the_flat_latents_in_the_conditional_parameterization_too() -> None:
    learner, x = learner_of("vae, conditional"), images(3)
    z, log_q = learner.propose(x, rng())
    assert (learner.layers(z)[1] - z[:, 2:]).abs().max() > 1e-2
    q = Normal(learner.infer(x, rng()).z, learner.encoder(x)[0].log_sigma.exp().detach())
    torch.testing.assert_close(log_q, q.log_prob(z).sum(1))
