import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    Distribution,
    Normal,
    SigmoidTransform,
    TransformedDistribution,
    Uniform,
)
from torch.distributions import Bernoulli as TorchBernoulli

from shortrun.errors import InputError
from shortrun.model import Bernoulli, DiscretizedLogistic, Gaussian, Likelihood

LEVELS = [2, 17, 256]
SHAPES = st.tuples(st.integers(1, 4), st.sampled_from([1, 3]), st.integers(1, 5), st.integers(1, 5))


def logistic(loc: Tensor, scale: Tensor) -> Distribution:
    """The logistic distribution, by pushing a uniform one through the inverse of its distribution function."""
    uniform = Uniform(torch.zeros_like(loc), torch.ones_like(loc), validate_args=False)
    return TransformedDistribution(uniform, [SigmoidTransform().inv, AffineTransform(loc, scale)], validate_args=False)


def bin_probability(x: Tensor, loc: Tensor, scale: Tensor, levels: int) -> Tensor:
    """P(the level of x), from differences of the distribution function between the midpoints of levels."""
    index = ((x + 1) / 2 * (levels - 1)).round().long()
    inner = (2 * torch.arange(levels - 1, dtype=x.dtype) + 1) / (levels - 1) - 1
    cdf = [torch.zeros_like(x), *[logistic(loc, scale).cdf(edge.expand_as(x)) for edge in inner], torch.ones_like(x)]
    stacked = torch.stack(cdf)
    return stacked.diff(dim=0).gather(0, index[None])[0]


def grey(levels: int, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """Images of `levels` values, equally spaced in [-1, 1]."""
    return torch.randint(levels, shape, generator=rng).double() / (levels - 1) * 2 - 1


def normal(shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


Entrywise = Callable[[Tensor, Tensor], Tensor]


def case(name: str, shape: tuple[int, ...], rng: torch.Generator) -> tuple[Likelihood, Tensor, Tensor, Entrywise]:
    """Return a likelihood, images it is for, a decoder's output, and log p entry by entry from torch.distributions."""
    if name == "gaussian":
        sigma = float(torch.rand((), generator=rng)) + 0.05
        module = Gaussian(sigma).double()
        return (
            module,
            normal(shape, rng),
            normal(shape, rng),
            lambda x, decoded: Normal(decoded, module.sigma).log_prob(x),
        )
    if name == "bernoulli":
        return (
            Bernoulli(),
            grey(2, shape, rng),
            3 * normal(shape, rng),
            lambda x, decoded: TorchBernoulli(logits=decoded).log_prob((x > 0).double()),
        )
    levels = int(name.removeprefix("logistic"))
    likelihood = DiscretizedLogistic(shape[1], levels).double()
    with torch.no_grad():
        likelihood.log_scale.copy_(torch.rand(shape[1], 1, 1, generator=rng) - 2)
    scale = likelihood.log_scale.detach().exp()
    return (
        likelihood,
        grey(levels, shape, rng),
        0.5 * normal(shape, rng),
        lambda x, decoded: bin_probability(x, decoded, scale.expand_as(x), levels).log(),
    )


NAMES = ["gaussian", "bernoulli", *[f"logistic{levels}" for levels in LEVELS]]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 2**32))
def test_log_prob_is_the_distributions(name: str, shape: tuple[int, ...], seed: int) -> None:
    likelihood, x, decoded, entrywise = case(name, shape, torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        likelihood.log_prob(x, decoded), entrywise(x, decoded).sum((1, 2, 3)), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, deadline=None)
@given(
    shape=SHAPES,
    shared=st.sampled_from([(False, False), (False, True), (True, False), (True, True)]),
    seed=st.integers(0, 2**32),
)
def test_mask_sums_over_observed_entries(
    name: str, shape: tuple[int, ...], shared: tuple[bool, bool], seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    likelihood, x, decoded, entrywise = case(name, shape, rng)
    n, c, h, w = shape
    mask = (torch.rand(1 if shared[0] else n, 1 if shared[1] else c, h, w, generator=rng) > 0.4).double()
    each = entrywise(x, decoded)
    expected = torch.stack([each[i][mask.expand_as(x)[i] == 1].sum() for i in range(n)])
    torch.testing.assert_close(likelihood.log_prob(x, decoded, mask), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, deadline=None)
@given(
    shape=SHAPES,
    outputs=st.integers(0, 4),
    masked=st.sampled_from(["no", "for each", "for all"]),
    seed=st.integers(0, 2**32),
)
def test_pairs_are_each_image_under_each_output(
    name: str, shape: tuple[int, ...], outputs: int, masked: str, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    likelihood, x, _, _ = case(name, shape, rng)
    n, c, h, w = shape
    decoded = torch.randn(outputs, c, h, w, generator=rng).double()
    mask = None if masked == "no" else (torch.rand(n if masked == "for each" else 1, 1, h, w, generator=rng) > 0.4)
    mask = None if mask is None else mask.double()
    pairs = likelihood.log_prob_pairs(x, decoded, mask)
    assert pairs.shape == (n, outputs)
    for j in range(outputs):
        expected = likelihood.log_prob(x, decoded[j].expand_as(x), mask)
        torch.testing.assert_close(pairs[:, j], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["x", "decoded"])
@pytest.mark.parametrize("channels", [1, 3], ids=["one mask for all channels", "a mask for each"])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_under_the_mask_leaks(name: str, channels: int, where: str, bad: float) -> None:
    rng = torch.Generator().manual_seed(0)
    likelihood, x, decoded, _ = case(name, (3, 3, 4, 4), rng)
    likelihood.requires_grad_()
    mask = (torch.rand(3, channels, 4, 4, generator=rng) > 0.5).double()

    def value_and_gradients(x: Tensor, decoded: Tensor) -> list[Tensor]:
        decoded = decoded.clone().requires_grad_()
        value = likelihood.log_prob(x, decoded, mask)
        return [value, *torch.autograd.grad(value.sum(), [decoded, *likelihood.parameters()])]

    clean = value_and_gradients(x, decoded)
    hidden = mask.expand_as(x) == 0
    spoiled = [
        values.masked_fill(hidden, bad) if name == where else values
        for name, values in zip(["x", "decoded"], [x, decoded], strict=True)
    ]
    torch.testing.assert_close(value_and_gradients(spoiled[0], spoiled[1]), clean)
    assert (clean[1][hidden] == 0).all()
    assert (clean[1][~hidden] != 0).any()


def test_all_hidden_is_zero() -> None:
    for name in NAMES:
        likelihood, x, decoded, _ = case(name, (2, 1, 3, 3), torch.Generator().manual_seed(0))
        assert (likelihood.log_prob(x, decoded, torch.zeros(1, 1, 3, 3).double()) == 0).all()


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("loc", [-30.0, -1.0, 0.013, 0.9, 4.0])
@pytest.mark.parametrize("scale", [0.003, 0.1, 3.0])
def test_logistic_sums_to_one_over_all_levels(levels: int, loc: float, scale: float) -> None:
    likelihood = DiscretizedLogistic(1, levels, scale).double()
    every = torch.linspace(-1, 1, levels, dtype=torch.float64)[:, None, None, None]
    total = likelihood.log_prob(every, torch.full_like(every, loc)).exp().sum()
    torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_logistic_far_from_the_data_still_pulls(levels: int, side: float) -> None:
    """50 scales away, in float32, where a difference of two sigmoids would be 0 and its log -inf."""
    scale = 0.02
    likelihood = DiscretizedLogistic(1, levels, scale)
    x = torch.linspace(-1, 1, levels)[None, None, None]
    pulled = x < 1 if side > 0 else x > -1  # an outermost bin reaches to infinity: out there nothing pulls
    decoded = (x + side * (50 * scale + 1 / (levels - 1))).requires_grad_()
    value = likelihood.log_prob(x, decoded)
    gradient, to_scale = torch.autograd.grad(value.sum(), [decoded, likelihood.log_scale])
    assert torch.isfinite(value).all()
    assert torch.isfinite(to_scale).all()
    torch.testing.assert_close(gradient[pulled], torch.full_like(gradient[pulled], -side / scale), rtol=1e-3, atol=0)
    assert (gradient[~pulled].abs() < 1e-6).all()


@settings(max_examples=30, deadline=None)
@given(sigma=st.floats(0.05, 5), masked=st.booleans(), seed=st.integers(0, 2**32))
def test_learned_sigma_settles_at_the_rms_residual(sigma: float, masked: bool, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    x, decoded = normal((3, 1, 4, 4), rng), normal((3, 1, 4, 4), rng)
    mask = (torch.rand(3, 1, 4, 4, generator=rng) > 0.3).double() if masked else torch.ones(3, 1, 4, 4).double()
    seen = mask == 1
    rms = (x - decoded)[seen].square().mean().sqrt()
    likelihood = Gaussian(sigma, learned=True).double()

    def slope() -> Tensor:
        (gradient,) = torch.autograd.grad(likelihood.log_prob(x, decoded, mask).sum(), likelihood.log_sigma)
        return gradient

    # d/dlog sigma of sum -r^2 / (2 sigma^2) - log sigma is m (rms^2 / sigma^2 - 1) for m observed entries
    expected = seen.sum() * (rms**2 / likelihood.sigma.detach() ** 2 - 1)
    torch.testing.assert_close(slope(), expected)
    likelihood.set_sigma(float(rms))
    assert slope().abs() < 1e-6 * seen.sum()


@pytest.mark.parametrize("learned", [False, True])
def test_set_sigma_changes_the_value_and_nothing_else(learned: bool) -> None:
    likelihood = Gaussian(0.3, learned)
    assert [name for name, _ in likelihood.named_parameters()] == (["log_sigma"] if learned else [])
    torch.testing.assert_close(likelihood.sigma.item(), 0.3)
    likelihood.set_sigma(0.07)
    torch.testing.assert_close(likelihood.sigma.item(), 0.07)
    assert likelihood.log_sigma.requires_grad == learned
    other = Gaussian(1.0, learned)
    other.load_state_dict(likelihood.state_dict())
    assert other.sigma == likelihood.sigma


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_of_the_decoder_does_not_lower_that_of_the_sum(name: str) -> None:
    likelihood, x, decoded, _ = case(name, (2, 3, 16, 16), torch.Generator().manual_seed(0))
    likelihood, x, decoded = likelihood.float(), x.float(), decoded.bfloat16()
    value = likelihood.log_prob(x, decoded)
    assert value.dtype == torch.float32
    assert torch.equal(value, likelihood.log_prob(x, decoded.float()))


def test_mean_is_the_expected_image() -> None:
    logits = torch.linspace(-6, 6, 13, dtype=torch.float64)[None, None, None]
    torch.testing.assert_close(Bernoulli().mean(logits), 2 * TorchBernoulli(logits=logits).mean - 1)
    image = torch.linspace(-1, 1, 13)[None, None, None]
    assert torch.equal(Gaussian().mean(image), image)
    assert torch.equal(DiscretizedLogistic(1).mean(image), image)
    assert DiscretizedLogistic(1).mean(3 * image).abs().max() == 1


def moments(name: str, decoded: Tensor, likelihood: Likelihood) -> tuple[Tensor, Tensor]:
    """Return the mean and variance of each pixel: by sums over all values where these are discrete."""
    if isinstance(likelihood, Gaussian):
        return decoded, (likelihood.sigma**2).expand_as(decoded)
    levels = 2 if name == "bernoulli" else int(name.removeprefix("logistic"))
    values = torch.linspace(-1, 1, levels, dtype=torch.float64)
    pixels = decoded.flatten()[:, None, None, None]
    chance = torch.stack([likelihood.log_prob(v.expand_as(pixels), pixels).exp() for v in values], dim=1)
    torch.testing.assert_close(chance.sum(1), torch.ones(len(chance), dtype=torch.float64))
    mean = (chance * values).sum(1)
    return mean.view_as(decoded), ((chance * values**2).sum(1) - mean**2).view_as(decoded)


@pytest.mark.parametrize("name", NAMES)
def test_samples_have_the_moments_of_the_distribution(name: str) -> None:
    rng = torch.Generator().manual_seed(0)
    likelihood, _, decoded, _ = case(name, (1, 1, 2, 3), rng)
    likelihood.requires_grad_()
    n = 40_000
    x = likelihood.sample(decoded.detach().expand(n, -1, -1, -1), rng)
    assert (x.dtype, x.requires_grad) == (torch.float64, False)
    mean, variance = moments(name, decoded, likelihood)
    mean, variance = mean.detach()[0], variance.detach()[0]
    assert ((x.mean(0) - mean).abs() <= 4.5 * (variance / n).sqrt() + 1e-12).all()
    fourth = ((x - mean) ** 4).mean(0)
    assert ((x.var(0) - variance).abs() <= 4.5 * ((fourth - variance**2) / n).clamp(min=0).sqrt() + 1e-4).all()


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_images_that_the_likelihood_is_for_and_repeat(name: str) -> None:
    likelihood, x, decoded, _ = case(name, (5, 3, 4, 4), torch.Generator().manual_seed(0))
    drawn = [likelihood.sample(decoded, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.isfinite(likelihood.log_prob(drawn[0], decoded)).all()
    if name == "gaussian":
        assert likelihood.sample(torch.ones_like(x), torch.Generator().manual_seed(0)).max() > 1
    else:
        levels = 2 if name == "bernoulli" else int(name.removeprefix("logistic"))
        index = (drawn[0] + 1) / 2 * (levels - 1)
        torch.testing.assert_close(index, index.round().clamp(0, levels - 1))


@pytest.mark.parametrize("sigma", [0.0, -0.3, math.nan, math.inf])
def test_sigma_that_is_none_is_refused(sigma: float) -> None:
    with pytest.raises(InputError, match=r"^sigma: got .*positive"):
        Gaussian(sigma)


def test_levels_below_two_are_refused() -> None:
    with pytest.raises(InputError, match=r"^levels: got 1;"):
        DiscretizedLogistic(1, levels=1)


def test_the_logistic_mean_is_the_location_and_not_quite_the_expected_pixel() -> None:
    """E[x] by the sum over all levels: the location within the range, scale log 2 below it at its end."""
    scale, levels = 0.1, 256
    likelihood = DiscretizedLogistic(channels=1, levels=levels, scale=scale).double()
    values = torch.linspace(-1, 1, levels, dtype=torch.float64)[:, None, None, None]
    for location, off in ((0.0, 0.0), (0.3, 0.0), (1.0, -scale * math.log(2)), (-1.0, scale * math.log(2))):
        decoded = torch.full_like(values, location)
        with torch.no_grad():
            expected = float((likelihood.log_prob(values, decoded).exp() * values.flatten()).sum())
        assert float(likelihood.mean(decoded)[0]) == location
        assert expected - location == pytest.approx(off, abs=2e-4)
