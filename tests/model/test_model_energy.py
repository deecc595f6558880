"""The energy prior: density, draws and learning, in closed form where the energy is linear or quadratic."""

import math
from collections.abc import Callable

import pytest
import torch
from energies import QuadraticEnergy, linear_energy
from priors import rng
from torch import Tensor
from torch.distributions import MultivariateNormal

from shortrun.errors import InputError
from shortrun.inference.jacobian import Linearized
from shortrun.model import Energy, Normal
from shortrun.normals import standard_normal

SLOPE = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
N = 10_000


def normals(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=rng(seed), dtype=torch.float64)


def noise_of(n: int, d: int, seed: int = 0) -> Callable[[], Tensor]:
    """Return what draws (n, d) standard normal numbers, others at each call."""
    numbers = rng(seed)
    return lambda: torch.randn(n, d, generator=numbers, dtype=torch.float64)


def never() -> Tensor:
    raise AssertionError("a uniform number was drawn")


def learned(seed: int = 0, d: int = 3, fits: int = 3) -> Energy:
    """Return a prior that has learned something, float64."""
    prior, numbers = Energy(d, width=16, learning_rate=1e-2, steps=10).double(), rng(seed)
    for _ in range(fits):
        prior.learn(1 + 0.5 * torch.randn(300, d, generator=numbers, dtype=torch.float64), numbers)
    return prior


def test_until_it_has_learned_it_is_the_standard_normal_to_the_last_bit() -> None:
    prior, normal, z = Energy(5), Normal(5), torch.randn(9, 5, generator=rng())
    assert not prior.settled
    assert torch.equal(prior.log_prob(z), normal.log_prob(z))
    assert torch.equal(prior.sample(7, rng(1)), normal.sample(7, rng(1)))
    component = prior.draw_component(z, never)
    assert torch.equal(prior.held(component)(z), normal.held(component)(z))
    noise = torch.randn(9, 5, generator=rng(2))
    made = [each.redraw(z, 1, 3, lambda: noise, never) for each in (prior, normal)]
    assert torch.equal(*made)
    for found, expected in zip(prior.whole(), normal.whole(), strict=True):
        assert torch.equal(found, expected)
    assert prior.from_normal(noise, never).z is noise
    assert not list(prior.parameters())  # no optimizer moves it


def test_a_linear_energy_moves_the_normal() -> None:
    """p(z) = N(-a, I), up to log Z = |a|^2 / 2 - b; the chain's mean and variance are known at every k."""
    prior, z = linear_energy(SLOPE, 0.7, steps=15, step_size=0.3), normals(6, 3)
    log_z = float(SLOPE @ SLOPE) / 2 - 0.7
    torch.testing.assert_close(prior.log_prob(z) - log_z, standard_normal(z + SLOPE))
    h = 0.3**2 / 2
    variance = (1 - h) ** 30 + 0.3**2 * sum((1 - h) ** (2 * k) for k in range(15))
    drawn = prior.sample(N, rng(), torch.float64)
    expected = -SLOPE * (1 - (1 - h) ** 15)
    assert ((drawn.mean(0) - expected).abs() < 4.5 * math.sqrt(variance / N)).all()
    assert ((drawn.var(0) / variance - 1).abs() < 4.5 * math.sqrt(2 / N)).all()
    assert torch.equal(drawn, prior.sample(N, rng(), torch.float64))


PRECISION = torch.tensor([[2.0, 0.8, 0.3], [0.8, 1.5, -0.4], [0.3, -0.4, 3.0]], dtype=torch.float64)


def ends(precision: Tensor, pull: Tensor, steps: int, s: float) -> tuple[Tensor, Tensor]:
    """Return mean and covariance where steps of the chain from N(0, I) on a normal of this precision end, exactly."""
    one = torch.eye(len(precision), dtype=torch.float64)
    mean, covariance, step = torch.zeros_like(pull), one, one - s**2 / 2 * precision
    for _ in range(steps):
        mean, covariance = step @ mean + s**2 / 2 * pull, step @ covariance @ step.T + s**2 * one
    return mean, covariance


def assert_moments(z: Tensor, mean: Tensor, covariance: Tensor) -> None:
    spread = covariance.diagonal()
    assert ((z.mean(0) - mean).abs() < 4.5 * (spread / len(z)).sqrt()).all()
    error = ((spread[:, None] * spread + covariance**2) / len(z)).sqrt()
    assert ((torch.cov(z.T).view_as(covariance) - covariance).abs() < 4.5 * error).all()


def test_draws_of_a_quadratic_energy_have_its_covariance() -> None:
    prior = QuadraticEnergy.of(PRECISION, steps=20, step_size=0.4)
    mean, covariance = ends(PRECISION, torch.zeros(3).double(), 20, 0.4)
    torch.testing.assert_close(covariance, torch.linalg.inv(PRECISION), atol=0.1, rtol=0.1)  # nearly that of p(z)
    assert_moments(prior.sample(N, rng(), torch.float64), mean, covariance)


@pytest.mark.parametrize(("first", "last"), [(0, 1), (1, 3)])
def test_a_part_is_redrawn_from_its_conditional(first: int, last: int) -> None:
    prior, z = QuadraticEnergy.of(PRECISION, steps=20, step_size=0.4), normals(1, 3).expand(N, 3)
    made = prior.redraw(z, first, last, noise_of(N, 3), never)
    others = [i for i in range(3) if not first <= i < last]
    assert torch.equal(made[:, others], z[:, others])
    own, pull = PRECISION[first:last, first:last], -PRECISION[first:last][:, others] @ z[0, others]
    mean, covariance = ends(own, pull, 20, 0.4)
    torch.testing.assert_close(mean, torch.linalg.solve(own, pull), atol=0.05, rtol=0.05)
    assert_moments(made[:, first:last], mean, covariance)


def test_the_gradient_is_that_of_the_data_less_that_of_the_model() -> None:
    """Of the mean log density of latents, log Z by a sum over a grid, where the draws are quantiles of p(z) itself."""
    prior = learned(d=1)
    prior.penalty = 0.0
    real, weights = normals(200, 1) - 2, prior.weights.clone().requires_grad_()
    grid = torch.linspace(-8, 8, 8001, dtype=torch.float64)[:, None]

    def log_prob(z: Tensor) -> Tensor:
        return standard_normal(z) - prior.energy(z, weights)

    log_z = torch.logsumexp(log_prob(grid), 0) + math.log(16 / 8000)
    (exact,) = torch.autograd.grad(-(log_prob(real) - log_z).mean(), weights)
    running = log_prob(grid).detach().exp().cumsum(0)
    places = torch.searchsorted(running / running[-1], (torch.arange(20_000).double() + 0.5) / 20_000)
    before, taken = prior.average.clone(), int(prior.taken)
    prior._step(real, grid[places])
    assert prior.taken == taken + 1
    slope = (prior.average - 0.9 * before) / 0.1
    torch.testing.assert_close(slope, exact, atol=2e-3, rtol=1e-2)
    assert slope.norm() > 0.1


def test_its_steps_are_those_of_adam() -> None:
    prior = learned()
    twin = prior.weights.clone().requires_grad_()
    optimizer = torch.optim.Adam([twin], prior.learning_rate)
    prior.average, prior.average_square = torch.zeros_like(twin), torch.zeros_like(twin)
    prior.taken = torch.zeros_like(prior.taken)
    for step in range(4):
        real, made = normals(50, 3, step), 1 + normals(50, 3, step + 9)
        up, down = prior.energy(real, twin), prior.energy(made, twin)
        loss = up.mean() - down.mean() + prior.penalty * ((up**2).mean() + (down**2).mean())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        gap = prior._step(real, made)
        torch.testing.assert_close(gap, up.mean().detach() - down.mean().detach())
        torch.testing.assert_close(prior.weights, twin.detach())


def energy_distance(x: Tensor, y: Tensor) -> float:
    """Return 2 E|x - y| - E|x - x'| - E|y - y'|, 0 for sets of one distribution."""
    return float(2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean())


def two_modes(n: int, seed: int) -> Tensor:
    side = torch.where(torch.rand(n, 1, generator=rng(seed)) < 0.5, -1.0, 1.0)
    return 1.5 * side * torch.tensor([[1.0, 0.5]]) + 0.4 * torch.randn(n, 2, generator=rng(seed + 1))


def test_it_learns_two_modes() -> None:
    prior = Energy(2, width=32, learning_rate=1e-2, steps=20)
    for seed in range(30):
        prior.learn(two_modes(200, 10 * seed), rng(seed))
    drawn, fresh, normal = prior.sample(1000, rng(99)), two_modes(1000, 5000), torch.randn(1000, 2, generator=rng(98))
    assert energy_distance(drawn, fresh) < 0.1 * energy_distance(normal, fresh)
    modes = torch.tensor([[1.5, 0.75], [-1.5, -0.75]])
    near = torch.cdist(drawn, modes) < 1.2
    assert near.any(1).float().mean() > 0.9
    assert (near.float().mean(0) > 0.3).all()
    assert abs(float(prior.gap)) < 0.5
    # what it keeps for annealing and spans is of its draws
    mean, root = prior.whole()
    torch.testing.assert_close(root @ root.T, torch.cov(drawn.T), atol=0.3, rtol=0.2)
    assert mean.norm() < 0.4


def test_saved_between_two_fits_it_goes_on_as_it_would_have() -> None:
    whole, numbers = learned(), rng(5)
    broken = Energy(3, width=16, learning_rate=1e-2, steps=10, seed=7).double()
    broken.load_state_dict(whole.state_dict())
    z = normals(250, 3)
    for prior in (whole, broken):
        prior.learn(z, numbers.manual_seed(5))
    assert whole.state_dict().keys() == broken.state_dict().keys()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, broken.state_dict()[name]), name


def test_latents_that_are_not_finite_are_left_out() -> None:
    one, other, z = learned(), learned(), normals(200, 3)
    one.learn(z, rng(1))
    other.learn(torch.cat([torch.full((3, 3), math.nan, dtype=torch.float64), z]), rng(1))
    assert torch.equal(one.weights, other.weights)
    other.learn(torch.full((3, 3), math.inf, dtype=torch.float64), rng(1))
    assert torch.equal(one.weights, other.weights)


def test_a_step_that_is_not_finite_is_left_out_and_said() -> None:
    prior, z = learned(), normals(200, 3)
    before, taken = prior.weights.clone(), int(prior.taken)
    z[7, 0] = 1e200  # squared it is beyond all numbers
    prior.learn(z, rng(1))
    assert prior.left_out == 0.5  # one of two
    assert prior.taken == taken + 1
    assert torch.isfinite(prior.weights).all()
    assert not torch.equal(prior.weights, before)
    assert torch.isfinite(prior.statistics()["energy_gap"])
    prior.weights = torch.full_like(before, math.nan)
    prior.learn(normals(200, 3), rng(1))
    assert prior.left_out == 1
    assert prior.taken == taken + 1


def test_half_precision_around_it_changes_nothing() -> None:
    prior, z = learned().float(), torch.randn(7, 3, generator=rng())

    def numbers() -> list[Tensor]:
        again = Energy(3, width=16, steps=10)
        again.load_state_dict(prior.state_dict())
        drawn = again.sample(5, rng())
        again.learn(z, rng(1))
        return [prior.log_prob(z), drawn, again.weights]

    plain = numbers()
    with torch.autocast("cpu", torch.bfloat16):
        inside = numbers()
    for one, other in zip(inside, plain, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_its_curvature_is_that_of_autograd() -> None:
    """By torch.func, as the estimators take it: products by vjp, many of them by vmap."""
    prior, z = learned(), normals(4, 3)
    at = Linearized(prior.held(torch.zeros(4, dtype=torch.long)), z)
    for row in range(4):
        exact = torch.autograd.functional.hessian(lambda one: prior.log_prob(one[None])[0], z[row])
        torch.testing.assert_close(at.hessian[row], exact)
    assert torch.autograd.gradgradcheck(prior.log_prob, (z.requires_grad_(),))


def test_its_density_is_what_the_normal_says_less_the_energy() -> None:
    prior, z = learned(), normals(5, 3)
    layers = torch.nn.Sequential(
        torch.nn.Linear(3, 16), torch.nn.GELU(), torch.nn.Linear(16, 16), torch.nn.GELU(), torch.nn.Linear(16, 1)
    ).double()
    torch.nn.utils.vector_to_parameters(prior.weights, layers.parameters())
    expected = MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double()).log_prob(z) - layers(z)[:, 0]
    torch.testing.assert_close(prior.log_prob(z), expected)


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(InputError, match="steps: got 0"):
        Energy(3, steps=0)
    with pytest.raises(InputError, match="depth: got 0"):
        Energy(3, depth=0)
