"""A density of latents that was fitted after training, to draw new images from in place of the prior."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from shortrun.errors import InputError
from shortrun.model.prior import choose
from shortrun.normals import Flat, PerImage, full_components, mixture


class GaussianMixture(nn.Module):
    """The fixed density q(z) = sum_k w_k N(z; mu_k, L_k L_k^T): buffers alone, nothing to learn.

    weights: (m,), which sum to 1.
    means: (m, d).
    scale_tril: (m, d, d), lower triangular with a positive diagonal.

    Raises InputError where the shapes do not fit one another.

    >>> mixture = GaussianMixture(torch.tensor([1.0]), torch.zeros(1, 2), torch.eye(2)[None])
    >>> mixture.sample(3, torch.Generator().manual_seed(0)).shape
    torch.Size([3, 2])

    Source: Ghosh et al., "From Variational to Deterministic Autoencoders", ICLR 2020, arXiv 1903.12436.
    """

    weights: Tensor
    means: Tensor
    scale_tril: Tensor

    def __init__(
        self, weights: Float[Tensor, "..."], means: Float[Tensor, "..."], scale_tril: Float[Tensor, "..."]
    ) -> None:
        super().__init__()
        if means.ndim != 2 or weights.shape != means.shape[:1] or scale_tril.shape != (*means.shape, means.shape[1]):
            raise InputError(
                "scale_tril",
                f"{list(scale_tril.shape)} with means {list(means.shape)} and weights {list(weights.shape)}",
                "write (m, d, d), (m, d) and (m,)",
            )
        self.register_buffer("weights", weights)
        self.register_buffer("means", means)
        self.register_buffer("scale_tril", scale_tril)

    @property
    def dim(self) -> int:
        """The number of latents, d."""
        return self.means.shape[1]

    def log_prob(self, z: Flat) -> PerImage:
        """Return log q(z) = logsumexp_k (log w_k + log N(z; mu_k, L_k L_k^T)), (n,).

        z: (n, d), latents.
        """
        return mixture(full_components(z, self.weights.log(), self.means, self.scale_tril))

    @torch.no_grad()
    def sample(self, n: int, rng: torch.Generator) -> Flat:
        """Return draws mu_k + L_k noise, (n, d).

        n: how many.
        rng: gives the random numbers; they come from its device.
        """
        noise = torch.randn(n, self.dim, generator=rng, device=rng.device, dtype=self.means.dtype).to(self.means.device)
        uniform = torch.rand(n, generator=rng, device=rng.device, dtype=self.means.dtype).to(self.means.device)
        chosen = choose(self.weights, uniform)
        z = torch.empty_like(noise)
        # component by component: one matrix for each row would take n d^2 numbers
        for k in chosen.unique().tolist():
            rows = chosen == k
            z[rows] = self.means[k] + noise[rows] @ self.scale_tril[k].T
        return z
