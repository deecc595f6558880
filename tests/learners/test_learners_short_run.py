import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shortrun.config import InferenceConfig, LearnerConfig, ModelConfig, PersistentConfig
from shortrun.errors import InputError
from shortrun.learners import Persistent, ShortRun
from shortrun.model import Gaussian, TopDown

SHAPE = (1, 4, 4)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def learner_of(inference: InferenceConfig | None = None, **model: Any) -> ShortRun:
    """A small learner whose weights, the conditionals' too, are no longer those of the start."""
    config = ModelConfig(**{"latents": (2, 3), "width": 8, **model})
    learner = ShortRun.build(SHAPE, config, inference or InferenceConfig(steps=6), levels=2)
    for parameter in learner.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=rng(1))
    return learner


def images(n: int) -> Tensor:
    return torch.randint(2, (n, *SHAPE), generator=rng(2)).float() * 2 - 1


MODELS = [
    {"likelihood": "gaussian"},
    {"likelihood": "gaussian", "learn_sigma": True, "parameterization": "conditional"},
    {"likelihood": "bernoulli", "blocks": "conv"},
    {"likelihood": "logistic", "parameterization": "conditional", "skip": False},
    {"likelihood": "gaussian", "blocks": "conv", "parameterization": "conditional", "latents": (1, 2, 3, 2)},
]


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_gradient_of_the_loss_is_that_of_log_joint_at_the_latents(model: dict[str, Any]) -> None:
    learner, x = learner_of(**model), images(5)
    loss, statistics = learner.loss(x, rng())
    gradients = torch.autograd.grad(loss, list(learner.parameters()))

    z = learner.infer(x, rng()).z
    assert not z.requires_grad
    mean = -torch.stack([learner.generator.log_joint(x[i : i + 1], z[i : i + 1])[0] for i in range(5)]).mean()
    torch.testing.assert_close(loss, mean)
    expected = torch.autograd.grad(mean, list(learner.parameters()))
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-5)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)

    decoded = learner.generator.decode(z)
    torch.testing.assert_close(statistics["mse"], ((decoded - x) / 2).square().mean())
    torch.testing.assert_close(statistics["second_moment"], z.square().mean())
    assert statistics["retried"] == statistics["failed"] == 0


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_infer_leaves_the_weights_alone(model: dict[str, Any]) -> None:
    learner = learner_of(**model)
    before = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    first = next(learner.parameters()).requires_grad_(False)  # what a user froze stays frozen
    learner.infer(images(3), rng())
    assert all(parameter.grad is None for parameter in learner.parameters())
    assert [parameter is not first for parameter in learner.parameters()] == [
        parameter.requires_grad for parameter in learner.parameters()
    ]
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.state_dict().items())


class Failing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen: list[bool] = []

    def forward(self, z: Tensor) -> Tensor:
        self.seen.append(self.weight.requires_grad)
        if len(self.seen) == 3:
            raise ZeroDivisionError
        return (z * self.weight)[:, None, None, :]


def test_weights_learn_again_after_an_error_inside() -> None:
    decoder = Failing()
    learner = ShortRun(TopDown(decoder, Gaussian(0.5, learned=True), [2]), steps=5)
    with pytest.raises(ZeroDivisionError):
        learner.infer(torch.zeros(2, 1, 1, 2), rng())
    assert decoder.seen == [False] * 3
    assert all(parameter.requires_grad for parameter in learner.parameters())


def test_infer_repeats_itself_and_takes_what_it_is_told() -> None:
    learner, x = learner_of(), images(4)
    z = learner.infer(x, rng()).z
    assert torch.equal(learner.infer(x, rng()).z, z)
    assert torch.equal(learner.infer(x, rng(), steps=6, noise=True).z, z)
    for other in (
        learner.infer(x, rng(1)),
        learner.infer(x, rng(), steps=5),
        learner.infer(x, rng(), noise=False),
        learner.infer(x, rng(), mask=(torch.rand(4, 1, 4, 4, generator=rng()) > 0.5).float()),
    ):
        assert (other.z - z).abs().max() > 1e-3


def test_parts_of_a_batch_infer_what_the_whole_does() -> None:
    learner, x = learner_of(), images(6)
    parts = [learner.infer(x[2 * i : 2 * i + 2], rng(), part=(i, 3)).z for i in range(3)]
    torch.testing.assert_close(torch.cat(parts), learner.infer(x, rng()).z)


def test_more_steps_explain_the_image_better() -> None:
    learner, x = learner_of(sigma=0.2), images(50)
    fits = [learner.generator.log_joint(x, learner.infer(x, rng(), steps=k).z).mean().item() for k in (1, 5, 40)]
    assert fits == sorted(fits)
    assert fits[2] - fits[0] > 5


def test_test_steps_are_for_inference_and_not_for_learning(tmp_path: Path) -> None:
    plain, longer = learner_of(InferenceConfig(steps=3)), learner_of(InferenceConfig(steps=3, test_steps=9))
    x = images(4)
    assert torch.equal(plain.loss(x, rng())[0], longer.loss(x, rng())[0])
    longer.save_pretrained(tmp_path / "model")
    for learner in (longer, ShortRun.from_pretrained(tmp_path / "model")):
        assert torch.equal(learner.infer(x, rng()).z, plain.infer(x, rng(), steps=9).z)
        assert torch.equal(learner.infer(x, rng(), steps=2).z, plain.infer(x, rng(), steps=2).z)
        assert (learner.conditions()["steps"], learner.conditions()["steps_while_learning"]) == (9, 3)
        assert learner.describe_inference() == "9 steps, with noise"
    assert "3 steps while learning and 9 afterwards, of size" in ShortRun.describe_settings(
        LearnerConfig(SHAPE, inference=InferenceConfig(steps=3, test_steps=9))
    )
    kept = LearnerConfig(SHAPE, inference=InferenceConfig(steps=3, test_steps=9), learner="persistent")
    assert Persistent.from_description(kept).fresh_steps == 9
    kept = dataclasses.replace(kept, persistent=PersistentConfig(fresh_steps=20))
    assert Persistent.from_description(kept).fresh_steps == 20
    with pytest.raises(InputError, match=r"^test_steps: got 0"):
        ShortRun(plain.generator, test_steps=0)


def test_reconstruct_and_sample_are_pictures() -> None:
    learner, x = learner_of(likelihood="bernoulli"), images(3)
    again = learner.reconstruct(x, rng())
    assert torch.equal(again, learner.generator.decode(learner.infer(x, rng()).z).detach())
    drawn = learner.sample(7, rng())
    assert drawn.shape == (7, *SHAPE)
    assert torch.equal(drawn, learner.sample(7, rng()))
    assert drawn.abs().max() <= 1
    assert not drawn.requires_grad


class Linear(nn.Module):
    """x = W z: along direction i the chain multiplies by 1 - s^2 / 2 (1 + w_i^2 / sigma^2) where pixel i is seen."""

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.diag(torch.tensor(weights)))

    def forward(self, z: Tensor) -> Tensor:
        return (z @ self.weight.T)[:, None, None, :]


def stiff(retries: int, factor: float, noise: bool = True) -> ShortRun:
    """A chain of 200 steps that multiplies by `factor` where the image is seen, by nearly 1 where it is masked."""
    s = 0.5
    curvature = (1 - factor) / (s**2 / 2)
    generator = TopDown(Linear([math.sqrt(curvature - 1)] * 2), Gaussian(1.0), [2])
    return ShortRun(generator, steps=200, step_size=s, noise=noise, retries=retries)


SEEN = torch.tensor([1.0, 0.0, 1.0, 0.0])[:, None, None, None].expand(4, 1, 1, 2)


def test_a_step_too_long_for_some_images_is_halved_for_them_alone() -> None:
    x = torch.full((4, 1, 1, 2), 0.5)
    learner = stiff(retries=3, factor=-5.0)  # halved: 1 - 6 / 4 = -0.5, which is stable
    z, failed, retried = learner.infer(x, rng(), mask=SEEN)
    assert retried == 2
    assert not failed.any()
    assert torch.isfinite(z).all()
    # posterior mean w x / (1 + w^2), standard deviation 1 / sqrt(1 + w^2), a little wider at this step
    w = math.sqrt(6 / 0.125 - 1)
    assert (z[[0, 2]] - w * 0.5 / (1 + w**2)).abs().max() < 6 / math.sqrt(1 + w**2)
    unspoiled = learner.infer(x, rng(), mask=torch.zeros_like(SEEN))
    assert unspoiled.retried == 0
    assert torch.equal(z[[1, 3]], unspoiled.z[[1, 3]])


@pytest.mark.parametrize(("retries", "factor", "retried"), [(0, -5.0, 0), (1, -5.0, 2), (1, -15.0, 2), (2, -15.0, 4)])
def test_each_retry_halves_once_more_and_is_counted(retries: int, factor: float, retried: int) -> None:
    """Factor 1 - 16 becomes 1 - 4 and then 1 - 1 as the step is halved; 1 - 6 becomes 1 - 1.5."""
    x = torch.full((4, 1, 1, 2), 0.5)
    inferred = stiff(retries, factor).infer(x, rng(), mask=SEEN)
    recovers = (factor, retries) in ((-5.0, 1), (-15.0, 2))
    assert inferred.retried == retried
    assert inferred.failed.tolist() == ([False] * 4 if recovers else [True, False, True, False])
    assert torch.isfinite(inferred.z).all()


def test_retries_keep_to_what_was_asked() -> None:
    """Without noise and with one mask for all, too: a stable chain without noise ends at the mode."""
    x = torch.full((3, 1, 1, 2), 0.5)
    learner = stiff(1, -5.0, noise=False)
    inferred = learner.infer(x, rng(), mask=torch.tensor([1.0, 0.0])[None, None, None])
    assert inferred.retried == 3
    w = math.sqrt(6 / 0.125 - 1)
    torch.testing.assert_close(inferred.z[:, 0], torch.full((3,), w * 0.5 / (1 + w**2)))


@pytest.mark.parametrize("bad", [math.nan, math.inf, 3e38])
def test_a_bad_image_is_left_out_and_harms_no_other(bad: float) -> None:
    learner, x = learner_of(InferenceConfig(steps=6, retries=2), sigma=0.2), images(5)
    spoiled = x.clone()
    spoiled[3, 0, 1, 2] = bad
    clean, inferred = learner.infer(x, rng()), learner.infer(spoiled, rng())
    others = [0, 1, 2, 4]
    assert inferred.failed.tolist() == [False, False, False, True, False]
    assert inferred.retried == 2
    assert torch.equal(inferred.z[others], clean.z[others])
    assert torch.equal(inferred.z[3], torch.randn(5, 5, generator=rng())[3])  # its start

    loss, statistics = learner.loss(spoiled, rng())
    expected = -learner.generator.log_joint(x[others], clean.z[others]).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss, list(learner.parameters())),
        torch.autograd.grad(expected, list(learner.parameters())),
        rtol=1e-4,
        atol=1e-4,
    )
    assert statistics["failed"] == 1
    assert statistics["retried"] == 2
    assert torch.isfinite(statistics["mse"])
    assert torch.isfinite(statistics["second_moment"])


@pytest.mark.parametrize("blocks", ["dense", "conv"])
def test_a_batch_of_bad_images_teaches_nothing(blocks: str) -> None:
    learner = learner_of(blocks=blocks, parameterization="conditional", learn_sigma=True)
    loss, statistics = learner.loss(torch.full((3, *SHAPE), math.nan), rng())
    assert loss == 0
    gradients = torch.autograd.grad(loss, list(learner.parameters()))
    assert all((gradient == 0).all() for gradient in gradients)
    assert statistics["failed"] == 3
    assert statistics["retried"] == 9


def test_a_chain_that_ends_where_the_density_overflows_has_failed() -> None:
    """8^30 is a float32, its square is none: such a chain is finite, and its loss would not be."""
    x = torch.full((4, 1, 1, 2), 0.5)
    learner = stiff(retries=0, factor=-8.0)
    z, failed, _ = learner.infer(x, rng(), mask=SEEN, steps=30)
    assert failed.tolist() == [True, False, True, False]
    assert z.abs().max() < 10
    assert learner.loss(x, rng())[1]["failed"] == 4


class Fragile(nn.Module):
    """Says NaN for latents that are far out, as an overflow does."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 4)

    def forward(self, z: Tensor) -> Tensor:
        image = torch.tanh(self.linear(z)).masked_fill((z.norm(dim=1) > 1.5)[:, None], math.nan)
        return image[:, None, None, :]


def test_a_decoder_that_says_nan_for_some_images() -> None:
    torch.manual_seed(0)
    learner = ShortRun(TopDown(Fragile(), Gaussian(0.5), [2]), steps=25, step_size=0.5, retries=20)
    x = torch.zeros(200, 1, 1, 4)
    z, failed, retried = learner.infer(x, rng())
    assert retried > 0
    assert not failed.any()
    assert (z.norm(dim=1) <= 1.5).all()
    loss, statistics = learner.loss(x, rng())
    assert statistics["retried"] == retried
    assert all(torch.isfinite(gradient).all() for gradient in torch.autograd.grad(loss, list(learner.parameters())))


def test_a_decoder_of_ones_own() -> None:
    decoder = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Unflatten(1, SHAPE))
    learner = ShortRun.build(SHAPE, ModelConfig(latents=(3,)), decoder=decoder)
    assert learner.generator.decoder is decoder
    assert learner.loss(images(2), rng())[0].requires_grad


def test_build_is_a_function_of_its_seed_and_leaves_torch_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    weights = [next(ShortRun.build(SHAPE, seed=seed).parameters()) for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("model", "inference", "levels", "message"),
    [
        ({"latents": ()}, {}, 256, "model.latents: got none"),
        ({"latents": (), "blocks": "conv"}, {}, 256, "model.latents: got none"),
        ({"sigma": -1.0}, {}, 256, "model.sigma: got -1.0"),
        ({"likelihood": "logistic"}, {}, None, "model.likelihood: logistic needs images of whole numbers"),
        ({"likelihood": "logistic"}, {}, 1, "levels: got 1"),
        ({}, {"steps": 0}, 256, "inference.steps: got 0"),
        ({}, {"step_size": 0.0}, 256, "inference.step_size: got 0.0"),
        ({}, {"step_size": (0.1, 0.2)}, 256, "inference.step_size: got 2 values for 3 layers"),
        ({}, {"step_decay": -1.0}, 256, "inference.step_decay: got -1.0"),
    ],
)
def test_what_cannot_be_built_is_refused(model: dict, inference: dict, levels: int | None, message: str) -> None:
    with pytest.raises(InputError) as caught:
        ShortRun.build(SHAPE, ModelConfig(**model), InferenceConfig(**inference), levels)
    assert str(caught.value).startswith(message)
