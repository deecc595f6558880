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

    @torch.no_grad()
    def spread(self) -> tuple[Float[Tensor, "d"], Float[Tensor, "d d"]]:
        """Return the mean of q(z) and the lower triangular root of its covariance.

        mean = sum_k w_k mu_k,   covariance = sum_k w_k (L_k L_k^T + (mu_k - mean) (mu_k - mean)^T)
        """
        weights, means, scale_tril = (part.double() for part in (self.weights, self.means, self.scale_tril))
        mean = weights @ means
        away = means - mean
        covariance = (weights[:, None, None] * scale_tril @ scale_tril.mT).sum(0) + (weights[:, None] * away).T @ away
        return mean.to(self.means), torch.linalg.cholesky(covariance).to(self.means)

    @torch.no_grad()
    def redraw(self, z: Flat, first: int, last: int, rng: torch.Generator) -> Flat:
        """Return latents with z_v, those from `first` to `last` - 1, drawn anew given the others z_o, (n, d).

            z_v | z_o, k ~ N(mu_v + C_vo C_oo^-1 (z_o - mu_o), C_vv - C_vo C_oo^-1 C_ov),   k ~ p(k | z_o)

        with mu and C = L L^T those of component k.

        z: (n, d), latents.
        first: 0 to d - 1.
        last: first + 1 to d.
        rng: gives the random numbers; they come from its device.
        """
        noise = torch.randn(len(z), last - first, generator=rng, device=rng.device, dtype=torch.float64).to(z.device)
        uniform = torch.rand(len(z), 1, generator=rng, device=rng.device, dtype=torch.float64).to(z.device)
        weights, means, scale_tril = (part.double() for part in (self.weights, self.means, self.scale_tril))
        covariance = scale_tril @ scale_tril.mT
        varied = torch.arange(first, last, device=z.device)
        others = torch.cat([torch.arange(first, device=z.device), torch.arange(last, self.dim, device=z.device)])
        given = z.double()[:, others]
        roots = torch.linalg.cholesky(covariance[:, others[:, None], others])
        shares = torch.softmax(full_components(given, weights.log(), means[:, others], roots), 1).cumsum(1)
        chosen = torch.searchsorted(shares, uniform, right=True)[:, 0].clamp(max=len(weights) - 1)
        redrawn = z.clone()
        for k in chosen.unique().tolist():
            rows, across = chosen == k, covariance[k][others[:, None], varied]
            gain = torch.cholesky_solve(across, roots[k])
            left = torch.linalg.cholesky(covariance[k][varied[:, None], varied] - across.T @ gain)
            mean = means[k, varied] + (given[rows] - means[k, others]) @ gain
            redrawn[rows, first:last] = (mean + noise[rows] @ left.T).to(z)
        return redrawn
