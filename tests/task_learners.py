"""Learners that the tests of the tasks share."""

import torch
from torch import Tensor, nn

from shortrun.config import InferenceConfig, ModelConfig
from shortrun.learners import ShortRun
from shortrun.model import Gaussian, Mixture, TopDown
from shortrun.normals import inverses


class Linear(nn.Module):
    """x = W (z_L, ..., z_1): its posterior is known in closed form."""

    def __init__(self, weights: Tensor, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.weights, self.shape = nn.Parameter(weights), shape

    def forward(self, *z: Tensor) -> Tensor:
        return (torch.cat(z, dim=1) @ self.weights.T).unflatten(1, self.shape)


def linear_learner(
    weights: Tensor, shape: tuple[int, int, int], sigma: float, steps: int, step_size: float
) -> ShortRun:
    """Return a learner with a linear generator in two layers."""
    d = weights.shape[1]
    generator = TopDown(Linear(weights, shape), Gaussian(sigma), (1, d - 1))
    return ShortRun(generator, steps, step_size)


def small_learner(parameterization: str = "ladder", image_shape: tuple[int, int, int] = (1, 6, 5)) -> ShortRun:
    """Return an untrained learner with three layers; its output bends, its layers depend on each other."""
    model = ModelConfig(latents=(2, 3, 4), parameterization=parameterization, width=16)  # pyright: ignore[reportArgumentType]
    learner = ShortRun.build(image_shape, model, InferenceConfig(steps=3, step_size=0.1))
    rng = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weights in learner.parameters():
            weights.add_(0.2 * torch.randn(weights.shape, generator=rng))
    return learner.eval()


def mixed_learner() -> tuple[ShortRun, Mixture]:
    """Return the same with three normals of full covariances as its prior, and them."""
    learner, prior, numbers = small_learner(), Mixture(9, 3), rng(6)
    roots = 0.3 * torch.randn(3, 9, 9, generator=numbers).tril(-1)
    roots += torch.diag_embed(0.5 + torch.rand(3, 9, generator=numbers))
    parts = {"means": torch.randn(3, 9, generator=numbers), "roots": roots, "inverse": inverses(roots)}
    prior.load_state_dict(prior.state_dict() | parts | {"log_weights": torch.tensor([0.2, 0.3, 0.5]).log()})
    learner.generator.prior = prior
    return learner, prior


def rng(seed: int = 0) -> torch.Generator:
    """Return a generator."""
    return torch.Generator().manual_seed(seed)


def images(n: int, shape: tuple[int, int, int] = (1, 6, 5), seed: int = 1) -> Tensor:
    """Return noise in [-1, 1] as images."""
    return torch.rand(n, *shape, generator=rng(seed)) * 2 - 1
