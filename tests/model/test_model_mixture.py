"""The mixture that is kept by sums: what it learns, how it starts, and what earlier versions saved of theirs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from priors import as_torch, drawn_mixture, mixture_of, rng
from sklearn.mixture import GaussianMixture
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from shortrun.model import Mixture
from shortrun.model.mixture import FLOOR, NEWBORN, SHRINK, STARVED, WAIT, nearest_means
from shortrun.normals import standard_normal


def fits_of(prior: Mixture, batches: list[Tensor], seed: int = 0) -> Mixture:
    """Return the mixture after fits to batches, the first of them shown until it is the turn of the first fit."""
    numbers = rng(seed)
    for _ in range(WAIT - 1):
        prior.learn(batches[0], numbers)
    for z in batches:
        prior.learn(z, numbers)
    return prior


def fitted(z: Tensor, components: int, fits: int = 30, seed: int = 0) -> Mixture:
    prior = Mixture(z.shape[1], components)
    return fits_of(prior.double() if z.dtype == torch.float64 else prior, [z] * fits, seed)


def test_it_is_the_standard_normal_until_the_tenth_fit() -> None:
    prior, z, numbers = Mixture(5, 3), torch.randn(100, 5, generator=rng()), rng()
    for _ in range(WAIT):
        torch.testing.assert_close(prior.log_prob(4 * z), standard_normal(4 * z))
        assert prior.log_weights.exp().tolist() == pytest.approx([1 / 3] * 3)
        torch.testing.assert_close(prior.whole(), (torch.zeros(5), torch.eye(5)))
        prior.learn(3 + z, numbers)
    assert (prior.whole()[0] - 3).abs().max() < 0.5


@pytest.mark.parametrize("d", [2, 6])
def test_it_converges_to_the_mixture_that_latents_are_drawn_of(d: int) -> None:
    """Weights, means, covariances; of new latents it says as much as the truth and as maximum likelihood does."""
    true = drawn_mixture(3, d, seed=5, apart=5.0)
    batches = [true.sample(1000, rng(seed), torch.float64) for seed in range(60)]
    prior = fits_of(Mixture(d, 3).double(), batches)
    order = [int((prior.means - mean).norm(dim=1).argmin()) for mean in true.means]
    assert sorted(order) == [0, 1, 2]
    torch.testing.assert_close(prior.log_weights.exp()[order], true.log_weights.exp(), atol=0.03, rtol=0)
    torch.testing.assert_close(prior.means[order], true.means, atol=0.1, rtol=0)
    covariances = [roots @ roots.mT for roots in (prior.roots[order], true.roots)]
    torch.testing.assert_close(*covariances, atol=0.1, rtol=0.1)
    new = true.sample(20_000, rng(1000), torch.float64)
    best = GaussianMixture(3, random_state=0).fit(torch.cat(batches[-10:]).numpy())
    found = float(prior.log_prob(new).mean())
    assert abs(found - float(true.log_prob(new).mean())) < 0.02
    assert abs(found - best.score(new.numpy())) < 0.02


def test_of_overlapping_components_the_likelihood_is_the_highest() -> None:
    """Where components cannot be told apart, draws of them lead to maximum likelihood all the same."""
    true = drawn_mixture(3, 2, seed=2, apart=0.8)
    z, new = true.sample(4000, rng(), torch.float64), true.sample(20_000, rng(1), torch.float64)
    prior = fitted(z, 3, fits=150)
    best = GaussianMixture(3, n_init=3, random_state=0, tol=1e-6, max_iter=1000).fit(z.numpy())
    assert float(prior.log_prob(new).mean()) > best.score(new.numpy()) - 0.02
    plain = GaussianMixture(1).fit(z.numpy())
    assert plain.score(new.numpy()) < best.score(new.numpy()) - 0.03  # one normal would not do


def test_one_component_has_the_moments_of_the_latents_but_for_what_shrinks_it() -> None:
    z = torch.randn(300, 4, generator=rng(), dtype=torch.float64) @ torch.randn(4, 4, generator=rng(1)).double() + 2
    prior, fits = fitted(z, 1, fits=5), 5
    count = 300 * sum(0.9**k for k in range(fits))
    covariance = np.cov(z.numpy().T, bias=True)
    round_one = np.trace(covariance) / 4 * np.eye(4)
    shared = (count * covariance + SHRINK * round_one) / (count + SHRINK)
    expected = (count * covariance + SHRINK * shared) / (count + SHRINK) + FLOOR * np.eye(4)
    np.testing.assert_allclose(prior.means[0], z.mean(0), rtol=1e-9)
    np.testing.assert_allclose(prior.roots[0] @ prior.roots[0].T, expected, rtol=1e-9)
    assert prior.log_weights.tolist() == [0.0]
    many = torch.cat([z] * 1000)
    moments = fitted(many, 1, fits=1)
    np.testing.assert_allclose(moments.roots[0] @ moments.roots[0].T, covariance, rtol=1e-3, atol=2 * FLOOR)


def test_what_is_old_is_forgotten() -> None:
    """0.9 a fit: of the first latents 0.9^30 is left, of the mean that is 0.04 of 1."""
    one, other = (torch.randn(500, 2, generator=rng(seed)) + shift for seed, shift in ((0, 0.0), (1, 1.0)))
    prior = fits_of(Mixture(2, 1), [one] * 30 + [other] * 30)
    expected = 1 - 0.9**30 * (1 - 0.9**30) / (1 - 0.9**60)
    left = (prior.means[0] - one.mean(0)) / (other.mean(0) - one.mean(0))
    assert left.tolist() == pytest.approx([expected] * 2, abs=1e-3)


def test_a_component_that_starves_is_born_again_at_a_latent_with_the_covariance_of_all() -> None:
    """Its latents have moved away; the fit after its weight fell below the least gives it a new place."""
    near, far = torch.randn(200, 2, generator=rng()), torch.randn(200, 2, generator=rng(1)) + 40
    prior, numbers = fits_of(Mixture(2, 2), [torch.cat([near, far])]), rng(2)
    gone = int(prior.means[:, 0].argmax())
    shares = []
    for _ in range(80):
        before = prior.means[gone].clone()
        prior.learn(near, numbers)
        shares.append(float(prior.log_weights[gone].exp()))
        if (prior.means[gone] - before).norm() > 20:
            break
    else:
        raise AssertionError("it was not born again")
    # its share fell by 0.9 at each fit until it was below STARVED of the equal one, a half
    assert all(share > STARVED / 2 / 1.2 for share in shares)
    assert float((near - prior.means[gone]).norm(dim=1).min()) < 1e-4
    equal = float(prior.sums.total[:, 0, 0].sum()) / 2
    assert float(prior.sums.total[gone, 0, 0]) == pytest.approx(NEWBORN * equal, rel=0.2)
    covariance = prior.roots[gone] @ prior.roots[gone].T
    assert covariance.diagonal().tolist() == pytest.approx(near.var(0).tolist(), rel=0.3)
    for _ in range(30):
        prior.learn(near, numbers)
    assert float(prior.log_weights.exp().min()) > STARVED / 2  # it lives on
    assert float(prior.log_prob(near).mean()) == pytest.approx(
        GaussianMixture(1).fit(near.numpy()).score(near), abs=0.1
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 30), st.integers(1, 8), st.integers(0, 99))
def test_few_latents_and_many_dimensions_leave_every_covariance_positive_definite(
    n: int, d: int, components: int, seed: int
) -> None:
    z = 5 * torch.randn(n, d, generator=rng(seed))
    prior = fitted(z, components, fits=3, seed=seed)
    for part in (*prior.parts(), prior.sums.total):
        assert torch.isfinite(part).all()
    assert torch.linalg.eigvalsh(prior.roots.double() @ prior.roots.double().mT).min() > 0.9 * FLOOR
    assert float(prior.log_weights.exp().sum()) == pytest.approx(1, abs=1e-5)
    value = prior.log_prob(z)
    assert torch.isfinite(value).all()
    torch.testing.assert_close(prior.inverse @ prior.roots, torch.eye(d).expand(components, d, d), atol=1e-3, rtol=0)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_latents_all_alike_do_not_collapse_it() -> None:
    prior = fitted(torch.full((50, 3), 2.0), 2)
    assert torch.isfinite(prior.log_prob(torch.randn(4, 3, generator=rng()))).all()
    assert float(prior.roots.diagonal(dim1=1, dim2=2).min()) >= 0.99 * math.sqrt(FLOOR)


@pytest.mark.parametrize("far", [30.0, 1000.0])
def test_latents_far_from_zero_keep_their_covariance(far: float) -> None:
    """Sums of squares in float32 would lose what is small beside the mean, and a covariance its definiteness."""
    z = far + 0.3 * torch.randn(5000, 3, generator=rng())
    prior = fitted(z, 2)
    mean, root = prior.whole()
    torch.testing.assert_close(mean, z.mean(0), atol=0.01, rtol=0)
    torch.testing.assert_close(root.norm(dim=1), z.std(0), atol=0.01, rtol=0)


def test_rows_that_are_not_finite_are_left_out() -> None:
    z = torch.randn(60, 3, generator=rng())
    spoiled = torch.cat([z, torch.full((4, 3), math.nan), torch.full((1, 3), math.inf)])
    spoiled = spoiled[torch.randperm(65, generator=rng())]
    clean = spoiled[torch.isfinite(spoiled).all(1)]
    one, other = fitted(clean, 2), fitted(spoiled, 2)
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])


def test_nothing_is_learned_of_no_latents_and_the_first_fit_waits_for_some() -> None:
    prior, nothing, numbers = Mixture(3, 2), torch.full((9, 3), math.nan), rng()
    for _ in range(2 * WAIT):
        prior.learn(nothing, numbers)
    assert int(prior.fits) == 0
    z = torch.cat([torch.randn(50, 3, generator=rng()) + shift for shift in (-5, 5)])
    fits_of(prior, [z])
    assert prior.means[:, 0].sort().values.tolist() == pytest.approx([-5, 5], abs=0.5)  # by k-means
    before = {name: value.clone() for name, value in prior.state_dict().items()}
    prior.learn(nothing, numbers)
    assert all(torch.equal(before[name], value) for name, value in prior.state_dict().items())


def test_fits_repeat_themselves_and_leave_the_global_state_alone() -> None:
    z, before = torch.randn(200, 3, generator=rng()), torch.random.get_rng_state()
    np_before = np.random.get_state()[1].copy()  # pyright: ignore
    one, again, other = (fitted(z, 4, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["means"], other["means"])
    assert torch.equal(before, torch.random.get_rng_state())
    assert (np_before == np.random.get_state()[1]).all()  # pyright: ignore


def test_a_mixture_that_was_saved_goes_on_as_if_it_had_not_been() -> None:
    z, numbers, again = torch.randn(200, 3, generator=rng()), rng(1), rng(1)
    prior, loaded = fitted(z, 3), Mixture(3, 3)
    loaded.load_state_dict(prior.state_dict())
    prior.learn(z + 1, numbers)
    loaded.learn(z + 1, again)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in prior.state_dict().items())


def test_half_precision_around_a_fit_changes_nothing() -> None:
    z = 20 + 3 * torch.randn(300, 4, generator=rng())
    plain = fitted(z, 3)
    with torch.autocast("cpu", torch.bfloat16):
        inside = fitted(z, 3)
    assert all(torch.equal(value, inside.state_dict()[name]) for name, value in plain.state_dict().items())


def test_a_graph_of_the_old_normals_can_still_be_walked_back() -> None:
    """A fit may come between a loss and its backward pass."""
    prior, z = fitted(torch.randn(100, 3, generator=rng()), 2), torch.randn(5, 3, generator=rng(1), requires_grad=True)
    value = prior.log_prob(z).sum()
    held = prior.held(torch.zeros(5, dtype=torch.long))
    expected, before = torch.autograd.grad(value, z, retain_graph=True)[0], held(z)
    prior.learn(7 + torch.randn(100, 3, generator=rng(2)), rng())
    assert torch.equal(torch.autograd.grad(value, z)[0], expected)
    assert torch.equal(held(z), before)
    assert not torch.equal(prior.log_prob(z).sum(), value)


def test_the_first_groups_are_those_of_kmeans() -> None:
    z = torch.cat([torch.randn(20, 2, generator=rng(k)) + 30 * k for k in range(3)])
    group = nearest_means(z, 3, 0)
    assert [len(set(part.tolist())) for part in group.split(20)] == [1, 1, 1]
    assert len(set(group.tolist())) == 3
    assert set(nearest_means(z[:2], 5, 0).tolist()) == {0, 1}


EARLIER, RATE = 0.1, 10.0
"""Smallest standard deviation and learning rate of the mixture that earlier versions learned by gradient."""


def earlier(unit: bool, dtype: torch.dtype = torch.float64) -> tuple[dict[str, Tensor], MixtureSameFamily]:
    """Weights as they were saved, and the density that they meant, by the formulas of that version."""
    numbers = rng(3)
    state = {
        "logits": 0.1 * torch.randn(4, generator=numbers, dtype=torch.float64),
        "means": 0.1 * torch.randn(4, 3, generator=numbers, dtype=torch.float64),
        "log_scales": 0.05 * torch.randn(4, 3, generator=numbers, dtype=torch.float64),
    }
    state = {name: value.to(dtype) for name, value in state.items()}
    log_weights, means = torch.log_softmax(RATE * state["logits"], 0), RATE * state["means"]
    variances = torch.exp(2 * RATE * state["log_scales"])
    if unit:
        moment = log_weights.exp() @ (variances + means**2).mean(1)
        factor = (1 - EARLIER**2) / moment
        means, variances = factor.sqrt() * means, factor * variances
    scales = (EARLIER**2 + variances).sqrt()
    return state, MixtureSameFamily(Categorical(logits=log_weights), Independent(Normal(means, scales), 1))


@pytest.mark.parametrize("unit", [False, True])
def test_weights_of_the_mixture_that_was_learned_by_gradient_mean_what_they_meant(unit: bool) -> None:
    state, expected = earlier(unit)
    prior, z = Mixture(3, 4, unit=unit).double(), torch.randn(50, 3, generator=rng(), dtype=torch.float64)
    prior.load_state_dict(state)
    torch.testing.assert_close(prior.log_prob(2 * z), expected.log_prob(2 * z), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(prior.whole()[0], expected.mean, rtol=1e-5, atol=1e-5)
    if unit:
        assert float((expected.mean**2 + expected.variance).mean()) == pytest.approx(1)
    single = Mixture(3, 4, unit=unit)
    single.load_state_dict({name: value.float() for name, value in state.items()})
    torch.testing.assert_close(single.log_prob(z.float()), expected.log_prob(z).float(), rtol=1e-4, atol=1e-4)


def test_such_weights_load_as_part_of_a_model_and_learn_on() -> None:
    state, _ = earlier(False)
    module = torch.nn.ModuleDict({"prior": Mixture(3, 4)})
    module.load_state_dict({f"prior.{name}": value.float() for name, value in state.items()})
    prior = module["prior"]
    assert isinstance(prior, Mixture)
    assert set(module.state_dict()) == {f"prior.{name}" for name in Mixture(3, 4).state_dict()}
    numbers = rng(1)
    z = prior.sample(2000, numbers)
    before = float(prior.log_prob(z).mean())
    prior.learn(z, numbers)  # no wait, and no k-means
    assert abs(float(prior.log_prob(z).mean()) - before) < 0.05
    for _ in range(40):
        prior.learn(z, numbers)
    assert float(prior.log_prob(z).mean()) > before - 0.05


def test_weights_of_its_own_load_as_they_are() -> None:
    prior = drawn_mixture()
    copy = mixture_of(prior.log_weights, prior.means, prior.roots)
    z = torch.randn(9, 3, generator=rng(), dtype=torch.float64)
    assert torch.equal(copy.log_prob(z), prior.log_prob(z))
    torch.testing.assert_close(as_torch(copy).log_prob(z), prior.log_prob(z))
