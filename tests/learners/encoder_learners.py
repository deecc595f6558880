"""Learners with an encoder that their tests share."""

from typing import Any

import torch
from torch import Tensor, nn

from shortrun.config import EncoderConfig, ModelConfig
from shortrun.learners import EncoderLearner, LadderVae, Vae, Vlae
from shortrun.normals import inverses

SHAPE = (1, 5, 4)
KINDS: dict[str, tuple[type[EncoderLearner], dict[str, Any]]] = {
    "vae": (Vae, {}),
    "vae, conditional": (Vae, {"parameterization": "conditional", "blocks": "conv", "likelihood": "bernoulli"}),
    "vlae": (Vlae, {"blocks": "conv", "learn_sigma": True}),
    "vlae, one layer": (Vlae, {"latents": (4,), "likelihood": "logistic"}),
    "ladder_vae": (LadderVae, {"parameterization": "conditional", "learn_sigma": True}),
    "ladder_vae, conv": (LadderVae, {"parameterization": "conditional", "blocks": "conv", "latents": (1, 2, 3, 2, 2)}),
    "ladder_vae, strict": (LadderVae, {"parameterization": "conditional", "skip": False, "likelihood": "bernoulli"}),
}


def rng(seed: int = 0) -> torch.Generator:
    """Return a generator."""
    return torch.Generator().manual_seed(seed)


def shaken(learner: EncoderLearner, by: float = 0.15) -> EncoderLearner:
    """Move all weights, those that start at zero too."""
    numbers = rng(1)
    for parameter in learner.parameters():
        parameter.data += by * torch.randn(parameter.shape, generator=numbers)
    return learner


def learner_of(kind: str, seed: int = 0, encoder: EncoderConfig | None = None, **more: Any) -> EncoderLearner:
    """A small learner whose weights are no longer those of the start."""
    make, model = KINDS[kind]
    config = ModelConfig(**{"latents": (2, 3), "width": 8, **model, **more})
    return shaken(make.build(SHAPE, config, encoder, levels=2, seed=seed))


def mixed_learner_of(kind: str) -> EncoderLearner:
    """The same with a mixture as its prior, which is not N(0, I): parted, of unlike weights and full covariances."""
    learner, numbers = learner_of(kind, prior="mixture", components=3), rng(6)
    prior, d = learner.generator.prior, learner.dim
    roots = 0.3 * torch.randn(3, d, d, generator=numbers).tril(-1) + torch.diag_embed(
        torch.rand(3, d, generator=numbers) + 0.5
    )
    parts = {"means": torch.randn(3, d, generator=numbers), "roots": roots, "inverse": inverses(roots)}
    prior.load_state_dict(prior.state_dict() | parts | {"log_weights": torch.tensor([0.2, 0.3, 0.5]).log()})
    return learner


def images(n: int, seed: int = 2) -> Tensor:
    """Black and white noise."""
    return torch.randint(2, (n, *SHAPE), generator=rng(seed)).float() * 2 - 1


class Own(nn.Module):
    """A user's decoder."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            self.linear = nn.Linear(5, 20)

    def forward(self, *z: Tensor) -> Tensor:
        return torch.tanh(self.linear(torch.cat(z, dim=1))).unflatten(1, SHAPE)
