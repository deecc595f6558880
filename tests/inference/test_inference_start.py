"""The regression of latents on images that chains start from: against numpy, for any mask, in any precision."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from shortrun.inference import Regression
from shortrun.inference.start import FLOOR, MOST, RIDGE, Starts, root_of

SHAPE, DIM = (1, 3, 4), 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int, shape: tuple[int, int, int] = SHAPE, seed: int = 1) -> Tensor:
    return torch.rand(n, *shape, generator=seeded(seed)) * 2 - 1


MAP = torch.randn(12, DIM, generator=seeded(9))


def latents(x: Tensor, noise: float = 0.3, seed: int = 2) -> Tensor:
    """Latents that depend linearly on the image, with noise of a covariance of their own."""
    mix = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.0, -0.5, 0.5]])
    return 0.4 + x.flatten(1) @ MAP + noise * torch.randn(len(x), DIM, generator=seeded(seed)) @ mix.T


TAUGHT = [(images(500, seed=100 + k), latents(images(500, seed=100 + k), seed=200 + k)) for k in range(4)]
"""Images and their latents, four batches."""


def learned() -> Regression:
    regression = Regression(SHAPE, DIM)
    for x, z in TAUGHT:
        regression.learn(regression.features(x), z)
    return regression


def ridge(seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """B_o and S_o of what `learned` has seen, of the features that are seen, in numpy."""
    weight = 0.9 ** np.arange(len(TAUGHT) - 1, -1, -1).repeat(len(TAUGHT[0][0]))
    x, z = (torch.cat(parts).double().numpy() for parts in zip(*TAUGHT, strict=True))
    phi = np.concatenate([np.ones((len(x), 1)), x.reshape(len(x), -1)], 1)[:, seen]
    a = (phi * weight[:, None]).T @ phi + RIDGE * np.eye(phi.shape[1])
    c, squares = (phi * weight[:, None]).T @ z, (z * weight[:, None]).T @ z
    b = np.linalg.solve(a, c)
    return b, (squares - c.T @ b) / weight.sum()


def covariances(starts: Starts) -> Tensor:
    return (starts.roots @ starts.roots.mT)[starts.which]


ALL = np.ones(13, dtype=bool)


def test_it_is_the_ridge_regression_of_numpy() -> None:
    regression, x = learned(), images(7)
    weights, covariance = ridge(ALL)
    np.testing.assert_allclose(regression.weights, weights, atol=2e-4)
    np.testing.assert_allclose(regression.root @ regression.root.T, covariance, rtol=1e-3, atol=1e-4)
    starts = regression.starts(x)
    np.testing.assert_allclose(starts.means, regression.features(x).numpy() @ weights, atol=1e-3)
    np.testing.assert_allclose(covariances(starts)[3], covariance, rtol=1e-3, atol=1e-4)
    assert starts.which.tolist() == [0] * 7
    assert int(regression.fits) == 4


MASKS = {
    "columns": torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(1, 1, 3, 4),
    "one pixel": torch.eye(12)[6].view(1, 1, 3, 4),
    "random": (torch.rand(1, 1, 3, 4, generator=seeded(5)) < 0.5).float(),
    "all": torch.ones(1, 1, 3, 4),
    "none": torch.zeros(1, 1, 3, 4),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_of_observed_pixels_it_is_their_ridge_regression(mask: Tensor) -> None:
    regression, x = learned(), images(5)
    seen = np.concatenate([[True], mask.flatten().numpy() > 0.5])
    weights, covariance = ridge(seen)
    spoiled = torch.where(mask > 0.5, x, math.nan)
    starts = regression.starts(spoiled, mask)
    phi = np.concatenate([np.ones((5, 1)), x.flatten(1).numpy()], 1)[:, seen]
    np.testing.assert_allclose(starts.means, phi @ weights, atol=1e-3)
    np.testing.assert_allclose(covariances(starts)[2], covariance, rtol=1e-3, atol=1e-4)
    for value in (math.inf, -3.0):
        again = regression.starts(torch.where(mask > 0.5, x, value), mask)
        assert torch.equal(again.means, starts.means)
    assert torch.equal(regression.starts(spoiled, mask.expand(5, 1, 3, 4)).means, starts.means)


def test_what_is_not_seen_widens_the_start() -> None:
    regression, x = learned(), images(1)
    order = [regression.starts(x, MASKS[name]) for name in ("all", "columns", "none")]
    volumes = [float(torch.linalg.slogdet(covariances(starts)[0])[1]) for starts in order]
    assert volumes[0] < volumes[1] - 1 < volumes[2] - 2
    torch.testing.assert_close(order[0].means, regression.starts(x).means, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(order[2].means[0], torch.cat([z for _, z in TAUGHT]).mean(0), atol=0.1, rtol=0)


def test_images_of_different_masks_get_what_they_get_alone() -> None:
    regression, x = learned(), images(6)
    mask = torch.cat([MASKS[name] for name in ("random", "all", "random", "none", "columns", "random")])
    starts = regression.starts(x, mask)
    assert len(starts.roots) == 4
    for row in range(6):
        alone = regression.starts(x[row : row + 1], mask[row : row + 1])
        torch.testing.assert_close(starts.means[row], alone.means[0])
        torch.testing.assert_close(covariances(starts)[row], covariances(alone)[0])
    noise = torch.randn(6, DIM, generator=seeded())
    drawn = starts.draw(noise)
    expected = starts.means + (starts.roots[starts.which] @ noise[..., None])[..., 0]
    torch.testing.assert_close(drawn, expected)


def test_of_latents_that_say_nothing_of_the_image_it_is_their_distribution() -> None:
    """N(0, I), but for the statistical error of p weights and of a covariance from m images."""
    shape = (1, 5, 5)
    regression, fits, n = Regression(shape, DIM), 30, 2000
    for k in range(fits):
        x = images(n, shape, seed=k)
        regression.learn(regression.features(x), torch.randn(n, DIM, generator=seeded(1000 + k)))
    m, new = n / (1 - 0.9) * (1 - 0.9**fits), images(2000, shape, seed=77)
    starts = regression.starts(new)
    # of each image sum_j phi_j^2 / m / E[phi_j^2] is about p / m; fits of unlike weight count for half as many
    error = math.sqrt(26 / (m / 2))
    assert float(starts.means.square().mean().sqrt()) < 2 * error
    torch.testing.assert_close(regression.root @ regression.root.T, torch.eye(DIM), atol=0.06, rtol=0)
    hidden = regression.starts(new, torch.zeros(1, 1, 5, 5))
    assert float(hidden.means.abs().max()) < 0.05
    torch.testing.assert_close(covariances(hidden)[0], torch.eye(DIM), atol=0.06, rtol=0)


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 64, 64), (3, 32, 32), (1, 28, 28), (3, 33, 20), (1, 8, 8)])
def test_large_images_are_pooled_to_about_a_thousand_pixels(shape: tuple[int, int, int]) -> None:
    regression, x = Regression(shape, 4), images(3, shape)
    features = regression.features(x)
    assert features.shape[1] <= MOST + 1
    assert features.shape[1] > MOST / 5 or shape[1] * shape[2] * shape[0] <= MOST
    assert (features[:, 0] == 1).all()
    pool, (_, h, w) = regression.pool, shape
    places = [(i, j) for i in range(0, h, pool) for j in range(0, w, pool)]
    blocks = [x[:, :, i : i + pool, j : j + pool].mean((2, 3)) for i, j in places]
    expected = torch.stack(blocks, 2).flatten(1)
    torch.testing.assert_close(features[:, 1:], expected)


def test_of_pooled_pixels_those_that_are_half_observed_count_by_their_observed_mean() -> None:
    shape = (3, 64, 64)
    regression, x = Regression(shape, 4), images(3, shape)
    mask = torch.ones(3, 1, 64, 64)
    mask[0, :, 10:30, 7:41] = 0  # a box that cuts blocks of four
    mask[1] = (torch.rand(1, 64, 64, generator=seeded(4)) < 0.5).float()
    spoiled = torch.where(mask > 0.5, x, math.nan)
    features, seen = regression._observed(spoiled, mask)
    assert seen[:, 0].all()
    assert seen[2].all()
    for row in range(3):
        for number in range(0, 768, 37):
            c, place = divmod(number, 256)
            i, j = divmod(place, 16)
            pixels = x[row, c, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
            own = mask[row, 0, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4] > 0.5
            assert bool(seen[row, 1 + number]) == (float(own.float().mean()) >= 0.5)
            if seen[row, 1 + number]:
                torch.testing.assert_close(features[row, 1 + number], pixels[own].mean())
    assert 0.4 < float(seen[1].float().mean()) < 0.8
    assert torch.isfinite(features[seen]).all()


def test_in_half_precision_it_is_what_it_is_without() -> None:
    x, noise = images(6), torch.randn(6, DIM, generator=seeded())
    plain = learned()
    with torch.autocast("cpu", torch.bfloat16):
        inside = learned()
        masked, whole = inside.starts(x, MASKS["random"]), inside.starts(x)
        drawn = masked.draw(noise)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, inside.state_dict()[name])
        assert torch.isfinite(value).all()
    starts = plain.starts(x, MASKS["random"])
    for found, expected in [(masked.means, starts.means), (masked.roots, starts.roots), (drawn, starts.draw(noise))]:
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)
    assert torch.equal(whole.means, plain.starts(x).means)


def test_many_images_with_pixels_that_never_change_are_no_trouble() -> None:
    """Sums in float32 of a hundred thousand images; a border of -1 and pixels that are copies of others."""
    shape = (1, 12, 12)
    regression = Regression(shape, 2)
    for k in range(25):
        x = torch.full((5000, *shape), -1.0)
        inner = torch.randn(5000, 1, 4, 4, generator=seeded(k)).clamp(-1, 1)
        x[..., 3:7, 3:7], x[..., 7:11, 3:7] = inner, inner
        regression.learn(regression.features(x), 3 + inner.flatten(1)[:, :2])
    starts = regression.starts(x)
    torch.testing.assert_close(starts.means, 3 + inner.flatten(1)[:, :2], atol=0.01, rtol=0)
    assert float(covariances(starts).abs().max()) < 1e-2


def test_round_off_of_very_many_images_does_not_end_a_run() -> None:
    """What float32 leaves below zero grows with the number of images, and outgrows any fixed ridge."""
    regression, z = Regression((1, 28, 28), 2), torch.randn(4000, 10, generator=seeded())
    x = (1 + 0.1 * z @ torch.randn(10, 784, generator=seeded(1))).view(-1, 1, 28, 28)
    regression.learn(regression.features(x), z[:, :2])
    regression.sums.total *= 1000  # as if there had been a thousand times as many
    products = regression.sums.total[0, :785, :785].double()
    assert torch.linalg.eigvalsh(products).min() < -RIDGE
    regression.learn(regression.features(x), z[:, :2])
    assert float((regression.starts(x).means - z[:, :2]).square().mean()) < 0.3


@pytest.mark.parametrize("n", [1, 3])
def test_fewer_images_than_pixels_give_a_start(n: int) -> None:
    regression, x = Regression(SHAPE, DIM), images(n)
    regression.learn(regression.features(x), latents(x))
    assert torch.isfinite(regression.starts(images(4)).means).all()
    assert torch.linalg.eigvalsh(regression.root.double() @ regression.root.double().T).min() > 0.5 * FLOOR


def test_no_image_teaches_nothing() -> None:
    regression = Regression(SHAPE, DIM)
    regression.learn(torch.zeros(0, 13), torch.zeros(0, DIM))
    assert int(regression.fits) == 0
    assert torch.isfinite(regression.starts(images(2)).means).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(0, 999), st.floats(-1e-5, 1e-3))
def test_a_root_is_triangular_and_of_the_covariance(d: int, seed: int, least: float) -> None:
    turn = torch.linalg.qr(torch.randn(d, d, generator=seeded(seed)).double())[0]
    values = torch.cat([torch.tensor([least]), torch.rand(d - 1, generator=seeded(seed)) + 0.1]).double()
    root = root_of(turn @ torch.diag(values) @ turn.T)
    assert torch.equal(root, root.tril())
    assert (root.diagonal() > 0).all()
    expected = turn @ torch.diag(values.clamp(min=FLOOR)) @ turn.T
    torch.testing.assert_close(root @ root.T, expected, atol=1e-12, rtol=1e-9)


def test_it_is_saved_with_its_sums() -> None:
    one, other, x = learned(), Regression(SHAPE, DIM), images(50)
    other.load_state_dict(one.state_dict())
    for regression in (one, other):
        regression.learn(regression.features(x), latents(x))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    assert torch.equal(one.starts(x, MASKS["random"]).means, other.starts(x, MASKS["random"]).means)
    assert not list(one.parameters())
