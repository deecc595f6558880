import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal

from shortrun.errors import InputError
from shortrun.model import Bernoulli, DiscretizedLogistic, Gaussian, Likelihood, TopDown, conv_decoder, dense_decoder


class Side(nn.Module):
    """Shows the layers as they are: the image is z_L, ..., z_1 side by side."""

    def forward(self, *z: Tensor) -> Tensor:
        return torch.cat(z, dim=1)[:, None, None, :]


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 4), latents=st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_split_gives_the_layers_top_down(n: int, latents: list[int]) -> None:
    generator = TopDown(Side(), Gaussian(), latents)
    layers = [torch.full((n, size), float(i)) for i, size in enumerate(latents)]
    z = torch.cat(layers, dim=1)
    assert generator.dim == z.shape[1] == sum(latents)
    assert all(torch.equal(part, layer) for part, layer in zip(generator.split(z), layers, strict=True))
    assert torch.equal(generator.decode(z)[:, 0, 0], z)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 4), latents=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=st.integers(0, 2**32))
def test_log_prior_is_standard_normal(n: int, latents: list[int], seed: int) -> None:
    generator = TopDown(Side(), Gaussian(), latents)
    d = sum(latents)
    z = 3 * torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = MultivariateNormal(torch.zeros(d).double(), torch.eye(d).double()).log_prob(z)
    torch.testing.assert_close(generator.log_prior(z), expected)


@pytest.mark.parametrize("parameterization", ["ladder", "conditional"])
@pytest.mark.parametrize("make", [dense_decoder, conv_decoder])
@pytest.mark.parametrize("likelihood", [Gaussian(0.4), Bernoulli(), DiscretizedLogistic(3, 2)])
@pytest.mark.parametrize("mask_shape", [None, (1, 1, 4, 4), (5, 1, 4, 4), (5, 3, 4, 4), (1, 3, 4, 4)])
def test_log_joint_is_log_likelihood_plus_log_prior(
    parameterization, make, likelihood: Likelihood, mask_shape: tuple[int, ...] | None
) -> None:
    torch.manual_seed(0)
    decoder = make((3, 4, 4), (2, 3), parameterization=parameterization, width=6)
    generator = TopDown(decoder, likelihood, (2, 3)).double()
    z = torch.randn(5, 5, dtype=torch.float64)
    x = torch.randint(2, (5, 3, 4, 4)).double() * 2 - 1
    mask = (torch.rand(mask_shape) > 0.5).double() if mask_shape else None
    prior = Normal(torch.tensor(0.0).double(), 1.0).log_prob(z).sum(1)
    # image by image, so that a value from the wrong row would show
    given_z = torch.stack(
        [
            likelihood.log_prob(
                x[i : i + 1],
                decoder(z[i : i + 1, :2], z[i : i + 1, 2:]),
                mask if mask is None or len(mask) == 1 else mask[i : i + 1],
            )[0]
            for i in range(5)
        ]
    )
    torch.testing.assert_close(generator.log_likelihood(x, z, mask), given_z)
    torch.testing.assert_close(generator.log_joint(x, z, mask), given_z + prior)
    if mask is not None:
        assert (generator.log_joint(x, z, mask) - generator.log_joint(x, z)).abs().min() > 1e-6


def test_decode_is_the_mean_of_the_likelihood() -> None:
    z = torch.randn(4, 3)
    torch.testing.assert_close(TopDown(Side(), Bernoulli(), [1, 2]).decode(z)[:, 0, 0], torch.tanh(z / 2))


@pytest.mark.parametrize("latents", [[], [0], [2, -1]])
def test_layers_without_latents_are_refused(latents: list[int]) -> None:
    with pytest.raises(InputError, match=r"^latents: got "):
        TopDown(Side(), Gaussian(), latents)
