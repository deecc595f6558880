"""The regularized autoencoder: its loss and penalties against formulas written out, and what it does not have."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_learners import SHAPE, Own, images, rng
from torch import Tensor, nn

from shortrun.config import Config, EncoderConfig, LearnerConfig, ModelConfig, TrainingConfig
from shortrun.errors import InputError
from shortrun.learners import Learner, Rae, ShortRun, Vae, checked_for_learner
from shortrun.learners.latent_density import fit_latent_density
from shortrun.learners.rae import RaeSettings, gradient_penalty
from shortrun.tasks import interpolate, traverse
from shortrun.tasks.interpolate import slerp

HALF = torch.ones(1, 1, *SHAPE[1:])
HALF[..., 2:] = 0
L2, GRADIENT, NONE = (RaeSettings(0.3, kind, 0.2) for kind in ("l2", "gradient", "none"))  # pyright: ignore[reportArgumentType]
every_loss = pytest.mark.parametrize("own", [L2, GRADIENT, NONE], ids=lambda own: own.regularizer)


def learner_of(own: RaeSettings = L2, encoder: EncoderConfig | None = None, seed: int = 0, **model: Any) -> Rae:
    """A small learner whose weights are no longer those of the start."""
    config = ModelConfig(**{"latents": (2, 3), "width": 8, **model})
    learner, numbers = Rae.build(SHAPE, config, encoder, own, levels=2, seed=seed), rng(1)
    for parameter in learner.parameters():
        parameter.data += 0.15 * torch.randn(parameter.shape, generator=numbers)
    return learner


def fitted(learner: Rae) -> Rae:
    z = 2 + torch.randn(80, learner.dim, generator=rng(3)) @ torch.randn(learner.dim, learner.dim, generator=rng(4))
    learner.latent_density = fit_latent_density(z, rng(), log_prior=None)
    return learner


def by_hand(learner: Rae, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return z of each image, its squared error for pixels in [0, 1], and the squared norm of the Jacobian there."""
    z = torch.cat([learner.encoder(one[None])[0].mu for one in x])
    decode = lambda one: (learner.decoder(*one[None].split((2, 3), dim=1))[0] + 1) / 2  # noqa: E731
    errors = torch.stack([(decode(one) - (y + 1) / 2).square().sum() for one, y in zip(z, x, strict=True)])
    jacobians = torch.stack([torch.func.jacrev(decode)(one) for one in z])
    return z, errors, jacobians.square().flatten(1).sum(1)


def test_the_loss_is_the_papers() -> None:
    x = images(6).double()
    for own in (L2, NONE):
        learner = learner_of(own).double()
        loss, statistics = learner.loss(x, rng())
        z, errors, _ = by_hand(learner, x)
        wanted = (errors + 0.3 / 2 * z.square().sum(1)).mean()
        if own is L2:
            squares = sum(float(weights.detach().square().sum()) for weights in learner.decoder.parameters())
            wanted = wanted + 0.2 * squares
            assert float(statistics["regularizer"]) == pytest.approx(squares)
        torch.testing.assert_close(loss, wanted)
        assert float(statistics["mse"]) == pytest.approx(float(errors.detach().sum()) / x.numel())
        assert float(statistics["second_moment"]) == pytest.approx(float(z.detach().square().mean()))
        assert ("regularizer" in statistics) == (own is L2)
        assert not any(value.requires_grad for value in statistics.values())


@pytest.mark.parametrize("model", [{}, {"blocks": "conv"}, {"parameterization": "conditional"}], ids=str)
def test_the_gradient_penalty_is_the_squared_norm_of_the_jacobian(model: dict[str, Any]) -> None:
    """The sum over all directions of one pixel each is exact, and so is what it teaches the decoder and the encoder."""
    learner, x = learner_of(GRADIENT, **model).double(), images(3).double()
    z, _, exact = by_hand(learner, x)
    z = learner.encode(x)
    decoded = learner.decoder(*z.split((2, 3), dim=1))
    pixels = [one.view(1, *SHAPE).expand_as(x) for one in torch.eye(20, dtype=torch.float64)]
    made = torch.stack([gradient_penalty(decoded, z, pixel) for pixel in pixels]).sum(0)
    torch.testing.assert_close(made, exact)
    weights = list(learner.parameters())
    wanted = torch.autograd.grad(exact.sum(), weights, allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(
        torch.autograd.grad(made.sum(), weights, allow_unused=True, materialize_grads=True), wanted
    )
    assert sum(float(gradient.abs().sum()) for gradient in wanted) > 0


def test_random_signs_estimate_the_penalty_without_bias() -> None:
    learner, x = learner_of(GRADIENT).double(), images(1).double()
    _, errors, exact = by_hand(learner, x)
    many = x.expand(4000, -1, -1, -1)
    loss, statistics = learner.loss(many, rng())
    z = learner.encode(many)
    signs = torch.randn(4000, *SHAPE, generator=rng()).sign()  # those of the loss: the same stream
    each = gradient_penalty(learner.decoder(*z.split((2, 3), dim=1)), z, signs.double())
    error = 4.5 * float(each.std()) / math.sqrt(len(each))
    assert float(each.mean()) == pytest.approx(float(exact), abs=error)
    assert float(statistics["regularizer"]) == pytest.approx(float(exact), abs=error)
    wanted = errors.mean() + 0.3 / 2 * z[0].square().sum() + 0.2 * statistics["regularizer"]
    torch.testing.assert_close(loss, wanted)


@every_loss
def test_the_loss_teaches_every_weight_but_those_of_the_spread(own: RaeSettings) -> None:
    learner = learner_of(own)
    loss, _ = learner.loss(images(5), rng())
    loss.backward()
    head = learner.encoder.heads[0].linear  # pyright: ignore
    for name, parameter in learner.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.abs().sum() > 0, name
    assert head.weight.grad[:5].abs().sum() > 0
    assert not head.weight.grad[5:].any()


@every_loss
def test_parts_of_a_batch_make_the_whole(own: RaeSettings) -> None:
    learner, x = learner_of(own), images(6)
    losses = [learner.loss(part, rng(), (i, 3))[0] for i, part in enumerate(x.split(2))]
    torch.testing.assert_close(torch.stack(losses).mean(), learner.loss(x, rng())[0])
    parts = [learner.infer(part, rng(), mask=HALF, steps=3, part=(i, 3)).z for i, part in enumerate(x.split(2))]
    torch.testing.assert_close(torch.cat(parts), learner.infer(x, rng(), mask=HALF, steps=3).z)


@every_loss
def test_half_precision_sums_in_full(own: RaeSettings) -> None:
    learner, x = learner_of(own), images(50)
    with torch.autocast("cpu", torch.bfloat16):
        loss, statistics = learner.loss(x, rng())
    assert {loss.dtype, *(value.dtype for value in statistics.values())} == {torch.float32}
    assert loss.item() == pytest.approx(learner.loss(x, rng())[0].item(), rel=0.02)
    loss.backward()


def test_inference_is_deterministic() -> None:
    learner, x, numbers = learner_of(), images(4), rng()
    state = numbers.get_state()
    found = learner.infer(x, numbers)
    loss = learner.loss(x, numbers)[0]
    assert torch.equal(numbers.get_state(), state), "it takes no random numbers"
    for other in (learner.infer(x, rng(5), noise=False).z, learner.draw_posterior(x, rng(6))):
        assert torch.equal(other, found.z)
    assert torch.equal(learner.loss(x, rng(7))[0], loss)
    assert torch.equal(found.z, learner.encoder(x)[0].mu)
    assert not found.z.requires_grad
    assert not found.failed.any()
    assert torch.equal(learner.reconstruct(x, rng()), learner.decode(found.z))
    torch.testing.assert_close(learner.infer(x[2:3], rng()).z, found.z[2:3])  # images are treated apart
    with pytest.raises(InputError, match=r"^noise: the encoder of rae is deterministic; leave it out"):
        learner.infer(x, rng(), noise=True)
    with pytest.raises(InputError, match=r"^steps: got 5; .*leave it out"):
        learner.infer(x, rng(), steps=5)
    with pytest.raises(InputError, match=r"^steps: got 0; "):
        learner.infer(x, rng(), steps=0, mask=HALF)


def test_latents_that_are_not_finite_have_failed() -> None:
    learner, x = learner_of(), images(3)
    x[1, 0, 0, 0] = math.nan
    found = learner.infer(x, rng())
    assert found.failed.tolist() == [False, True, False]
    assert not found.z[1].any()
    torch.testing.assert_close(found.z[0], learner.infer(x[:1], rng()).z[0])


def test_imputation_goes_from_noise_to_what_the_latents_say() -> None:
    learner, x = learner_of(), images(3)
    start = 2 * torch.special.ndtr(torch.randn(3, 20, generator=rng())).view_as(x) - 1
    first = learner.infer(torch.where(HALF > 0.5, x, start), rng()).z
    torch.testing.assert_close(learner.infer(x, rng(), mask=HALF, steps=1).z, first)
    second = learner.infer(torch.where(HALF > 0.5, x, learner.decode(first)), rng()).z
    torch.testing.assert_close(learner.infer(x, rng(), mask=HALF, steps=2).z, second)
    default = learner.infer(x, rng(), mask=HALF).z
    assert torch.equal(default, learner.infer(x, rng(), mask=HALF, steps=50).z)
    for value in (math.nan, math.inf, 0.3):
        assert torch.equal(learner.infer(torch.where(HALF > 0.5, x, value), rng(), mask=HALF).z, default)
    assert (learner.infer(-x, rng(), mask=HALF).z - default).abs().max() > 1e-3, "observed pixels do not matter"
    assert learner.describe_inference(9, masked=True) == "9 rounds of the deterministic encoder"


def test_networks_and_first_weights_are_those_of_the_vae() -> None:
    config, encoder = ModelConfig(latents=(2, 3), width=8), EncoderConfig(width=6, depth=2)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    rae, vae = Rae.build(SHAPE, config, encoder, seed=1), Vae.build(SHAPE, config, encoder, seed=1)
    assert torch.equal(torch.rand(3), expected)
    for own, other in ((rae.decoder, vae.generator.decoder), (rae.encoder, vae.encoder)):
        assert own.state_dict().keys() == other.state_dict().keys()
        assert all(map(torch.equal, own.state_dict().values(), other.state_dict().values()))
    assert len(rae.state_dict()) == len(rae.decoder.state_dict()) + len(rae.encoder.state_dict())
    assert not torch.equal(next(Rae.build(SHAPE, config, seed=2).parameters()), next(rae.parameters()))


def test_all_draws_are_those_of_the_fitted_density() -> None:
    learner = learner_of()
    assert learner.sources == ()
    for call in (lambda: learner.sample(3, rng()), lambda: learner.sample(3, rng(), "fitted"), learner.spread):
        with pytest.raises(InputError, match=r"^learner: no density was fitted .*; train it with training.fit_images"):
            call()
    with pytest.raises(InputError, match=r"^source: got 'prior'; the learner has none: write fitted"):
        learner.sample(3, rng(), "prior")
    with pytest.raises(InputError, match=r"^prior: rae has no prior"):
        learner.draw_prior(3, rng())
    fitted(learner)
    assert learner.sources == ("fitted",)
    assert learner.latent_density is not None
    record = learner.latent_density.record
    assert (record.prior_nats, record.better_than_prior, record.gain) == (None, None, None)
    wanted = learner.decode(learner.latent_density.mixture.sample(5, rng()))
    assert torch.equal(learner.sample(5, rng()), wanted)
    assert torch.equal(learner.sample(5, rng(), "fitted"), wanted)


def test_it_has_no_likelihood_to_ask_for() -> None:
    learner = learner_of()
    assert (learner.has_generator, learner.has_encoder, learner.has_density) == (False, False, False)
    assert not any(hasattr(learner, name) for name in ("generator", "propose", "log_joint"))
    with pytest.raises(NotImplementedError):
        learner.log_prob(images(2))


def test_walks_and_traversals_follow_the_fitted_density() -> None:
    learner, x = fitted(learner_of()), images(4)
    found = interpolate(learner, x[:2], x[2:], rng(), columns=5)
    a, b = learner.infer(x[:2], rng()).z, learner.infer(x[2:], rng()).z
    assert torch.equal(found.z[:, 0], a)
    assert torch.equal(found.z[:, -1], b)
    mean, root = learner.spread()
    white = slerp(torch.linalg.solve(root, (a - mean).T).T, torch.linalg.solve(root, (b - mean).T).T, 5)
    torch.testing.assert_close(found.z, mean + white @ root.T, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.images[:, 2], learner.decode(found.z[:, 2]))

    one = traverse(learner, a, 1, rng(), columns=3, coordinate=1)
    deviation = (root @ root.T).diagonal().sqrt()
    torch.testing.assert_close(one.z[0, :, 3], mean[3] + deviation[3] * torch.tensor([-2.5, 0, 2.5]))
    redrawn = traverse(learner, a, 2, rng(), columns=4)
    assert torch.equal(redrawn.z[..., 2:], a[:, None, 2:].expand(-1, 4, -1))
    assert redrawn.z[..., :2].std(1).min() > 0
    assert learner.latent_density is not None
    wanted = learner.latent_density.mixture.redraw(a.repeat_interleave(4, 0), 0, 2, rng())
    assert torch.equal(redrawn.z.flatten(0, 1), wanted)


def test_a_saved_learner_is_the_same_learner(tmp_path: Path) -> None:
    learner, x = fitted(learner_of(GRADIENT, EncoderConfig(width=6, depth=2))), images(3)
    learner.save_pretrained(tmp_path)
    for loaded in (Learner.from_pretrained(tmp_path), Rae.from_pretrained(tmp_path)):
        assert isinstance(loaded, Rae)
        assert (loaded.description, loaded.own) == (learner.description, GRADIENT)
        assert torch.equal(loaded.infer(x, rng()).z, learner.infer(x, rng()).z)
        assert torch.equal(loaded.sample(4, rng()), learner.sample(4, rng()))
        assert torch.equal(loaded.loss(x, rng())[0], learner.loss(x, rng())[0])
    with pytest.raises(InputError, match=r"no ShortRun"):
        ShortRun.from_pretrained(tmp_path)


def test_a_decoder_of_ones_own(tmp_path: Path) -> None:
    learner, x = Rae.build(SHAPE, ModelConfig(latents=(2, 3), width=8), decoder=Own()), images(3)
    learner.save_pretrained(tmp_path)
    loaded = Rae.from_pretrained(tmp_path, decoder=Own())
    assert torch.equal(loaded.infer(x, rng()).z, learner.infer(x, rng()).z)
    assert [layer.shape[1] for layer in loaded.layers(loaded.infer(x, rng()).z)] == [2, 3]
    coupled = nn.Sequential(Own(), nn.BatchNorm2d(1))
    with pytest.raises(InputError, match=r"^decoder: 1 is a batch normalization"):
        Rae.build(SHAPE, ModelConfig(latents=(2, 3), width=8), decoder=coupled)


def test_layers_of_the_conditional_parameterization_are_the_decoders() -> None:
    learner = learner_of(parameterization="conditional")
    z = learner.infer(images(3), rng()).z
    first, second = learner.layers(z)
    assert torch.equal(first, z[:, :2])
    assert (second - z[:, 2:]).abs().max() > 1e-2


MIXED = ModelConfig(prior="mixture")
RISING = ((0.0, 0.5), (1.0, 1.0))
REFUSED = [
    ({"model": ModelConfig(likelihood="bernoulli")}, "model.likelihood: got 'bernoulli', but rae has no likelihood; "),
    ({"model": ModelConfig(learn_sigma=True)}, "learner: rae has neither sigma nor a prior to learn; drop"),
    ({"training": TrainingConfig(sigma_schedule=RISING)}, "learner: rae has neither sigma nor a prior to learn; drop"),
    ({"model": MIXED}, "learner: rae has neither sigma nor a prior to learn; drop"),
    ({"training": TrainingConfig(kl_schedule=RISING)}, "training.kl_schedule: rae has no encoder q(z|x); drop it"),
    ({"training": TrainingConfig(step_size_schedule=RISING)}, "training.step_size_schedule: rae takes no Langevin"),
    ({"own": {"beta": -1.0}}, "own.beta: got -1.0; write 0 or more"),
    ({"own": {"regularizer_weight": math.inf}}, "own.regularizer_weight: got inf; write 0 or more"),
    ({"own": {"regularizer": "spectral"}}, "own.regularizer: got 'spectral'; write one of l2, gradient, none"),
    ({"own": {"betta": 1.0}}, "own.betta: unknown key; did you mean 'beta'?"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED, ids=lambda part: part[:30] if isinstance(part, str) else "")
def test_settings_that_are_not_for_it_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        checked_for_learner(Config(learner="rae", **settings))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_description_says_all_settings_of_the_loss() -> None:
    checked = checked_for_learner(LearnerConfig(SHAPE, learner="rae", own={"beta": 0.5}))
    assert checked.own == {"beta": 0.5, "regularizer": "l2", "regularizer_weight": 1e-7}
    assert Rae.describe_model(checked).endswith("; squared error, beta 0.5, l2 1e-07")
    assert Rae.describe_model(LearnerConfig(SHAPE, own={"regularizer": "none"})).endswith("beta 0.0001")
