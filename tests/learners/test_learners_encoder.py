"""What the three learners with an encoder have in common."""

import math
from pathlib import Path

import pytest
import torch
from encoder_learners import KINDS, SHAPE, Own, images, learner_of, mixed_learner_of, rng
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from shortrun.config import EncoderConfig, ModelConfig
from shortrun.errors import InputError
from shortrun.learners import EncoderLearner, Inferred, LadderVae, Learner, ShortRun, Vae, Vlae
from shortrun.learners.latent_learner import WINDOW
from shortrun.model.mixture import WAIT
from shortrun.normals import standard_normal

every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
def test_the_bound_of_the_loss_is_that_of_the_draws_and_their_density(kind: str) -> None:
    """E[log p(x, z) - log q(z|x)] by Monte Carlo against log p(x|z) with the divergence in closed form."""
    learner, x = learner_of(kind), images(2).repeat(4000, 1, 1, 1)
    with torch.no_grad():
        loss, statistics = learner.loss(x, rng())
        z, log_q = learner.propose(x, rng(7))
        bound = learner.generator.log_joint(x, z) - log_q
    error = 5 * bound.std() / math.sqrt(len(x))
    assert statistics["elbo"] == pytest.approx(float(bound.mean()), abs=float(error))
    assert loss == pytest.approx(-float(statistics["elbo"]), rel=1e-5)
    layers = [statistics[f"kl_{layer}"] for layer in range(len(learner.latents), 0, -1)]
    torch.testing.assert_close(torch.stack(layers).sum(), statistics["kl"])
    assert all(layer > 1e-3 for layer in layers)


@every_kind
def test_the_weight_of_the_divergence_and_the_statistics(kind: str) -> None:
    learner, x = learner_of(kind), images(6)
    losses = {}
    for weight in (0.0, 0.5, 1.0):
        learner.kl_weight = weight
        losses[weight], statistics = learner.loss(x, rng())
    torch.testing.assert_close(losses[0.0], -statistics["log_likelihood"])
    torch.testing.assert_close(losses[0.5], 0.5 * (losses[0.0] + losses[1.0]))
    torch.testing.assert_close(statistics["elbo"], statistics["log_likelihood"] - statistics["kl"])
    z = learner.propose(x, rng()).z
    torch.testing.assert_close(statistics["log_likelihood"], learner.generator.log_likelihood(x, z).mean().detach())
    torch.testing.assert_close(statistics["mse"], ((learner.generator.decode(z) - x) / 2).square().mean().detach())
    torch.testing.assert_close(statistics["second_moment"], z.square().mean())
    assert not any(value.requires_grad for value in statistics.values())


@every_kind
def test_the_loss_teaches_every_weight(kind: str) -> None:
    learner = learner_of(kind)
    loss, _ = learner.loss(images(5), rng())
    for gradient in torch.autograd.grad(loss, list(learner.parameters())):
        assert torch.isfinite(gradient).all()
        assert gradient.abs().sum() > 0


@every_kind
def test_infer_gives_the_mean_and_on_request_a_draw(kind: str) -> None:
    learner, x, numbers = learner_of(kind), images(4), rng()
    state = numbers.get_state()
    mean = learner.infer(x, numbers)
    assert torch.equal(numbers.get_state(), state), "the mean takes no random numbers"
    assert torch.equal(learner.infer(x, rng(5), noise=False).z, mean.z)
    assert not mean.z.requires_grad
    assert not mean.failed.any()
    drawn = learner.infer(x, rng(), noise=True).z
    assert torch.equal(drawn, learner.draw_posterior(x, rng()))
    assert torch.equal(drawn, learner.propose(x, rng()).z)
    assert (drawn - mean.z).abs().max() > 1e-2
    assert torch.equal(learner.reconstruct(x, rng()), learner.decode(mean.z))
    assert learner.sample(3, rng()).shape == (3, *SHAPE)
    # images are treated apart
    torch.testing.assert_close(learner.infer(x[2:3], rng()).z, mean.z[2:3])


@every_kind
def test_steps_are_for_missing_pixels(kind: str) -> None:
    learner, x = learner_of(kind), images(2)
    with pytest.raises(InputError, match=r"^steps: got 5; .*leave it out"):
        learner.infer(x, rng(), steps=5)
    with pytest.raises(InputError, match=r"^steps: got 0; "):
        learner.infer(x, rng(), steps=0, mask=torch.ones(1, 1, *SHAPE[1:]))


HALF = torch.ones(1, 1, *SHAPE[1:])
HALF[..., 2:] = 0


@every_kind
@pytest.mark.parametrize("noise", [None, False])
def test_nothing_of_the_missing_pixels_is_looked_at(kind: str, noise: bool | None) -> None:
    learner, x = learner_of(kind), images(4)
    z, failed, _ = learner.infer(x, rng(), mask=HALF, steps=6, noise=noise)
    for value in (math.nan, math.inf, 0.3):
        spoiled = torch.where(HALF > 0.5, x, value)
        again = learner.infer(spoiled, rng(), mask=HALF, steps=6, noise=noise)
        assert torch.equal(again.z, z)
        assert not again.failed.any()
    assert not failed.any()
    other = learner.infer(-x, rng(), mask=HALF, steps=6, noise=noise)
    assert (other.z - z).abs().max() > 1e-3, "the observed pixels do not matter"


@every_kind
def test_imputation_goes_from_noise_to_what_the_latents_say(kind: str) -> None:
    """Two rounds by hand, of means: the start is uniform noise, then the missing pixels are those decoded."""
    learner, x = learner_of(kind), images(3)
    start = torch.randn(3, 20, generator=rng())
    filled = torch.where(HALF > 0.5, x, 2 * torch.special.ndtr(start).view_as(x) - 1)
    first = learner.infer(filled, rng()).z
    torch.testing.assert_close(learner.infer(x, rng(), mask=HALF, steps=1, noise=False).z, first)
    filled = torch.where(HALF > 0.5, x, learner.decode(first))
    second = learner.infer(filled, rng()).z
    torch.testing.assert_close(learner.infer(x, rng(), mask=HALF, steps=2, noise=False).z, second)
    default = learner.infer(x, rng(), mask=HALF).z
    assert torch.equal(default, learner.infer(x, rng(), mask=HALF, steps=50, noise=True).z)
    assert (learner.infer(x, rng(1), mask=HALF).z - default).abs().max() > 1e-2, "completions differ"


@every_kind
def test_a_bad_image_has_failed_and_harms_no_other(kind: str) -> None:
    learner, x = learner_of(kind), images(5)
    clean = learner.infer(x, rng()).z
    x[3, 0, 1, 2] = math.nan
    inferred = learner.infer(x, rng())
    assert inferred.failed.tolist() == [False, False, False, True, False]
    torch.testing.assert_close(inferred.z[[0, 1, 2, 4]], clean[[0, 1, 2, 4]])
    assert torch.equal(inferred.z[3], torch.randn(5, learner.dim, generator=rng())[3])
    masked = learner.infer(x, rng(), mask=HALF)  # pixel 2 of its row is missing
    assert not masked.failed.any()


@every_kind
def test_parts_of_a_batch_draw_what_the_whole_does(kind: str) -> None:
    learner, x = learner_of(kind), images(6)
    parts = x.split(2)

    def joined(inferred: list[Inferred]) -> torch.Tensor:
        return torch.cat([part.z for part in inferred])

    shares = [(i, 3) for i in range(3)]
    drawn = [learner.infer(part, rng(), noise=True, part=share) for part, share in zip(parts, shares, strict=True)]
    torch.testing.assert_close(joined(drawn), learner.infer(x, rng(), noise=True).z)
    filled = [
        learner.infer(part, rng(), mask=HALF, steps=3, part=share) for part, share in zip(parts, shares, strict=True)
    ]
    torch.testing.assert_close(joined(filled), learner.infer(x, rng(), mask=HALF, steps=3).z)
    losses = [learner.loss(part, rng(), share)[0] for part, share in zip(parts, shares, strict=True)]
    torch.testing.assert_close(torch.stack(losses).mean(), learner.loss(x, rng())[0])


@every_kind
def test_half_precision_sums_in_full(kind: str) -> None:
    learner, x = learner_of(kind), images(50)
    with torch.autocast("cpu", torch.bfloat16):
        loss, statistics = learner.loss(x, rng())
        z, log_q = learner.propose(x, rng())
    assert {loss.dtype, z.dtype, log_q.dtype, *(value.dtype for value in statistics.values())} == {torch.float32}
    full, expected = learner.loss(x, rng())
    assert loss.item() == pytest.approx(full.item(), rel=0.02)
    assert statistics["kl"].item() == pytest.approx(expected["kl"].item(), rel=0.02)


@every_kind
def test_build_follows_its_seed_and_leaves_torch_alone(kind: str) -> None:
    make, model = KINDS[kind]
    config = ModelConfig(**{"latents": (2, 3), "width": 8, **model})
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    one, same, other = (make.build(SHAPE, config, levels=2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(map(torch.equal, one.parameters(), same.parameters()))
    for part in ("encoder", "generator"):
        first, second = (dict(getattr(learner, part).named_parameters()) for learner in (one, other))
        drawn = [name for name in first if name.endswith("weight") and "conditional" not in name]
        assert not any(torch.equal(first[name], second[name]) for name in drawn)
    # all learners start from the same generator
    rival = ShortRun.build(SHAPE, config, levels=2, seed=1).generator.state_dict()
    own = one.generator.state_dict()
    assert rival.keys() == own.keys()
    assert all(torch.equal(own[name], rival[name]) for name in own)


@every_kind
def test_a_saved_learner_is_the_same_learner(kind: str, tmp_path: Path) -> None:
    learner, x = learner_of(kind, encoder=EncoderConfig(width=6, depth=2)), images(3)
    learner.save_pretrained(tmp_path)
    for loaded in (Learner.from_pretrained(tmp_path), type(learner).from_pretrained(tmp_path)):
        assert type(loaded) is type(learner)
        assert isinstance(loaded, EncoderLearner)
        assert loaded.description == learner.description
        for noise in (False, True):
            assert torch.equal(loaded.infer(x, rng(), noise=noise).z, learner.infer(x, rng(), noise=noise).z)
        assert torch.equal(loaded.sample(4, rng()), learner.sample(4, rng()))
    with pytest.raises(InputError, match=r"no ShortRun"):
        ShortRun.from_pretrained(tmp_path)


@pytest.mark.parametrize("kind", [Vae, Vlae])
def test_a_decoder_of_ones_own(kind: type[EncoderLearner], tmp_path: Path) -> None:
    learner, x = kind.build(SHAPE, ModelConfig(latents=(2, 3), width=8), decoder=Own()), images(3)
    learner.loss(x, rng())[0].backward()
    assert all(parameter.grad is not None for parameter in learner.parameters())
    learner.save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path, decoder=Own())
    assert torch.equal(loaded.infer(x, rng()).z, learner.infer(x, rng()).z)
    assert [layer.shape[1] for layer in loaded.layers(loaded.infer(x, rng()).z)] == [2, 3]


@pytest.mark.parametrize(
    ("steps", "noise", "masked", "words"),
    [
        (None, None, False, "mean of the encoder"),
        (None, True, False, "a draw from the encoder"),
        (None, None, True, "50 rounds of draws from the encoder"),
        (9, None, True, "9 rounds of draws from the encoder"),
        (9, False, True, "9 rounds of means from the encoder"),
    ],
)
def test_what_is_said_of_inference(steps: int | None, noise: bool | None, masked: bool, words: str) -> None:
    learner = learner_of("vae")
    assert learner.describe_inference(steps, noise, masked) == words
    assert learner.conditions() == {"inference": "mean of the encoder"}


@every_kind
def test_with_a_mixture_the_divergence_is_that_of_the_draw(kind: str) -> None:
    """loss = -(log p(x|z) - (log q(z|x) - log p(z))), by hand; its gradient too."""
    learner, x = mixed_learner_of(kind), images(6)
    prior = learner.generator.prior
    loss, statistics = learner.loss(x, rng())
    z, log_q, _, decoded = learner.draw(x, torch.randn(6, learner.dim, generator=rng()))
    log_weights, means, roots, _ = prior.parts()
    each = MultivariateNormal(means, scale_tril=roots)
    log_p = MixtureSameFamily(Categorical(logits=log_weights), each).log_prob(z)
    log_likelihood = learner.generator.likelihood.log_prob(x, decoded)
    expected = -(log_likelihood - (log_q - log_p)).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(statistics["elbo"], -expected.detach())
    torch.testing.assert_close(statistics["kl"], (log_q - log_p).mean().detach())
    assert not any(name.startswith("kl_") for name in statistics)
    weights = list(learner.parameters())
    found = torch.autograd.grad(loss, weights)
    torch.testing.assert_close(found, torch.autograd.grad(expected, weights), rtol=1e-3, atol=1e-4)
    assert all(gradient.abs().sum() > 0 for gradient in found)
    learner.kl_weight = 0.25
    torch.testing.assert_close(learner.loss(x, rng())[0], (0.25 * (log_q - log_p) - log_likelihood).mean())


@pytest.mark.parametrize("kind", ["vae", "ladder_vae"])
def test_a_mixture_of_one_standard_normal_gives_the_bound_in_closed_form(kind: str) -> None:
    plain, other, x = learner_of(kind), learner_of(kind, prior="mixture", components=1), images(2).repeat(3000, 1, 1, 1)
    assert {
        name: value for name, value in plain.state_dict().items() if "prior" not in name
    }.keys() < other.state_dict().keys()
    with torch.no_grad():
        closed, drawn = (learner.loss(x, rng())[1] for learner in (plain, other))
        z, log_q = other.propose(x, rng())
    error = 5 * float((log_q - other.generator.log_prior(z)).std()) / math.sqrt(len(x))
    assert float(drawn["kl"]) == pytest.approx(float(closed["kl"]), abs=error)
    torch.testing.assert_close(drawn["log_likelihood"], closed["log_likelihood"])


@pytest.mark.parametrize("kind", ["vae", "vlae", "ladder_vae"])
def test_the_mixture_is_fitted_to_the_draws_of_an_encoder(kind: str) -> None:
    """Where its first fit is due, and then it says more of the draws than N(0, I) does."""
    learner, x, numbers = learner_of(kind, prior="mixture", components=2), images(30), rng(3)
    prior = learner.generator.prior
    start = {name: value.clone() for name, value in prior.state_dict().items()}
    for update in range(260):
        if update == WAIT * WINDOW:
            assert all(torch.equal(start[name], prior.state_dict()[name]) for name in ("means", "roots", "log_weights"))
        with torch.no_grad():
            learner.loss(x, numbers)
    z = learner.propose(x.repeat(20, 1, 1, 1), numbers).z
    assert float((prior.log_prob(z) - standard_normal(z)).mean()) > 0.1
    mean, root = prior.whole()
    assert (mean - z.mean(0)).abs().max() < 0.2
    torch.testing.assert_close(root.norm(dim=1), z.std(0), rtol=0.15, atol=0.05)


def test_a_model_of_an_encoder_with_a_mixture_is_saved_whole(tmp_path: Path) -> None:
    learner, x = mixed_learner_of("ladder_vae"), images(3)
    learner.save_pretrained(tmp_path)
    loaded = LadderVae.from_pretrained(tmp_path)
    assert torch.equal(loaded.sample(4, rng()), learner.sample(4, rng()))
    assert torch.equal(loaded.infer(x, rng()).z, learner.infer(x, rng()).z)
    z = learner.propose(x, rng()).z
    assert torch.equal(loaded.generator.log_prior(z), learner.generator.log_prior(z))


def test_an_image_that_the_encoder_cannot_read_gets_a_draw_of_the_mixture() -> None:
    learner, x = mixed_learner_of("vae"), images(3)
    x[1, 0, 0, 0] = math.nan
    found = learner.infer(x, rng())
    assert found.failed.tolist() == [False, True, False]
    assert torch.equal(found.z[1], learner.draw_prior(3, rng())[1])
