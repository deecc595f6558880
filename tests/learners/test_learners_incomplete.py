"""Learning from images with hidden pixels: what is hidden has no part in it, and the posterior is the exact one."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from linear_learners import DIM, LATENTS, PIXELS, SHAPE, linear_learner, posterior, rng, simulated
from torch import Tensor

from shortrun.config import EncoderConfig, InferenceConfig, LearnerConfig, ModelConfig
from shortrun.errors import InputError
from shortrun.inference import StepSize
from shortrun.learners import Learner, ShortRun, Vae, learner_class
from shortrun.learners.incomplete import Incomplete, completed
from shortrun.learners.latent_learner import WINDOW
from shortrun.model import Gaussian, Normal

IMAGE = (2, 4, 5)
SETTINGS = {
    "short_run": {"inference": InferenceConfig(steps=2, start="regression")},
    "short_run from the prior, among candidates": {"inference": InferenceConfig(steps=2, candidates=4)},
    "persistent": {"inference": InferenceConfig(steps=2, start="regression")},
    "vae": {"encoder": EncoderConfig(missing="mean")},
    "vae, mask": {"encoder": EncoderConfig(missing="mask")},
    "vae, mask, three draws": {"encoder": EncoderConfig(missing="mask", draws=3)},
    "ladder_vae": {"encoder": EncoderConfig(missing="mask")},
    "vlae": {"encoder": EncoderConfig(missing="mean")},
}


def made(name: str) -> Learner:
    kind = name.split(",")[0].split(" ")[0]
    parameterization = "conditional" if kind == "ladder_vae" else "ladder"
    prior = "normal" if kind == "vlae" else "mixture"
    model = ModelConfig(latents=(2, 3), width=8, parameterization=parameterization, prior=prior, components=2)
    description = LearnerConfig(IMAGE, model=model, learner=kind, **SETTINGS[name])
    learner = learner_class(kind).from_description(description)
    learner.start_training(30, 0, Path())
    return learner


def learned(name: str, x: Tensor, masks: Tensor | None, updates: int) -> tuple[Learner, Tensor]:
    """Return a learner after some updates of its weights, and the last loss."""
    learner, loss = made(name), torch.zeros(())
    optimizer = torch.optim.SGD(learner.parameters(), 1e-4)
    for update in range(updates):
        rows = (torch.arange(15) + 15 * update) % len(x)
        mask = None if masks is None else masks[rows]
        loss, statistics = learner(x[rows], rng(update), (0, 1), rows, mask)
        assert torch.isfinite(loss)
        assert torch.isfinite(statistics["mse"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return learner, loss.detach()


def images(n: int = 30) -> Tensor:
    return torch.rand(n, *IMAGE, generator=rng(5)) * 2 - 1


MASKS = (torch.rand(30, 1, 4, 5, generator=rng(6)) < 0.5).float()
MASKS[:, :, 0, 0] = 1


@pytest.mark.parametrize("name", SETTINGS)
def test_what_hidden_pixels_hold_changes_no_bit(name: str) -> None:
    x = images()
    results = []
    for value in (0.3, math.nan):
        learner, loss = learned(name, torch.where(MASKS > 0.5, x, value), MASKS, updates=WINDOW + 1)
        found = learner.infer(torch.where(MASKS > 0.5, x, value), rng(), mask=MASKS).z
        drawn = learner.draw_posterior(torch.where(MASKS > 0.5, x, value), rng(), MASKS)
        results.append([loss, found, drawn, *learner.state_dict().values()])
    for other in results[1:]:
        assert all(torch.equal(one, each) for one, each in zip(results[0], other, strict=True))
    assert torch.isfinite(results[0][1]).all()


@pytest.mark.parametrize("name", [name for name in SETTINGS if "vae" not in name])
def test_without_hidden_pixels_a_chain_learner_learns_what_it_learned_before(name: str) -> None:
    """A mask of ones leads to the same latents and weights but for rounding: images are not completed by anything."""
    x = images()
    plain, masked = (learned(name, x, masks, updates=WINDOW + 1)[0] for masks in (None, torch.ones_like(MASKS)))
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(value, masked.state_dict()[key], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_gradient_of_weights_that_make_hidden_pixels_alone_is_zero(name: str) -> None:
    """The last layer of the decoder has a bias for each pixel: that of a pixel that is always hidden does not move."""
    learner, mask = made(name), torch.ones(30, 1, 4, 5)
    mask[:, :, 2, 3] = 0
    learner(images(), rng(), (0, 1), torch.arange(30), mask)[0].backward()
    decoder = [each for part, each in learner.named_parameters() if part.startswith("generator.decoder.")]
    biases = [each for each in decoder if each.shape == (40,)]
    assert len(biases) == 1
    assert biases[0].grad is not None
    gradient = biases[0].grad.view(IMAGE)
    assert (gradient[:, 2, 3] == 0).all()
    assert (gradient != 0).sum() == 38


SIGMA = 1.0


@pytest.fixture(scope="module")
def settled() -> tuple[ShortRun, float]:
    """A learner of the linear generator whose regression has seen incomplete images only."""
    rate = 0.5
    learner, n = linear_learner(SIGMA), 4000
    x = simulated(torch.randn(n, DIM, generator=rng(1)), SIGMA)
    masks = (torch.rand(n, 1, 5, 6, generator=rng(3)) > rate).float()

    @torch.no_grad()
    def visit(fits: int, seed: int) -> None:
        numbers = rng(seed)
        for update in range(fits * WINDOW + 1):
            rows = torch.arange(update * 100, (update + 1) * 100) % n
            learner.loss(torch.where(masks[rows] > 0.5, x[rows], math.nan), numbers, mask=masks[rows])

    visit(5, 0)
    learner.step_size, learner.steps = StepSize(0.15, LATENTS), 8
    visit(6, 1)
    return learner, rate


def divergence(means: Tensor, roots: Tensor, x: Tensor, masks: Tensor) -> float:
    """Return KL(start || posterior) in nats, the mean over images that each have a mask."""
    found = []
    for mean, root, one, mask in zip(means.double(), roots.double(), x, masks, strict=True):
        exact = posterior(one[None], SIGMA, Normal(DIM), mask.flatten() > 0.5)
        away, covariance = mean - exact.means[0, 0], root @ root.T
        squares = torch.trace(exact.precisions[0] @ covariance) - DIM + away @ exact.precisions[0] @ away
        found.append(0.5 * (squares + torch.logdet(exact.covariances[0]) - torch.logdet(covariance)))
    return float(torch.stack(found).mean())


def test_of_incomplete_images_the_start_converges_to_the_exact_posterior(settled: tuple[ShortRun, float]) -> None:
    """That of the observed pixels, whichever they are: those of training, all of them, and other masks."""
    learner, rate = settled
    assert learner.regression is not None
    n, x = 60, simulated(torch.randn(60, DIM, generator=rng(11)), SIGMA, seed=12)
    masks = {
        "as in training": (torch.rand(n, 1, 5, 6, generator=rng(5)) > rate).float(),
        "none": torch.ones(n, 1, 5, 6),
        "upper half": (torch.arange(PIXELS) < 15).float().view(1, *SHAPE).expand(n, -1, -1, -1),
    }
    for name, mask in masks.items():
        starts = learner.regression.starts(x, None if name == "none" else mask)
        assert divergence(starts.means, starts.roots[starts.which], x, mask) < 0.03
        pairs = zip(x, mask, strict=True)
        exact = torch.cat([posterior(a[None], SIGMA, Normal(DIM), b.flatten() > 0.5).means[:, 0] for a, b in pairs])
        away = starts.means.double() - exact
        assert float(away.square().sum() / exact.square().sum()) < 0.01


def test_images_completed_by_means_would_make_the_start_too_sure(settled: tuple[ShortRun, float]) -> None:
    """Why completions are draws: with their means in the sums the start of whole images is far off."""
    learner, rate = settled
    n = 1500
    x = simulated(torch.randn(n, DIM, generator=rng(21)), SIGMA)
    masks = (torch.rand(n, 1, 5, 6, generator=rng(22)) > rate).float()
    z = learner.infer(x, rng(), mask=masks).z
    decoded = learner.generator.decoder(*learner.generator.split(z)).detach()
    drawn, mean = (
        completed(x, learner.generator.likelihood, decoded, torch.ones(n) > 0, Incomplete(masks, rng())),
        torch.where(masks > 0.5, x, decoded),
    )
    divergences = []
    for images in (drawn, mean):
        other = linear_learner(SIGMA)
        assert other.regression is not None
        other.regression.learn(other.regression.features(images), z)
        new = simulated(torch.randn(50, DIM, generator=rng(31)), SIGMA, seed=32)
        starts = other.regression.starts(new)
        divergences.append(divergence(starts.means, starts.roots[starts.which], new, torch.ones(50, 1, 5, 6)))
    assert divergences[0] < 0.1
    assert divergences[1] > 0.4


def test_parts_of_a_batch_are_completed_as_the_whole_is() -> None:
    """So that several processes learn what one would."""
    likelihood, x = Gaussian(SIGMA), simulated(torch.randn(12, DIM, generator=rng(1)), SIGMA)
    masks = (torch.rand(12, 1, 5, 6, generator=rng(3)) > 0.5).float()
    sound = torch.arange(12) != 7
    whole = completed(x, likelihood, x[sound] + 1, sound, Incomplete(masks, rng(4)))
    parts = [
        completed(x[rows], likelihood, x[rows][sound[rows]] + 1, sound[rows], Incomplete(masks[rows], rng(4), (i, 3)))
        for i, rows in enumerate(torch.arange(12).split(4))
    ]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(whole[7], x[7])
    observed = (masks > 0.5).expand_as(x)
    assert torch.equal(whole[observed], x[observed])
    hidden = ~observed & sound[:, None, None, None]
    assert float((whole - x - 1)[hidden].std()) == pytest.approx(SIGMA, abs=0.15)


def test_a_chain_that_failed_teaches_nothing_of_incomplete_images_either() -> None:
    learner = linear_learner(SIGMA, steps=2)
    learner.retries = 0
    x = simulated(torch.randn(20, DIM, generator=rng(1)), SIGMA)
    masks = (torch.rand(20, 1, 5, 6, generator=rng(3)) > 0.5).float()
    masks[3, 0, 0, 0], x[3, 0, 0, 0] = 1, math.nan
    with torch.no_grad():
        for update in range(WINDOW + 1):
            loss, statistics = learner.loss(x, rng(update), mask=masks)
            assert int(statistics["failed"]) == 1
            assert torch.isfinite(loss)
    assert learner.regression is not None
    assert float(learner.regression.sums.total[0, 0, 0]) == 19 * WINDOW
    assert all(torch.isfinite(value).all() for value in learner.state_dict().values())


def test_what_an_encoder_sees() -> None:
    x = images(3)
    mask = MASKS[:3]
    hidden = (mask <= 0.5).expand_as(x)
    mean, masked = made("vae"), made("vae, mask")
    assert isinstance(mean, Vae)
    assert isinstance(masked, Vae)
    mean.filling.copy_(torch.linspace(-1, 1, 40).view(IMAGE))
    seen = mean.seen(x, mask)
    assert torch.equal(seen[hidden], mean.filling.expand_as(x)[hidden])
    assert torch.equal(seen[~hidden], x[~hidden])
    assert mean.seen(x) is x
    seen = masked.seen(x, mask)
    assert seen.shape == (3, 3, 4, 5)
    assert torch.equal(seen[:, 2:], mask)
    assert (seen[:, :2][hidden] == 0).all()
    assert torch.equal(masked.seen(x)[:, 2:], torch.ones_like(mask))
    plain = Vae.build(IMAGE, ModelConfig(latents=(2, 3), width=8))
    with pytest.raises(InputError, match=r"encoder\.missing = mean or mask"):
        plain.loss(x, rng(), mask=mask)


@pytest.mark.parametrize("name", ["vae", "vae, mask", "ladder_vae"])
def test_an_encoder_of_incomplete_images_infers_in_one_pass(name: str, tmp_path: Path) -> None:
    learner, x = made(name), images()
    if name == "vae":
        learner.filling.fill_(0.5)  # pyright: ignore
    found = learner.infer(x, rng(), mask=MASKS)
    assert "a draw from the encoder, given" in learner.describe_inference(masked=True)
    mean = learner.infer(x, rng(), mask=MASKS, noise=False)
    assert torch.equal(mean.z, learner.infer(x, rng(1), mask=MASKS, noise=False).z)
    assert not torch.equal(found.z, mean.z)
    assert torch.equal(found.z, learner.infer(x, rng(), mask=MASKS, steps=1).z)
    assert not torch.equal(found.z, learner.infer(x, rng(), mask=MASKS, steps=3).z)
    with pytest.raises(InputError, match="steps: got 3; an encoder takes none for the mean"):
        learner.infer(x, rng(), mask=MASKS, steps=3, noise=False)
    with pytest.raises(InputError, match="steps: got 0"):
        learner.infer(x, rng(), mask=MASKS, steps=0)
    learner.save_pretrained(tmp_path)
    loaded = Learner.from_pretrained(tmp_path)
    assert loaded.description == learner.description
    assert torch.equal(loaded.infer(x, rng(), mask=MASKS).z, found.z)


def test_a_learner_whose_loss_takes_no_mask_is_refused() -> None:
    from shortrun.learners.declared import check_learns_masked

    class Own(ShortRun):
        def loss(self, x, rng, part=(0, 1), rows=None):  # pyright: ignore
            return super().loss(x, rng, part, rows)

    check_learns_masked(ShortRun, "data.missing")
    with pytest.raises(InputError, match=r"data\.missing: .*does not learn from incomplete images"):
        check_learns_masked(Own, "data.missing")
    learner = Own.build(IMAGE, ModelConfig(latents=(2, 3), width=8), InferenceConfig(steps=1))
    learner(images(), rng())  # of whole images it need not know the word
    assert dataclasses.is_dataclass(learner.description)
