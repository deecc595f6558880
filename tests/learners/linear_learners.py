"""x = W z + noise, 30 pixels of 6 latents: learners whose posterior, with or without missing pixels, is known."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from shortrun.inference import Regression
from shortrun.learners import ShortRun
from shortrun.learners.latent_learner import WINDOW
from shortrun.model import Gaussian, Mixture, TopDown
from shortrun.model.prior import Prior
from shortrun.normals import inverses

SHAPE, LATENTS, DIM = (1, 5, 6), (2, 4), 6
PIXELS = 30


def rng(seed: int = 0) -> torch.Generator:
    """Return a generator."""
    return torch.Generator().manual_seed(seed)


WEIGHT = (
    1.4 * torch.linalg.qr(torch.randn(PIXELS, DIM, generator=rng(8)))[0] @ torch.diag(torch.linspace(0.8, 1.2, DIM))
)


class Linear(nn.Module):
    """x = W z."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(WEIGHT.clone())

    def forward(self, *z: Tensor) -> Tensor:
        return (torch.cat(z, 1) @ self.weight.T).view(-1, *SHAPE)


def linear_learner(
    sigma: float = 1.0,
    prior: Prior | None = None,
    steps: int = 8,
    step_size: float = 0.4,
    candidates: int = 1,
    regressed: bool = True,
) -> ShortRun:
    """Return a learner of the linear generator, its chains from a regression that has learned nothing yet."""
    regression = Regression(SHAPE, DIM) if regressed else None
    generator = TopDown(Linear(), Gaussian(sigma), LATENTS, prior)
    return ShortRun(generator, steps, step_size, candidates=candidates, regression=regression)


def parted(components: int = 3, apart: float = 1.0, seed: int = 4) -> Mixture:
    """Return a mixture of normals with full covariances and unlike weights."""
    numbers, prior = rng(seed), Mixture(DIM, components)
    roots = 0.3 * torch.randn(components, DIM, DIM, generator=numbers).tril(-1)
    roots += torch.diag_embed(0.5 + torch.rand(components, DIM, generator=numbers))
    means = apart * torch.randn(components, DIM, generator=numbers)
    log_weights = torch.log_softmax(torch.arange(components) / 2, 0)
    parts = {"log_weights": log_weights, "means": means, "roots": roots, "inverse": inverses(roots)}
    prior.load_state_dict(prior.state_dict() | parts)
    return prior


@torch.no_grad()
def visited(learner: ShortRun, x: Tensor, fits: int, batch: int = 100, seed: int = 0) -> None:
    """Run as many updates' losses as lead to so many fits, on batches of images in turn."""
    numbers = rng(seed)
    for update in range(fits * WINDOW + 1):
        rows = torch.arange(update * batch, (update + 1) * batch) % len(x)
        learner.loss(x[rows], numbers)


def simulated(z: Tensor, sigma: float, seed: int = 5) -> Tensor:
    """Return images of latents."""
    return (z @ WEIGHT.T + sigma * torch.randn(len(z), PIXELS, generator=rng(seed))).view(-1, *SHAPE)


@dataclass
class Posterior:
    """p(z, c | x_o) of a mixture prior and the linear generator, by closed forms in float64."""

    log_weights: Tensor
    """log p(x_o, c), (n, m)."""
    means: Tensor
    """(n, m, d)."""
    covariances: Tensor
    """(m, d, d)."""
    pulls: Tensor
    """h of log p(x, z, c) = -1/2 z' P z + h' z + ..., (n, m, d)."""
    precisions: Tensor
    """P, (m, d, d)."""


def posterior(x: Tensor, sigma: float, prior: Prior, seen: Tensor | None = None) -> Posterior:
    """Return the posterior of images; seen: which of the 30 pixels are observed."""
    seen = torch.ones(PIXELS, dtype=torch.bool) if seen is None else seen
    log_weights, means, roots, _ = (part.double() for part in prior.parts())
    weight, pixels = WEIGHT.double()[seen], x.flatten(1).double()[:, seen]
    covariance = roots @ roots.mT
    precision = torch.linalg.inv(covariance)
    precisions = precision + weight.T @ weight / sigma**2
    pulls = (precision @ means[..., None])[..., 0] + (pixels @ weight / sigma**2)[:, None]
    spread = torch.linalg.inv(precisions)
    whole = weight @ covariance @ weight.T + sigma**2 * torch.eye(len(weight), dtype=torch.float64)
    evidence = MultivariateNormal(means @ weight.T, whole).log_prob(pixels[:, None])
    return Posterior(log_weights + evidence, (spread @ pulls[..., None])[..., 0], spread, pulls, precisions)
