import pytest
import torch
from encoder_learners import SHAPE, Own, images, learner_of, rng
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from shortrun.config import ModelConfig
from shortrun.errors import InputError
from shortrun.learners import LadderVae
from shortrun.learners.encoder import Draw
from shortrun.learners.ladder_vae import combined
from shortrun.model.encoders import Moments

CONV = "ladder_vae, conv"


def normals(*size: int, seed: int) -> Tensor:
    return torch.randn(*size, generator=rng(seed), dtype=torch.float64)


def test_the_combined_normal_is_the_product_of_the_two() -> None:
    upward, prior = (Moments(normals(7, 3, seed=i), normals(7, 3, seed=i + 1)) for i in (0, 2))
    precision = [torch.exp(-2 * part.log_sigma) for part in (upward, prior)]
    mu = (upward.mu * precision[0] + prior.mu * precision[1]) / (precision[0] + precision[1])
    sigma = (precision[0] + precision[1]).rsqrt()
    q, sigma_p = combined(upward, prior), prior.log_sigma.exp()
    torch.testing.assert_close(prior.mu + sigma_p * q.mu, mu)
    torch.testing.assert_close(sigma_p * q.log_sigma.exp(), sigma)
    torch.testing.assert_close(q.divergence(), kl_divergence(Normal(mu, sigma), Normal(prior.mu, sigma_p)))


@pytest.mark.parametrize("far", [30.0, 400.0])
def test_the_combined_normal_is_finite_where_one_of_the_two_is_certain(far: float) -> None:
    one = Moments(torch.tensor([[0.7]]), torch.tensor([[0.3]]))
    silent = combined(Moments(torch.tensor([[5.0]]), torch.tensor([[far]])), one)
    torch.testing.assert_close(torch.cat(silent), torch.zeros(2, 1))  # q is the prior
    assert silent.divergence().item() == 0
    certain = combined(Moments(torch.tensor([[5.0]]), torch.tensor([[-far]])), one)
    torch.testing.assert_close(one.mu + one.log_sigma.exp() * certain.mu, torch.tensor([[5.0]]))
    torch.testing.assert_close(certain.log_sigma, torch.tensor([[-far - 0.3]]))


def double(kind: str) -> LadderVae:
    learner = learner_of(kind).double()
    assert isinstance(learner, LadderVae)
    for module in learner.generator.decoder.conditional:  # pyright: ignore
        module.linear.weight.data *= 4  # the priors are to depend much on the layer above
    return learner


def prior_of(learner: LadderVae, u: tuple[Tensor, ...], layer: int) -> Normal:
    """The prior of a layer given the u above, from what the decoder says of u = 0 and u = 1."""
    if layer == 0:
        return Normal(torch.zeros_like(u[0]), torch.ones_like(u[0]))
    decoder = learner.generator.decoder
    ends = [
        decoder.layers(*u[:layer], end, *u[layer + 1 :])[layer]  # pyright: ignore
        for end in (torch.zeros_like(u[layer]), torch.ones_like(u[layer]))
    ]
    return Normal(ends[0], ends[1] - ends[0])


def posterior_of(learner: LadderVae, x: Tensor, u: tuple[Tensor, ...], layer: int) -> Normal:
    """The posterior of z_l by the paper's precision weights; the top is the bottom-up pass alone."""
    upward, prior = learner.encoder(x)[layer], prior_of(learner, u, layer)
    if layer == 0:
        return Normal(upward.mu, upward.log_sigma.exp())
    precision = torch.exp(-2 * upward.log_sigma), prior.variance.reciprocal()
    mu = (upward.mu * precision[0] + prior.mean * precision[1]) / (precision[0] + precision[1])
    return Normal(mu, (precision[0] + precision[1]).rsqrt())


@pytest.mark.parametrize("kind", ["ladder_vae", CONV, "ladder_vae, strict"])
@pytest.mark.parametrize("seed", [None, 3])
def test_the_posterior_is_the_papers_in_the_coordinates_of_z(kind: str, seed: int | None) -> None:
    learner, x = double(kind), images(4).double()
    noise = torch.zeros(4, learner.dim, dtype=torch.float64) if seed is None else normals(4, learner.dim, seed=seed)
    with torch.no_grad():
        u_flat, _, kl, decoded = learner.draw(x, noise)
        u = learner.generator.split(u_flat)
        z = learner.layers(u_flat)
        for layer, part in enumerate(learner.generator.split(noise)):
            q = posterior_of(learner, x, u, layer)
            torch.testing.assert_close(z[layer], q.mean + q.stddev * part)
            torch.testing.assert_close(kl[:, layer], kl_divergence(q, prior_of(learner, u, layer)).sum(1))
            if layer:
                assert prior_of(learner, u, layer).mean.std(0).min() > 1e-3
        torch.testing.assert_close(decoded, learner.generator.decoder(*u))


@pytest.mark.parametrize("kind", ["ladder_vae", CONV])
def test_log_q_is_the_density_of_u_by_the_change_of_variables(kind: str) -> None:
    """log q(u|x) = log q(z|x) + log |det dz/du|, with z = (z_L, ..., z_1) as the decoder makes it of u."""
    learner, x = double(kind), images(1).double()
    flat, log_q = learner.propose(x, rng())
    u, z = learner.generator.split(flat), learner.layers(flat)
    log_q_z = sum(posterior_of(learner, x, u, layer).log_prob(part).sum() for layer, part in enumerate(z))

    def of_u(row: Tensor) -> Tensor:
        parts = learner.generator.split(row[None])
        return torch.cat(learner.generator.decoder.layers(*parts), 1)[0]  # pyright: ignore

    jacobian = torch.autograd.functional.jacobian(of_u, flat[0])
    assert isinstance(jacobian, Tensor)
    determinant = torch.linalg.slogdet(jacobian)[1]
    torch.testing.assert_close(log_q[0], (log_q_z + determinant).detach())
    assert determinant.abs() > 0.05


class Says(nn.Module):
    """An encoder of constant moments, layer by layer."""

    def __init__(self, sizes: tuple[int, ...], mu: float, log_sigma: float) -> None:
        super().__init__()
        self.sizes, self.mu, self.log_sigma = sizes, nn.Parameter(torch.tensor(mu)), log_sigma

    def forward(self, x: Tensor) -> list[Moments]:
        return [Moments(self.mu.expand(len(x), d), torch.full((len(x), d), self.log_sigma)) for d in self.sizes]


def drawn_by(mu: float, log_sigma: float) -> tuple[LadderVae, Draw, Tensor]:
    generator = learner_of(CONV).generator
    learner = LadderVae(generator, Says(generator.latents, mu, log_sigma))
    noise = torch.randn(6, generator.dim, generator=rng())
    return learner, learner.draw(images(6), noise), noise


def test_an_encoder_that_knows_nothing_leaves_the_prior_and_one_that_is_certain_sets_z() -> None:
    _, draw, noise = drawn_by(mu=1.3, log_sigma=20.0)
    torch.testing.assert_close(draw.z[:, 1:], noise[:, 1:])  # but for the top, which is bottom-up alone
    assert draw.kl[:, 1:].abs().max() < 1e-6
    learner, draw, _ = drawn_by(mu=1.3, log_sigma=-15.0)
    for layer in learner.layers(draw.z):
        torch.testing.assert_close(layer, torch.full_like(layer, 1.3))


def test_what_has_no_priors_of_its_layers_is_refused() -> None:
    with pytest.raises(InputError, match=r"^decoder: "):
        LadderVae.build(SHAPE, ModelConfig(latents=(2, 3), parameterization="conditional"), decoder=Own())
    with pytest.raises(InputError, match=r"^model.parameterization: got 'ladder', but ladder_vae is for conditional; "):
        LadderVae.build(SHAPE, ModelConfig(latents=(2, 3)))
