"""Two latents and a network: the posterior is known by summing over a fine grid."""

from typing import Any

import pytest
import torch
from torch import Tensor

from shortrun.inference import DrawnNoise, short_run
from shortrun.model import Gaussian, TopDown, dense_decoder


def problem(parameterization: Any) -> tuple[TopDown, Tensor]:
    torch.manual_seed(3)
    decoder = dense_decoder((1, 2, 3), (1, 1), parameterization=parameterization, width=8)
    for parameter in decoder.parameters():
        parameter.data.normal_(std=0.5)
    generator = TopDown(decoder, Gaussian(0.2), (1, 1)).double()
    return generator, generator.decode(torch.tensor([[0.9, -0.7]]).double()).detach()


def log_density(generator: TopDown, x: Tensor, z: Tensor) -> Tensor:
    return generator.log_joint(x.expand(len(z), -1, -1, -1), z)


def statistics(z: Tensor, log_joint: Tensor, weight: Tensor) -> Tensor:
    """E[z], E[z z'] and E[log p(x, z)], for rows with weights."""
    second = (z[:, :, None] * z[:, None, :]).flatten(1)
    return (weight[:, None] * torch.cat([z, second, log_joint[:, None]], dim=1)).sum(0) / weight.sum()


def exact(generator: TopDown, x: Tensor) -> Tensor:
    axis = torch.linspace(-5.5, 5.5, 221, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        log_joint = log_density(generator, x, z)
    return statistics(z, log_joint, (log_joint - log_joint.max()).exp())


def of_chain(generator: TopDown, x: Tensor, steps: int, s: float | Tensor, rows: int = 6000) -> Tensor:
    noise = DrawnNoise(torch.Generator().manual_seed(0), steps, (rows, 2))
    with torch.no_grad():
        z = short_run(lambda z: log_density(generator, x, z), noise.draw().double(), s, noise)
        return statistics(z, log_density(generator, x, z), torch.ones(rows).double())


@pytest.mark.parametrize("parameterization", ["ladder", "conditional"])
def test_a_long_chain_samples_the_posterior(parameterization: str) -> None:
    generator, x = problem(parameterization)
    true = exact(generator, x)
    s = torch.cat([torch.full((150, 1, 1), 0.25), torch.full((150, 1, 1), 0.07)]).double()
    gap = (of_chain(generator, x, 300, s) - true).abs()
    assert gap.max() < 0.08


@pytest.mark.parametrize("parameterization", ["ladder", "conditional"])
def test_more_steps_with_a_good_size_come_closer(parameterization: str) -> None:
    generator, x = problem(parameterization)
    true = exact(generator, x)
    grid = (0.05, 0.1, 0.2, 0.3, 0.4)
    single = min((of_chain(generator, x, 1, s) - true).abs().max() for s in grid)
    tuned = min((of_chain(generator, x, 25, s) - true).abs().max() for s in grid)
    assert tuned < single / 10
