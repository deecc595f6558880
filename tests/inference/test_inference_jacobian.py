"""The steps of a chain, their Hessians and Jacobians, against autograd's own and against numerical densities."""

import math
from typing import Any

import pytest
import torch
from scipy.spatial import KDTree
from scipy.special import digamma, gammaln
from torch import Tensor

from shortrun.inference import DrawnNoise, no_noise, short_run
from shortrun.inference.divergence import conditional
from shortrun.inference.jacobian import Linearized, pulled_score, steps_of
from shortrun.inference.langevin import LogDensity, score
from shortrun.model import Gaussian, TopDown, dense_decoder


def log_density_of(latents: tuple[int, ...], parameterization: Any = "ladder") -> LogDensity:
    torch.manual_seed(3)
    decoder = dense_decoder((1, 2, 3), latents, parameterization=parameterization, width=8)
    for parameter in decoder.parameters():
        parameter.data.normal_(std=0.5)
    generator = TopDown(decoder.requires_grad_(False), Gaussian(0.3), latents).double()
    x = generator.decode(torch.full((1, sum(latents)), 0.5).double())
    return lambda z: generator.log_joint(x.expand(len(z), -1, -1, -1), z)


def draw(steps: int, n: int, d: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    numbers = torch.randn(steps + 1, n, d, generator=rng, dtype=torch.float64)
    return numbers[0], numbers[1:]


SIZES = {
    "number": 0.3,
    "scalar": torch.tensor(0.3).double(),
    "along": torch.tensor([0.5, 0.4, 0.3, 0.2, 0.1]).double()[:, None, None],
    "latent": torch.tensor([0.1, 0.2, 0.5]).double(),
    "latent along": torch.linspace(0.5, 0.1, 15).double().reshape(5, 1, 3),
    "image": torch.tensor([[0.1], [0.2], [0.3], [0.4]]).double(),
    "all": torch.linspace(0.1, 0.5, 60).double().reshape(5, 4, 3),
}


@pytest.mark.parametrize("parameterization", ["ladder", "conditional"])
def test_score_hessian_and_products_are_those_of_autograd(parameterization: str) -> None:
    log_density, z = log_density_of((1, 2), parameterization), draw(0, 5, 3)[0]
    hessian = torch.stack([torch.func.hessian(lambda row: log_density(row[None])[0])(row) for row in z])
    point, (value, product), v = Linearized(log_density, z), pulled_score(log_density, z), draw(0, 5, 3, 1)[0]
    torch.testing.assert_close(point.hessian, hessian)
    assert hessian.abs().amin((1, 2)).max() > 0.01  # nothing of it is zero, nor are the rows equal
    assert (hessian - hessian[:1]).abs().amax((1, 2))[1:].min() > 0.1
    for at in (point.score, value):
        torch.testing.assert_close(at, score(log_density, z, create_graph=False))
    for times in (point.product, product):
        torch.testing.assert_close(times(v), (hessian @ v[..., None])[..., 0])


@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_product_of_the_steps_jacobians_is_autograds_of_the_short_run(size: Any, noisy: bool) -> None:
    log_density, (z, noise) = log_density_of((1, 2)), draw(5, 4, 3)
    if not noisy:
        noise = no_noise(5, z)
    steps = list(steps_of(log_density, z, size, noise))
    torch.testing.assert_close(steps[-1].end, short_run(log_density, z, size, noise))
    whole = torch.autograd.functional.jacobian(lambda start: short_run(log_density, start, size, noise), z)
    assert isinstance(whole, Tensor)
    images = torch.arange(4)
    jacobian = whole[images, :, images]
    product = torch.eye(3, dtype=torch.float64)
    for step in steps:
        product = step.jacobian @ product
    torch.testing.assert_close(product, jacobian)
    # the paper takes the log-determinant from the eigenvalues of the whole chain's Jacobian
    ladj = torch.stack([torch.linalg.slogdet(step.jacobian)[1] for step in steps]).sum(0)
    torch.testing.assert_close(torch.linalg.eigvals(jacobian).abs().log().sum(1), ladj)


def test_the_steps_are_those_of_the_short_run_and_their_jacobians_are_float64() -> None:
    log_density, (z, noise) = log_density_of((1, 2)), draw(5, 4, 3)
    for k, step in enumerate(steps_of(log_density, z, SIZES["all"], noise)):
        before, after = (short_run(log_density, z, SIZES["all"][:i], noise[:i]) for i in (k, k + 1))
        torch.testing.assert_close((step.z, step.end), (before, after))
        assert torch.equal(step.noise, noise[k])
    single = list(steps_of(lambda z: -0.5 * (z**2).sum(1), z.float(), 0.5, noise.float()))
    assert {step.jacobian.dtype for step in single} == {torch.float64}
    assert {step.end.dtype for step in single} == {torch.float32}


def test_noise_may_be_drawn_one_matrix_at_a_time() -> None:
    log_density, z = log_density_of((1, 2)), draw(0, 4, 3)[0]
    drawn = [DrawnNoise(torch.Generator().manual_seed(7), 6, (4, 3)) for _ in range(2)]
    *_, last = steps_of(log_density, z, 0.2, drawn[0])
    torch.testing.assert_close(last.end, short_run(log_density, z, 0.2, drawn[1]))


@pytest.mark.parametrize("size", [(2,), (2, 1), (4, 2), (3, 1, 1), (1, 2, 1), (1, 5, 4, 3)], ids=str)
def test_step_sizes_that_do_not_broadcast_are_refused_before_any_work(size: tuple[int, ...]) -> None:
    def log_density(z: Tensor) -> Tensor:
        raise AssertionError("it was called")

    with pytest.raises(RuntimeError, match="expand"):
        next(steps_of(log_density, torch.zeros(4, 3), torch.full(size, 0.1), torch.zeros(5, 4, 3)))


def test_one_image_does_not_become_as_many_as_there_are_step_sizes() -> None:
    z, noise = draw(5, 1, 3)
    with pytest.raises(RuntimeError, match="expand"):
        next(steps_of(log_density_of((1, 2)), z, torch.full((4, 1), 0.1).double(), noise))


@pytest.mark.parametrize("s", [0.1, 0.2])
def test_without_noise_conditional_is_the_density_of_one_latent(s: float) -> None:
    """z_K rises with z_0, so that a fine grid gives its density by differences."""
    log_density = log_density_of((1,))
    start = torch.linspace(-5, 5, 40_001).double()[:, None]
    estimate = conditional(log_density, start, s, no_noise(10, start))
    width = estimate.z.diff(dim=0)[:, 0]
    assert width.min() > 0
    mass = torch.special.ndtr(start).diff(dim=0)[:, 0]
    numerical = (mass / width).log()
    middle = (estimate.log_q[1:] + estimate.log_q[:-1]) / 2
    torch.testing.assert_close(middle, numerical, rtol=0.0, atol=1e-5)
    assert width.max() > 1.5 * width.min()


@pytest.mark.parametrize("s", [0.1, 0.2])
def test_without_noise_conditional_gives_the_entropy_of_two_latents(s: float) -> None:
    """Kozachenko and Leonenko's estimate, from the distance of each end to its fourth neighbour."""
    log_density, z = log_density_of((1, 1)), draw(0, 40_000, 2)[0]
    estimate = conditional(log_density, z, s, no_noise(10, z))
    assert torch.linalg.eigvalsh(Linearized(log_density, z).hessian).min() * s**2 > -2  # each step is one-to-one
    radius = torch.as_tensor(KDTree(estimate.z.numpy()).query(estimate.z.numpy(), k=5)[0][:, -1])
    volume = math.log(math.pi) - gammaln(2)
    entropy = digamma(len(z)) - digamma(4) + volume + 2 * radius.log().mean()
    assert abs(float(entropy + estimate.log_q.mean())) < 0.02
    assert abs(float(estimate.log_q.mean()) + 1 + math.log(2 * math.pi)) > 0.2  # the chain moved
