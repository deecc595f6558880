"""Importance-weighted bounds against log p(x) in closed form, by quadrature, and against the annealing."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mixtures import mixture_of
from torch import Tensor, nn

from shortrun.config import LearnerConfig, ModelConfig
from shortrun.errors import InputError
from shortrun.evaluation import log_likelihood_figures
from shortrun.evaluation.importance import importance_bound, importance_figures
from shortrun.evaluation.likelihood import simulate
from shortrun.learners import EncoderLearner, Inferred, LatentLearner, ShortRun, Vae, learner_class
from shortrun.learners.encoder import Proposal
from shortrun.model import Bernoulli, Gaussian, Prior, TopDown

LATENTS, PIXELS, SIGMA = (1, 3), 5, 0.6


def numbers(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Linear(nn.Module):
    """x = W z + b in float64, with a latent that does nothing."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randn(PIXELS, sum(LATENTS), generator=numbers(3), dtype=torch.float64)
        weight[:, 2] = 0
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.randn(PIXELS, generator=numbers(4), dtype=torch.float64))

    def forward(self, *z: Tensor) -> Tensor:
        return (torch.cat(z, dim=1) @ self.weight.T + self.bias)[:, None, None, :]


class Anywhere(ShortRun):
    """A chain that ends far from the posterior."""

    def infer(self, x: Tensor, rng: torch.Generator, **_: object) -> Inferred:  # type: ignore[override]
        z = 5 * torch.randn(len(x), self.dim, generator=rng, dtype=torch.float64)
        return Inferred(z, torch.zeros(len(x), dtype=torch.bool), 0)


class Exact(EncoderLearner):
    """An encoder that knows the posterior of a linear generator."""

    def propose(self, x: Tensor, rng: torch.Generator) -> Proposal:
        decoder = self.generator.decoder
        assert isinstance(decoder, Linear)
        precision = torch.eye(4, dtype=torch.float64) + decoder.weight.T @ decoder.weight / SIGMA**2
        mean = torch.linalg.solve(precision, decoder.weight.T @ (x.flatten(1) - decoder.bias).T / SIGMA**2).T
        posterior = torch.distributions.MultivariateNormal(mean, precision_matrix=precision)
        noise = torch.randn(len(x), 4, generator=rng, dtype=torch.float64)
        z = mean + (posterior.scale_tril @ noise[..., None])[..., 0]
        return Proposal(z, posterior.log_prob(z))


def linear(kind: type[LatentLearner]) -> tuple[LatentLearner, Callable[[Tensor], Tensor]]:
    """Return a linear learner and its exact log p(x) = log N(x; b, W W' + sigma^2 I)."""
    decoder = Linear()
    likelihood = Gaussian(SIGMA).double()
    likelihood.log_sigma.fill_(math.log(SIGMA))
    generator = TopDown(decoder, likelihood, LATENTS)
    w = decoder.weight.detach()
    covariance = w @ w.T + SIGMA**2 * torch.eye(PIXELS, dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(decoder.bias.detach(), covariance)
    learner = Exact(generator, nn.Identity()) if kind is Exact else Anywhere(generator)
    return learner, lambda x: exact.log_prob(x.flatten(1))


@settings(deadline=None, max_examples=8)
@given(
    kind=st.sampled_from([Anywhere, Exact]),
    seed=st.integers(0, 10_000),
    n=st.integers(1, 6),
    samples=st.integers(1, 9),
    batch_size=st.integers(1, 20),
)
def test_exact_where_the_posterior_is_gaussian(
    kind: type[LatentLearner], seed: int, n: int, samples: int, batch_size: int
) -> None:
    """Each draw's weight is p(x) itself, wherever the chain has ended and however images are batched."""
    learner, exact = linear(kind)
    x, _ = simulate(learner.generator, n, numbers(seed))
    found = importance_bound(learner, 2 * x, numbers(seed), samples=samples, batch_size=batch_size)
    torch.testing.assert_close(found.log_p, exact(2 * x), rtol=0, atol=1e-9)
    torch.testing.assert_close(found.effective, torch.full((n,), float(samples), dtype=torch.float64))
    assert all(weight.requires_grad for weight in learner.generator.parameters())


def priors() -> dict[str, Prior]:
    """Return normals and mixtures narrower and wider than N(0, I), and off its mean, float64."""
    d, numbers_ = sum(LATENTS), numbers(9)
    means = 1.5 * torch.randn(4, d, generator=numbers_, dtype=torch.float64)
    roots = 0.3 * torch.randn(4, d, d, generator=numbers_, dtype=torch.float64).tril(-1)
    roots += torch.diag_embed(0.1 + 2 * torch.rand(4, d, generator=numbers_, dtype=torch.float64))
    log_weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64).log()
    wide = 4 * torch.eye(d, dtype=torch.float64)[None]
    return {
        "N(0, 16 I)": mixture_of(torch.zeros(1, dtype=torch.float64), torch.zeros(1, d, dtype=torch.float64), wide),
        "one normal": mixture_of(torch.zeros(1, dtype=torch.float64), means[:1], roots[:1]),
        "a mixture": mixture_of(log_weights, means, roots),
    }


@pytest.mark.parametrize("name", ["N(0, 16 I)", "one normal", "a mixture"])
def test_exact_with_any_normal_or_mixture_as_prior(name: str) -> None:
    """log p(x) = log sum_c w_c N(x; W mu_c + b, W C_c W' + sigma^2 I), of each draw alone."""
    learner, _ = linear(Anywhere)
    prior = priors()[name]
    decoder = learner.generator.decoder
    assert isinstance(decoder, Linear)
    generator = TopDown(decoder, learner.generator.likelihood, LATENTS, prior)
    x, _ = simulate(generator, 6, numbers(2))
    log_weights, means, roots, _ = prior.parts()
    spread = decoder.weight.detach() @ roots
    covariance = spread @ spread.mT + SIGMA**2 * torch.eye(PIXELS, dtype=torch.float64)
    of_parts = torch.distributions.MultivariateNormal(means @ decoder.weight.detach().T + decoder.bias, covariance)
    exact = torch.logsumexp(log_weights + of_parts.log_prob(x.flatten(1)[:, None]), 1).detach()
    found = importance_bound(Anywhere(generator), x, numbers(), samples=5, batch_size=12)
    torch.testing.assert_close(found.log_p, exact, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.effective, torch.full((6,), 5.0, dtype=torch.float64))


def test_components_beyond_the_likeliest_only_lower_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shortrun.evaluation.importance.COMPONENTS", 1)
    learner, _ = linear(Anywhere)
    prior = priors()["a mixture"]
    generator = TopDown(learner.generator.decoder, learner.generator.likelihood, LATENTS, prior)
    x, _ = simulate(generator, 6, numbers(2))
    few = importance_bound(Anywhere(generator), x, numbers(), samples=5).log_p
    monkeypatch.setattr("shortrun.evaluation.importance.COMPONENTS", 8)
    every = importance_bound(Anywhere(generator), x, numbers(), samples=5).log_p
    assert (few <= every + 1e-9).all()
    assert (few > every - math.log(4) - 1e-9).all()


class Curved(nn.Module):
    """x = (z + z^2 / 2, sin 2 z)."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([z + z**2 / 2, torch.sin(2 * z)], dim=1)[:, None, None, :]


def test_weights_average_to_p_and_the_bound_rises_with_the_samples() -> None:
    """Against quadrature, with a posterior that is no Gaussian."""
    learner = ShortRun(TopDown(Curved(), Gaussian(1.3), (1,)), steps=3)
    x = torch.tensor([[0.3, 0.8], [-0.4, -1.0], [2.0, 0.1]])[:, None, None, :]
    grid = torch.linspace(-9, 9, 20_001)[:, None]
    with torch.no_grad():
        joint = torch.stack(
            [learner.generator.log_joint(image.expand(len(grid), -1, -1, -1), grid).double() for image in x]
        )
    exact = torch.logsumexp(joint, 1) + math.log(18 / 20_000)
    means = []
    for samples in (1, 4, 20_000):
        tries = 1 if samples == 20_000 else 2000
        # each row is an image of its own: copies give independent estimates
        found = importance_bound(learner, x.repeat(tries, 1, 1, 1), numbers(1), samples=samples, batch_size=6000)
        each = found.log_p.view(tries, 3)
        means.append(each.mean(0))
        if tries > 1:
            ratio = (each - exact).exp()
            error = ratio.std(0) / math.sqrt(tries)
            assert ratio.std(0).min() > 0.01, "too easy to say anything"
            assert ((ratio.mean(0) - 1).abs() < 4.5 * error).all()
            assert (found.effective <= samples + 1e-9).all()
        else:
            assert (found.effective > 500).all()
            assert ((each[0] - exact).abs() < 4.5 * found.effective.rsqrt()).all()
    assert (means[0] < means[1] - 0.001).all()
    assert (means[1] < exact).all()


def vae() -> Vae:
    learner = Vae.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8, likelihood="bernoulli"), levels=2)
    for parameter in learner.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=numbers(1))
    return learner


def test_one_draw_of_an_encoder_is_its_evidence_lower_bound_on_average() -> None:
    learner, copies = vae(), 4000
    x = (2 * torch.randint(2, (2, 1, 4, 4), generator=numbers()) - 1).float()
    repeated = x.repeat_interleave(copies, 0)
    one = importance_bound(learner, repeated, numbers(1), samples=1, batch_size=8000).log_p.view(2, copies)
    many = importance_bound(learner, repeated[::100], numbers(2), samples=50).log_p.view(2, copies // 100)
    error = one.std(1) / math.sqrt(copies)
    for image, mean, slack in zip(x, one.mean(1), error, strict=True):
        with torch.no_grad():  # the divergence is in closed form here, and a draw of log q there
            elbo = learner.loss(image.expand(copies, -1, -1, -1), numbers(3))[1]["elbo"]
        assert abs(float(mean - elbo)) < 4.5 * math.sqrt(2) * float(slack)
    assert (many.mean(1) > one.mean(1) + 4.5 * error).all()


@pytest.mark.parametrize(
    ("name", "likelihood"),
    [
        ("short_run", "gaussian"),
        ("short_run", "logistic"),
        ("persistent", "bernoulli"),
        ("vae", "gaussian"),
        ("vlae", "logistic"),
        ("ladder_vae", "bernoulli"),
    ],
)
def test_below_the_annealing_for_every_learner(name: str, likelihood: str) -> None:
    model = ModelConfig(
        latents=(2, 3),
        width=8,
        parameterization="conditional" if name == "ladder_vae" else "ladder",
        likelihood=likelihood,  # type: ignore[arg-type]
        sigma=0.5,
    )
    levels = 2 if likelihood == "bernoulli" else 17
    learner = learner_class(name).from_description(LearnerConfig((1, 4, 4), levels, model=model, learner=name))  # type: ignore[arg-type]
    assert isinstance(learner, LatentLearner)
    for parameter in learner.generator.decoder.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=numbers(1))
    x, _ = simulate(learner.generator, 20, numbers(5))
    found = importance_figures(learner, x, numbers(1), samples=30)["importance_nats"]
    annealed = log_likelihood_figures(learner, x, numbers(1), temperatures=60, leapfrog=3, chains=5)["nats"]
    assert found.conditions["images"] == annealed.conditions["images"] == 20
    assert found.value is not None
    assert annealed.value is not None
    assert 1 <= found.own["effective_samples"] <= 30
    assert (found.conditions["proposal"] == "the encoder") == isinstance(learner, EncoderLearner)
    # an untrained encoder is far below; a Gaussian near a posterior of five latents is close
    assert found.value < annealed.value + 0.3
    if not isinstance(learner, EncoderLearner):
        assert found.value > annealed.value - 0.5


def test_seeds_and_the_global_state() -> None:
    learner = ShortRun(TopDown(Curved(), Gaussian(0.7), (1,)), steps=3)
    x = torch.zeros(3, 1, 1, 2)
    before = torch.random.get_rng_state()
    one, again, other = (importance_bound(learner, x, numbers(seed), samples=3).log_p for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.random.get_rng_state())


class Wall(nn.Module):
    """Logits that are not finite for z > 0."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.where(z > 0, math.nan, z)[:, None, None, :]


def test_draws_that_are_not_finite_weigh_nothing() -> None:
    """log p(x) of what is left is log E[sigmoid(-z) 1(z < 0)] under N(0, 1)."""
    learner = ShortRun(TopDown(Wall(), Bernoulli(), (1,)), steps=2, retries=9)
    grid = torch.linspace(-9, 0, 10_001, dtype=torch.float64)
    wanted = torch.trapezoid(torch.sigmoid(-grid) * (-0.5 * grid**2).exp() / math.sqrt(2 * math.pi), grid).log()
    found = importance_bound(learner, torch.full((4, 1, 1, 1), -1.0), numbers(), samples=20_000)
    torch.testing.assert_close(found.log_p, wanted.expand(4), rtol=0, atol=0.1)


def test_what_cannot_be_estimated_is_refused() -> None:
    learner = ShortRun(TopDown(Curved(), Gaussian(0.7), (1,)), steps=3)
    x = torch.zeros(2, 1, 1, 2)
    with pytest.raises(InputError, match="x: got no images"):
        importance_figures(learner, x[:0], numbers())
    for name in ("samples", "batch_size"):
        with pytest.raises(InputError, match=f"{name}: got 0"):
            importance_figures(learner, x, numbers(), **{name: 0})
    with pytest.raises(InputError, match="not finite"):
        importance_figures(learner, x * math.nan, numbers(), samples=3)
    with pytest.raises(InputError, match="got 513 latents"):
        importance_figures(ShortRun(TopDown(nn.Identity(), Gaussian(), (513,))), x, numbers())
    assert importance_figures(learner, x[:1], numbers(), samples=2)["importance_nats"].standard_error is None
