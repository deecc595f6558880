"""Chains that start from a mixture of normals, or from one of several candidates: closed forms on quadratic targets."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal
from torch import Tensor

from shortrun.inference import conditional, marginal, path
from shortrun.inference.divergence import ESTIMATORS, ChainDensity, Conditional, Estimate, Marginal, Path, follow
from shortrun.inference.initial import Initial
from shortrun.inference.jacobian import Scaled, Step
from shortrun.inference.stochastic import LanczosConditional
from shortrun.inference.subspace import SubspaceMarginal

FUNCTIONS = {"conditional": conditional, "marginal": marginal, "path": path}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixture_of(m: int, d: int, seed: int, apart: float = 1.5) -> Initial:
    rng = seeded(seed)
    log_weights = torch.log_softmax(torch.randn(m, generator=rng).double(), 0)
    means = apart * torch.randn(m, d, generator=rng, dtype=torch.float64)
    return Initial(log_weights, means, 0.3 + torch.rand(m, d, generator=rng).double(), torch.zeros(1).double())


def draw(initial: Initial, n: int, seed: int) -> Tensor:
    rng = seeded(seed)
    chosen = torch.multinomial(initial.log_weights.exp(), n, replacement=True, generator=rng)
    noise = torch.randn(n, initial.means.shape[1], generator=rng, dtype=torch.float64)
    return initial.means[chosen] + initial.scales[chosen] * noise


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

    def log_q(self, initial: Initial, end: Tensor, sizes: Tensor) -> Tensor:
        """log q_s(z_K) of every row by the recursion for mean and covariance of each component, in numpy."""
        precision, pull, d = self.precision.numpy(), self.pull.numpy(), len(self.pull)
        terms = []
        for log_weight, mean, scale in zip(*(part.numpy() for part in initial[:3]), strict=True):
            covariance = np.diag(scale**2)
            for size in sizes.numpy():
                half = np.diag(size**2 / 2)
                a = np.eye(d) - half @ precision
                mean, covariance = a @ mean + half @ pull, a @ covariance @ a.T + 2 * half
            logs = multivariate_normal.logpdf(end.numpy(), mean, covariance)  # pyright: ignore[reportArgumentType]
            terms.append(torch.as_tensor(log_weight + np.atleast_1d(logs)))
        return torch.logsumexp(torch.stack(terms), 0)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 6), st.integers(0, 10**6), st.sampled_from([0.1, 0.4, 0.8]))
def test_log_q_is_the_closed_form_sample_by_sample(m: int, d: int, steps: int, seed: int, s: float) -> None:
    """s = 0.8 overshoots in the stiffest direction."""
    problem, initial, n = Quadratic(d, seed), mixture_of(m, d, seed + 1), 4
    z, noise = draw(initial, n, seed), noise_of(steps, n, d, seed)
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
    problem, initial = Quadratic(3, 0), mixture_of(3, 3, 1)
    z, noise, tilt = draw(initial, 5, 2), noise_of(4, 5, 3, 3), torch.linspace(-1, 2, 5).double()
    plain = FUNCTIONS[estimator](problem, z, 0.3, noise, initial)
    tilted = FUNCTIONS[estimator](problem, z, 0.3, noise, initial._replace(tilt=tilt))
    torch.testing.assert_close(tilted.log_q, plain.log_q + tilt)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("m", [1, 3])
def test_gradients_are_those_of_differences(estimator: str, m: int) -> None:
    problem, initial = Quadratic(3, 0), mixture_of(m, 3, 1)
    z, noise = draw(initial, 5, 2), noise_of(6, 5, 3, 3)

    def value(log_s: Tensor) -> Tensor:
        return FUNCTIONS[estimator](problem, z, log_s.exp(), noise, initial).kl.mean()

    log_s = torch.tensor(math.log(0.4), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(value, (log_s,), atol=1e-6)


def test_means_are_ordered_and_bound_from_above() -> None:
    """-log p(x) <= marginal <= conditional and path: a chain that mixes no component away is told apart from one."""
    problem, n, steps = Quadratic(3, 4), 3000, 8
    precision = problem.precision
    evidence = 1.5 * math.log(2 * math.pi) - 0.5 * float(torch.logdet(precision))
    evidence += 0.5 * float(problem.pull @ torch.linalg.solve(precision, problem.pull))
    initial = mixture_of(4, 3, 5)
    z, noise = draw(initial, n, 6), noise_of(steps, n, 3, 7)
    for s in (0.1, 0.3, 0.5):
        values = {name: of(problem, z, s, noise, initial).kl for name, of in FUNCTIONS.items()}
        for other in ("conditional", "path"):
            gap = values[other] - values["marginal"]
            assert float(gap.mean()) > 4 * float(gap.std()) / math.sqrt(n)
        assert float(values["marginal"].mean()) > -evidence - 4 * float(values["marginal"].std()) / math.sqrt(n)


def test_far_components_count_for_nothing_and_a_far_start_is_cut() -> None:
    problem, z = Quadratic(2, 0), torch.tensor([[0.1, 0.2], [500.0, 0.0]]).double()
    near = Initial(torch.zeros(1).double(), torch.zeros(1, 2).double(), torch.ones(1, 2).double(), torch.zeros(1))
    both = Initial(
        torch.log(torch.tensor([0.5, 0.5])).double(),
        torch.tensor([[0.0, 0.0], [-4000.0, 0.0]]).double(),
        torch.ones(2, 2).double(),
        torch.zeros(1),
    )
    noise = noise_of(3, 2, 2, 0)
    found, expected = (marginal(problem, z, 0.1, noise, each).log_q for each in (both, near))
    torch.testing.assert_close(found, expected - math.log(2))


@pytest.mark.parametrize("m", [1, 4])
def test_steps_that_overshoot_give_finite_values_and_gradients(m: int) -> None:
    problem, initial = Quadratic(4, 0, stiffest=100.0), mixture_of(m, 4, 1)
    s = torch.tensor(math.sqrt(0.2), dtype=torch.float64, requires_grad=True)
    for steps in (25, 50):
        z, noise = draw(initial, 6, 2), noise_of(steps, 6, 4, 3)
        for estimate in (of(problem, z, s, noise, initial) for of in FUNCTIONS.values()):
            assert bool(estimate.kl.isfinite().all())
            assert bool(torch.autograd.grad(estimate.kl.sum(), s, retain_graph=True)[0].isfinite())


@pytest.mark.parametrize("kind", [Conditional, Marginal, Path, SubspaceMarginal], ids=lambda kind: kind.__name__)
def test_the_unit_of_the_latents_does_not_matter(kind: type[ChainDensity]) -> None:
    """A prior that is learned may stretch the latents; steps as many times as long are then the same chain."""
    d, unit = 6, 3.7
    problem, start = Quadratic(d, 1), mixture_of(3, d, 4)
    stretched = start._replace(means=unit * start.means, scales=unit * start.scales)
    z, noise = draw(start, 5, 2), noise_of(7, 5, d, 3)

    def density() -> ChainDensity:
        return SubspaceMarginal(seeded(), rank=4, stiff=2, whole=3) if kind is SubspaceMarginal else kind()

    plain = follow([density()], problem, z, 0.3, noise, start)[0]
    found = follow(
        [density()], lambda u: problem(u / unit) - d * math.log(unit), unit * z, unit * 0.3, noise, stretched
    )
    torch.testing.assert_close(found[0].kl, plain.kl, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[0].z, unit * plain.z)


class Candidates:
    """One latent: the start is one of `count` draws of a mixture, in proportion to exp(-2 (z - 1)^2)."""

    def __init__(self, n: int, count: int) -> None:
        self.initial = mixture_of(3, 1, 11)
        drawn = draw(self.initial, n * count, 12).view(n, count)
        log_weights = -2 * (drawn - 1) ** 2
        chosen = torch.multinomial(torch.softmax(log_weights, 1), 1, generator=seeded(13))
        tilt = log_weights.gather(1, chosen)[:, 0] - torch.logsumexp(log_weights, 1) + math.log(count)
        self.z, self.initial = drawn.gather(1, chosen), self.initial._replace(tilt=tilt)


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


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(0, 10**6))
def test_a_scaled_step_is_the_step_of_the_scaled_density(n: int, seed: int) -> None:
    problem, rng = Quadratic(3, seed), seeded(seed)
    z, mean, noise, v = torch.randn(4, n, 3, generator=rng, dtype=torch.float64)
    scale = 0.2 + torch.rand(n, 3, generator=rng).double()
    sizes = torch.linspace(0.1, 0.3, 3).double()[None]
    step = Step(problem, z, sizes, noise)
    found = Scaled(step, mean, scale)
    expected = Step(lambda u: problem(mean + scale * u), (z - mean) / scale, sizes / scale, noise)
    for name in ("z", "score", "step_size", "noise", "end", "hessian", "jacobian"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))
    torch.testing.assert_close(found.product(v), expected.product(v))
    torch.testing.assert_close(mean + scale * found.end, step.end)


def estimate_by(density: ChainDensity, problem: Callable[[Tensor], Tensor], start: Initial, n: int, d: int) -> Estimate:
    return follow([density], problem, draw(start, n, 2), 0.3, noise_of(7, n, d, 3), start)[0]


def test_stochastic_estimators_are_the_dense_ones_where_they_take_all_products() -> None:
    """The marginal one with the component of the start held: that of a start from this component alone."""
    d, n = 6, 5
    problem, start = Quadratic(d, 1), mixture_of(3, d, 4, apart=6.0)
    start = start._replace(tilt=torch.linspace(0, 1, n).double())
    lanczos = LanczosConditional(seeded(), probes=3, depth=2, every=1)
    dense = estimate_by(Conditional(), problem, start, n, d)
    torch.testing.assert_close(estimate_by(lanczos, problem, start, n, d).kl, dense.kl, rtol=1e-8, atol=1e-8)
    found = estimate_by(SubspaceMarginal(seeded(), rank=d, stiff=d, whole=7), problem, start, n, d)
    z, noise = draw(start, n, 2), noise_of(7, n, d, 3)
    components = start.components(z).argmax(1)
    assert len(set(components.tolist())) > 1
    for row, c in enumerate(components):
        alone = Initial(torch.zeros(1).double(), start.means[c][None], start.scales[c][None], start.tilt[row][None])
        one = follow([Marginal()], problem, z[row][None], 0.3, noise[:, row][:, None], alone)[0]
        torch.testing.assert_close(found.kl[row], one.kl[0], rtol=1e-7, atol=1e-7)


def test_the_component_held_costs_the_logarithm_of_their_number_at_most() -> None:
    d, n, m = 4, 3000, 3
    problem, start = Quadratic(d, 1), mixture_of(m, d, 4, apart=0.7)
    gap = estimate_by(SubspaceMarginal(seeded(5), rank=d, stiff=d, whole=7), problem, start, n, d).kl
    gap = gap - estimate_by(Marginal(), problem, start, n, d).kl
    error = float(gap.std()) / math.sqrt(n)
    assert 3 * error < float(gap.mean()) < math.log(m) - 3 * error
