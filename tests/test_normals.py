"""Densities of normals and their mixtures against torch.distributions, in float64."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal

from shortrun.normals import diagonal_components, full_components, mixture, standard_normal

N, M, D = 7, 3, 4


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


Z, MEANS, LOG_WEIGHTS = normal(N, D), normal(M, D, seed=1), torch.log_softmax(normal(M, seed=2), 0)
SCALES = normal(M, D, seed=3).exp()
TRIL = 0.5 * normal(M, D, D, seed=4).tril(-1) + torch.diag_embed(SCALES)


def test_the_standard_normal() -> None:
    torch.testing.assert_close(standard_normal(Z), Normal(0.0, 1.0).log_prob(Z).sum(1))


def test_components_and_mixture_of_diagonal_normals() -> None:
    each = Independent(Normal(MEANS, SCALES), 1)
    components = diagonal_components(Z, LOG_WEIGHTS, MEANS, SCALES)
    torch.testing.assert_close(components, LOG_WEIGHTS + each.log_prob(Z[:, None]))
    torch.testing.assert_close(
        mixture(components), MixtureSameFamily(Categorical(logits=LOG_WEIGHTS), each).log_prob(Z)
    )


def test_components_and_mixture_of_normals_with_full_covariances() -> None:
    each = MultivariateNormal(MEANS, scale_tril=TRIL)
    components = full_components(Z, LOG_WEIGHTS, MEANS, TRIL)
    torch.testing.assert_close(components, LOG_WEIGHTS + each.log_prob(Z[:, None]))
    torch.testing.assert_close(
        mixture(components), MixtureSameFamily(Categorical(logits=LOG_WEIGHTS), each).log_prob(Z)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_numbers_keep_their_precision(dtype: torch.dtype) -> None:
    z, log_weights, means, scales, tril = (part.to(dtype) for part in (Z, LOG_WEIGHTS, MEANS, SCALES, TRIL))
    assert diagonal_components(z, log_weights, means, scales).dtype == dtype
    assert full_components(z, log_weights, means, tril).dtype == dtype
