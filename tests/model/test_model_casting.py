"""The weights of matrix products, cast once for a chain, give what autocast gives by casting them at every step."""

import pytest
import torch
from torch import nn

from shortrun import Gaussian, ShortRun, TopDown, conv_decoder, dense_decoder
from shortrun.model.casting import cast_once, cast_weights

CPU = torch.device("cpu")


def test_without_autocast_nothing_is_cast() -> None:
    layer = nn.Linear(2, 3)
    assert cast_weights(layer, CPU) == {}
    assert cast_once(layer, CPU, lambda: layer.weight) is layer.weight


def test_only_matrix_products_are_cast_and_the_weights_come_back_after_an_error() -> None:
    module = nn.Sequential(nn.Linear(2, 4), nn.LayerNorm(4), nn.Conv1d(4, 4, 1))
    before = dict(module.named_parameters())

    def fail() -> None:
        assert (module[0].weight.dtype, module[1].weight.dtype) == (torch.bfloat16, torch.float32)
        raise ValueError

    with torch.autocast("cpu", torch.bfloat16):
        assert cast_weights(module, CPU).keys() == {"0.weight", "0.bias", "2.weight", "2.bias"}
        with pytest.raises(ValueError):  # noqa: PT011  (our own)
            cast_once(module, CPU, fail)
    after = dict(module.named_parameters())
    assert all(after[name] is weight for name, weight in before.items())


def test_dense_chains_end_where_those_of_autocast_end_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = ShortRun(TopDown(dense_decoder((1, 8, 8), (3, 5), width=32), Gaussian(), (3, 5)), steps=4)
    x = torch.rand(6, 1, 8, 8) * 2 - 1

    def ends() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return learner.infer(x, torch.Generator().manual_seed(0)).z

    once = ends()
    monkeypatch.setattr("shortrun.learners.chain.cast_once", lambda module, device, run: run())
    assert torch.equal(once, ends())


def test_scores_of_convolutions_are_as_near_to_float32_as_those_of_autocast() -> None:
    torch.manual_seed(0)
    decoder = conv_decoder((3, 16, 16), (4, 6), width=32, parameterization="conditional")
    generator = TopDown(decoder, Gaussian(), (4, 6)).requires_grad_(False)
    x, z = torch.rand(5, 3, 16, 16) * 2 - 1, torch.randn(5, 10)

    def score() -> torch.Tensor:
        at = z.clone().requires_grad_()
        return torch.autograd.grad(generator.log_joint(x, at).sum(), at)[0]

    exact = score()
    with torch.autocast("cpu", torch.bfloat16):
        plain, once = score(), cast_once(generator, CPU, score)
    errors = [(each - exact).norm() / exact.norm() for each in (plain, once)]
    assert errors[1] < 1.5 * errors[0] < 0.05
