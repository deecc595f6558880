"""log p(x) where the prior is an energy, whose constant is estimated: against closed forms and a sum over a grid."""

import math

import pytest
import torch
from energies import QuadraticEnergy, linear_energy
from mixtures import mixture_of
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from shortrun.errors import InputError
from shortrun.evaluation import annealing_gap, importance_figures, log_likelihood_figures, rate_figures
from shortrun.evaluation.normalizer import Normalizer, normalizer
from shortrun.evaluation.rate import ERRORS, RATES
from shortrun.learners import ShortRun
from shortrun.metrics.figure import Figure
from shortrun.model import Energy, Gaussian, Mixture, Normal, Prior, TopDown
from shortrun.normals import standard_normal

LATENTS, PIXELS, SIGMA = (1, 2), 5, 0.6
SLOPE = torch.tensor([1.2, -0.7, 2.0], dtype=torch.float64)
CONSTANT = 3.0
LOG_Z = float(SLOPE @ SLOPE) / 2 - CONSTANT


def numbers(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        weight = 0.5 * torch.randn(PIXELS, sum(LATENTS), generator=numbers(3), dtype=torch.float64)
        self.weight = nn.Parameter(weight)

    def forward(self, *z: Tensor) -> Tensor:
        return (torch.cat(z, dim=1) @ self.weight.T)[:, None, None, :]


def generator_with(prior: Prior) -> TopDown:
    return TopDown(Linear(), Gaussian(SIGMA).double(), LATENTS, prior)


def images(n: int) -> Tensor:
    """Return draws of the linear model with the prior N(-slope, I)."""
    z = torch.randn(n, 3, generator=numbers(1), dtype=torch.float64) - SLOPE
    x = z @ Linear().weight.detach().T + SIGMA * torch.randn(n, PIXELS, generator=numbers(2), dtype=torch.float64)
    return x[:, None, None, :]


def learner() -> ShortRun:
    return ShortRun(generator_with(linear_energy(SLOPE, CONSTANT)).float(), steps=20, step_size=0.3)


def exact(x: Tensor) -> Tensor:
    """Return log p(x) of each image, where p(z) = N(-slope, I)."""
    w = Linear().weight.detach()
    covariance = w @ w.T + SIGMA**2 * torch.eye(PIXELS, dtype=torch.float64)
    return MultivariateNormal(-w @ SLOPE, covariance).log_prob(x.flatten(1))


def test_of_an_exact_prior_it_is_zero_and_no_number_is_drawn() -> None:
    for prior in (Normal(3), Mixture(3, 2)):
        rng = numbers()
        found = normalizer(generator_with(prior), rng, SLOPE)
        assert (found.log_z, found.error, found.own(), found.conditions()) == (0.0, 0.0, {}, {})
        assert torch.equal(rng.get_state(), numbers().get_state())


PRECISION = torch.tensor([[2.0, 0.8, 0.3], [0.8, 1.5, -0.4], [0.3, -0.4, 3.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("prior", "log_z"),
    [
        (linear_energy(SLOPE, CONSTANT), LOG_Z),
        (QuadraticEnergy.of(PRECISION), -0.5 * float(torch.logdet(PRECISION))),
    ],
    ids=["linear", "quadratic"],
)
def test_it_is_the_closed_form_within_its_error(prior: Energy, log_z: float) -> None:
    found = normalizer(generator_with(prior), numbers(), SLOPE)
    assert abs(found.log_z - log_z) < 4 * found.error
    assert found.error < 0.1
    assert 64 < found.effective <= 256


def test_with_the_moments_of_its_draws_it_is_the_same_number() -> None:
    """The annealing starts from a normal of those moments then, which is nearer."""
    prior = linear_energy(SLOPE, CONSTANT)
    prior.mean, prior.root = -SLOPE + 0.1, torch.linalg.cholesky(1.1 * torch.eye(3, dtype=torch.float64))
    found = normalizer(generator_with(prior), numbers(), SLOPE)
    assert abs(found.log_z - LOG_Z) < 4 * found.error
    assert found.error < normalizer(generator_with(linear_energy(SLOPE, CONSTANT)), numbers(), SLOPE).error


def test_of_a_network_it_is_what_a_sum_over_a_grid_gives() -> None:
    prior = Energy(1, width=16, learning_rate=1e-2, steps=10).double()
    for seed in range(5):
        z = torch.randn(200, 1, generator=numbers(seed), dtype=torch.float64)
        prior.learn(2 * z.sign() + 0.3 * z, numbers(seed))
    grid = torch.linspace(-10, 10, 20_001, dtype=torch.float64)[:, None]
    log_z = float(torch.logsumexp(standard_normal(grid) - prior.energy(grid), 0)) + math.log(20 / 20_000)
    generator = TopDown(nn.Identity(), Gaussian(SIGMA).double(), (1,), prior)
    found = normalizer(generator, numbers(), grid)
    assert abs(log_z) > 0.1
    assert abs(found.log_z - log_z) < 4 * found.error + 0.01


def quoted(figure: Figure) -> None:
    assert "too low on average" in figure.conditions["log_z_is"]
    assert figure.own["log_z"] == pytest.approx(LOG_Z, abs=0.3)
    assert 0 <= figure.own["log_z_error"] < 0.1


def test_figures_of_log_p_take_it_off_and_quote_it() -> None:
    x = images(30)
    truth = float(exact(x).mean())
    annealed = log_likelihood_figures(learner(), x.float(), numbers(), temperatures=100, chains=4, leapfrog=5)["nats"]
    weighted = importance_figures(learner(), x.float(), numbers(), samples=20)["importance_nats"]
    for figure, apart in ((annealed, 0.2), (weighted, 1e-3)):  # the weights are exact where all is linear
        assert figure.own["log_z_error"] > 0
        assert figure.value is not None
        assert figure.standard_error is not None
        quoted(figure)
        assert abs(figure.value - truth) < apart + 4 * figure.own["log_z_error"]
        # the error has both parts: of the mean over images, and of the constant
        of_images = float(exact(x).std()) / math.sqrt(len(x))
        assert figure.standard_error == pytest.approx(math.hypot(of_images, figure.own["log_z_error"]), rel=0.1)


def test_the_rate_is_that_from_the_prior_with_its_constant() -> None:
    """With the same random numbers it is the one from the same prior as a normal, but for the error of log Z."""
    prior, one = linear_energy(SLOPE, CONSTANT), torch.eye(3, dtype=torch.float64)
    prior.mean = -SLOPE
    energy, x, rng = generator_with(prior), images(10), numbers()
    same = ShortRun(generator_with(mixture_of(torch.zeros(1).double(), -SLOPE[None], one[None])))
    log_z = normalizer(energy, rng, x).log_z
    other = rate_figures(same, x, rng, temperatures=30)
    found = rate_figures(ShortRun(energy), x, numbers(), temperatures=30)
    for of_rate, of_error in zip(RATES, ERRORS, strict=True):
        rate, wanted = found[of_rate.name], other[of_rate.name].value
        assert wanted is not None
        quoted(rate)
        assert rate.value == pytest.approx(wanted + log_z - LOG_Z, rel=1e-6)
        assert found[of_error.name].value == pytest.approx(other[of_error.name].value, rel=1e-6)
        assert "log_z" not in other[of_rate.name].own


def test_without_exact_draws_there_is_no_gap() -> None:
    with pytest.raises(InputError, match=r"^model.prior: no exact draws of the prior are known"):
        annealing_gap(learner(), 4, numbers())


def test_errors_are_added_as_those_of_independent_numbers() -> None:
    assert Normalizer(1.0, 3.0, 5.0).with_error(4.0) == 5.0
    assert Normalizer(1.0, 3.0, 5.0).with_error(None) is None
    assert Normalizer().with_error(4.0) == 4.0
