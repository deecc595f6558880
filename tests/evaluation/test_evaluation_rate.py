"""The curve of error against rate, against closed forms of linear generators."""

import math

import pytest
import torch
from mixtures import mixture_of
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from shortrun import ModelConfig, ShortRun, assess, load_dataset
from shortrun.errors import InputError
from shortrun.evaluation import rate_figures
from shortrun.evaluation.rate import ERRORS, RATES, SIGMAS
from shortrun.learners.rae import Rae
from shortrun.metrics import rate_distortion
from shortrun.model import Gaussian, TopDown

LATENTS, PIXELS = (1, 2), 5


def numbers(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        weight = 0.3 * torch.randn(PIXELS, sum(LATENTS), generator=numbers(3), dtype=torch.float64)
        self.weight = nn.Parameter(weight)

    def forward(self, *z: Tensor) -> Tensor:
        return (torch.cat(z, dim=1) @ self.weight.T)[:, None, None, :]


def parts(normals: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-weights, means and roots of a prior: N(0, I) where it is one normal."""
    if normals == 1:
        return torch.zeros(1).double(), torch.zeros(1, 3).double(), torch.eye(3).double()[None]
    log_weights = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64).log_softmax(0)
    means = 1.5 * torch.randn(3, 3, generator=numbers(1), dtype=torch.float64)
    tilted = 0.4 * torch.randn(3, 3, 3, generator=numbers(2), dtype=torch.float64)
    return log_weights, means, torch.linalg.cholesky(torch.eye(3) + tilted @ tilted.mT)


def exact(x: Tensor, weight: Tensor, normals: int, sigma: float) -> tuple[Tensor, Tensor]:
    """Return rate and mean squared error in [0, 1] of each image, by derivatives of the logarithm of the evidence.

    log Z = log E_{p(z)} exp(-b |x - W z|^2 / 2), b = 1 / sigma^2, so d log Z / d b = -E |x - W z|^2 / 2 at p(z | x).
    The rate is E[-b |x - W z|^2 / 2] - log Z.
    """
    log_weights, means, roots = parts(normals)
    b = torch.tensor(1 / sigma**2, dtype=torch.float64, requires_grad=True)
    covariance = weight @ roots @ roots.mT @ weight.T + torch.eye(PIXELS, dtype=torch.float64) / b
    evidence = MixtureSameFamily(Categorical(logits=log_weights), MultivariateNormal(means @ weight.T, covariance))
    log_z = evidence.log_prob(x.flatten(1)) + PIXELS / 2 * torch.log(2 * math.pi / b)
    halves = torch.stack([-torch.autograd.grad(one, b, retain_graph=True)[0] for one in log_z])
    return (-b * halves - log_z).detach(), halves * 2 / 4 / PIXELS


@pytest.mark.parametrize("normals", [1, 3])
def test_points_agree_with_the_exact_curve_of_a_linear_model(normals: int) -> None:
    decoder = Linear()
    prior = None if normals == 1 else mixture_of(*parts(normals))
    learner = ShortRun(TopDown(decoder, Gaussian(0.2).double(), LATENTS, prior))
    z = learner.generator.prior.sample(60, numbers(0), torch.float64)
    x = decoder(*learner.generator.split(z)).detach()
    x = (x + 0.1 * torch.randn(x.shape, generator=numbers(5), dtype=torch.float64)).repeat(10, 1, 1, 1)
    found = rate_figures(learner, x, numbers(1), temperatures=400, batch_size=len(x))
    for sigma, of_rate, of_error in zip(SIGMAS, RATES, ERRORS, strict=True):
        rate, error = exact(x[:60], decoder.weight.detach(), normals, sigma)
        measured, mse = found[of_rate.name].value, found[of_error.name].value
        assert measured is not None
        assert mse is not None
        # what the chain reaches lies above the least sum of both, and near to it
        weight = 4 * PIXELS / (2 * sigma**2)
        excess = measured + weight * mse - float(rate.mean() + weight * error.mean())
        assert -0.06 < excess < 0.45, sigma
        assert mse == pytest.approx(float(error.mean()), rel=0.1), sigma
        assert measured == pytest.approx(float(rate.mean()), abs=0.4), sigma
    assert found[RATES[0].name].conditions["by"] == "annealed chains"


def test_fewer_temperatures_give_more_nats_and_never_fewer_than_there_are() -> None:
    decoder = Linear()
    learner = ShortRun(TopDown(decoder, Gaussian(0.2).double(), LATENTS))
    x = torch.full((400, 1, 1, PIXELS), 0.5, dtype=torch.float64)
    exact_rate = float(exact(x[:1], decoder.weight.detach(), 1, SIGMAS[-1])[0])
    few, many = (
        rate_figures(learner, x, numbers(1), temperatures=count, leapfrog=3, batch_size=400)[RATES[-1].name].value
        for count in (4, 100)
    )
    assert few is not None
    assert many is not None
    assert few > many + 0.5
    assert many > exact_rate - 0.2


def test_an_assessment_has_it_where_it_is_asked_for() -> None:
    learner = ShortRun.build((1, 8, 8), ModelConfig(latents=(2, 3), width=8))
    digits = load_dataset("digits", train_limit=100, test_limit=20)
    assert not assess(learner, digits, parts=["rate"])
    found = assess(learner, digits, parts=["rate"], rate_images=6, temperatures=10)
    assert set(found) == {quantity.name for quantity in (*RATES, *ERRORS)}
    rates = [found[quantity.name].value for quantity in RATES]
    assert None not in rates
    assert found["rate_at_0.5"].conditions["images"] == 6
    assert found["error_at_0.5"].conditions["pixels"] == "[0, 1]"


def test_a_learner_without_a_prior_has_none() -> None:
    rae = Rae.build((1, 8, 8), ModelConfig(latents=(2, 3), width=8))
    digits = load_dataset("digits", train_limit=100, test_limit=20)
    found = assess(rae, digits, parts=["rate"], rate_images=6)
    assert all("no rate" in figure.left_out for figure in found.values())
    assert len(found) == len(RATES) + len(ERRORS)


@pytest.mark.parametrize("sigmas", [(), (0.1, 0.2), (0.2, 0.2), (0.1, 0.0), (0.1, -0.1)])
def test_sigmas_are_positive_and_fall(sigmas: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="sigmas"):
        rate_distortion(lambda z: (z**2).sum(1), 2, 3, numbers(0), sigmas)
