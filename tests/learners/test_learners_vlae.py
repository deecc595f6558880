import pytest
import torch
from encoder_learners import images, learner_of, rng
from torch.distributions import Normal, kl_divergence

from shortrun.config import ModelConfig
from shortrun.errors import InputError
from shortrun.learners import Vlae


@pytest.mark.parametrize("blocks", ["dense", "conv"])
def test_layers_are_independent_normals_of_their_own_heads(blocks: str) -> None:
    learner, x = learner_of("vlae", blocks=blocks, latents=(2, 1, 3)), images(4)
    with torch.no_grad():
        parts = learner.encoder(x)
        noise = torch.randn(4, 6, generator=rng())
        z, log_q, kl, decoded = learner.draw(x, noise)
    assert [part.mu.shape[1] for part in parts] == [2, 1, 3]
    layers = [Normal(part.mu, part.log_sigma.exp()) for part in parts]
    split = z.split((2, 1, 3), dim=1)
    torch.testing.assert_close(log_q, sum(q.log_prob(part).sum(1) for q, part in zip(layers, split, strict=True)))
    for i, q in enumerate(layers):
        prior = Normal(torch.zeros_like(q.mean), torch.ones_like(q.mean))
        torch.testing.assert_close(kl[:, i], kl_divergence(q, prior).sum(1))
    torch.testing.assert_close(decoded, learner.generator.decode(z).detach())
    changed = noise.clone()
    changed[:, :2] += 1  # of the top layer alone
    again = learner.draw(x, changed).z
    torch.testing.assert_close(again[:, 2:], z[:, 2:])
    assert (again[:, :2] - z[:, :2]).abs().min() > 1e-3


@pytest.mark.parametrize("blocks", ["dense", "conv"])
def test_a_layer_is_read_at_its_own_depth(blocks: str) -> None:
    """z_1 leaves the network after the first block, z_L after the last."""
    learner, x = learner_of("vlae", blocks=blocks, latents=(2, 1, 3)), images(4)
    before = learner.encoder(x)
    for depth, untouched in ((2, (1, 2)), (1, (2,)), (0, ())):
        for parameter in learner.encoder.body[depth].parameters():  # pyright: ignore
            parameter.data += 0.3
        after = learner.encoder(x)
        same = [torch.equal(one.mu, other.mu) for one, other in zip(before, after, strict=True)]
        assert same == [layer in untouched for layer in range(3)]
        before = after


def test_the_conditional_parameterization_is_refused() -> None:
    with pytest.raises(InputError, match=r"^model.parameterization: got 'conditional', but vlae is for ladder; "):
        Vlae.build((1, 8, 8), ModelConfig(parameterization="conditional"))
