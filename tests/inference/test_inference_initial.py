"""Chains that start from a normal of their own, or from one of several candidates: closed forms on quadratics."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal
from torch import Tensor
from torch.distributions import MultivariateNormal

from shortrun.errors import InputError
from shortrun.inference import conditional, marginal, path
from shortrun.inference.divergence import (
    ESTIMATORS,
    ChainDensity,
    Conditional,
    Estimate,
    Marginal,
    chi_square_bound,
    follow,
)
from shortrun.inference.initial import Initial
from shortrun.inference.stochastic import LanczosConditional
from shortrun.inference.subspace import SubspaceMarginal
from shortrun.normals import standard_normal

FUNCTIONS = {"conditional": conditional, "marginal": marginal, "path": path}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def initial_of(m: int, d: int, n: int, seed: int, apart: float = 1.5) -> Initial:
    """A normal for each of n images, of m covariances, with tilts."""
    rng = seeded(seed)
    roots = 0.3 * torch.randn(m, d, d, generator=rng).double().tril(-1)
    roots += torch.diag_embed(0.3 + torch.rand(m, d, generator=rng).double())
    means = apart * torch.randn(n, d, generator=rng, dtype=torch.float64)
    tilt = torch.randn(n, generator=rng, dtype=torch.float64)
    return Initial(means, roots, torch.randint(m, (n,), generator=rng), tilt)


def draw(initial: Initial, seed: int) -> Tensor:
    noise = torch.randn(initial.means.shape, generator=seeded(seed), dtype=torch.float64)
    return initial.means + (initial.each_root() @ noise[..., None])[..., 0]


def noise_of(steps: int, n: int, d: int, seed: int) -> Tensor:
    return torch.randn(steps, n, d, generator=seeded(seed), dtype=torch.float64)


class Quadratic:
    """log p(x, z) = -1/2 z' P z + h' z, curvatures up to `stiffest`."""

    def __init__(self, d: int, seed: int, stiffest: float = 9.0) -> None:
        rng = seeded(seed)
        turn = torch.linalg.qr(torch.randn(d, d, generator=rng, dtype=torch.float64))[0]
        self.precision = turn @ torch.diag(torch.linspace(1.0, stiffest, d, dtype=torch.float64)) @ turn.T
        self.pull = torch.randn(d, generator=rng, dtype=torch.float64)

    def __call__(self, z: Tensor) -> Tensor:
        return -0.5 * ((z @ self.precision) * z).sum(1) + z @ self.pull

    def moments(self, mean: np.ndarray, covariance: np.ndarray, sizes: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of z_K by their recursion, in numpy."""
        precision, pull, d = self.precision.numpy(), self.pull.numpy(), len(self.pull)
        for size in sizes.numpy():
            half = np.diag(size**2 / 2)
            a = np.eye(d) - half @ precision
            mean, covariance = a @ mean + half @ pull, a @ covariance @ a.T + 2 * half
        return mean, covariance

    def log_q(self, initial: Initial, end: Tensor, sizes: Tensor) -> Tensor:
        """log q_s(z_K) of every row, tilt and all."""
        logs, roots = [], initial.each_root().numpy()
        for mean, root, tilt, z in zip(initial.means.numpy(), roots, initial.tilt, end.numpy(), strict=True):
            mean, covariance = self.moments(mean, root @ root.T, sizes)
            logs.append(float(multivariate_normal.logpdf(z, mean, covariance)) + float(tilt))  # pyright: ignore[reportArgumentType]
        return torch.tensor(logs, dtype=torch.float64)


def test_the_density_of_a_start_is_torchs_and_white_is_standard() -> None:
    initial = initial_of(3, 4, 6, 0)
    z = draw(initial, 1)
    each = MultivariateNormal(initial.means, scale_tril=initial.each_root())
    torch.testing.assert_close(initial.log_prob(z), each.log_prob(z) + initial.tilt)
    noise = torch.randn(6, 4, generator=seeded(1), dtype=torch.float64)
    torch.testing.assert_close(initial.whitened(z), noise)
    # those of float32 are computed in float64
    single = Initial(initial.means.float(), initial.roots.float(), initial.which, initial.tilt)
    assert single.log_prob(z.float()).dtype == torch.float64
    torch.testing.assert_close(single.log_prob(z.float()), initial.log_prob(z), rtol=1e-4, atol=1e-4)


def test_one_normal_serves_all_rows() -> None:
    z = torch.randn(5, 3, generator=seeded()).double()
    normal = Initial.normal(z)
    torch.testing.assert_close(normal.log_prob(z), standard_normal(z))
    assert normal.standard
    assert normal._replace(tilt=torch.ones(5)).standard
    assert not normal._replace(means=torch.full((1, 3), 1e-3)).standard
    assert not normal._replace(roots=torch.stack([torch.eye(3), 2 * torch.eye(3)])).standard
    assert not initial_of(1, 3, 5, 0).standard


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 6), st.integers(0, 10**6), st.sampled_from([0.1, 0.4, 0.8]))
def test_log_q_is_the_closed_form_sample_by_sample(m: int, d: int, steps: int, seed: int, s: float) -> None:
    """s = 0.8 overshoots in the stiffest direction."""
    n = 4
    problem, initial = Quadratic(d, seed), initial_of(m, d, n, seed + 1)
    z, noise = draw(initial, seed), noise_of(steps, n, d, seed)
    sizes = s * (0.5 + 0.5 * torch.rand(steps, d, generator=seeded(seed), dtype=torch.float64))
    found = {name: of(problem, z, sizes[:, None], noise, initial) for name, of in FUNCTIONS.items()}
    end = found["marginal"].z
    torch.testing.assert_close(found["marginal"].log_q, problem.log_q(initial, end, sizes), rtol=1e-8, atol=1e-8)
    normal = Initial.normal(z)
    start = problem.log_q(initial, z, sizes[:0])
    for name in ("conditional", "path"):
        plain = FUNCTIONS[name](problem, z, sizes[:, None], noise)
        expected = plain.log_q - normal.log_prob(z) + start
        torch.testing.assert_close(found[name].log_q, expected, rtol=1e-8, atol=1e-8)
    for estimate in found.values():
        torch.testing.assert_close(estimate.kl, estimate.log_q - problem(end))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_tilt_is_added_as_it_is(estimator: str) -> None:
    problem, initial = Quadratic(3, 0), initial_of(3, 3, 5, 1)
    z, noise, tilt = draw(initial, 2), noise_of(4, 5, 3, 3), torch.linspace(-1, 2, 5).double()
    plain = FUNCTIONS[estimator](problem, z, 0.3, noise, initial._replace(tilt=torch.zeros(1).double()))
    tilted = FUNCTIONS[estimator](problem, z, 0.3, noise, initial._replace(tilt=tilt))
    torch.testing.assert_close(tilted.log_q, plain.log_q + tilt)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("m", [1, 3])
def test_gradients_are_those_of_differences(estimator: str, m: int) -> None:
    problem, initial = Quadratic(3, 0), initial_of(m, 3, 5, 1)
    z, noise = draw(initial, 2), noise_of(6, 5, 3, 3)

    def value(log_s: Tensor) -> Tensor:
        return FUNCTIONS[estimator](problem, z, log_s.exp(), noise, initial).kl.mean()

    log_s = torch.tensor(math.log(0.4), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(value, (log_s,), atol=1e-6)


class OfComponents:
    """A quadratic likelihood under a mixture prior, p(x, z, c), and chains that hold the component of their start."""

    def __init__(self, m: int, d: int, seed: int) -> None:
        self.likelihood, rng = Quadratic(d, seed), seeded(seed + 1)
        self.log_weights = torch.log_softmax(torch.randn(m, generator=rng, dtype=torch.float64), 0)
        parts = initial_of(m, d, m, seed + 2, apart=0.7)
        self.means, self.roots = parts.means, parts.roots
        self.normals = MultivariateNormal(self.means, scale_tril=self.roots)

    def given(self, c: Tensor) -> Callable[[Tensor], Tensor]:
        """Return z -> log p(x, z, c)."""
        normals = MultivariateNormal(self.means[c], scale_tril=self.roots[c], validate_args=False)
        return lambda z: self.likelihood(z) + self.log_weights[c] + normals.log_prob(z)

    def divergence(self, s: float, steps: int) -> tuple[float, float]:
        """Return KL(q(z_K, c) || p(z, c | x)) - log p(x) in closed form, and -log p(x)."""
        total, evidences, d = 0.0, [], self.means.shape[1]
        for c, log_weight in enumerate(self.log_weights):
            inverse = torch.linalg.inv(self.roots[c] @ self.roots[c].T)
            one = Quadratic(d, 0)
            one.precision = self.likelihood.precision + inverse
            one.pull = self.likelihood.pull + inverse @ self.means[c]
            height = self.given(torch.tensor([c]))(torch.zeros(1, d).double())[0]
            covariance = torch.linalg.inv(one.precision)
            mode = covariance @ one.pull
            evidence = height + 0.5 * one.pull @ mode + 0.5 * torch.logdet(2 * math.pi * covariance)
            root = self.roots[c].numpy()
            mean, spread = one.moments(self.means[c].numpy(), root @ root.T, torch.full((steps, d), s).double())
            chain, exact = (
                MultivariateNormal(torch.as_tensor(a), torch.as_tensor(b))
                for a, b in ((mean, spread), (mode, covariance))
            )
            kl = torch.distributions.kl_divergence(chain, exact)
            total += float(log_weight.exp() * (log_weight - evidence + kl))
            evidences.append(evidence)
        return total, -float(torch.logsumexp(torch.stack(evidences), 0))


@pytest.mark.parametrize("s", [0.1, 0.3, 0.45])
def test_with_the_component_held_means_are_those_of_component_and_latents_jointly(s: float) -> None:
    """-log p(x) <= marginal <= conditional and path, the marginal one by the closed form."""
    m, d, n, steps = 4, 3, 4000, 8
    problem = OfComponents(m, d, 4)
    c = torch.multinomial(problem.log_weights.exp(), n, replacement=True, generator=seeded(5))
    initial = Initial(problem.means[c], problem.roots, c, problem.log_weights[c])
    z, noise = draw(initial, 6), noise_of(steps, n, d, 7)
    values = {name: of(problem.given(c), z, s, noise, initial).kl for name, of in FUNCTIONS.items()}
    exact, least = problem.divergence(s, steps)
    assert exact > least
    assert abs(float(values["marginal"].mean()) - exact) < 4 * float(values["marginal"].std()) / math.sqrt(n)
    for other in ("conditional", "path"):
        gap = values[other] - values["marginal"]
        assert float(gap.mean()) > 4 * float(gap.std()) / math.sqrt(n)


def test_a_far_start_is_cut() -> None:
    problem, z = Quadratic(2, 0), torch.tensor([[0.1, 0.2], [500.0, 0.0]]).double()
    initial = Initial.normal(z)
    density = Marginal()
    found = follow([density], problem, z, 0.1, noise_of(3, 2, 2, 0), initial)[0].log_q
    log_det = 2 * density.root.diagonal(dim1=1, dim2=2).abs().log().sum(1)
    near = float((density.white[0] ** 2).sum())
    for row, squared in enumerate((near, chi_square_bound(2))):
        assert float(found[row]) == pytest.approx(-0.5 * float(log_det[row]) - 0.5 * squared - math.log(2 * math.pi))


@pytest.mark.parametrize("m", [1, 4])
def test_steps_that_overshoot_give_finite_values_and_gradients(m: int) -> None:
    problem, initial = Quadratic(4, 0, stiffest=100.0), initial_of(m, 4, 6, 1)
    s = torch.tensor(math.sqrt(0.2), dtype=torch.float64, requires_grad=True)
    for steps in (25, 50):
        z, noise = draw(initial, 2), noise_of(steps, 6, 4, 3)
        for estimate in (of(problem, z, s, noise, initial) for of in FUNCTIONS.values()):
            assert bool(estimate.kl.isfinite().all())
            assert bool(torch.autograd.grad(estimate.kl.sum(), s, retain_graph=True)[0].isfinite())


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_unit_of_the_latents_does_not_matter(estimator: str) -> None:
    """A prior that is learned may stretch the latents; steps as many times as long are then the same chain."""
    d, unit = 6, 3.7
    problem, start = Quadratic(d, 1), initial_of(3, d, 5, 4)
    stretched = start._replace(means=unit * start.means, roots=unit * start.roots)
    z, noise = draw(start, 2), noise_of(7, 5, d, 3)
    plain = FUNCTIONS[estimator](problem, z, 0.3, noise, start)
    found = FUNCTIONS[estimator](
        lambda u: problem(u / unit) - d * math.log(unit), unit * z, unit * 0.3, noise, stretched
    )
    torch.testing.assert_close(found.kl, plain.kl, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.z, unit * plain.z)


class Candidates:
    """One latent: the start is one of `count` draws of a normal, in proportion to exp(-2 (z - 1)^2)."""

    def __init__(self, n: int, count: int) -> None:
        mean, root = torch.tensor([[-0.6]]).double(), torch.tensor([[[1.3]]]).double()
        drawn = mean + root[0] * torch.randn(n, count, generator=seeded(12), dtype=torch.float64)
        log_weights = -2 * (drawn - 1) ** 2
        chosen = torch.multinomial(torch.softmax(log_weights, 1), 1, generator=seeded(13))
        tilt = log_weights.gather(1, chosen)[:, 0] - torch.logsumexp(log_weights, 1) + math.log(count)
        self.z, self.initial = drawn.gather(1, chosen), Initial(mean, root, torch.zeros(1, dtype=torch.long), tilt)


@pytest.mark.parametrize("s", [0.05, 0.3, 0.7])
@pytest.mark.parametrize("count", [2, 20])
def test_with_candidates_the_true_divergence_is_below_by_their_logarithm_at_most(s: float, count: int) -> None:
    """By a fine histogram of a million ends."""
    n, problem, steps = 10**6, Quadratic(1, 3), 5
    start = Candidates(n, count)
    noise = noise_of(steps, n, 1, 14)
    found = {name: of(problem, start.z, s, noise, start.initial) for name, of in FUNCTIONS.items()}
    ends = found["marginal"].z.numpy()[:, 0]
    counts, edges = np.histogram(ends, bins=400)
    share = counts / n
    log_q = np.log(np.where(share > 0, share / np.diff(edges), 1.0))
    true = float((share * log_q).sum() - problem(found["marginal"].z).mean())
    value = {name: float(estimate.kl.mean()) for name, estimate in found.items()}
    assert true - 0.005 < value["marginal"] < true + math.log(count) + 0.005
    assert min(value["conditional"], value["path"]) > true - 0.005
    assert 0 < float(start.initial.tilt.mean()) < math.log(count)


def estimate_by(density: ChainDensity, start: Initial, n: int, d: int) -> Estimate:
    z = draw(start, 2) if len(start.means) > 1 else torch.randn(n, d, generator=seeded(2), dtype=torch.float64)
    return follow([density], Quadratic(d, 1), z, 0.3, noise_of(7, n, d, 3), start)[0]


def test_stochastic_estimators_are_the_dense_ones_where_they_take_all_products() -> None:
    """The marginal one for starts from N(0, I), tilted; it refuses others."""
    d, n = 6, 5
    lanczos, start = LanczosConditional(seeded(), probes=3, depth=2, every=1), initial_of(3, d, n, 4)
    dense = estimate_by(Conditional(), start, n, d)
    torch.testing.assert_close(estimate_by(lanczos, start, n, d).kl, dense.kl, rtol=1e-8, atol=1e-8)
    tilted = Initial.normal(torch.zeros(1, d))._replace(tilt=torch.linspace(0, 1, n).double())
    subspace = SubspaceMarginal(seeded(), rank=d, stiff=d, whole=7)
    found, dense = estimate_by(subspace, tilted, n, d), estimate_by(Marginal(), tilted, n, d)
    torch.testing.assert_close(found.kl, dense.kl, rtol=1e-7, atol=1e-7)
    with pytest.raises(InputError, match=r"^initial: got another density than N\(0, I\); take Marginal"):
        estimate_by(SubspaceMarginal(seeded(), rank=d, stiff=d, whole=7), start, n, d)
