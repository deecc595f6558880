"""Densities of normals and their mixtures against torch.distributions, in float64."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal

from shortrun.normals import full_components, inverses, log_heights, mixture, standard_normal

N, M, D = 7, 3, 4


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


Z, MEANS, LOG_WEIGHTS = normal(N, D), normal(M, D, seed=1), torch.log_softmax(normal(M, seed=2), 0)
ROOTS = 0.5 * normal(M, D, D, seed=4).tril(-1) + torch.diag_embed(normal(M, D, seed=3).exp())


def test_the_standard_normal() -> None:
    torch.testing.assert_close(standard_normal(Z), Normal(0.0, 1.0).log_prob(Z).sum(1))


@pytest.mark.parametrize("known", [False, True], ids=["solved", "inverse known"])
def test_components_and_mixture_of_normals_with_full_covariances(known: bool) -> None:
    each = MultivariateNormal(MEANS, scale_tril=ROOTS)
    components = full_components(Z, LOG_WEIGHTS, MEANS, ROOTS, inverses(ROOTS) if known else None)
    torch.testing.assert_close(components, LOG_WEIGHTS + each.log_prob(Z[:, None]))
    torch.testing.assert_close(
        mixture(components), MixtureSameFamily(Categorical(logits=LOG_WEIGHTS), each).log_prob(Z)
    )


def test_heights_are_the_densities_at_the_means() -> None:
    torch.testing.assert_close(log_heights(ROOTS), MultivariateNormal(MEANS, scale_tril=ROOTS).log_prob(MEANS))


def test_inverses_undo_the_roots() -> None:
    found = inverses(ROOTS)
    torch.testing.assert_close(found @ ROOTS, torch.eye(D, dtype=torch.float64).expand(M, D, D))
    assert torch.equal(found, found.tril())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_numbers_keep_their_precision(dtype: torch.dtype) -> None:
    z, log_weights, means, roots = (part.to(dtype) for part in (Z, LOG_WEIGHTS, MEANS, ROOTS))
    assert full_components(z, log_weights, means, roots).dtype == dtype
    assert full_components(z, log_weights, means, roots, inverses(roots)).dtype == dtype
