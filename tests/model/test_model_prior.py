import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily
from torch.distributions import Normal as TorchNormal

from shortrun.errors import InputError
from shortrun.model import Gaussian, Mixture, Normal, TopDown
from shortrun.model.prior import LEAST_SCALE, choose
from shortrun.normals import standard_normal


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved(components: int = 4, dim: int = 3, unit: bool = False) -> Mixture:
    """A mixture as learning may leave it."""
    prior = Mixture(dim, components, unit=unit).double()
    for parameter in prior.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=rng(1), dtype=torch.float64)
    return prior


def as_torch(prior: Mixture) -> MixtureSameFamily:
    log_weights, means, scales = prior.parts()
    return MixtureSameFamily(Categorical(logits=log_weights), Independent(TorchNormal(means, scales), 1))


@pytest.mark.parametrize("unit", [False, True])
def test_log_prob_is_that_of_torch_and_so_is_its_gradient(unit: bool) -> None:
    prior = moved(unit=unit)
    z = (3 * torch.randn(40, 3, generator=rng(), dtype=torch.float64)).requires_grad_()
    made, expected = prior.log_prob(z), as_torch(prior).log_prob(z)
    torch.testing.assert_close(made, expected)
    wanted = [z, *prior.parameters()]
    torch.testing.assert_close(torch.autograd.grad(made.sum(), wanted), torch.autograd.grad(expected.sum(), wanted))
    torch.testing.assert_close(prior.over_normal(z), expected - standard_normal(z))


@pytest.mark.parametrize("unit", [False, True])
def test_it_starts_near_the_standard_normal(unit: bool) -> None:
    prior = Mixture(40, 10, unit=unit)
    z = torch.randn(2000, 40, generator=rng())
    assert prior.over_normal(z).abs().mean() < 1  # of 57 nats
    assert torch.allclose(prior.parts()[2], torch.ones(()), atol=0.01 if unit else 1e-6)
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


@given(st.integers(0, 999), st.floats(0.0, 0.5), st.floats(-0.4, 0.4))
@settings(max_examples=40, deadline=None)
def test_one_of_unit_scale_stays_so_whatever_is_learned(seed: int, spread: float, shift: float) -> None:
    prior = Mixture(5, 3, unit=True).double()
    for parameter in prior.parameters():
        parameter.data += spread * torch.randn(parameter.shape, generator=rng(seed), dtype=torch.float64)
    mean, variance = prior.moments()
    torch.testing.assert_close((mean**2 + variance).mean(), torch.ones((), dtype=torch.float64))
    assert (prior.parts()[2] >= LEAST_SCALE).all()
    # what is learned keeps its shape: another common scale, of means and of deviations, is the same mixture
    before = prior.parts()
    prior.means.data *= math.exp(10 * shift)
    prior.log_scales.data += shift
    torch.testing.assert_close(prior.parts(), before)


def test_one_of_unit_scale_is_the_free_one_up_to_a_factor() -> None:
    free, unit = moved(dim=40), moved(dim=40, unit=True)
    log_weights, means, scales = unit.parts()
    assert torch.equal(log_weights, free.parts()[0])
    ratio = means / free.parts()[1]
    torch.testing.assert_close(ratio, ratio[:1, :1].expand_as(ratio))
    assert abs(ratio[0, 0].item() - 1) > 0.1
    bare = (scales**2 - LEAST_SCALE**2) / (free.parts()[2] ** 2 - LEAST_SCALE**2)
    torch.testing.assert_close(bare, ratio**2)


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


@pytest.mark.parametrize("unit", [False, True])
def test_learning_finds_the_components_of_latents(unit: bool) -> None:
    """Three clusters of unlike weight: the likelihood of the truth is reached."""
    means, scale = torch.tensor([[3.0, 0.0], [-2.0, 2.0], [0.0, -3.0]]), 0.5
    weights = torch.tensor([0.5, 0.3, 0.2])
    if unit:
        factor = (2 / (weights @ (means**2).sum(1) + 2 * scale**2)).sqrt()
        means, scale = factor * means, float(factor * scale)
    chosen = choose(weights, torch.rand(3000, generator=rng()))
    z = means[chosen] + scale * torch.randn(3000, 2, generator=rng(1))
    prior = Mixture(2, 3, unit=unit)
    optimizer = torch.optim.Adam(prior.parameters(), 2e-3)
    for step in range(600):
        loss = -prior.log_prob(z[100 * (step % 30) :][:100]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    log_weights, found, scales = prior.parts()
    order = log_weights.argsort(descending=True)
    torch.testing.assert_close(found[order], means, atol=0.2, rtol=0)
    torch.testing.assert_close(log_weights.exp()[order], weights, atol=0.05, rtol=0)
    torch.testing.assert_close(scales, torch.full((3, 2), scale), atol=0.2 * scale, rtol=0)


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
