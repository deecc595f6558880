import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from shortrun.config import GlowConfig, LearnerConfig
from shortrun.errors import InputError
from shortrun.learners import glow as glow_module
from shortrun.learners.glow import Glow

pytest.importorskip("normflows")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int, *shape: int, seed: int = 2) -> Tensor:
    return torch.randint(17, (n, *shape), generator=rng(seed)) / 8 - 1


def untrained(shape: tuple[int, int, int] = (1, 8, 8), levels: int | None = 17, seed: int = 0, **glow: Any) -> Glow:
    description = LearnerConfig(shape, levels, learner="glow", glow=GlowConfig(**{"flows": 2, "width": 8, **glow}))
    return Glow.from_description(description, seed=seed)


def learner_of(shape: tuple[int, int, int] = (1, 8, 8), levels: int | None = 17, **glow: Any) -> Glow:
    """A flow past its first batch with weights that are no longer those of the start."""
    learner = untrained(shape, levels, **glow)
    learner.loss(images(20, *shape), rng())
    for parameter in learner.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=rng(1))
    return learner


@pytest.mark.parametrize(("shape", "scales"), [((1, 4, 4), 1), ((3, 4, 2 * 2), 1), ((1, 8, 8), 2), ((2, 4, 8), 1)])
def test_log_prob_is_the_change_of_variables(shape: tuple[int, int, int], scales: int) -> None:
    learner = learner_of(shape, scales=scales).double()
    x = images(2, *shape).double() * 0.9
    for image, value in zip(x, learner.log_prob(x), strict=True):
        jacobian = torch.autograd.functional.jacobian(
            lambda flat: learner._density(flat.view(1, *shape))[0][0],
            image.flatten(),
        )
        z = learner.infer(image[None], rng()).z[0]
        expected = torch.distributions.Normal(0, 1).log_prob(z).sum() + torch.linalg.slogdet(jacobian)[1]
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("shape", "scales"), [((1, 8, 8), 1), ((1, 8, 8), 2), ((3, 32, 32), 3), ((1, 28, 28), 2)])
def test_latents_are_exact_and_as_many_as_the_pixels(shape: tuple[int, int, int], scales: int) -> None:
    learner, x = learner_of(shape, scales=scales), images(5, *shape)
    inferred = learner.infer(x, rng())
    assert learner.dim == sum(learner.latents) == math.prod(shape)
    assert inferred.z.shape == (5, learner.dim)
    assert (inferred.retried, inferred.failed.any()) == (0, False)
    assert (learner.decode(inferred.z) - x).abs().max() < 1e-4
    assert (learner.reconstruct(x, rng()) - x).abs().max() < 1e-4
    z = inferred.z + 0.01
    inside = learner.decode(z).flatten(1).abs().amax(1) < 1
    assert (learner.infer(learner.decode(z)[inside], rng()).z - z[inside]).abs().sum() < 1e-2
    assert not inferred.z.requires_grad


def test_weights_without_an_inverse_are_refused_in_one_line() -> None:
    learner = learner_of()
    for name, value in learner.state_dict().items():
        if name.endswith((".W", ".sign_S")):  # of the convolutions that mix channels
            value.zero_()
    with pytest.raises(InputError, match="a flow without an inverse") as caught:
        learner.sample(2, rng())
    assert "\n" not in str(caught.value)


def test_the_coarsest_scale_comes_first() -> None:
    learner, x = learner_of((1, 8, 8), scales=2, flows=1), images(4, 1, 8, 8)
    assert learner.latents == (8 * 2 * 2, 2 * 4 * 4)
    assert learner_of((3, 32, 32), scales=3).latents == (48 * 4 * 4, 12 * 8 * 8, 6 * 16 * 16)
    z = learner.infer(x, rng()).z
    coarse, fine = z.clone(), z.clone()
    coarse[:, 0] += 0.1  # one number of a 2x2 map reaches further than one of a 4x4 map
    fine[:, 32] += 0.1
    reach = [((learner.decode(part) - learner.decode(z)).abs() > 1e-6).float().mean() for part in (coarse, fine)]
    assert reach[0] > reach[1] > 0


def test_the_loss_is_minus_log_prob_of_noisy_images_and_the_bits_follow() -> None:
    learner, x = learner_of(), images(6, 1, 8, 8)
    loss, statistics = learner.loss(x, rng(5))
    noise = (torch.rand(6, 1, 8, 8, generator=rng(5)) - 0.5) * 2 / 16
    torch.testing.assert_close(loss, -learner.log_prob(x + noise).mean())
    bits = (loss.detach() / 64 - math.log(2 / 16)) / math.log(2)
    torch.testing.assert_close(statistics["bits_per_dim"], bits)
    torch.testing.assert_close(statistics["second_moment"], learner.infer(x + noise, rng()).z.square().mean())
    assert all(gradient.abs().sum() > 0 for gradient in torch.autograd.grad(loss, list(learner.parameters())))
    figure = learner.test_figures(x, rng(5))["bits_per_dim"]
    assert figure.value == pytest.approx(float(bits), rel=1e-5)
    assert figure.conditions == {"levels": 17, "noise_draws": 1}
    again = learner.test_figures(x, rng(5), batch_size=2)["bits_per_dim"].value
    assert again == pytest.approx(figure.value, rel=1e-4)


def test_images_of_floats_have_no_bits() -> None:
    learner, x = learner_of(levels=None), images(6, 1, 8, 8)
    loss, statistics = learner.loss(x, rng(5))
    noise = (torch.rand(6, 1, 8, 8, generator=rng(5)) - 0.5) * 2 / 255
    torch.testing.assert_close(loss, -learner.log_prob(x + noise).mean())
    assert statistics.keys() == {"second_moment"}
    assert learner.test_figures(x, rng()) == {}


def test_bits_of_a_flow_that_knows_nothing_are_those_of_its_normal() -> None:
    """With one actnorm that is the identity and no coupling, p(x) = N(x; 0, I): black and white pixels, bins of 2."""
    learner = untrained(levels=2, flows=1)
    for name, parameter in learner.named_parameters():
        if "W" in name:
            parameter.data = torch.eye(len(parameter))
    learner.initialized.fill_(True)
    x = torch.ones(4000, 1, 8, 8)
    inside = torch.distributions.Normal(0, 1).log_prob(torch.linspace(0, 2, 10001)).mean()
    expected = -float(inside + math.log(2)) / math.log(2)
    assert learner.test_figures(x, rng())["bits_per_dim"].value == pytest.approx(expected, rel=2e-3)


def test_parts_of_a_batch_get_the_noise_of_the_whole() -> None:
    learner, x = learner_of(), images(6, 1, 8, 8)
    parts = [learner.loss(x[2 * i : 2 * i + 2], rng(), (i, 3))[0] for i in range(3)]
    torch.testing.assert_close(torch.stack(parts).mean(), learner.loss(x, rng())[0])


def channels_after_the_first_actnorm(learner: Glow, x: Tensor) -> Tensor:
    flow: Any = learner.flow
    squeeze, norm = flow.flows[-1][-1], flow.flows[-1][-2]
    return norm.inverse(squeeze.inverse(x)[0])[0].detach()


def test_the_first_batch_sets_the_actnorms_once() -> None:
    learner, x = untrained(), images(50, 1, 8, 8) * 0.3 + 0.4
    before = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    learner.infer(x, rng())
    learner.sample(3, rng())
    learner.log_prob(x)
    learner.test_figures(x, rng())
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.state_dict().items())

    learner.loss(x, rng(5))
    noisy = x + learner._noise(x, rng(5))
    out = channels_after_the_first_actnorm(learner, noisy)
    assert out.mean((0, 2, 3)).abs().max() < 1e-4
    assert (out.std((0, 2, 3)) - 1).abs().max() < 1e-3
    set_by = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    assert any(not torch.equal(tensor, before[name]) for name, tensor in set_by.items())
    learner.loss(images(50, 1, 8, 8) - 0.5, rng(6))
    assert all(torch.equal(tensor, set_by[name]) for name, tensor in learner.state_dict().items())


def test_several_processes_set_the_actnorms_by_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, x = untrained(), images(6, 1, 8, 8)
    whole.loss(x, rng())
    noisy = x + whole._noise(x, rng())
    given = []
    monkeypatch.setattr(glow_module, "everywhere", lambda part: given.append(part) or noisy)
    for i in range(2):
        one = untrained()
        one.loss(x[3 * i : 3 * i + 3], rng(), (i, 2))
        assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in one.state_dict().items())
    assert torch.equal(torch.cat(given), noisy)


def test_the_actnorms_survive_saving_loading_and_averaging(tmp_path: Path) -> None:
    learner = untrained()
    average = AveragedModel(learner)
    x = images(20, 1, 8, 8)
    learner.loss(x, rng())
    average.update_parameters(learner)
    learner.save_pretrained(tmp_path)
    loaded = Glow.from_pretrained(tmp_path)
    other = images(20, 1, 8, 8, seed=9) * 0.2
    expected = learner.loss(other, rng(1))[0]
    assert torch.equal(loaded.loss(other, rng(1))[0], expected)
    averaged: Any = average.module
    assert torch.equal(averaged.loss(other, rng(1))[0], expected)
    assert loaded.initialized
    # saved before its first batch it is still to be set
    untrained().save_pretrained(tmp_path / "new")
    new = Glow.from_pretrained(tmp_path / "new")
    assert torch.equal(new.loss(x, rng())[0], learner.loss(x, rng())[0])


def test_parameters_lie_in_memory_as_a_checkpoint_has_them() -> None:
    """An optimizer that goes over memory would mix up moments read from a checkpoint with those of another order."""
    assert all(parameter.is_contiguous() for parameter in learner_of((3, 8, 8)).parameters())


def test_half_precision_around_it_changes_nothing() -> None:
    learner, x = learner_of(), images(4, 1, 8, 8)
    expected, z = learner.loss(x, rng())[0], learner.infer(x, rng()).z
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(learner.loss(x, rng())[0], expected)
        assert (learner.decode(z) - x).abs().max() < 1e-4


def test_samples_are_pictures_and_far_latents_do_not_overflow() -> None:
    learner = learner_of()
    for parameter in learner.parameters():
        parameter.data *= 3
    drawn = learner.sample(50, rng())
    assert drawn.shape == (50, 1, 8, 8)
    assert torch.equal(drawn, learner.sample(50, rng()))
    assert not torch.equal(drawn, learner.sample(50, rng(1)))
    far = learner.decode(1e3 * torch.randn(50, 64, generator=rng()))
    assert far.abs().max() == 1


def test_the_weights_follow_from_the_seed_and_torch_is_left_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    weights = [torch.cat([p.detach().flatten() for p in untrained(seed=seed).parameters()]) for seed in (1, 1, 2)]
    learner_of().sample(2, rng())
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("shape", "scales", "message"),
    [
        ((1, 8, 8), 3, "glow.scales: got 3 for images of 8x8; write 1 to 2"),
        ((1, 28, 28), 3, "glow.scales: got 3 for images of 28x28; write 1 to 2"),
        ((3, 32, 32), 5, "glow.scales: got 5 for images of 32x32; write 1 to 4"),
        ((1, 8, 12), 0, "glow.scales: got 0 for images of 8x12; write 1 to 2"),
        ((1, 6, 8), 2, "glow.scales: got 2 for images of 6x8; write 1 to 1"),
        ((1, 7, 8), 1, "learner: glow halves images, and those of 7x8 cannot be; take even sides of at least 4"),
        ((1, 2, 2), 1, "learner: glow halves images, and those of 2x2 cannot be"),
    ],
)
def test_sizes_that_cannot_be_halved_so_often_are_refused(
    shape: tuple[int, int, int], scales: int, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        untrained(shape, scales=scales)
    assert str(caught.value).startswith(message)


def test_what_a_flow_cannot_do_is_refused_in_one_line() -> None:
    learner, x = learner_of(), images(2, 1, 8, 8)
    with pytest.raises(InputError, match=r"^mask: glow cannot .*; use a learner with a generator"):
        learner.infer(x, rng(), mask=torch.ones(1, 1, 8, 8))
    with pytest.raises(InputError, match=r"^steps: glow has no chain"):
        learner.infer(x, rng(), steps=3)
    with pytest.raises(InputError, match=r"^noise: glow has no chain"):
        learner.infer(x, rng(), noise=False)
    description = LearnerConfig((1, 8, 8), 17, learner="glow")
    with pytest.raises(InputError, match=r"^decoder: glow has no decoder"):
        Glow.from_description(description, torch.nn.Identity())
    with pytest.raises(InputError, match=r"^decoder: glow has no decoder"):
        Glow.from_description(LearnerConfig((1, 8, 8), 17, True, learner="glow"))


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "normflows", None)
    with pytest.raises(InputError, match=r"pip install 'shortrun\[glow\]'"):
        untrained()


def test_it_says_that_its_latents_are_exact() -> None:
    learner = learner_of()
    assert learner.conditions() == {"inference": "exact"}
    assert learner.describe_inference() == "exact latents"
