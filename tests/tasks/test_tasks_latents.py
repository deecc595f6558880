import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from task_learners import images, mixed_learner, rng, small_learner
from torch.distributions import MultivariateNormal

from shortrun.errors import InputError
from shortrun.tasks import encode, interpolate, reconstruct, sample, traverse
from shortrun.tasks.interpolate import slerp, walk


def test_samples_are_counted_and_follow_from_the_seed() -> None:
    learner = small_learner()
    made = sample(learner, 7, rng(), batch_size=3)
    assert made.shape == (7, 1, 6, 5)
    assert made.abs().max() <= 1
    assert torch.equal(made, sample(learner, 7, rng(), batch_size=3))
    assert not torch.equal(made, sample(learner, 7, rng(1), batch_size=3))
    with pytest.raises(InputError, match=r"^n: got 0"):
        sample(learner, 0, rng())


def test_a_reconstruction_is_its_latents_decoded_and_its_error_is_in_unit_pixels() -> None:
    learner, x = small_learner(), images(5)
    made = reconstruct(learner, x, rng(), batch_size=2)
    torch.testing.assert_close(made.images, learner.decode(made.z))
    torch.testing.assert_close(made.mse, (((made.images + 1) / 2 - (x + 1) / 2) ** 2).mean((1, 2, 3)))
    assert not made.failed.any()


def test_more_steps_rebuild_better_and_without_noise_the_start_alone_is_random() -> None:
    learner, x = small_learner(), images(20)
    short = reconstruct(learner, x, rng(), steps=1, noise=False).mse.mean()
    long = reconstruct(learner, x, rng(), steps=200, noise=False).mse.mean()
    assert long < 0.9 * short
    assert torch.equal(reconstruct(learner, x, rng(), steps=4).z, encode(learner, x, rng(), steps=4).z)
    assert not torch.equal(encode(learner, x, rng(), noise=False).z, encode(learner, x, rng()).z)


def test_images_of_another_shape_and_none_at_all_are_refused() -> None:
    learner = small_learner()
    for x in (images(2, (3, 6, 5)), images(2, (1, 5, 6)), images(2)[:0]):
        with pytest.raises(InputError, match=r"^x: got"):
            reconstruct(learner, x, rng())
    with pytest.raises(InputError, match=r"^batch_size: got 0"):
        encode(learner, images(2), rng(), batch_size=0)


def test_chains_that_failed_are_said_and_leave_finite_latents() -> None:
    learner, x = small_learner(), images(3)
    learner.step_size.log_values.fill_(80)  # the first steps overflow float32, with half of it too
    for made in (encode(learner, x, rng()), reconstruct(learner, x, rng()), interpolate(learner, x, x, rng())):
        assert made.failed.all()
        assert made.z.isfinite().all()


def test_layers_of_the_ladder_are_the_parts_of_z() -> None:
    found = encode(small_learner(), images(5), rng(), batch_size=2)
    assert [layer.shape for layer in found.layers] == [(5, 2), (5, 3), (5, 4)]
    assert torch.equal(torch.cat(found.layers, 1), found.z)


def test_layers_of_the_conditional_model_are_centred_and_scaled() -> None:
    learner = small_learner("conditional")
    found = encode(learner, images(5), rng(), batch_size=2)
    u = found.z.split((2, 3, 4), dim=1)
    assert torch.equal(found.layers[0], u[0])
    # z_l = mu_l(h) + sigma_l(h) u_l, with h the state that the layers above leave
    decoder = learner.generator.decoder
    h = decoder.body[0](decoder.inject[0](u[0]))  # pyright: ignore
    mu, raw = decoder.conditional[0].linear(decoder.conditional[0].features(h)).chunk(2, 1)  # pyright: ignore
    torch.testing.assert_close(found.layers[1], mu + torch.exp(2 * torch.tanh(raw / 2)) * u[1])
    assert not torch.allclose(found.layers[2], u[2])


VECTORS = st.integers(0, 2**40)


@settings(max_examples=50, deadline=None)
@given(VECTORS, st.integers(2, 9), st.integers(4, 30), st.floats(0.1, 10))
def test_slerp_ends_are_exact_and_norms_go_evenly(seed: int, columns: int, d: int, factor: float) -> None:
    a, b = torch.randn(2, 3, d, generator=rng(seed), dtype=torch.float64)
    b = b * factor
    walk = slerp(a, b, columns)
    assert walk.shape == (3, columns, d)
    assert torch.equal(walk[:, 0], a)
    assert torch.equal(walk[:, -1], b)
    t = torch.linspace(0, 1, columns, dtype=torch.float64)
    expected = a.norm(dim=1)[:, None] * (1 - t) + b.norm(dim=1)[:, None] * t
    torch.testing.assert_close(walk.norm(dim=2), expected, rtol=1e-6, atol=1e-9)


def test_slerp_turns_by_equal_angles() -> None:
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    walk = slerp(a, b, 4)[0]
    angles = torch.atan2(walk[:, 1], walk[:, 0])
    torch.testing.assert_close(angles, torch.linspace(0, math.pi / 2, 4))


def test_slerp_is_finite_where_no_circle_is_defined() -> None:
    a = torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 0.0], [1.0, 2.0]])
    b = torch.tensor([[1.0, 2.0], [2.0, 4.0], [1.0, 1.0], [-1.0, -2.0]])
    walk = slerp(a, b, 3)
    torch.testing.assert_close(walk[:, 1], (a + b) / 2)


def test_a_walk_goes_from_one_reconstruction_to_the_other() -> None:
    learner, x = small_learner(), images(4)
    walks = interpolate(learner, x[:2], x[2:], rng(), columns=5)
    assert walks.images.shape == (2, 5, 1, 6, 5)
    stream = rng()
    starts, ends = encode(learner, x[:2], stream), encode(learner, x[2:], stream)
    torch.testing.assert_close(walks.images[:, 0], learner.decode(starts.z))
    torch.testing.assert_close(walks.images[:, -1], learner.decode(ends.z))
    assert torch.equal(walks.z, slerp(starts.z, ends.z, 5))


def test_under_a_mixture_a_walk_goes_from_normal_to_normal_in_their_units() -> None:
    """Great circle of u = L^-1 (z - mu), with mu and L between those of the ends' normals; the ends are exact."""
    learner, prior = mixed_learner()
    a, b = prior.means[[0, 0]] + 0.1, prior.means[[0, 2]] - 0.2
    walks = walk(learner, a, b, 7)
    assert torch.equal(walks[:, 0], a)
    assert torch.equal(walks[:, -1], b)
    for row, (i, j) in enumerate([(0, 0), (0, 2)]):
        ends = [torch.linalg.solve(prior.roots[c], z[row] - prior.means[c]) for c, z in ((i, a), (j, b))]
        u = slerp(ends[0][None], ends[1][None], 7)[0]
        for column, t in enumerate(torch.linspace(0, 1, 7).tolist()):
            mean = (1 - t) * prior.means[i] + t * prior.means[j]
            root = (1 - t) * prior.roots[i] + t * prior.roots[j]
            torch.testing.assert_close(walks[row, column], mean + root @ u[column], rtol=1e-4, atol=1e-4)
    # within a normal the walk stays as likely as its ends are; a straight line or a circle around zero does not
    lengths = torch.stack([prior.held(torch.tensor([0]))(z[None])[0] for z in walks[0]])
    assert float(lengths.max() - lengths.min()) < 1


def test_under_a_mixture_images_are_walked_between_too() -> None:
    learner, _ = mixed_learner()
    x = images(4)
    walks = interpolate(learner, x[:2], x[2:], rng(), columns=5)
    stream = rng()
    starts, ends = encode(learner, x[:2], stream), encode(learner, x[2:], stream)
    assert torch.equal(walks.z, walk(learner, starts.z, ends.z, 5))
    assert walks.images.isfinite().all()


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_under_a_mixture_a_layer_is_redrawn_given_the_others(layer: int) -> None:
    """Against the conditional mixture in closed form: its mean and its covariance, of one row."""
    learner, prior = mixed_learner()
    first, last = {3: (0, 2), 2: (2, 5), 1: (5, 9)}[layer]
    z = prior.sample(1, rng(2))
    made = traverse(learner, z, layer, rng(), columns=20_000).z[0]
    held = [i for i in range(9) if not first <= i < last]
    assert torch.equal(made[:, held], z[:, held].expand(20_000, -1))
    covariance = prior.roots @ prior.roots.mT
    log_weights, means, spreads = [], [], []
    for c in range(3):
        seen = covariance[c][held][:, held]
        log_weights.append(prior.log_weights[c] + MultivariateNormal(prior.means[c, held], seen).log_prob(z[0, held]))
        gain = torch.linalg.solve(seen, covariance[c][held][:, first:last]).T
        means.append(prior.means[c, first:last] + gain @ (z[0, held] - prior.means[c, held]))
        spreads.append(covariance[c][first:last, first:last] - gain @ covariance[c][held][:, first:last])
    weights, each = torch.softmax(torch.stack(log_weights), 0), torch.stack(means)
    mean = weights @ each
    spread = torch.einsum("c,cij->ij", weights, torch.stack(spreads))
    spread = spread + torch.einsum("c,ci,cj->ij", weights, each - mean, each - mean)
    varied = made[:, first:last]
    assert ((varied.mean(0) - mean).abs() < 4.5 * varied.std(0) / math.sqrt(20_000)).all()
    torch.testing.assert_close(torch.cov(varied.T), spread, rtol=0.08, atol=0.05)


def test_under_a_mixture_a_coordinate_goes_through_the_span_of_the_prior() -> None:
    learner, prior = mixed_learner()
    z = prior.sample(2, rng(2))
    made = traverse(learner, z, 2, rng(), columns=5, coordinate=1, span=2.0)
    mean, root = prior.whole()
    deviation = root.norm(dim=1)
    expected = mean[3] + deviation[3] * torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])
    torch.testing.assert_close(made.z[..., 3], expected.expand(2, 5))
    rest = [column for column in range(9) if column != 3]
    assert torch.equal(made.z[..., rest], z[:, None, rest].expand(2, 5, 8))


def test_walks_that_cannot_be_are_refused() -> None:
    learner, x = small_learner(), images(4)
    with pytest.raises(InputError, match=r"^columns: got 1"):
        interpolate(learner, x, x, rng(), columns=1)
    with pytest.raises(InputError, match=r"^x_to: got 3"):
        interpolate(learner, x, x[:3], rng())


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_a_traversal_changes_one_layer_alone(layer: int) -> None:
    learner, z = small_learner(), torch.randn(3, 9, generator=rng(2))
    made = traverse(learner, z, layer, rng(), columns=400)
    parts = made.z.split((2, 3, 4), dim=2)
    for index, (varied, given_part) in enumerate(zip(parts, z.split((2, 3, 4), dim=1), strict=True)):
        if index == 3 - layer:  # L is the top and comes first
            assert abs(float(varied.mean())) < 0.1  # draws from N(0, I)
            assert abs(float(varied.var()) - 1) < 0.15
        else:
            assert torch.equal(varied, given_part[:, None].expand_as(varied))
    assert made.images.shape == (3, 400, 1, 6, 5)
    torch.testing.assert_close(made.images[:, 7], learner.decode(made.z[:, 7]))
    assert torch.equal(made.z, traverse(learner, z, layer, rng(), columns=400).z)


def test_a_coordinate_alone_is_moved_over_the_span() -> None:
    learner, z = small_learner(), torch.randn(2, 9, generator=rng(2))
    made = traverse(learner, z, 2, rng(), columns=5, coordinate=1, span=2.0)
    assert torch.equal(made.z[..., 3], torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).expand(2, 5))
    rest = [column for column in range(9) if column != 3]
    assert torch.equal(made.z[..., rest], z[:, None, rest].expand(2, 5, 8))


def test_layers_and_coordinates_out_of_range_are_refused_with_those_in_range() -> None:
    learner, z = small_learner(), torch.zeros(1, 9)
    for layer in (0, 4, -1):
        with pytest.raises(InputError, match=rf"^layer: got {layer}; write 1 \(the lowest\) to 3 \(the top\)"):
            traverse(learner, z, layer, rng())
    for coordinate in (-1, 3):
        with pytest.raises(InputError, match=f"^coordinate: got {coordinate}; layer 2 has 3: write 0 to 2"):
            traverse(learner, z, 2, rng(), coordinate=coordinate)
    with pytest.raises(InputError, match=r"^columns: got 0"):
        traverse(learner, z, 1, rng(), columns=0)
