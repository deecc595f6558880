"""Annealed importance sampling against log p(x) in closed form and by quadrature."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shortrun.config import InferenceConfig, ModelConfig
from shortrun.errors import InputError
from shortrun.evaluation import annealing_gap, log_likelihood_figures
from shortrun.evaluation.likelihood import bits_per_dim, simulate
from shortrun.learners import ShortRun
from shortrun.metrics import annealed_importance
from shortrun.metrics.hamiltonian import inverse_temperatures
from shortrun.model import Bernoulli, DiscretizedLogistic, Gaussian, Likelihood, TopDown

LATENTS, PIXELS, SIGMA = (1, 2), 5, 0.6


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(PIXELS, sum(LATENTS), generator=rng, dtype=torch.float64))
        self.bias = nn.Parameter(torch.randn(PIXELS, generator=rng, dtype=torch.float64))

    def forward(self, *z: Tensor) -> Tensor:
        return (torch.cat(z, dim=1) @ self.weight.T + self.bias)[:, None, None, :]


def linear() -> tuple[TopDown, Callable[[Tensor], Tensor]]:
    """Return a linear generator in float64 and its exact log p(x) = log N(x; b, W W' + sigma^2 I)."""
    decoder = Linear()
    generator = TopDown(decoder, Gaussian(SIGMA).double(), LATENTS)
    w = decoder.weight.detach()
    variance = float(generator.likelihood.sigma) ** 2  # type: ignore[arg-type]
    covariance = w @ w.T + variance * torch.eye(PIXELS, dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(decoder.bias.detach(), covariance)
    return generator, lambda x: exact.log_prob(x.flatten(1))


def numbers(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(deadline=None, max_examples=2)
@given(st.integers(0, 10_000))
def test_forward_lies_below_and_reverse_above_the_exact_value(seed: int) -> None:
    generator, exact = linear()
    n, chains = 200, 3
    x, z = simulate(generator, n, numbers(seed))
    repeated = x.repeat(chains, 1, 1, 1)
    errors = []
    for posterior in (None, z):
        found = annealed_importance(
            lambda latents: generator.log_likelihood(repeated, latents),
            3,
            n,
            numbers(seed),
            temperatures=100,
            chains=chains,
            leapfrog=5,
            posterior=posterior,
            dtype=torch.float64,
        )
        assert found.log_weights.shape == (chains, n)
        assert 0.4 < found.acceptance.min() <= found.acceptance.max() <= 1
        errors.append(found.log_p - exact(x))
    lower, upper = errors
    slack = 4.5 * max(float(lower.std()), float(upper.std())) / math.sqrt(n)
    assert slack < 0.25
    # half the variance of a weight is what an estimate loses on average; three chains lose a part of that
    assert -slack - 0.1 < lower.mean() < slack
    assert -slack < upper.mean() < slack + 0.1


def test_weights_are_unbiased_also_with_few_temperatures() -> None:
    """E w = p(x) and, from exact posterior samples, E 1/w = 1 / p(x), whatever the schedule."""
    generator, exact = linear()
    x, _ = simulate(generator, 1, numbers(1))
    rows = 8000
    repeated = x.expand(rows, -1, -1, -1)
    decoder = Linear()
    w, variance = decoder.weight.detach(), float(generator.likelihood.sigma) ** 2  # type: ignore[arg-type]
    precision = torch.eye(3, dtype=torch.float64) + w.T @ w / variance
    pull = w.T @ (x.flatten() - decoder.bias.detach()) / variance
    posterior = torch.distributions.MultivariateNormal(torch.linalg.solve(precision, pull), precision_matrix=precision)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        exact_draws = posterior.sample(torch.Size([rows]))
    for start, sign in ((None, 1), (exact_draws, -1)):
        found = annealed_importance(
            lambda z: generator.log_likelihood(repeated, z),
            3,
            rows,
            numbers(4),
            temperatures=25,
            leapfrog=4,
            posterior=start,
            dtype=torch.float64,
        )
        ratio = (sign * (found.log_weights[0] - exact(x))).exp()
        assert found.log_weights.std() > 0.2, "too easy to say anything"
        assert abs(ratio.mean() - 1) < 4.5 * ratio.std() / math.sqrt(rows)


@pytest.mark.parametrize("dim", [1, 2])
def test_two_modes_apart_agree_with_quadrature(dim: int) -> None:
    """x = |z|^2 and sin(3 z_1), noisily: a posterior of separate modes, one of them nearer to the prior's centre."""
    n, sigma = 6, 0.15

    def decode(z: Tensor) -> Tensor:
        return torch.stack([(z**2).sum(1), torch.sin(3 * z[:, 0])], dim=1)

    x = decode(1.3 * torch.randn(n, dim, generator=numbers(0), dtype=torch.float64))

    def log_likelihood(images: Tensor, z: Tensor) -> Tensor:
        scaled = (images - decode(z)) / sigma
        return -0.5 * (scaled**2).sum(1) - 2 * math.log(sigma * math.sqrt(2 * math.pi))

    line = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    grid = torch.cartesian_prod(*[line] * dim).view(-1, dim)
    log_prior = -0.5 * (grid**2).sum(1) - dim / 2 * math.log(2 * math.pi)
    wanted = torch.stack(
        [torch.logsumexp(log_likelihood(image, grid) + log_prior, 0) + dim * math.log(0.01) for image in x]
    )
    chains = 1000
    repeated = x.repeat(chains, 1)
    found = annealed_importance(
        lambda z: log_likelihood(repeated, z),
        dim,
        n,
        numbers(1),
        temperatures=100,
        chains=chains,
        leapfrog=5,
        dtype=torch.float64,
    )
    # chains that end in the lesser mode weigh next to nothing: the error of the mean is that of the weights themselves
    ratio = (found.log_weights - wanted).exp()
    error = ratio.std(0) / math.sqrt(chains)
    assert error.max() < 0.25
    assert ((ratio.mean(0) - 1).abs() < 4.5 * error).all()
    torch.testing.assert_close(found.log_p.exp(), ratio.mean(0) * wanted.exp())


def test_the_same_seed_gives_the_same_numbers_and_no_global_state_moves() -> None:
    generator, _ = linear()
    x, _ = simulate(generator, 4, numbers(0))
    before = torch.random.get_rng_state()

    def estimate(seed: int) -> Tensor:
        return annealed_importance(
            lambda z: generator.log_likelihood(x, z),
            3,
            4,
            numbers(seed),
            temperatures=5,
            leapfrog=2,
            dtype=torch.float64,
        ).log_p

    assert torch.equal(estimate(1), estimate(1))
    assert not torch.equal(estimate(1), estimate(2))
    assert torch.equal(before, torch.random.get_rng_state())


@given(st.integers(1, 5000))
def test_temperatures_rise_from_0_to_1(count: int) -> None:
    beta = inverse_temperatures(count)
    assert len(beta) == count + 1
    assert (beta[0], beta[-1]) == (0, 1)
    assert (beta.diff() > 0).all()


def test_one_temperature_is_plain_importance_sampling() -> None:
    found = annealed_importance(lambda z: -(z**2).sum(1), 2, 3, numbers(0), temperatures=1, chains=2000)
    # E exp(-z^2) = 1 / sqrt(3) in each dimension
    torch.testing.assert_close(found.log_p, torch.full((3,), -math.log(3)).double(), atol=0.1, rtol=0)


def test_proposals_that_are_not_finite_are_rejected() -> None:
    """p(x | z) is nan where z < 0, which the chains from z > 0 try to enter."""
    sides = torch.tensor([1.0, math.nan])

    def log_likelihood(z: Tensor) -> Tensor:
        return -2 * (z[:, 0] - 0.1) ** 2 + torch.where(z[:, 0] > 0, sides[0], sides[1])

    start = torch.full((50, 1), 0.5)
    found = annealed_importance(log_likelihood, 1, 50, numbers(0), temperatures=30, posterior=start)
    assert torch.isfinite(found.log_p).all()
    with pytest.raises(InputError, match="log_likelihood: not finite"):
        annealed_importance(log_likelihood, 1, 50, numbers(0), temperatures=30)


def small(likelihood: str = "gaussian", levels: int | None = 17) -> ShortRun:
    model = ModelConfig(latents=(2, 3), width=8, depth=1, likelihood=likelihood)  # type: ignore[arg-type]
    return ShortRun.build((1, 4, 4), model, InferenceConfig(steps=2), levels)


@pytest.mark.parametrize("likelihood", ["gaussian", "logistic", "bernoulli"])
def test_figures_of_a_learner(likelihood: str) -> None:
    learner = small(likelihood)
    x, _ = simulate(learner.generator, 9, numbers(0))
    found = log_likelihood_figures(learner, x, numbers(1), temperatures=10, leapfrog=2, batch_size=5)
    nats = found["nats"]
    assert nats.conditions["images"] == 9
    assert nats.value is not None
    assert math.isfinite(nats.value)
    assert nats.own["standard_error"] > 0
    assert 0 < nats.own["acceptance"] <= 1
    width = 2 / 16 if likelihood == "gaussian" else 1.0
    assert found["bits_per_dim"].value == pytest.approx(-(nats.value / 16 + math.log(width)) / math.log(2))
    gap = annealing_gap(learner, 50, numbers(2), temperatures=40, leapfrog=4)
    assert gap.value is not None
    assert gap.own["lower"] + gap.value == pytest.approx(gap.own["upper"])
    assert -4.5 * gap.own["standard_error"] < gap.value < 0.5
    assert all(weight.requires_grad for weight in learner.generator.parameters())


def test_bits_of_floats_are_not_given() -> None:
    learner = small(levels=None)
    found = log_likelihood_figures(learner, torch.zeros(1, 1, 4, 4), numbers(0), temperatures=3, chains=2)
    assert found["bits_per_dim"].value is None
    assert "no levels" in found["bits_per_dim"].left_out
    assert found["nats"].standard_error is None


def test_bits_of_a_wide_gaussian_are_those_of_its_bins() -> None:
    """The density times the width of a bin, against the Gaussian's mass in the bin."""
    generator = TopDown(nn.Identity(), Gaussian(0.4), (1,))
    x = torch.linspace(-1, 1, 17)
    normal = torch.distributions.Normal(0.1, 0.4)
    mass = normal.cdf(x + 1 / 16) - normal.cdf(x - 1 / 16)
    for value, share in zip(x[5:13], mass[5:13], strict=True):
        nats = float(normal.log_prob(value))
        assert bits_per_dim(generator, nats, 1, 17) == pytest.approx(-math.log2(share), abs=0.03)


class Fixed(nn.Module):
    """Decodes every z to the same value."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, z: Tensor) -> Tensor:
        return self.value.expand(len(z), 1, 1, 1)


@pytest.mark.parametrize(
    ("likelihood", "values"),
    [(Bernoulli(), [-1.0, 1.0]), (DiscretizedLogistic(1, 5, 0.4), [-1.0, -0.5, 0.0, 0.5, 1.0])],
    ids=["bernoulli", "logistic"],
)
def test_simulated_pixels_have_the_likelihoods_own_frequencies(likelihood: Likelihood, values: list[float]) -> None:
    generator = TopDown(Fixed(0.3), likelihood, (1,))
    n = 20_000
    x, z = simulate(generator, n, numbers(0))
    assert z.shape == (n, 1)
    for value in values:
        share = generator.log_likelihood(torch.full((1, 1, 1, 1), value), z[:1]).exp().item()
        assert abs((x == value).double().mean().item() - share) < 4.5 * math.sqrt(share * (1 - share) / n)


def test_what_cannot_be_estimated_is_refused() -> None:
    learner, rng = small(), numbers(0)
    x = torch.zeros(2, 1, 4, 4)
    with pytest.raises(InputError, match="x: got no images"):
        log_likelihood_figures(learner, x[:0], rng)
    for name in ("temperatures", "chains", "leapfrog"):
        with pytest.raises(InputError, match=f"{name}: got 0"):
            log_likelihood_figures(learner, x, rng, **{name: 0})
    with pytest.raises(InputError, match="not finite"):
        log_likelihood_figures(learner, x * math.nan, rng, temperatures=2)
    with pytest.raises(InputError, match=r"posterior: got \[3, 5\]"):
        annealed_importance(lambda z: z.sum(1), 5, 2, rng, posterior=torch.zeros(3, 5))
    with pytest.raises(InputError, match="n: got 0"):
        annealing_gap(learner, 0, rng)


def test_images_are_simulated_by_the_users_own_likelihood() -> None:
    class Shifted(Likelihood):
        def sample(self, decoded: Tensor, rng: torch.Generator) -> Tensor:
            return decoded + torch.rand(decoded.shape, generator=rng, dtype=decoded.dtype)

    x, z = simulate(TopDown(Fixed(0.25), Shifted(), (1,)), 3, numbers(0))
    rng = numbers(0)
    assert torch.equal(z, torch.randn(3, 1, generator=rng))
    assert torch.equal(x, 0.25 + torch.rand(3, 1, 1, 1, generator=rng))
