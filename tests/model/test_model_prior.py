import math

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily
from torch.distributions import Normal as TorchNormal

from shortrun.errors import InputError
from shortrun.model import Gaussian, Mixture, Normal, TopDown
from shortrun.model.prior import LEAST_SCALE, choose, standard_normal


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved(components: int = 4, dim: int = 3) -> Mixture:
    """A mixture as learning may leave it."""
    prior = Mixture(dim, components).double()
    for parameter in prior.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=rng(1), dtype=torch.float64)
    return prior


def as_torch(prior: Mixture) -> MixtureSameFamily:
    log_weights, means, scales = prior.parts()
    return MixtureSameFamily(Categorical(logits=log_weights), Independent(TorchNormal(means, scales), 1))


def test_log_prob_is_that_of_torch_and_so_is_its_gradient() -> None:
    prior = moved()
    z = (3 * torch.randn(40, 3, generator=rng(), dtype=torch.float64)).requires_grad_()
    made, expected = prior.log_prob(z), as_torch(prior).log_prob(z)
    torch.testing.assert_close(made, expected)
    wanted = [z, *prior.parameters()]
    torch.testing.assert_close(torch.autograd.grad(made.sum(), wanted), torch.autograd.grad(expected.sum(), wanted))
    torch.testing.assert_close(prior.over_normal(z), expected - standard_normal(z))


def test_it_starts_near_the_standard_normal() -> None:
    prior = Mixture(40, 10)
    z = torch.randn(2000, 40, generator=rng())
    assert prior.over_normal(z).abs().mean() < 1  # of 57 nats
    assert torch.allclose(prior.parts()[2], torch.ones(()))
    assert torch.allclose(prior.parts()[0].exp(), torch.tensor(0.1))


def test_the_start_follows_from_the_seed_and_leaves_torch_alone() -> None:
    before = torch.random.get_rng_state()
    means = [Mixture(3, 4, seed).means for seed in (1, 1, 2)]
    assert torch.equal(means[0], means[1])
    assert not torch.equal(means[0], means[2])
    assert torch.equal(before, torch.random.get_rng_state())


def test_samples_have_the_moments_of_the_mixture() -> None:
    prior, n = moved(), 200_000
    z = prior.sample(n, rng(), torch.float64)
    expected = as_torch(prior)
    torch.testing.assert_close(prior.moments(), (expected.mean, expected.variance))
    assert not z.requires_grad
    assert ((z.mean(0) - expected.mean).abs() < 4.5 * z.std(0) / math.sqrt(n)).all()
    squared = (z - expected.mean) ** 2
    assert ((squared.mean(0) - expected.variance).abs() < 4.5 * squared.std(0) / math.sqrt(n)).all()


def test_uniform_numbers_choose_components_by_their_weights() -> None:
    weights = torch.tensor([0.2, 0.0, 0.5, 0.3])
    chosen = choose(weights, torch.tensor([0.0, 0.1, 0.2, 0.69, 0.71, 1.0]))
    assert chosen.tolist() == [0, 0, 2, 2, 3, 3]


def test_the_standard_normal_draws_what_it_always_drew() -> None:
    def never() -> torch.Tensor:
        raise AssertionError("a uniform number was drawn")

    prior, noise = Normal(3), torch.randn(5, 3, generator=rng())
    assert prior.from_normal(noise, never) is noise
    assert torch.equal(prior.sample(5, rng()), noise)
    assert (prior.over_normal(noise) == 0).all()
    assert [moment.tolist() for moment in prior.moments()] == [[0.0] * 3, [1.0] * 3]
    assert not prior.state_dict()


def test_a_component_cannot_collapse() -> None:
    prior = Mixture(3, 2)
    prior.log_scales.data.fill_(-200)
    assert torch.allclose(prior.parts()[2], torch.tensor(LEAST_SCALE))
    z = torch.randn(4, 3, generator=rng())
    value = prior.log_prob(z).sum()
    assert all(torch.isfinite(gradient).all() for gradient in torch.autograd.grad(value, list(prior.parameters())))


def test_learning_finds_the_components_of_latents() -> None:
    """Three clusters of unlike weight: the likelihood of the truth is reached."""
    means = torch.tensor([[3.0, 0.0], [-2.0, 2.0], [0.0, -3.0]])
    chosen = choose(torch.tensor([0.5, 0.3, 0.2]), torch.rand(3000, generator=rng()))
    z = means[chosen] + 0.5 * torch.randn(3000, 2, generator=rng(1))
    prior = Mixture(2, 3)
    optimizer = torch.optim.Adam(prior.parameters(), 2e-3)
    for step in range(600):
        loss = -prior.log_prob(z[100 * (step % 30) :][:100]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    log_weights, found, scales = prior.parts()
    order = log_weights.argsort(descending=True)
    torch.testing.assert_close(found[order], means, atol=0.2, rtol=0)
    torch.testing.assert_close(log_weights.exp()[order], torch.tensor([0.5, 0.3, 0.2]), atol=0.05, rtol=0)
    torch.testing.assert_close(scales, torch.full((3, 2), 0.5), atol=0.1, rtol=0)


class Decoder(nn.Module):
    def forward(self, *z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(torch.cat(z, 1))[:, None, None]


def test_the_generator_takes_it_as_its_prior() -> None:
    prior = moved()
    generator = TopDown(Decoder(), Gaussian(0.5), (1, 2), prior)
    z = torch.randn(6, 3, generator=rng(), dtype=torch.float64)
    x = torch.zeros(6, 1, 1, 3, dtype=torch.float64)
    assert torch.equal(generator.log_prior(z), prior.log_prob(z))
    torch.testing.assert_close(generator.log_joint(x, z) - generator.log_likelihood(x, z), prior.log_prob(z))
    assert {name for name in generator.state_dict() if name.startswith("prior")} == {
        "prior.logits",
        "prior.means",
        "prior.log_scales",
    }
    assert not any(name.startswith("prior") for name in TopDown(Decoder(), Gaussian(0.5), (1, 2)).state_dict())


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(InputError, match="components: got 0"):
        Mixture(3, 0)
    with pytest.raises(InputError, match="prior: got one of 4 latents for 3"):
        TopDown(Decoder(), Gaussian(0.5), (1, 2), Mixture(4, 2))
