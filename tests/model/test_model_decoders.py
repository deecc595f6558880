import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shortrun.errors import InputError
from shortrun.model import Gaussian, TopDown, conv_decoder, dense_decoder
from shortrun.model.blocks import Conditional
from shortrun.model.decoders import Decoder, conv_stages

Build = Callable[..., Decoder]
MAKERS = {"dense": dense_decoder, "conv": conv_decoder}
CASES = list(itertools.product(MAKERS, ["ladder", "conditional"], [True, False]))


def build(
    blocks: str,
    parameterization: Any,
    skip: bool,
    image_shape: tuple[int, int, int] = (1, 5, 7),
    latents: Sequence[int] = (2, 3, 4),
    width: int = 8,
    depth: int = 1,
    seed: int = 0,
) -> Decoder:
    """A float64 decoder whose conditionals, which start as the identity, have been shaken."""
    torch.manual_seed(seed)
    decoder = MAKERS[blocks](
        image_shape, latents, parameterization=parameterization, width=width, depth=depth, skip=skip
    ).double()
    for module in decoder.modules():
        if isinstance(module, Conditional):
            nn.init.normal_(module.linear.weight, std=2.0)
            nn.init.normal_(module.linear.bias)
    return decoder


def noise(n: int, latents: Sequence[int] = (2, 3, 4), seed: int = 1) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(n, size, generator=rng, dtype=torch.float64) for size in latents]


SIZES = st.integers(1, 33)
IMAGES = st.one_of(
    st.sampled_from([(1, 28, 28), (3, 32, 32), (1, 8, 8)]), st.tuples(st.sampled_from([1, 3]), SIZES, SIZES)
)


@pytest.mark.parametrize(("blocks", "parameterization", "skip"), CASES)
@settings(max_examples=12, deadline=None)
@given(
    image_shape=IMAGES,
    latents=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    n=st.integers(1, 3),
    depth=st.integers(1, 2),
)
def test_any_number_of_layers_gives_any_image(
    blocks: str,
    parameterization: str,
    skip: bool,
    image_shape: tuple[int, int, int],
    latents: list[int],
    n: int,
    depth: int,
) -> None:
    decoder = build(blocks, parameterization, skip, image_shape, latents, depth=depth)
    u = [part.requires_grad_() for part in noise(n, latents)]
    image = decoder(*u)
    assert image.shape == (n, *image_shape)
    assert image.abs().max() <= 1
    assert [part.shape for part in decoder.layers(*u)] == [(n, size) for size in latents]
    for gradient in torch.autograd.grad(image.square().sum(), u):
        assert gradient.abs().sum() > 0  # every layer reaches the image


@pytest.mark.parametrize(("blocks", "parameterization", "skip"), CASES)
def test_celeba_sized_images(blocks: str, parameterization: str, skip: bool) -> None:
    decoder = build(blocks, parameterization, skip, (3, 64, 64), (4, 4, 4, 4, 4), width=16)
    assert decoder(*noise(2, (4, 4, 4, 4, 4))).shape == (2, 3, 64, 64)


@pytest.mark.parametrize("width", [1, 2, 3, 128])
def test_narrow_convolutions_are_no_error(width: int) -> None:
    decoder = build("conv", "conditional", True, (1, 28, 28), (3, 2, 5), width=width)
    assert decoder(*noise(2, (3, 2, 5))).shape == (2, 1, 28, 28)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 300))
def test_stages_double_up_to_half_of_the_image(height: int, breadth: int, width: int) -> None:
    stages = conv_stages((3, height, breadth), width)
    sizes = [stage[1:] for stage in stages]
    for low, high in itertools.pairwise([*sizes, (height, breadth)]):
        assert low == (math.ceil(high[0] / 2), math.ceil(high[1] / 2))
    assert min(sizes[0]) == 1 or max(sizes[0]) <= 7
    channels = [stage[0] for stage in stages]
    assert channels[0] == width
    assert min(channels) >= max(width // 4, 1)
    assert channels == sorted(channels, reverse=True)


@pytest.mark.parametrize(
    ("side", "expected"), [(28, [7, 14]), (32, [4, 8, 16]), (64, [4, 8, 16, 32]), (8, [4]), (1, [1])]
)
def test_stages_of_the_usual_images(side: int, expected: list[int]) -> None:
    assert [height for _, height, _ in conv_stages((1, side, side), 64)] == expected


@pytest.mark.parametrize(("blocks", "parameterization", "skip"), CASES)
def test_samples_are_treated_apart(blocks: str, parameterization: str, skip: bool) -> None:
    decoder = build(blocks, parameterization, skip, depth=2)
    u = noise(6)
    whole = decoder(*u)
    some = torch.tensor([4, 0, 5])
    torch.testing.assert_close(decoder(*[part[some] for part in u]), whole[some], rtol=1e-10, atol=1e-12)
    for part in u:
        part.requires_grad_()
    for gradient in torch.autograd.grad(decoder(*u)[2].square().sum(), u):
        assert (gradient[[0, 1, 3, 4, 5]] == 0).all()
        assert (gradient[2] != 0).any()


@pytest.mark.parametrize(("blocks", "parameterization", "skip"), CASES)
def test_first_and_second_derivatives(blocks: str, parameterization: str, skip: bool) -> None:
    decoder = build(blocks, parameterization, skip, (1, 3, 3), (1, 2), width=3)
    u = tuple(part.requires_grad_() for part in noise(2, (1, 2)))
    assert torch.autograd.gradcheck(decoder, u)
    assert torch.autograd.gradgradcheck(decoder, u)


@pytest.mark.parametrize(("blocks", "parameterization", "skip"), CASES)
def test_hessian_is_not_zero(blocks: str, parameterization: str, skip: bool) -> None:
    """A network of ReLU has a second derivative of 0 wherever it has one; the last state is before the tanh."""
    decoder = build(blocks, parameterization, skip, (1, 3, 3), (1, 2), width=3)
    z = torch.cat(noise(1, (1, 2)), dim=1)[0]
    hessian = torch.autograd.functional.hessian(lambda z: decoder.run(*z[None].split((1, 2), dim=1))[1].sum(), z)
    assert isinstance(hessian, Tensor)
    assert hessian.abs().max() > 1e-4


@pytest.mark.parametrize("blocks", MAKERS)
def test_conditional_starts_as_ladder(blocks: str) -> None:
    torch.manual_seed(0)
    conditional = MAKERS[blocks]((1, 6, 6), (2, 3, 4), parameterization="conditional", width=8).double()
    ladder = build(blocks, "ladder", True, (1, 6, 6), seed=1)
    shared = {key: value for key, value in conditional.state_dict().items() if not key.startswith("conditional.")}
    ladder.load_state_dict(shared)
    u = noise(3)
    torch.testing.assert_close(conditional(*u), ladder(*u))
    assert all(torch.equal(z, part) for z, part in zip(conditional.layers(*u), u, strict=True))

    shaken = build(blocks, "conditional", True, (1, 6, 6))
    shaken.load_state_dict(shared, strict=False)
    assert (shaken(*u) - ladder(*u)).abs().max() > 1e-3


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("blocks", MAKERS)
def test_layers_are_mu_plus_sigma_u(blocks: str, skip: bool) -> None:
    decoder = build(blocks, "conditional", skip)
    u = noise(4)
    z = decoder.layers(*u)
    assert torch.equal(z[0], u[0])
    for layer in (1, 2):
        mu = decoder.layers(*u[:layer], torch.zeros_like(u[layer]), *u[layer + 1 :])[layer]
        sigma = decoder.layers(*u[:layer], torch.ones_like(u[layer]), *u[layer + 1 :])[layer] - mu
        torch.testing.assert_close(z[layer], mu + sigma * u[layer])
        assert (sigma > math.exp(-2)).all()
        assert (sigma < math.exp(2)).all()
        assert mu.std() > 0.01  # both depend on the layer above
        assert sigma.std(dim=0).min() > 1e-4


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("blocks", MAKERS)
def test_jacobian_of_layers_is_triangular_with_sigma_on_the_diagonal(blocks: str, skip: bool) -> None:
    decoder = build(blocks, "conditional", skip)
    u = noise(1)

    def flat(u: Tensor) -> Tensor:
        return torch.cat(decoder.layers(*u[None].split((2, 3, 4), dim=1)), dim=1)[0]

    jacobian = torch.autograd.functional.jacobian(flat, torch.cat(u, dim=1)[0])
    assert isinstance(jacobian, Tensor)
    zero = [torch.zeros_like(part) for part in u]
    one = [torch.ones_like(part) for part in u]
    sigma = [torch.ones(1, 2).double()]
    for layer in (1, 2):
        ends = [decoder.layers(*u[:layer], *end[layer:])[layer] for end in (zero, one)]
        sigma.append(ends[1] - ends[0])
    expected = torch.cat(sigma, dim=1)[0]
    torch.testing.assert_close(jacobian.diagonal(), expected)
    assert jacobian.triu(1).abs().max() < 1e-12
    assert jacobian.tril(-1).abs().max() > 1e-3
    torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], expected.log().sum())


@pytest.mark.parametrize("blocks", MAKERS)
def test_ladder_latents_are_independent(blocks: str) -> None:
    u = noise(3)
    assert all(torch.equal(z, part) for z, part in zip(build(blocks, "ladder", True).layers(*u), u, strict=True))


@pytest.mark.parametrize(("blocks", "parameterization", "skip"), CASES)
def test_strict_hierarchy_reaches_the_image_through_the_last_layer_alone(
    blocks: str, parameterization: str, skip: bool
) -> None:
    decoder = build(blocks, parameterization, skip)
    u, other = noise(3), noise(3, seed=9)
    z_1 = decoder.layers(*u)[2]
    # the u_1 that gives the same z_1 below other upper layers
    mu = decoder.layers(other[0], other[1], torch.zeros_like(z_1))[2]
    sigma = decoder.layers(other[0], other[1], torch.ones_like(z_1))[2] - mu
    changed = (other[0], other[1], (z_1 - mu) / sigma)
    torch.testing.assert_close(decoder.layers(*changed)[2], z_1)
    gap = (decoder(*changed) - decoder(*u)).abs().max()
    if parameterization == "conditional" and not skip:
        assert gap < 1e-10
    else:
        assert gap > 1e-3


@pytest.mark.parametrize("blocks", MAKERS)
def test_activation_of_the_output_can_be_chosen(blocks: str) -> None:
    torch.manual_seed(0)
    logits = MAKERS[blocks]((1, 5, 5), (3,), width=8, activation=nn.Identity()).double()
    torch.manual_seed(0)
    squashed = MAKERS[blocks]((1, 5, 5), (3,), width=8).double()
    (z,) = noise(4, (3,))
    torch.testing.assert_close(squashed(z), torch.tanh(logits(z)))


@pytest.mark.parametrize("latents", [[], [0, 3], [3, -1]])
@pytest.mark.parametrize("blocks", MAKERS)
def test_layers_without_latents_are_refused(blocks: str, latents: list[int]) -> None:
    with pytest.raises(InputError, match=r"^latents: got .*one size of at least 1 for each layer"):
        MAKERS[blocks]((1, 8, 8), latents, parameterization="conditional")


@pytest.mark.parametrize(
    ("decoder", "name"),
    [
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), "1"),
        (nn.Sequential(nn.Sequential(nn.Unflatten(1, (3, 1, 1)), nn.BatchNorm2d(3))), "0.1"),
        (nn.SyncBatchNorm(3), "it"),
        (nn.LazyBatchNorm2d(), "it"),
    ],
)
def test_batch_normalization_is_refused(decoder: nn.Module, name: str) -> None:
    with pytest.raises(InputError) as caught:
        TopDown(decoder, Gaussian(), [3])
    message = str(caught.value)
    assert message.startswith(f"decoder: {name} is a batch normalization")
    assert "GroupNorm" in message
    assert "\n" not in message


def test_other_normalization_is_welcome() -> None:
    decoder = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.SiLU(), nn.Unflatten(1, (2, 2, 2)), nn.GroupNorm(1, 2))
    assert TopDown(decoder, Gaussian(), [3]).decode(torch.randn(4, 3)).shape == (4, 2, 2, 2)


def test_a_plain_sequential_is_a_decoder() -> None:
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(3, 8), nn.Softplus(), nn.Linear(8, 18), nn.Tanh(), nn.Unflatten(1, (2, 3, 3)))
    generator = TopDown(decoder, Gaussian(0.5), [3])
    z = torch.randn(5, 3, requires_grad=True)
    assert torch.equal(generator.decode(z), decoder(z))
    (gradient,) = torch.autograd.grad(generator.log_joint(torch.zeros(5, 2, 3, 3), z).sum(), z)
    assert gradient.abs().sum() > 0
