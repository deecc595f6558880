import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from shortrun.errors import InputError
from shortrun.model.encoders import Encoder, Head, Moments, conv_encoder, dense_encoder

MAKERS = {"dense": dense_encoder, "conv": conv_encoder}
SIZES = st.integers(1, 33)
IMAGES = st.one_of(
    st.sampled_from([(1, 28, 28), (3, 32, 32), (3, 64, 64)]), st.tuples(st.sampled_from([1, 3]), SIZES, SIZES)
)


def build(blocks: str, *args: object, **kwargs: object) -> Encoder:
    torch.manual_seed(0)
    return MAKERS[blocks](*args, **kwargs)  # pyright: ignore


@pytest.mark.parametrize("blocks", MAKERS)
@pytest.mark.parametrize("heads", [True, False])
@settings(max_examples=12, deadline=None)
@given(IMAGES, st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 3), st.integers(1, 2))
def test_any_image_gives_moments_of_any_layers(
    blocks: str, heads: bool, image_shape: tuple[int, int, int], latents: list[int], n: int, depth: int
) -> None:
    encoder = build(blocks, image_shape, latents, width=8, depth=depth, heads=heads)
    x = (torch.rand(n, *image_shape) * 2 - 1).requires_grad_()
    moments = encoder(x)
    assert [part.mu.shape for part in moments] == [(n, d) for d in (latents if heads else [sum(latents)])]
    for part in moments:
        for values in part:
            (gradient,) = torch.autograd.grad(values.square().sum(), x, retain_graph=True)
            assert gradient.abs().sum() > 0


@pytest.mark.parametrize("blocks", MAKERS)
def test_images_are_treated_apart_and_sizes_are_checked(blocks: str) -> None:
    encoder, x = build(blocks, (3, 12, 9), (2, 3), width=8), torch.rand(5, 3, 12, 9)
    for whole, some in zip(encoder(x), encoder(x[[3, 1]]), strict=True):
        torch.testing.assert_close(whole.mu[[3, 1]], some.mu)
    with pytest.raises(InputError, match=r"^latents: got \[\]"):
        build(blocks, (3, 12, 9), ())


@pytest.mark.parametrize("image_shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64), (1, 5, 7)])
def test_a_layer_is_read_where_it_enters_the_decoder(image_shape: tuple[int, int, int]) -> None:
    from shortrun.model import conv_decoder

    latents = (4, 3, 2, 5)
    encoder, decoder = build("conv", image_shape, latents, width=16), conv_decoder(image_shape, latents, width=16)
    seen: list[tuple[int, ...]] = []
    for head in encoder.heads:
        head.register_forward_hook(lambda _, given, __: seen.append(tuple(given[0].shape[1:])))
    encoder(torch.zeros(1, *image_shape))
    entered = [
        tuple(inject(torch.zeros(1, size)).shape[1:]) for inject, size in zip(decoder.inject, latents, strict=True)
    ]
    assert seen == entered
    counts = [sum(p.numel() for p in module.parameters()) for module in (encoder, decoder)]
    assert 0.6 < counts[0] / counts[1] < 2.2


def test_log_sigma_is_bounded_and_starts_near_that_of_the_prior() -> None:
    torch.manual_seed(0)
    head = Head((6,), 4)
    with torch.no_grad():
        head.linear.weight.mul_(1e6)
        moments = head(torch.randn(50, 6), torch.float32)
        assert -8 <= moments.log_sigma.min() < -7.9
        assert 1.9 < moments.log_sigma.max() <= 2
        head.linear.weight.zero_()
        head.linear.bias.zero_()
        torch.testing.assert_close(head(torch.randn(2, 6), torch.float32).log_sigma, torch.zeros(2, 4))


def test_density_and_divergence_are_those_of_torch() -> None:
    mu, log_sigma, z = torch.randn(3, 5, 4, dtype=torch.float64)
    moments, normal = Moments(mu, log_sigma), Normal(mu, log_sigma.exp())
    torch.testing.assert_close(moments.log_prob(z), normal.log_prob(z).sum(1))
    standard = Normal(torch.zeros_like(mu), torch.ones_like(mu))
    torch.testing.assert_close(moments.divergence(), kl_divergence(normal, standard))
    # by Monte Carlo too
    draws = normal.sample(torch.Size([20000]))
    values = normal.log_prob(draws) - standard.log_prob(draws)
    assert ((values.mean(0) - moments.divergence()).abs() < 5 * values.std(0) / math.sqrt(20000)).all()
