"""Learners whose chains start from the regression of latents on images, where the posterior is known."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from linear_learners import (
    DIM,
    LATENTS,
    PIXELS,
    SHAPE,
    WEIGHT,
    Posterior,
    linear_learner,
    parted,
    posterior,
    rng,
    simulated,
    visited,
)
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.multiprocessing.spawn import spawn

from shortrun.config import InferenceConfig, LearnerConfig, ModelConfig
from shortrun.inference import DrawnNoise, StepSize, conditional, marginal, path
from shortrun.learners import Persistent, ShortRun
from shortrun.learners.latent_learner import WINDOW
from shortrun.model import Mixture, Normal
from shortrun.model.prior import Prior

SIGMA = 1.0
FUNCTIONS = {"conditional": conditional, "marginal": marginal, "path": path}


def draws_of(n: int, seed: int = 0, steps: int = 1) -> DrawnNoise:
    return DrawnNoise(rng(seed), steps, (n, DIM))


@pytest.fixture(scope="module")
def settled() -> ShortRun:
    """Images of z ~ N(0, I); long steps lead near the posterior, short ones to it but for s^2 lambda / 4 = 0.02."""
    learner = linear_learner(SIGMA)
    x = simulated(torch.randn(20_000, DIM, generator=rng(1)), SIGMA)
    visited(learner, x, fits=20)
    learner.step_size, learner.steps = StepSize(0.15, LATENTS), 12
    visited(learner, x, fits=25, seed=1)
    return learner


SEEN = {
    "all": torch.ones(PIXELS, dtype=torch.bool),
    "upper half": torch.arange(PIXELS) < 15,
    "every fifth": torch.arange(PIXELS) % 5 == 0,
    "random": torch.rand(PIXELS, generator=rng(3)) < 0.5,
    "one": torch.arange(PIXELS) == 17,
}


@pytest.mark.parametrize("name", SEEN)
def test_the_start_converges_to_the_exact_posterior(settled: ShortRun, name: str) -> None:
    """Of the chains' own ends, whatever pixels are missing from images that the sums have seen whole."""
    seen = SEEN[name]
    x = simulated(torch.randn(1000, DIM, generator=rng(11)), SIGMA, seed=12)
    exact = posterior(x, SIGMA, Normal(DIM), seen)
    assert settled.regression is not None
    starts = settled.regression.starts(x, None if name == "all" else seen.float().view(1, *SHAPE))
    mean, covariance = exact.means[:, 0], exact.covariances[0]
    found = (starts.roots @ starts.roots.mT)[0].double()
    away = starts.means.double() - mean
    assert float(away.square().sum() / mean.square().sum()) < 0.01
    assert 0.98 < float(found.trace() / covariance.trace()) < 1.06
    torch.testing.assert_close(found, covariance, atol=0.04, rtol=0)
    volume = torch.logdet(covariance) - torch.logdet(found)
    squares = torch.trace(exact.precisions[0] @ found) - DIM + (away @ exact.precisions[0] * away).sum(1)
    assert float(0.5 * (squares + volume).mean()) < 0.03  # nats, of the start from the posterior


def test_one_step_from_the_regression_is_nearer_than_many_from_the_prior(settled: ShortRun) -> None:
    """At the same short steps, and the estimator says so: it is far nearer than what the prior's chain is."""
    x = simulated(torch.randn(300, DIM, generator=rng(21)), SIGMA, seed=22)
    plain = linear_learner(SIGMA, regressed=False)
    evidence = torch.logsumexp(posterior(x, SIGMA, Normal(DIM)).log_weights, 1)
    divergence = []
    for learner, steps in ((settled, 1), (plain, 20)):
        draws = draws_of(len(x), steps=steps)
        start = learner.start(x, draws)
        found = marginal(learner.log_density(x, start.component), start.z, 0.12, draws, start.initial)
        divergence.append(float((found.kl + evidence).mean().detach()))
    assert -0.1 < divergence[0] < 0.1
    assert divergence[1] > 1


def test_a_mixture_of_one_converges_to_the_prior_of_highest_likelihood() -> None:
    """Of these images, in closed form: W^+ (cov x - sigma^2 I) W^+^T and W^+ mean x."""
    sigma, true = 0.5, parted(1, apart=0.7)
    x = simulated(true.sample(4000, rng(1)), sigma)
    learner = linear_learner(sigma, Mixture(DIM, 1), steps=4, step_size=0.3)
    visited(learner, x, fits=30)
    learner.step_size = StepSize(0.15, LATENTS)
    visited(learner, x, fits=15, seed=1)
    back = torch.linalg.pinv(WEIGHT)
    latents = x.flatten(1) @ back.T
    mean, covariance = latents.mean(0), torch.cov(latents.T, correction=0) - sigma**2 * back @ back.T
    found, root = learner.generator.prior.whole()
    torch.testing.assert_close(found, mean, atol=0.04, rtol=0)
    torch.testing.assert_close(root @ root.T, covariance, atol=0.06, rtol=0.05)
    best = parted(1)
    best.load_state_dict(best.state_dict() | {"means": mean[None], "roots": torch.linalg.cholesky(covariance)[None]})
    values = [
        float(torch.logsumexp(posterior(x, sigma, prior).log_weights, 1).mean())
        for prior in (learner.generator.prior, best, true, Normal(DIM))
    ]
    assert values[1] > values[2] > values[3] + 1  # what is claimed to be the highest is higher than the truth
    assert values[0] > values[1] - 0.05


def test_several_components_say_more_of_the_images_than_one() -> None:
    sigma, true = 0.5, parted(3, apart=2.0)
    x, new = (simulated(true.sample(4000, rng(seed)), sigma, seed=seed) for seed in (1, 2))
    learner = linear_learner(sigma, Mixture(DIM, 3), steps=4, step_size=0.3)
    visited(learner, x, fits=40)
    mean, root = learner.generator.prior.whole()
    one = parted(1)
    one.load_state_dict(one.state_dict() | {"means": mean[None], "roots": root[None], "inverse": root.inverse()[None]})
    values = [
        float(torch.logsumexp(posterior(new, sigma, prior).log_weights, 1).mean())
        for prior in (learner.generator.prior, one, true)
    ]
    assert values[0] > values[1] + 0.3
    assert values[0] > values[2] - 0.25


def regressed(prior: Prior | None = None, candidates: int = 1, blur: float = 1.0) -> ShortRun:
    """A learner whose regression knows something: of latents with more noise and a shift, the posterior without."""
    learner = linear_learner(SIGMA, prior, candidates=candidates)
    z = torch.randn(3000, DIM, generator=rng(31))
    x = simulated(z, SIGMA, seed=32)
    mix = 0.3 * torch.randn(DIM, DIM, generator=rng(34)) + 0.6 * torch.eye(DIM)
    assert learner.regression is not None
    blurred = z + blur * (0.3 - 0.2 * z + torch.randn(3000, DIM, generator=rng(33)) @ mix.T)
    learner.regression.learn(learner.features(x), blurred)
    return learner


class Chain:
    """The chains of a linear generator again, in numpy: every step, and the recursion of their law."""

    def __init__(self, exact: Posterior, start: Tensor, component: Tensor, noise: Tensor, s: float) -> None:
        self.s, rows = s, torch.arange(len(start))
        self.precision, self.pull = exact.precisions[component].numpy(), exact.pulls[rows, component].numpy()
        self.steps = [start.double().numpy()]
        for eps in noise.double().numpy():
            z = self.steps[-1]
            self.steps.append(z + s**2 / 2 * self.score(z) + s * eps)
        self.jacobian = np.eye(DIM) - s**2 / 2 * self.precision

    def score(self, z: np.ndarray) -> np.ndarray:
        return self.pull - np.einsum("nij,nj->ni", self.precision, z)

    def conditional(self) -> np.ndarray:
        return -(len(self.steps) - 1) * np.linalg.slogdet(self.jacobian)[1]

    def path(self) -> np.ndarray:
        total, s = np.zeros(len(self.pull)), self.s
        for one, other in zip(self.steps, self.steps[1:], strict=False):
            forward = other - one - s**2 / 2 * self.score(one)
            back = one - other - s**2 / 2 * self.score(other)
            total += ((back**2).sum(1) - (forward**2).sum(1)) / (2 * s**2)
        return total

    def marginal(self, mean: np.ndarray, covariance: np.ndarray) -> Tensor:
        a, s = self.jacobian, self.s
        for _ in self.steps[1:]:
            mean = np.einsum("nij,nj->ni", a, mean) + s**2 / 2 * self.pull
            covariance = a @ covariance @ a.transpose(0, 2, 1) + s**2 * np.eye(DIM)
        normal = MultivariateNormal(torch.as_tensor(mean), torch.as_tensor(covariance))
        return normal.log_prob(torch.as_tensor(self.steps[-1]))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("make", [lambda: Normal(DIM), lambda: parted(3, 0.5)], ids=["normal", "mixture"])
def test_estimators_from_a_regressed_start_equal_closed_forms(make: Callable[[], Prior], masked: bool) -> None:
    """Row by row, with the component held; its chance given the start is the tilt."""
    prior, n, steps, s = make(), 40, 6, 0.35
    learner, x = regressed(prior), simulated(torch.randn(40, DIM, generator=rng(41)), SIGMA, seed=42)
    seen = SEEN["random"] if masked else SEEN["all"]
    mask = seen.float().view(1, *SHAPE) if masked else None
    draws = draws_of(n, steps=steps)
    start = learner.start(x, draws, mask)
    noise = torch.stack(list(draws))
    exact = posterior(x, SIGMA, prior, seen)
    density = learner.log_density(x, start.component, mask)
    found = {name: of(density, start.z, s, noise, start.initial) for name, of in FUNCTIONS.items()}
    assert learner.regression is not None
    normals = learner.regression.starts(x, mask)
    root = normals.roots.double()[normals.which]
    log_start = MultivariateNormal(normals.means.double(), scale_tril=root).log_prob(start.z.double())
    chance = torch.log_softmax(prior.components(start.z.double()), 1).gather(1, start.component[:, None])[:, 0]
    torch.testing.assert_close(start.initial.log_prob(start.z), log_start + chance, rtol=1e-4, atol=1e-4)
    chain = Chain(exact, start.z, start.component, noise, s)
    expected = {
        "conditional": log_start + chance + torch.as_tensor(chain.conditional()),
        "path": log_start + chance + torch.as_tensor(chain.path()),
        "marginal": chance + chain.marginal(normals.means.double().numpy(), (root @ root.mT).numpy()),
    }
    # log p(x, z, c) = log p(x, c) + log N(z; the posterior given c)
    end = torch.as_tensor(chain.steps[-1])
    rows = torch.arange(n)
    at_end = MultivariateNormal(
        exact.means[rows, start.component], precision_matrix=exact.precisions[start.component]
    ).log_prob(end)
    joint = exact.log_weights[rows, start.component] + at_end
    for name, estimate in found.items():
        torch.testing.assert_close(estimate.z.double(), end, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(estimate.log_q, expected[name], rtol=1e-4, atol=2e-3)
        torch.testing.assert_close(estimate.kl, expected[name] - joint, rtol=1e-4, atol=3e-3)
    if not prior.standard:
        assert len(set(start.component.tolist())) > 1
        assert float(chance.min()) < -0.5


@pytest.mark.parametrize("candidates", [1, 6])
def test_weights_of_ends_against_their_density_average_to_the_likelihood(candidates: int) -> None:
    """E[p(x, z_K, c) / q(z_K, c)] = p(x): the density of start, component and candidates leaves nothing out."""
    n, prior = 50_000, parted(3, 0.3)
    learner = regressed(prior, candidates, blur=0.5)
    one = simulated(torch.zeros(1, DIM), SIGMA, seed=52)
    log_p = torch.logsumexp(posterior(one, SIGMA, prior).log_weights, 1)
    # candidates are common to a batch, hence many batches where there are some
    batches, values = 1 if candidates == 1 else 250, []
    for seed in range(batches):
        x, draws = one.expand(n // batches, -1, -1, -1), draws_of(n // batches, seed, steps=2)
        start, noise = learner.start(x, draws), torch.stack(list(draws))
        density = learner.log_density(x, start.component)
        for of in (conditional, path):
            kl = of(density, start.z, 0.2, noise, start.initial).kl.detach()
            values.append(torch.exp(-kl - log_p))
    for weights in (values[::2], values[1::2]):
        each = torch.stack(weights).mean(1) if batches > 1 else weights[0]
        error = float(each.std()) / math.sqrt(len(each))
        assert abs(float(each.mean()) - 1) < 4.5 * error
        assert error < (0.05 if candidates == 1 else 0.12)


def test_until_there_is_a_regression_the_start_is_the_priors() -> None:
    x = simulated(torch.randn(5, DIM, generator=rng()), SIGMA)
    for prior in (Normal(DIM), parted()):
        plain, other = linear_learner(SIGMA, prior, regressed=False), linear_learner(SIGMA, prior)
        assert torch.equal(plain.infer(x, rng()).z, other.infer(x, rng()).z)
        for one, same in zip(plain.start(x, draws_of(5)).initial, other.start(x, draws_of(5)).initial, strict=True):
            assert torch.equal(one, same)


@pytest.mark.parametrize("make", [lambda: Normal(DIM), parted], ids=["normal", "mixture"])
def test_an_image_of_which_nothing_is_seen_starts_from_the_prior(make: Callable[[], Prior]) -> None:
    """Its own draw and density, whatever the regression says; the others' starts are the regression's."""
    prior, n = make(), 2000
    learner, x = regressed(prior), torch.full((n, *SHAPE), math.nan)
    for mask in (torch.zeros(1, 1, 5, 6), torch.zeros(n, 1, 5, 6)):
        z, component, initial = learner.start(x, draws_of(n), mask)
        expected = prior.held(component)(z).double()
        torch.testing.assert_close(initial.log_prob(z), expected, rtol=1e-5, atol=1e-4)
        mean, root = prior.whole()
        assert ((z.mean(0) - mean).abs() < 4.5 * root.norm(dim=1) / math.sqrt(n)).all()
        torch.testing.assert_close(torch.cov(z.T), root @ root.T, atol=0.25, rtol=0.1)
    mask = torch.ones(4, 1, 5, 6)
    mask[1] = 0
    x = simulated(torch.randn(4, DIM, generator=rng()), SIGMA)
    some, none = learner.start(x, draws_of(4), mask), learner.start(x, draws_of(4))
    rows = [0, 2, 3]
    torch.testing.assert_close(some.z[rows], none.z[rows], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(some.initial.log_prob(some.z)[rows], none.initial.log_prob(none.z)[rows])
    blind = prior.held(some.component)(some.z).double()
    torch.testing.assert_close(some.initial.log_prob(some.z)[1], blind[1], rtol=1e-5, atol=1e-4)


def wrong() -> ShortRun:
    """A regression that is off by three, and of latents all too narrow."""
    learner = linear_learner(SIGMA, parted(3, 0.5), candidates=30_000, steps=1, step_size=1e-6)
    z = torch.randn(3000, DIM, generator=rng(31))
    assert learner.regression is not None
    learner.regression.learn(learner.features(simulated(z, SIGMA)), 0.2 * z + 3)
    return learner


@pytest.mark.parametrize("make", [wrong, lambda: regressed(parted(3, 0.5), candidates=30_000)], ids=["wrong", "fair"])
def test_with_many_candidates_the_density_of_the_start_is_the_posteriors(make: Callable[[], ShortRun]) -> None:
    """Whatever the image's own start is: candidates are weighted by p(x, z) / q(z)."""
    learner, n = make(), 300
    one = simulated(0.3 * torch.randn(1, DIM, generator=rng(61)), SIGMA, seed=62)
    exact, x = posterior(one, SIGMA, learner.generator.prior), one.expand(n, -1, -1, -1)
    z, component, initial = learner.start(x, draws_of(n))
    normals = MultivariateNormal(exact.means[0, component], precision_matrix=exact.precisions[component])
    expected = torch.log_softmax(exact.log_weights[0], 0)[component] + normals.log_prob(z.double())
    assert float((initial.log_prob(z) - expected).abs().max()) < 0.25
    assert float((initial.log_prob(z) - expected).abs().mean()) < 0.15
    assert len(set(component.tolist())) > 1


def test_among_few_candidates_the_own_start_is_taken_where_it_is_best() -> None:
    learner = regressed(candidates=3, blur=0.0)
    assert learner.regression is not None
    x = simulated(torch.randn(200, DIM, generator=rng(71)), SIGMA, seed=72)
    start = learner.start(x, draws_of(200))
    own = start.initial.means.abs().sum(1) > 0
    assert 80 < int(own.sum()) < 200  # one of four: by chance it would be 50
    regression = learner.regression.starts(x)
    torch.testing.assert_close(start.initial.means[own], regression.means[own])
    assert len({tuple(row) for row in start.z[~own].tolist()}) <= 3


@pytest.mark.parametrize("candidates", [1, 5])
def test_parts_of_a_batch_start_where_the_whole_does(candidates: int) -> None:
    learner = regressed(parted(), candidates=candidates)
    x = simulated(torch.randn(6, DIM, generator=rng(81)), SIGMA)
    mask = (torch.rand(6, 1, 5, 6, generator=rng(82)) < 0.5).float()
    for seen in (None, mask):
        whole = learner.infer(x, rng(), mask=seen).z
        parts = [
            learner.infer(x[rows], rng(), mask=None if seen is None else seen[rows], part=(i, 3)).z
            for i, rows in enumerate(torch.arange(6).split(2))
        ]
        torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-4, atol=1e-4)


def process(rank: int, folder: str, x: Tensor) -> None:
    """One of two processes that learn together."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    learner, numbers = linear_learner(SIGMA, Mixture(DIM, 2), steps=2), rng()
    torch.set_num_threads(1)
    with torch.no_grad():
        for _ in range(11 * WINDOW + 1):
            learner.loss(x.chunk(2)[rank], numbers, part=(rank, 2))
    torch.save(learner.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_fit_what_one_does(tmp_path: Path) -> None:
    x = simulated(torch.randn(60, DIM, generator=rng(1)), SIGMA)
    spawn(process, (str(tmp_path), x), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    alone, numbers = linear_learner(SIGMA, Mixture(DIM, 2), steps=2), rng()
    with torch.no_grad():
        for _ in range(11 * WINDOW + 1):
            alone.loss(x, numbers)
    assert int(alone.generator.prior.fits) == 11  # pyright: ignore[reportArgumentType]
    for name, value in alone.state_dict().items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], value, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("updates", [WINDOW - 1, WINDOW + 7, 12 * WINDOW + 3])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(updates: int) -> None:
    x = simulated(torch.randn(20, DIM, generator=rng(1)), SIGMA)

    def run(learner: ShortRun, first: int, last: int) -> None:
        with torch.no_grad():
            for update in range(first, last):
                learner.loss(x, rng(update))

    whole, half, rest = (linear_learner(SIGMA, Mixture(DIM, 2), steps=2) for _ in range(3))
    run(whole, 0, updates + 2 * WINDOW)
    run(half, 0, updates)
    state = half.training_state()
    assert len(half.latest) == int(state["updates"]) == (updates - 1) % WINDOW + 1
    rest.load_state_dict(half.state_dict())
    rest.load_training_state(state)
    assert len(rest.latest) == len(half.latest)
    run(rest, updates, updates + 2 * WINDOW)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, rest.state_dict()[name])
    rest.load_training_state({})
    assert not rest.latest
    assert not rest.training_state()


def test_a_batch_smaller_than_the_others_does_not_shift_the_fits() -> None:
    """However many rows an update had: the number of updates is what counts."""
    one, other = linear_learner(SIGMA), linear_learner(SIGMA)
    x = simulated(torch.randn(9, DIM, generator=rng(1)), SIGMA)
    with torch.no_grad():
        for size in (1, 1, 1, 1, 9, 1, 2):
            one.loss(x[:size], rng())
    other.load_training_state(one.training_state())
    assert len(other.latest) == len(one.latest) == 7
    for mine, theirs in zip(zip(*one.latest, strict=True), zip(*other.latest, strict=True), strict=True):
        assert torch.equal(torch.cat(mine), torch.cat(theirs))


def test_a_learner_that_is_evaluated_keeps_nothing() -> None:
    learner, x = (
        linear_learner(SIGMA, Mixture(DIM, 2), steps=2),
        simulated(torch.randn(20, DIM, generator=rng(1)), SIGMA),
    )
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    learner.eval()
    with torch.no_grad():
        for _ in range(2 * WINDOW + 1):
            learner.loss(x, rng())
    assert not learner.latest
    assert not learner.training_state()
    assert all(torch.equal(before[name], value) for name, value in learner.state_dict().items())
    learner.train()
    learner.infer(x, rng())
    assert not learner.latest  # what is inferred beside the updates is no business of theirs
    with torch.no_grad():
        learner.loss(x, rng())
    assert len(learner.latest) == 1


def test_a_learner_with_nothing_to_fit_keeps_nothing() -> None:
    learner, x = linear_learner(SIGMA, regressed=False), simulated(torch.randn(20, DIM, generator=rng(1)), SIGMA)
    with torch.no_grad():
        learner.loss(x, rng())
    assert not learner.latest
    assert not learner.training_state()


def test_chains_that_failed_teach_nothing() -> None:
    clean, spoiled = (linear_learner(SIGMA, Mixture(DIM, 2), steps=2) for _ in range(2))
    spoiled.retries = 1
    x = simulated(torch.randn(20, DIM, generator=rng(1)), SIGMA)
    broken = x.clone()
    broken[[3, 7]] = math.nan
    with torch.no_grad():
        for update in range(12 * WINDOW + 1):
            clean.loss(x, rng(update))
            spoiled.loss(broken, rng(update))
    assert spoiled.regression is not None
    assert int(spoiled.regression.fits) == 12
    assert float(spoiled.regression.sums.total[0, 0, 0]) == pytest.approx(
        18 / 20 * float(clean.regression.sums.total[0, 0, 0])  # pyright: ignore[reportOptionalMemberAccess]
    )
    assert all(torch.isfinite(value).all() for value in spoiled.state_dict().values())
    found = spoiled.infer(broken, rng())
    assert found.failed.nonzero()[:, 0].tolist() == [3, 7]
    assert torch.isfinite(found.z[[0, 1, 2]]).all()


def test_a_fit_in_half_precision_is_finite_and_near() -> None:
    x = simulated(torch.randn(50, DIM, generator=rng(1)), SIGMA)
    plain, half = linear_learner(SIGMA, Mixture(DIM, 2), steps=2), linear_learner(SIGMA, Mixture(DIM, 2), steps=2)
    with torch.no_grad():
        for update in range(12 * WINDOW + 1):
            plain.loss(x, rng(update))
            with torch.autocast("cpu", torch.bfloat16):
                half.loss(x, rng(update))
    for learner in (plain, half):
        assert all(torch.isfinite(value).all() for value in learner.state_dict().values())
    assert half.regression is not None
    assert plain.regression is not None
    assert half.regression.sums.total.dtype == torch.float32
    # the chains differ by their rounding, the fits by no more
    torch.testing.assert_close(half.regression.starts(x).means, plain.regression.starts(x).means, atol=0.1, rtol=0)
    torch.testing.assert_close(half.generator.prior.whole(), plain.generator.prior.whole(), atol=0.1, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        inside = half.start(x, draws_of(50))
    outside = half.start(x, draws_of(50))
    assert torch.equal(inside.z, outside.z)
    assert torch.equal(inside.initial.log_prob(inside.z), outside.initial.log_prob(outside.z))


def description_of(learner: str, candidates: int = 1) -> LearnerConfig:
    model = ModelConfig(latents=(2, 3), width=8, prior="mixture", components=2)
    settings = InferenceConfig(steps=1, start="regression", candidates=candidates)
    return LearnerConfig(SHAPE, 2, False, model, settings, learner=learner)


@pytest.mark.parametrize("candidates", [1, 4])
def test_it_is_saved_with_the_model(tmp_path: Path, candidates: int) -> None:
    learner = ShortRun.from_description(description_of("short_run", candidates=candidates))
    x = torch.randint(2, (20, *SHAPE), generator=rng(2)).float() * 2 - 1
    visited(learner, x, fits=11, batch=20)
    assert learner.regression is not None
    assert int(learner.regression.fits) == 11
    learner.save_pretrained(tmp_path)
    loaded = ShortRun.from_pretrained(tmp_path)
    assert loaded.description == learner.description
    mask = (torch.rand(20, 1, 5, 6, generator=rng(3)) < 0.5).float()
    assert torch.equal(loaded.infer(x, rng()).z, learner.infer(x, rng()).z)
    assert torch.equal(loaded.infer(x, rng(), mask=mask).z, learner.infer(x, rng(), mask=mask).z)
    assert torch.equal(loaded.sample(5, rng()), learner.sample(5, rng()))
    assert loaded.conditions()["start"] == "regression"


@pytest.mark.parametrize(
    ("candidates", "words"),
    [
        (1, "1 steps, with noise, from the regression"),
        (4, "1 steps, with noise, from the regression and 4 candidates of the prior"),
    ],
)
def test_what_is_said_of_the_start(candidates: int, words: str) -> None:
    description = description_of("short_run", candidates=candidates)
    assert ShortRun.from_description(description).describe_inference() == words
    line = ShortRun.describe_settings(description)
    assert line == "1 steps of size 0.1, with noise, from the regression of latents on images"
    plain = LearnerConfig(SHAPE, inference=InferenceConfig(steps=3, noise=False))
    assert ShortRun.describe_settings(plain) == "3 steps of size 0.1, without noise"
    kept = Persistent.describe_settings(description_of("persistent"))
    assert kept == (
        "1 steps at each visit of a chain, 100 from the regression for new images, of size 0.1, with noise, from the "
        "regression of latents on images"
    )


def test_persistent_chains_teach_the_regression_that_new_images_start_from(tmp_path: Path) -> None:
    learner, numbers = Persistent.from_description(description_of("persistent")), rng()
    x = torch.randint(2, (30, *SHAPE), generator=rng(2)).float() * 2 - 1
    learner.start_training(30, 0, tmp_path)
    assert learner.regression is not None
    assert learner.chains is not None
    with torch.no_grad():
        for update in range(12 * WINDOW + 1):
            rows = torch.arange(15) + 15 * (update % 2)
            learner.loss(x[rows], numbers, rows=rows)
    assert int(learner.regression.fits) == 12
    assert int(learner.generator.prior.fits) == 12  # pyright: ignore[reportArgumentType]
    starts = learner.regression.starts(x)
    away = (learner.chains.z - starts.means).square().mean()
    assert float(away) < 0.9 * float((learner.chains.z - learner.chains.z.mean(0)).square().mean())
    draws = DrawnNoise(rng(), 1, (30, 5))
    torch.testing.assert_close(learner.start(x, draws).initial.means, starts.means)
    state = learner.training_state()
    assert set(state) == {"chains", "latents", "features", "updates"}
    again = Persistent.from_description(description_of("persistent"))
    again.start_training(30, 1, tmp_path)
    again.load_state_dict(learner.state_dict())
    again.load_training_state(state)
    rows, after = torch.arange(15), [rng(5), rng(5)]
    with torch.no_grad():
        values = [one.loss(x[rows], each, rows=rows)[0] for one, each in zip((learner, again), after, strict=True)]
    assert torch.equal(*values)
