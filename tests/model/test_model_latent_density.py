import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture as Reference
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from shortrun.errors import InputError
from shortrun.model import GaussianMixture


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixture(m: int = 4, d: int = 3, dtype: torch.dtype = torch.float64) -> GaussianMixture:
    weights = torch.softmax(torch.randn(m, generator=rng(1), dtype=dtype), 0)
    means = 2 * torch.randn(m, d, generator=rng(2), dtype=dtype)
    low = torch.randn(m, d, d, generator=rng(3), dtype=dtype).tril(-1)
    return GaussianMixture(
        weights, means, low + torch.diag_embed(0.2 + torch.rand(m, d, generator=rng(4), dtype=dtype))
    )


def test_log_prob_is_that_of_torch() -> None:
    made = mixture()
    expected = MixtureSameFamily(Categorical(made.weights), MultivariateNormal(made.means, scale_tril=made.scale_tril))
    z = 3 * torch.randn(50, 3, generator=rng(), dtype=torch.float64)
    torch.testing.assert_close(made.log_prob(z), expected.log_prob(z))


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_log_prob_is_that_of_scikit_learn(covariance: str) -> None:
    rows = mixture().sample(400, rng(5)).numpy()
    fitted = Reference(3, covariance_type=covariance, random_state=0).fit(rows)
    spread = np.asarray(fitted.covariances_)
    matrices = spread if covariance == "full" else np.stack([np.diag(row) for row in spread])
    parts = (np.asarray(fitted.weights_), np.asarray(fitted.means_), np.linalg.cholesky(matrices))
    made = GaussianMixture(*map(torch.from_numpy, parts))
    torch.testing.assert_close(made.log_prob(torch.from_numpy(rows)), torch.from_numpy(fitted.score_samples(rows)))


def test_samples_have_the_moments_of_the_mixture() -> None:
    made, n = mixture(), 200_000
    z = made.sample(n, rng())
    mean = made.weights @ made.means
    second = torch.einsum(
        "k,kij->ij", made.weights, made.scale_tril @ made.scale_tril.mT + made.means[:, :, None] * made.means[:, None]
    )
    assert ((z.mean(0) - mean).abs() < 4.5 * z.std(0) / n**0.5).all()
    products = z[:, :, None] * z[:, None]
    assert ((products.mean(0) - second).abs() < 4.5 * products.std(0) / n**0.5).all()


def test_draws_follow_from_the_generator_alone() -> None:
    made, before = mixture(dtype=torch.float32), torch.random.get_rng_state()
    assert torch.equal(made.sample(9, rng()), made.sample(9, rng()))
    assert not torch.equal(made.sample(9, rng()), made.sample(9, rng(1)))
    assert torch.equal(before, torch.random.get_rng_state())
    assert made.sample(0, rng()).shape == (0, 3)


def test_there_is_nothing_to_learn_and_all_is_kept() -> None:
    made = mixture()
    assert not list(made.parameters())
    assert set(made.state_dict()) == {"weights", "means", "scale_tril"}


@pytest.mark.parametrize("shapes", [((2,), (3, 4), (3, 4, 4)), ((3,), (3, 4), (3, 4)), ((3,), (3,), (3, 3, 3))])
def test_shapes_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(InputError, match="scale_tril: got"):
        GaussianMixture(*(torch.ones(shape) for shape in shapes))


def test_mean_and_covariance_are_those_of_all_components() -> None:
    made = mixture()
    mean, root = made.spread()
    parts = MixtureSameFamily(Categorical(made.weights), MultivariateNormal(made.means, scale_tril=made.scale_tril))
    torch.testing.assert_close(mean, parts.mean)
    torch.testing.assert_close((root @ root.T).diagonal(), parts.variance)
    assert torch.equal(root, root.tril())
    drawn = made.sample(200_000, rng())
    torch.testing.assert_close(root @ root.T, torch.cov(drawn.T), rtol=0.05, atol=0.05)


@pytest.mark.parametrize(("first", "last"), [(0, 1), (1, 2), (1, 3), (0, 3)])
def test_some_latents_drawn_anew_leave_the_density_as_it_is(first: int, last: int) -> None:
    """Given the others they come from q(z_v | z_o): draws of q stay draws of q."""
    made, n = mixture(), 100_000
    z = made.sample(n, rng())
    again = made.redraw(z, first, last, rng(1))
    held = [i for i in range(3) if not first <= i < last]
    assert torch.equal(again[:, held], z[:, held])
    assert (again[:, first:last] != z[:, first:last]).all()
    mean, root = made.spread()
    torch.testing.assert_close(again.mean(0), mean, rtol=0, atol=0.05)
    torch.testing.assert_close(torch.cov(again.T), root @ root.T, rtol=0.05, atol=0.05)
    error = 5 * float(made.log_prob(z).std()) * (2 / n) ** 0.5
    assert float(made.log_prob(again).mean()) == pytest.approx(float(made.log_prob(z).mean()), abs=error)


def test_a_latent_of_one_normal_drawn_anew_has_its_conditional_moments() -> None:
    made, n = mixture(m=1), 100_000
    covariance = made.scale_tril[0] @ made.scale_tril[0].T
    z = made.sample(1, rng())
    drawn = made.redraw(z.expand(n, -1), 1, 2, rng(1))[:, 1]
    o = torch.tensor([0, 2])
    gain = torch.linalg.solve(covariance[o][:, o], covariance[o, 1])
    assert float(drawn.mean()) == pytest.approx(float(made.means[0, 1] + (z[0, o] - made.means[0, o]) @ gain), abs=0.02)
    assert float(drawn.var()) == pytest.approx(float(covariance[1, 1] - covariance[1, o] @ gain), rel=0.02)
