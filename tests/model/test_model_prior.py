"""What every prior has: densities, draws, conditionals and moments of a mixture of normals, and of N(0, I)."""

import math

import pytest
import torch
from priors import as_torch, drawn_mixture, mixture_of, rng
from scipy.stats import kstest
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from shortrun.errors import InputError
from shortrun.inference.jacobian import Linearized
from shortrun.model import Gaussian, Mixture, Normal, TopDown
from shortrun.model.prior import Parts, Prior, choose, choose_each
from shortrun.normals import standard_normal


def never() -> Tensor:
    raise AssertionError("a uniform number was drawn")


def uniform_of(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, generator=rng(seed), dtype=torch.float64)


def normal_of(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=rng(seed), dtype=torch.float64)


def test_log_prob_is_that_of_torch_and_so_are_its_derivatives() -> None:
    prior, z = drawn_mixture(), (3 * normal_of(40, 3)).requires_grad_()
    made, expected = prior.log_prob(z), as_torch(prior).log_prob(z)
    torch.testing.assert_close(made, expected)
    first = [torch.autograd.grad(value.sum(), z, create_graph=True)[0] for value in (made, expected)]
    torch.testing.assert_close(*first)
    torch.testing.assert_close(*[torch.autograd.grad((value**2).sum(), z)[0] for value in first])
    each = MultivariateNormal(prior.means, scale_tril=prior.roots).log_prob(z[:, None])
    torch.testing.assert_close(prior.components(z), prior.log_weights + each)


COMPONENTS = torch.tensor([2, 0, 3, 3, 0, 3, 2])
"""Of a mixture of four: out of order, one of them without a row."""


def test_with_components_held_it_is_the_density_of_both_and_so_are_its_derivatives() -> None:
    prior, z = drawn_mixture(), (2 * normal_of(7, 3)).requires_grad_()
    own = MultivariateNormal(prior.means[COMPONENTS], scale_tril=prior.roots[COMPONENTS])
    made, expected = prior.held(COMPONENTS)(z), prior.log_weights[COMPONENTS] + own.log_prob(z)
    torch.testing.assert_close(made, expected)
    torch.testing.assert_close(made, prior.components(z).gather(1, COMPONENTS[:, None])[:, 0])
    slopes = [torch.autograd.grad(value.sum(), z, create_graph=True)[0] for value in (made, expected)]
    torch.testing.assert_close(*slopes)
    assert torch.autograd.gradcheck(prior.held(COMPONENTS), (z,))
    assert torch.autograd.gradgradcheck(prior.held(COMPONENTS), (z,))


def test_with_components_held_the_hessian_is_a_constant_for_each() -> None:
    """By torch.func, as the estimators take it: products by vjp, many of them by vmap."""
    prior, z = drawn_mixture(), normal_of(7, 3)
    at = Linearized(prior.held(COMPONENTS), z)
    precisions = prior.inverse.mT @ prior.inverse
    torch.testing.assert_close(at.hessian, -precisions[COMPONENTS])
    away = prior.means[COMPONENTS] - z
    torch.testing.assert_close(at.score, (precisions[COMPONENTS] @ away[..., None])[..., 0])
    along = torch.func.jvp(prior.held(COMPONENTS), (z,), (torch.ones_like(z),))[1]
    torch.testing.assert_close(along, at.score.sum(1))


def test_no_rows_at_all_are_held_too() -> None:
    prior, none = drawn_mixture(), torch.zeros(0, 3).double()
    assert prior.held(torch.zeros(0, dtype=torch.long))(none).shape == (0,)
    assert prior.components(none).shape == (0, 4)
    assert prior.draw_component(none, lambda: none[:, 0]).shape == (0,)


def test_half_precision_around_it_changes_nothing() -> None:
    prior, z, uniform = drawn_mixture().float(), normal_of(7, 3).float(), uniform_of(7).float()

    def numbers() -> list[Tensor]:
        return [
            prior.log_prob(z),
            prior.held(COMPONENTS)(z),
            prior.draw_component(z, lambda: uniform),
            *prior.from_normal(z, lambda: uniform),
            prior.redraw(z, 1, 3, lambda: z.flip(0), lambda: uniform),
            *prior.whole(),
        ]

    plain = numbers()
    with torch.autocast("cpu", torch.bfloat16):
        inside = numbers()
    for one, other in zip(inside, plain, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_the_score_in_half_precision_is_off_by_its_rounding_alone() -> None:
    """A chain under autocast walks back under it too: of the prior that is one product of matrices."""
    prior, z = drawn_mixture().float(), normal_of(7, 3).float().requires_grad_()
    exact = torch.autograd.grad(prior.held(COMPONENTS)(z).sum(), z)[0]
    with torch.autocast("cpu", torch.bfloat16):
        value = prior.held(COMPONENTS)(z).sum()
        inside = torch.autograd.grad(value, z, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(value, z)[0], exact)
    assert inside.dtype == torch.float32
    assert ((inside - exact).norm(dim=1) < 0.01 * exact.norm(dim=1)).all()


def test_samples_have_the_moments_of_the_mixture() -> None:
    prior, n = drawn_mixture(), 200_000
    z = prior.sample(n, rng(), torch.float64)
    expected = as_torch(prior)
    mean, root = prior.whole()
    torch.testing.assert_close(mean, expected.mean)
    torch.testing.assert_close(root.norm(dim=1) ** 2, expected.variance)
    assert not z.requires_grad
    assert ((z.mean(0) - expected.mean).abs() < 4.5 * z.std(0) / math.sqrt(n)).all()
    products = (z - mean)[:, :, None] * (z - mean)[:, None]
    error = products.std(0) / math.sqrt(n)
    assert ((products.mean(0) - root @ root.T).abs() < 4.5 * error).all()


def test_the_whole_is_that_of_the_closed_form() -> None:
    """Two normals, by hand: the covariance is that within and that between."""
    roots = torch.stack([torch.eye(2), torch.tensor([[2.0, 0.0], [1.0, 0.5]])]).double()
    prior = mixture_of(
        torch.tensor([0.25, 0.75]).log().double(), torch.tensor([[4.0, 0.0], [0.0, -4.0]]).double(), roots
    )
    mean, root = prior.whole()
    assert mean.tolist() == pytest.approx([1.0, -3.0])
    within = 0.25 * torch.eye(2) + 0.75 * torch.tensor([[4.0, 2.0], [2.0, 1.25]])
    between = 0.25 * 0.75 * torch.tensor([[16.0, 16.0], [16.0, 16.0]])
    torch.testing.assert_close(root @ root.T, (within + between).double())
    assert torch.equal(root, root.tril())


def test_draws_are_made_of_the_numbers_given() -> None:
    prior, noise, uniform = drawn_mixture(), normal_of(9, 3), torch.linspace(0, 0.99, 9).double()
    z, component = prior.from_normal(noise, lambda: uniform)
    assert torch.equal(component, choose(prior.log_weights.exp(), uniform))
    assert len(set(component.tolist())) > 2
    torch.testing.assert_close(z, prior.means[component] + (prior.roots[component] @ noise[..., None])[..., 0])


def test_uniform_numbers_choose_components_by_their_weights() -> None:
    weights, numbers = torch.tensor([0.2, 0.0, 0.5, 0.3]), torch.tensor([0.0, 0.1, 0.2, 0.69, 0.71, 1.0])
    assert choose(weights, numbers).tolist() == [0, 0, 2, 2, 3, 3]
    assert choose_each(weights.expand(6, 4), numbers).tolist() == [0, 0, 2, 2, 3, 3]
    each = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    assert choose_each(each, torch.tensor([0.9, 0.1, 0.4])).tolist() == [0, 1, 0]


def test_components_are_drawn_as_likely_as_they_are() -> None:
    prior, n = drawn_mixture(apart=0.8), 100_000
    z = normal_of(1, 3)
    drawn = prior.draw_component(z.expand(n, 3), lambda: uniform_of(n))
    chances = torch.exp(prior.components(z)[0] - prior.log_prob(z))
    share = torch.bincount(drawn, minlength=4) / n
    assert ((share - chances).abs() < 4.5 * (chances * (1 - chances) / n).sqrt()).all()
    assert chances.max() < 0.95


def conditional(prior: Mixture, z: Tensor, varied: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return weights, means and covariances of p(z_varied | the others) of one row, by inverses alone."""
    others = [i for i in range(prior.dim) if i not in varied]
    log_weights, means, covariances = [], [], []
    for log_weight, mean, root in zip(prior.log_weights, prior.means, prior.roots, strict=True):
        full = root @ root.T
        precision = torch.linalg.inv(full)
        seen = MultivariateNormal(mean[others], full[others][:, others])
        log_weights.append(log_weight + seen.log_prob(z[others]))
        spread = torch.linalg.inv(precision[varied][:, varied])
        away = precision[varied][:, others] @ (z[others] - mean[others])
        means.append(mean[varied] - spread @ away)
        covariances.append(spread)
    return torch.softmax(torch.stack(log_weights), 0), torch.stack(means), torch.stack(covariances)


@pytest.mark.parametrize(("first", "last"), [(0, 2), (2, 3), (1, 4)])
def test_a_part_is_redrawn_from_its_conditional(first: int, last: int) -> None:
    prior, z = drawn_mixture(dim=5, apart=0.7), normal_of(3, 5)
    varied, noise, uniform = list(range(first, last)), normal_of(3, 5, 1), torch.tensor([0.1, 0.5, 0.9]).double()
    made = prior.redraw(z, first, last, lambda: noise, lambda: uniform)
    others = [i for i in range(5) if i not in varied]
    assert torch.equal(made[:, others], z[:, others])
    for row in range(3):
        weights, means, covariances = conditional(prior, z[row], varied)
        c = int(choose(weights, uniform[row : row + 1]))
        expected = means[c] + torch.linalg.cholesky(covariances[c]) @ noise[row, varied]
        torch.testing.assert_close(made[row, varied], expected)


@pytest.mark.parametrize(("first", "last"), [(0, 2), (2, 3), (0, 3)])
def test_redrawing_a_part_of_draws_of_the_prior_leaves_it_as_it_is(first: int, last: int) -> None:
    prior, n = drawn_mixture(), 20_000
    z = prior.sample(n, rng(), torch.float64)
    made = prior.redraw(z, first, last, lambda: normal_of(n, 3, 1), lambda: uniform_of(n, 2))
    fresh = prior.sample(n, rng(3), torch.float64)
    assert (made[:, first:last] != z[:, first:last]).all()
    for of in (prior.log_prob, lambda z: z[:, 0], lambda z: z[:, 2], lambda z: z[:, 0] * z[:, 2]):
        assert kstest(of(made).numpy(), of(fresh).numpy()).pvalue > 0.001  # pyright: ignore


def test_redrawing_all_is_a_draw_of_the_prior() -> None:
    prior, noise, uniform = drawn_mixture(), normal_of(9, 3), torch.linspace(0, 0.99, 9).double()
    made = prior.redraw(normal_of(9, 3, 1), 0, 3, lambda: noise, lambda: uniform)
    torch.testing.assert_close(made, prior.from_normal(noise, lambda: uniform).z)


def test_the_standard_normal_draws_what_it_always_drew() -> None:
    prior, noise = Normal(3), torch.randn(5, 3, generator=rng())
    z, component = prior.from_normal(noise, never)
    assert z is noise
    assert component.tolist() == [0] * 5
    assert torch.equal(prior.sample(5, rng()), noise)
    assert torch.equal(prior.log_prob(noise), standard_normal(noise))
    assert torch.equal(prior.held(component)(noise), standard_normal(noise))
    assert prior.draw_component(noise, never).tolist() == [0] * 5
    other = torch.randn(5, 3, generator=rng(1))
    redrawn = prior.redraw(other, 1, 3, lambda: noise, never)
    assert torch.equal(redrawn, torch.cat([other[:, :1], noise[:, 1:]], 1))
    assert [part.tolist() for part in prior.whole()] == [[0.0] * 3, torch.eye(3).tolist()]
    assert not prior.state_dict()
    assert not prior.learns


class Alone(Prior):
    """N(0, I), told to no one."""

    def parts(self) -> Parts:
        return Normal(self.dim).parts()


def test_what_every_prior_has_gives_for_the_standard_normal_what_it_has_itself() -> None:
    general, special, z = Alone(3), Normal(3), torch.randn(6, 3, generator=rng())
    noise, uniform = torch.randn(6, 3, generator=rng(1)), torch.rand(6, generator=rng(2))
    component = general.draw_component(z, lambda: uniform)
    pairs = [
        (general.log_prob(z), special.log_prob(z)),
        (component, special.draw_component(z, never)),
        (general.held(component)(z), special.held(component)(z)),
        (
            general.redraw(z, 0, 2, lambda: noise, lambda: uniform),
            special.redraw(z, 0, 2, lambda: noise, never),
        ),
        *zip(general.whole(), special.whole(), strict=True),
        *zip(general.from_normal(noise, lambda: uniform), special.from_normal(noise, never), strict=True),
    ]
    for found, expected in pairs:
        torch.testing.assert_close(found, expected)


class Decoder(nn.Module):
    def forward(self, *z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(torch.cat(z, 1))[:, None, None]


def test_the_generator_takes_it_as_its_prior() -> None:
    prior = drawn_mixture()
    generator = TopDown(Decoder(), Gaussian(0.5), (1, 2), prior)
    z = normal_of(6, 3)
    x = torch.zeros(6, 1, 1, 3, dtype=torch.float64)
    assert torch.equal(generator.log_prior(z), prior.log_prob(z))
    torch.testing.assert_close(generator.log_joint(x, z) - generator.log_likelihood(x, z), prior.log_prob(z))
    assert {name for name in generator.state_dict() if name.startswith("prior")} == {
        "prior.log_weights",
        "prior.means",
        "prior.roots",
        "prior.inverse",
        "prior.fits",
        "prior.sums.total",
    }
    assert not list(prior.parameters())  # no optimizer moves it
    assert not any(name.startswith("prior") for name in TopDown(Decoder(), Gaussian(0.5), (1, 2)).state_dict())


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(InputError, match="components: got 0"):
        Mixture(3, 0)
    with pytest.raises(InputError, match="prior: got one of 4 latents for 3"):
        TopDown(Decoder(), Gaussian(0.5), (1, 2), Mixture(4, 2))
