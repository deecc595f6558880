"""Networks: the true divergence from many chains, gradients in the step sizes, float32 and steps that overshoot."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from scipy.spatial import KDTree
from scipy.special import digamma, gammaln
from torch import Tensor

from shortrun.inference import DrawnNoise, short_run
from shortrun.inference.divergence import (
    ChainDensity,
    Conditional,
    Marginal,
    Path,
    chi_square_bound,
    follow,
)
from shortrun.inference.jacobian import Linearized
from shortrun.inference.langevin import LogDensity
from shortrun.model import Gaussian, TopDown, dense_decoder

KINDS: tuple[type[ChainDensity], ...] = (Conditional, Marginal, Path)


def generator_of(latents: tuple[int, ...], sigma: float, size: int = 3, width: int = 8, std: float = 0.5) -> TopDown:
    torch.manual_seed(3)
    decoder = dense_decoder((1, 2, size), latents, width=width)
    for parameter in decoder.parameters():
        parameter.data.normal_(std=std)
    return TopDown(decoder.requires_grad_(False), Gaussian(sigma), latents)


def log_density_of(generator: TopDown, truth: Tensor) -> LogDensity:
    x = generator.decode(truth)
    return lambda z: generator.log_joint(x.expand(len(z), -1, -1, -1), z)


def small(d: int, sigma: float) -> LogDensity:
    generator = generator_of((1,) if d == 1 else (1, d - 1), sigma).double()
    return log_density_of(generator, torch.tensor([[0.9, -0.7, 0.4][:d]]).double())


def chains(d: int, n: int, steps: int = 25) -> tuple[Tensor, DrawnNoise]:
    noise = DrawnNoise(torch.Generator().manual_seed(n), steps, (n, d))
    return noise.draw().double(), noise


def squared_length(density: Marginal) -> Tensor:
    """Return delta^T Sigma^-1 delta of chains from N(0, I): d on average where the linearization holds."""
    return (density.white**2).sum(1)


def entropy_of(z: Tensor, neighbour: int = 4) -> float:
    """The entropy of the density that rows are drawn from (Kozachenko and Leonenko, 1987)."""
    n, d = z.shape
    radius = torch.as_tensor(KDTree(z.numpy()).query(z.numpy(), k=neighbour + 1)[0][:, -1])
    ball = d / 2 * math.log(math.pi) - gammaln(d / 2 + 1)
    return float(digamma(n) - digamma(neighbour) + ball + d * radius.log().mean())


def true_divergence(log_density: LogDensity, d: int, s: float, n: int = 50_000) -> float:
    """KL(q_s || p(. | x)) - log p(x), to 0.03."""
    z = short_run(log_density, chains(d, n)[0], s, chains(d, n)[1])
    return -entropy_of(z) - float(log_density(z).mean())


def minus_log_evidence(log_density: LogDensity, d: int) -> float:
    axis = torch.linspace(-5.5, 5.5, 201 if d == 2 else 61, dtype=torch.float64)
    cell = d * math.log(float(axis[1] - axis[0]))
    return -float(torch.logsumexp(log_density(torch.cartesian_prod(*[axis] * d)), 0)) - cell


@pytest.mark.parametrize("d", [2, 3])
def test_the_yardstick_is_right_for_a_gaussian(d: int) -> None:
    scale = torch.tensor([0.1, 0.5, 2.0])[:d].double()
    exact = d / 2 * (1 + math.log(2 * math.pi)) + float(scale.log().sum())
    assert entropy_of(chains(d, 50_000)[0] * scale) == pytest.approx(exact, abs=0.03)


@pytest.mark.parametrize(("d", "s"), [(2, 0.1), (2, 0.2), (3, 0.1), (3, 0.3)])
def test_the_true_divergence_is_below_conditional_and_path_and_near_marginal(d: int, s: float) -> None:
    log_density, n = small(d, 0.3), 6000
    true = true_divergence(log_density, d, s)
    assert true > minus_log_evidence(log_density, d) - 0.03
    density = Marginal()
    estimates = follow([Conditional(), density, Path()], log_density, chains(d, n)[0], s, chains(d, n)[1])
    conditional, marginal, path = (float(estimate.kl.mean()) for estimate in estimates)
    errors = [float(estimate.kl.std()) / math.sqrt(n) for estimate in estimates]
    assert conditional - 4 * errors[0] > true + 0.2
    assert path - 4 * errors[2] > true + 0.2
    assert abs(float(squared_length(density).mean()) / d - 1) < 0.1
    assert abs(marginal - true) < 0.15
    assert max(errors) < 0.1


def test_where_steps_fold_the_space_path_is_the_only_bound() -> None:
    """s^2 lambda is 20 and more: several z_0 share an end, and the linearization is wider than the chain's ends."""
    log_density, d, s, n = small(3, 0.2), 3, 0.6, 3000
    true = true_divergence(log_density, d, s)
    density = Marginal()
    estimates = follow([Conditional(), density, Path()], log_density, chains(d, n)[0], s, chains(d, n)[1])
    conditional, marginal, path = (float(estimate.kl.mean()) for estimate in estimates)
    assert marginal < conditional < true - 2 < path
    # and the squared length does not tell
    assert abs(float(squared_length(density).mean()) / d - 1) < 0.15


def quadratic(z: Tensor) -> Tensor:
    precision = torch.tensor([[5.0, 1.0, -2.0], [1.0, 3.0, 0.5], [-2.0, 0.5, 8.0]]).double()
    return -0.5 * ((z @ precision) * z).sum(1) + z @ torch.tensor([1.0, -2.0, 0.7]).double()


STEP_SIZES = {
    "scalar": torch.tensor(0.3),
    "along": torch.tensor([0.5, 0.3, 0.2, 0.1])[:, None, None],
    "latent": torch.tensor([0.2, 0.4, 0.3]),
    "image": torch.tensor([[0.1], [0.4]]),
    "latent along": torch.linspace(0.5, 0.1, 12).reshape(4, 1, 3),
}


@pytest.mark.parametrize("log_density", [quadratic, small(3, 0.3)], ids=["linear", "network"])
@pytest.mark.parametrize("size", STEP_SIZES.values(), ids=STEP_SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_in_the_step_size_are_those_of_differences(
    kind: type[ChainDensity], size: Tensor, log_density: Callable[[Tensor], Tensor]
) -> None:
    z, noise = chains(3, 2, 4)
    drawn, s = torch.stack(list(noise)).double(), size.double()
    weight = torch.tensor([1.0, -0.4]).double()

    def value(at: Tensor) -> Tensor:
        estimate = follow([kind()], log_density, z, at, drawn)[0]
        return torch.stack([weight @ estimate.kl, weight @ estimate.log_q])

    steps = 1e-5 * torch.eye(s.numel(), dtype=torch.float64).reshape(-1, *s.shape)
    differences = torch.stack([(value(s + step) - value(s - step)) / 2e-5 for step in steps], dim=-1)
    at = s.clone().requires_grad_()
    backward = [torch.autograd.grad(part, at, retain_graph=True)[0].flatten() for part in value(at)]
    torch.testing.assert_close(torch.stack(backward), differences, rtol=1e-6, atol=1e-6)
    along = torch.linspace(-1, 2, s.numel()).double().reshape(s.shape)
    forward = torch.func.jvp(value, (s,), (along,))[1]
    torch.testing.assert_close(forward, differences @ along.flatten(), rtol=1e-6, atol=1e-6)
    assert differences.abs().amax(1).min() > 0.01


def sixteen(dtype: torch.dtype) -> LogDensity:
    generator = copy.deepcopy(generator_of((4, 4, 8), 0.3, size=16, width=32, std=0.3)).to(dtype)
    return log_density_of(generator, torch.linspace(-1, 1, 16)[None].to(dtype))


def longest(reach: float) -> float:
    """The step size with s^2 lambda = reach, lambda the largest curvature where chains start."""
    curvature = -torch.linalg.eigvalsh(Linearized(sixteen(torch.float64), chains(16, 64)[0]).hessian).min()
    return math.sqrt(reach / float(curvature))


def test_float32_gives_what_float64_gives() -> None:
    z, noise = chains(16, 8)
    drawn, s = torch.stack(list(noise)), longest(1.0)
    single = follow([kind() for kind in KINDS], sixteen(torch.float32), z.float(), s, drawn)
    double = follow([kind() for kind in KINDS], sixteen(torch.float64), z, s, drawn.double())
    for a, b in zip(single, double, strict=True):
        assert a.z.dtype == torch.float32
        torch.testing.assert_close(a.log_q, b.log_q, rtol=1e-3, atol=0.0)
        torch.testing.assert_close(a.kl, b.kl, rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("steps", [25, 50])
@pytest.mark.parametrize("reach", [5.0, 20.0])
def test_steps_that_overshoot_give_finite_values_and_gradients(reach: float, steps: int, dtype: torch.dtype) -> None:
    z, noise = chains(16, 8, steps)
    s = torch.tensor(longest(reach), dtype=dtype, requires_grad=True)
    density = Marginal()
    estimates = follow([Conditional(), density, Path()], sixteen(dtype), z.to(dtype), s, noise)
    for estimate in estimates:
        assert estimate.log_q.isfinite().all()
        assert estimate.kl.isfinite().all()
        assert torch.autograd.grad(estimate.kl.sum(), s, retain_graph=True)[0].isfinite()
    # round-off alone never brings a squared length to where it is cut
    assert (squared_length(density) < chi_square_bound(16)).all()
