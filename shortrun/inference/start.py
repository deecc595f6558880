"""Where chains start by what past chains found: the latents regressed on the image, in closed form."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from shortrun.normals import Flat, chi_square_bound, inverses
from shortrun.sums import Sums, symmetric, with_one

FORGET = 0.9
"""The factor of the sums at each fit: with one in 20 updates they tell of the last 200."""
RIDGE = 1.0
"""Added to the sum of squares of each feature: images that past chains never saw one like count for so much."""
ROUND_OFF = 1e-8
"""At least this share of all sums of squares is added: ten times what float32 leaves below zero of sums of pixels."""
MOST = 1024
"""Pixels, at most, that the latents are regressed on; larger images are pooled."""
FLOOR = 1e-6
"""The least variance of a start."""
FEW = 8
"""Sets of observed pixels in a batch up to which each is solved alone; more of them are solved side by side."""
SIDE_BY_SIDE = 2**24
"""Numbers of the matrices that are solved side by side, at most."""

Pixels = Float[Tensor, "n c h w"]
Features = Float[Tensor, "n p"]


class Starts(NamedTuple):
    """The normal that each image's chain starts from: N(mean, L L^T)."""

    means: Flat
    roots: Float[Tensor, "m d d"]
    """Lower triangular, L, one for each set of observed pixels that occurs."""
    which: Int64[Tensor, "n"]
    """For each image the root that it has."""

    def draw(self, noise: Flat) -> Flat:
        """Return mean + L noise of each image, (n, d)."""
        z = torch.empty_like(self.means)
        with torch.autocast(z.device.type, enabled=False):
            if len(self.roots) == len(z) > FEW:  # each image has its own
                return self.means + (self.roots[self.which] @ noise[..., None])[..., 0]
            for index, root in enumerate(self.roots):
                rows = self.which == index
                z[rows] = self.means[rows] + noise[rows] @ root.T
        return z


class Regression(nn.Module):
    """The start q_0(z | x) = N(B^T phi(x), S): a ridge regression of the ends of past chains on the images.

    Features phi(x) are 1 and the pixels, pooled where there are more than about a thousand. With z the ends of chains,

        A <- 0.9 A + sum phi phi^T;   C <- 0.9 C + sum phi z^T;   Z <- 0.9 Z + sum z z^T;   m <- 0.9 m + n
        B = (A + I)^-1 C;   S = (Z - C^T B) / m

    An image unlike all that were learned from may be sent far from any latent that an image has had. B^T phi is then
    taken back towards the mean of all latents, to where a latent lies once in 10^9 by their covariance.

    Of observed pixels o alone, by the same sums: B_o = (A_oo + I)^-1 C_o and S_o = (Z - C_o^T B_o) / m. Where log p(x,
    z) is quadratic, chains that start from it lead it to the exact posterior, mean and covariance, for any o. That
    stands on sums of whole images. Images that are incomplete while learning are completed by draws x_h ~ p(x_h | z) at
    the end z of their chain: z and x_h are then a draw from p(z, x_h | x_o), and the sums those of whole images again.

    shape: of the images, (c, h, w).
    dim: d, the number of latents.
    most: numbers, at least c, that the latents are regressed on at most.

    >>> rng = torch.Generator().manual_seed(0)
    >>> regression, x = Regression((1, 2, 2), dim=1), torch.randn(500, 1, 2, 2, generator=rng)
    >>> regression.learn(regression.features(x), x.sum((1, 2, 3))[:, None])
    >>> abs(regression.starts(x).means - x.sum((1, 2, 3))[:, None]).max().item() < 0.1
    True

    Source: Li, Turner, Liu, "Approximate Inference with Amortised MCMC", 2017, arXiv 1702.08343, with a network in
    place of the regression.
    """

    weights: Tensor
    root: Tensor
    centre: Tensor
    inverse: Tensor
    fits: Tensor

    def __init__(self, shape: tuple[int, int, int], dim: int, most: int = MOST) -> None:
        super().__init__()
        c, h, w = shape
        self.shape, self.dim = shape, dim
        self.pool = next(side for side in range(1, max(h, w) + 1) if c * -(-h // side) * -(-w // side) <= most)
        p = 1 + c * -(-h // self.pool) * -(-w // self.pool)
        self.sums = Sums(1, p + dim)
        self.register_buffer("weights", torch.zeros(p, dim))
        self.register_buffer("root", torch.eye(dim))
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("inverse", torch.eye(dim))
        self.register_buffer("fits", torch.zeros((), dtype=torch.long))
        self._kept: tuple[tuple[int, int], Tensor] | None = None

    @torch.no_grad()
    def features(self, x: Pixels) -> Features:
        """Return 1 and the pooled pixels of images, (n, p).

        x: (n, c, h, w), the images.
        """
        return with_one(self._pooled(x.float()).flatten(1).to(self.weights.dtype))

    def _pooled(self, x: Pixels) -> Float[Tensor, "n c rows columns"]:
        return x if self.pool == 1 else functional.avg_pool2d(x, self.pool, ceil_mode=True)

    @torch.no_grad()
    def learn(self, features: Features, z: Flat) -> None:
        """Add images and the ends of their chains to the sums, and solve anew.

        features: (n, p), of the images.
        z: (n, d), the ends of their chains, finite.
        """
        if not len(z):
            return
        self.sums.add(torch.cat([features.to(self.weights), z.to(self.weights)], 1), FORGET)
        self.solve()

    @torch.no_grad()
    def solve(self) -> None:
        """Solve for B, S and the spread of all latents by the sums as they are."""
        weights, covariance = self._solve(torch.arange(len(self.weights), device=self.weights.device))
        # laid out as they are when they are loaded, so that products of both are the same to the last bit
        self.weights = weights.to(self.weights).contiguous()
        self.root = root_of(covariance).to(self.root).contiguous()
        total, p = self.sums.total[0].double(), len(self.weights)
        centre, squares = total[0, p:] / total[0, 0], total[p:, p:] / total[0, 0]
        self.centre = centre.to(self.centre).contiguous()
        spread = root_of(symmetric(squares - centre[:, None] * centre))
        self.inverse = inverses(spread[None])[0].to(self.inverse).contiguous()
        self.fits += 1

    def _solve(self, seen: Int64[Tensor, "o"]) -> tuple[Float[Tensor, "o d"], Float[Tensor, "d d"]]:
        """Return B and S of the features that are seen, float64."""
        total, p = self.sums.total[0].double(), len(self.weights)
        products, cross, squares = total[seen[:, None], seen], total[seen][:, p:], total[p:, p:]
        products.diagonal().add_((ROUND_OFF * products.trace()).clamp(min=RIDGE))
        weights = torch.cholesky_solve(cross, torch.linalg.cholesky(symmetric(products)))
        return weights, symmetric(squares - cross.T @ weights) / total[0, 0]

    @torch.no_grad()
    def starts(self, x: Pixels, mask: Float[Tensor, "_ _ h w"] | None = None) -> Starts:
        """Return the normal that the chain of each image starts from.

        x: (n, c, h, w) in [-1, 1], the images; what they have at missing pixels is not looked at.
        mask: (n or 1, c or 1, h, w), 1 = observed; None where all pixels are.
        """
        with torch.autocast(x.device.type, enabled=False):
            if mask is None:
                which = torch.zeros(len(x), dtype=torch.long, device=x.device)
                return Starts(self._near(self.features(x) @ self.weights), self.root[None], which)
            features, seen = self._observed(x, mask)
            sets, which = torch.unique(seen, dim=0, return_inverse=True)
            if len(sets) > FEW:
                return self._of_each(features, seen)
            means, roots = torch.empty(len(x), self.dim).to(self.weights), []
            for index, one in enumerate(sets):
                columns, rows = one.nonzero()[:, 0], which == index
                weights, covariance = self._solve(columns)
                means[rows] = (features[rows][:, columns].double() @ weights).to(means)
                roots.append(root_of(covariance).to(means))
            return Starts(self._near(means), torch.stack(roots), which)

    def _of_each(self, features: Features, seen: Bool[Tensor, "n p"]) -> Starts:
        """Return the starts of images that each have a set of observed features o of their own, the others h.

        Of the two equal ways the one that solves for fewer features is taken:

            B_o^T phi_o = C_o^T Q phi_o,   m S_o = Z - C_o^T Q C_o,   Q = (A_oo + I)^-1
            B_o^T phi_o = B_o^T phi_o - B_h^T P_hh^-1 P_ho phi_o,   m S_o = m S + B_h^T P_hh^-1 B_h,   P = (A + I)^-1

        with B of all features on the right of the second.
        """
        total, p = self.sums.total[0].double(), len(self.weights)
        count = total[0, 0]
        by_hidden = int((~seen).sum(1).max()) < int(seen.sum(1).max())
        known = torch.where(seen, features.double(), 0.0)
        if by_hidden:
            matrix, right = self._inverse_products(), self.weights.double()
            whole = self.root.double() @ self.root.double().T * count
            means, pulls, chosen = known @ right, known @ matrix, ~seen
        else:
            matrix, right, whole = self._products(total, p), total[:p, p:], total[p:, p:]
            means, pulls, chosen = known.new_zeros(len(known), self.dim), -known, seen
        sign, found, roots = (1.0 if by_hidden else -1.0), [], []
        most = int(chosen.sum(1).max())
        for rows in torch.arange(len(known), device=known.device).split(max(1, SIDE_BY_SIDE // max(most, 1) ** 2)):
            half = _halves(
                matrix, torch.cat([right[None].expand(len(rows), -1, -1), pulls[rows, :, None]], 2), chosen[rows]
            )
            latents, pull = half[..., :-1], half[..., -1:]
            found.append(means[rows] - (latents.mT @ pull)[..., 0])
            roots.append(_roots_of((whole + sign * latents.mT @ latents) / count))
        which = torch.arange(len(known), device=known.device)
        return Starts(self._near(torch.cat(found).to(self.weights)), torch.cat(roots).to(self.weights), which)

    def _inverse_products(self) -> Float[Tensor, "p p"]:
        """Return (A + I)^-1, float64, which is kept until the sums change."""
        at = (self.sums.total._version, int(self.fits))
        if self._kept is None or self._kept[0] != at:
            products = self._products(self.sums.total[0].double(), len(self.weights))
            self._kept = at, torch.cholesky_inverse(torch.linalg.cholesky(products))
        return self._kept[1].to(self.weights.device)

    @staticmethod
    def _products(total: Float[Tensor, "q q"], p: int) -> Float[Tensor, "p p"]:
        """Return A + I of all features."""
        products = total[:p, :p].clone()
        products.diagonal().add_((ROUND_OFF * products.trace()).clamp(min=RIDGE))
        return symmetric(products)

    def _near(self, means: Flat) -> Flat:
        """Return means, those that are farther from all latents than any latent is taken back."""
        away, most = means - self.centre, chi_square_bound(self.dim)
        squared = ((away @ self.inverse.T) ** 2).sum(1, keepdim=True)
        # what is not finite stays so
        return torch.where(squared > most, self.centre + (most / squared).sqrt() * away, means)

    def _observed(self, x: Pixels, mask: Tensor) -> tuple[Features, Bool[Tensor, "n p"]]:
        """Return features of observed pixels, and which of them are observed: where half of their pixels are."""
        weight = (mask > 0.5).to(self.weights.dtype).expand(len(x), *self.shape)
        total, share = self._pooled(torch.where(weight > 0, x, 0.0).to(weight)), self._pooled(weight)
        pixels = total / share.clamp(min=1e-6)
        return with_one(pixels.flatten(1)), with_one((share >= 0.5).flatten(1).to(weight)) > 0


def _halves(
    matrix: Float[Tensor, "p p"], right: Float[Tensor, "n p k"], chosen: Bool[Tensor, "n p"]
) -> Float[Tensor, "n c k"]:
    """Return L^-1 right of the chosen rows, with L L^T the chosen rows and columns of a matrix; zeros fill up.

    matrix: (p, p), positive definite.
    right: (n, p, k).
    chosen: (n, p), which rows and columns of each; c is the largest number of them.
    """
    c = int(chosen.sum(1).max())
    index = (~chosen).to(torch.uint8).argsort(dim=1, stable=True)[:, :c]
    there = chosen.gather(1, index)
    parts = torch.where(
        there[:, :, None] & there[:, None, :],
        matrix[index[:, :, None], index[:, None, :]],
        torch.eye(c, dtype=matrix.dtype, device=matrix.device),
    )
    rows = right.gather(1, index[..., None].expand(-1, -1, right.shape[2])) * there[..., None]
    return torch.linalg.solve_triangular(torch.linalg.cholesky(parts), rows, upper=False)


def _roots_of(covariances: Float[Tensor, "n d d"]) -> Float[Tensor, "n d d"]:
    """Return `root_of` of each; those that are positive definite, as nearly all are, at the price of a root alone."""
    roots, failed = torch.linalg.cholesky_ex(symmetric(covariances))
    for row in failed.nonzero()[:, 0].tolist():
        roots[row] = root_of(symmetric(covariances[row]))
    return roots


def root_of(covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """Return the lower triangular root of a covariance whose variances round-off may have left below zero.

    covariance: (d, d), symmetric.
    """
    values, vectors = torch.linalg.eigh(covariance)
    half = vectors * values.clamp(min=FLOOR).sqrt()
    # half half^T is the covariance; the triangle of its transpose's QR has the same product
    upper = torch.linalg.qr(half.mT)[1]
    return (upper * upper.diagonal().sign()[:, None]).mT
