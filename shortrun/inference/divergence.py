"""Estimators of KL(q_s(z | x) || p(z | x)), the distance of a short run from its target, up to log p(x).

    KL(q_s || p(. | x)) - log p(x) = E[log q_s(z_K) - log p(x, z_K)],   z_K the end of the chain

log q_s(z_K) is an integral over all noise; the estimators differ in what they put in its place. Each returns one number
for each image from one chain, differentiable in the step sizes; log p(x), which does not depend on them, is left out.
A_k = I + diag(s_k^2 / 2) H_k is the Jacobian of step k, see jacobian.py.
"""

import math
from abc import abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.errors import InputError, did_you_mean
from shortrun.inference.initial import Initial
from shortrun.inference.jacobian import Linearized, Step, steps_of
from shortrun.inference.langevin import ChainNoise, LogDensity, StepSizes
from shortrun.normals import Flat, PerImage, chi_square_bound

Roots = Float[Tensor, "n d d"]


class Estimate(NamedTuple):
    """What an estimator says of each image's chain."""

    z: Flat
    """z_K, the end of the chain."""
    log_q: PerImage
    """The estimator's stand-in for log q_s(z_K), float64."""
    kl: PerImage
    """log_q - log p(x, z_K), float64: its mean estimates KL(q_s || p(. | x)) - log p(x)."""


class ChainDensity:
    """Follows a chain and says at its end what log q_s(z_K) is; `needs_noise`: meaningless for a chain without."""

    needs_noise = False

    @abstractmethod
    def start(self, z: Flat, initial: Initial) -> None:
        """Take in where the chain starts, z_0, and the density that it was drawn from."""

    @abstractmethod
    def follow(self, step: Step) -> None:
        """See a step of the chain, one after the other."""

    @abstractmethod
    def log_q(self, end: Linearized) -> PerImage:
        """Return log q_s(z_K), given the end of the chain."""


class Conditional(ChainDensity):
    """log q = log q(z_0) - sum_k log |det A_k|; see `conditional`."""

    def start(self, z: Flat, initial: Initial) -> None:
        """Take in where the chain starts, z_0, and the density that it was drawn from."""
        self.value = initial.log_prob(z)

    def follow(self, step: Step) -> None:
        """See a step of the chain."""
        self.value = self.value - torch.linalg.slogdet(step.jacobian)[1]

    def log_q(self, end: Linearized) -> PerImage:
        """Return log q_s(z_K)."""
        return self.value


class Marginal(ChainDensity):
    """log q = log N(delta_K; 0, Sigma_K); see `marginal`."""

    needs_noise = True

    def start(self, z: Flat, initial: Initial) -> None:
        """Take in where the chain starts, z_0, and the density that it was drawn from."""
        self.tilt = initial.tilt
        # delta = root^T white. Kept white, |white| never exceeds the noise's: delta's round-off, solved for, would
        self.white = initial.whitened(z)
        # the rows of a square root: Sigma = root^T root. Sigma itself loses its definiteness when a step overshoots
        self.root = initial.each_root().mT.expand(len(z), -1, -1)

    def follow(self, step: Step) -> None:
        """See a step of the chain."""
        fresh = torch.diag_embed(step.step_size.double()).expand_as(self.root)
        drawn = step.noise.double()
        self.root, self.white = _joined((self.root @ step.jacobian.mT, self.white), (fresh, drawn))

    def log_q(self, end: Linearized) -> PerImage:
        """Return log q_s(z_K)."""
        d = self.white.shape[1]
        log_det = 2 * self.root.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
        squared = (self.white**2).sum(1).clamp(max=chi_square_bound(d))
        return self.tilt - 0.5 * (log_det + squared + d * math.log(2 * math.pi))


def _joined(one: tuple[Roots, Flat], other: tuple[Roots, Flat]) -> tuple[Roots, Flat]:
    """Return root and white of the sum of two independent normal variables from theirs."""
    (root, white), (fresh, drawn) = one, other
    rotation, root = torch.linalg.qr(torch.cat([root, fresh], dim=1))
    return root, (rotation.mT @ torch.cat([white, drawn], dim=1)[..., None])[..., 0]


class Path(ChainDensity):
    """log q = log q(z_0, .., z_K) - log r(z_0, .., z_{K-1} | z_K); see `path`."""

    needs_noise = True

    def start(self, z: Flat, initial: Initial) -> None:
        """Take in where the chain starts, z_0, and the density that it was drawn from."""
        self.value, self.last = initial.log_prob(z), None

    def follow(self, step: Step) -> None:
        """See a step of the chain."""
        self._reverse(step)
        self.value = self.value - 0.5 * (step.noise.double() ** 2).sum(1)
        self.last = step

    def log_q(self, end: Linearized) -> PerImage:
        """Return log q_s(z_K)."""
        self._reverse(end)
        return self.value

    def _reverse(self, at: Linearized) -> None:
        # the constants and log s of forward and reverse kernel cancel
        if self.last is not None:
            s = self.last.step_size.double()
            back = (self.last.z - at.z).double() / s - 0.5 * s * at.score.double()
            self.value = self.value + 0.5 * (back**2).sum(1)


ESTIMATORS: dict[str, type[ChainDensity]] = {"conditional": Conditional, "marginal": Marginal, "path": Path}


def follow(
    densities: list[ChainDensity],
    log_density: LogDensity,
    z: Flat,
    step_size: StepSizes,
    noise: ChainNoise,
    initial: Initial | None = None,
) -> list[Estimate]:
    """Return what several estimators say of one and the same chain, whose Hessians they share.

    densities: the estimators, new ones.
    log_density: (n, d) -> (n,), one value for each row from that row alone.
    z: (n, d), where the chains start.
    step_size: as in `short_run`.
    noise: (K, n, d), as in `short_run`.
    initial: the density of z_0; N(0, I) where not given.

    Raises InputError for a chain without steps.
    """
    if not len(noise):
        raise InputError("noise", "none", "a chain takes at least one step, (K, n, d)")
    initial = Initial.normal(z) if initial is None else initial
    for density in densities:
        density.start(z, initial)
    for step in steps_of(log_density, z, step_size, noise):
        for density in densities:
            density.follow(step)
        z = step.end
    end = Linearized(log_density, z)
    joint = log_density(z).double()
    return [Estimate(z, log_q, log_q - joint) for log_q in (density.log_q(end) for density in densities)]


def conditional(
    log_density: LogDensity, z: Flat, step_size: StepSizes, noise: ChainNoise, initial: Initial | None = None
) -> Estimate:
    """Return the divergence with the noise held fixed, by the change of variables from z_0 (the paper's estimator).

        log q = log q(z_0) - sum_k log |det A_k|,   q(z_0) = N(z_0; 0, I) where `initial` says nothing else

    Its mean is an upper bound of KL(q_s || p(. | x)) - log p(x): KL is convex, and q_s is the average over the noise of
    the densities that it takes. Without noise (`no_noise`) it is exact. Both hold as long as no two z_0 end at the same
    z_K: always where s^2 lambda < 2 for all curvatures lambda on the way, or where log p(x, z) is quadratic. Longer
    steps may fold the space, and then the mean can fall below. At an exact zero of det A_k, which has probability zero,
    it is infinite. It is differentiable in step_size. It costs d Hessian-vector products a step.

    log_density: (n, d) -> (n,), log p(x, z), one value for each row from that row alone.
    z: (n, d), z_0, where the chains start.
    step_size: as in `short_run`.
    noise: (K, n, d), as in `short_run`.
    initial: the density of z_0; N(0, I) where not given.

    Raises InputError for a chain without steps.

    >>> z, rng = torch.zeros(4, 2), torch.Generator().manual_seed(0)
    >>> found = conditional(lambda z: -(z**2).sum(1) / 2, z, 0.5, torch.randn(3, 4, 2, generator=rng))
    >>> found.z.shape, found.kl.shape
    (torch.Size([4, 2]), torch.Size([4]))

    Source: Nijkamp et al., ECCV 2020, arXiv 1912.01909.
    """
    return follow([Conditional()], log_density, z, step_size, noise, initial)[0]


def marginal(
    log_density: LogDensity, z: Flat, step_size: StepSizes, noise: ChainNoise, initial: Initial | None = None
) -> Estimate:
    """Return the divergence with the noise averaged out in the linearization around the path.

        delta_0 = z_0,  delta_{k+1} = A_k delta_k + s_k noise_k
        Sigma_0 = I,    Sigma_{k+1} = A_k Sigma_k A_k^T + s_k^2 I
        log q = log N(delta_K; 0, Sigma_K)

    From another normal, `initial`, delta_0 = z_0 - mean and Sigma_0 = L L^T. It is exact, sample by sample, where log
    p(x, z) is quadratic in z and the tilt of the start is the same everywhere; elsewhere it bounds the KL from neither
    side. It is never above
    `conditional` on average where it is exact. Where steps overshoot (s^2 lambda > 4) the linearization is wider than
    q_s, and the mean can be far below the KL; of the three, `path` alone bounds it then.

    Sigma is kept as a square root, by QR in float64, and delta in its coordinates, so that no overshoot loses digits.
    delta^T Sigma^-1 delta, a chi-square variable where the linearization holds, is cut where such a one goes less than
    once in 10^9. It costs what `conditional` does, and a QR decomposition of (2d, d) for each image and step.

    log_density: (n, d) -> (n,), log p(x, z), one value for each row from that row alone.
    z: (n, d), z_0, where the chains start.
    step_size: as in `short_run`.
    noise: (K, n, d), as in `short_run`; it must be standard normal, not zero.
    initial: the density of z_0; N(0, I) where not given.

    Raises InputError for a chain without steps.

    >>> z, rng = torch.zeros(4, 2), torch.Generator().manual_seed(0)
    >>> found = marginal(lambda z: -(z**2).sum(1) / 2, z, 0.5, torch.randn(3, 4, 2, generator=rng))
    >>> found.z.shape, found.kl.shape
    (torch.Size([4, 2]), torch.Size([4]))
    """
    return follow([Marginal()], log_density, z, step_size, noise, initial)[0]


def path(
    log_density: LogDensity, z: Flat, step_size: StepSizes, noise: ChainNoise, initial: Initial | None = None
) -> Estimate:
    """Return the divergence of whole paths, with reversed Langevin kernels as the guess of the way back.

        log q = log q(z_0) + sum_k log N(z_{k+1}; z_k + (s_k^2 / 2) g_k, s_k^2)
                                 - sum_k log N(z_k; z_{k+1} + (s_k^2 / 2) g_{k+1}, s_k^2)

    Its mean is an upper bound of KL(q_s || p(. | x)) - log p(x), loose, as KL of paths is never below KL of their ends.
    It takes no Hessian: one gradient a step.

    log_density: (n, d) -> (n,), log p(x, z), one value for each row from that row alone.
    z: (n, d), z_0, where the chains start.
    step_size: as in `short_run`.
    noise: (K, n, d), as in `short_run`; it must be standard normal, not zero.
    initial: the density of z_0; N(0, I) where not given.

    Raises InputError for a chain without steps.

    >>> z, rng = torch.zeros(4, 2), torch.Generator().manual_seed(0)
    >>> found = path(lambda z: -(z**2).sum(1) / 2, z, 0.5, torch.randn(3, 4, 2, generator=rng))
    >>> found.z.shape, found.kl.shape
    (torch.Size([4, 2]), torch.Size([4]))

    Source: Thin et al., "Monte Carlo Variational Auto-Encoders", 2021, arXiv 2106.15921; Doucet et al., "Score-Based
    Diffusion meets Annealed Importance Sampling", 2022, arXiv 2208.07698.
    """
    return follow([Path()], log_density, z, step_size, noise, initial)[0]


def named(estimator: str) -> type[ChainDensity]:
    """Return the estimator of a name; raise InputError where there is none."""
    if estimator not in ESTIMATORS:
        raise InputError("estimator", repr(estimator), did_you_mean(estimator, ESTIMATORS))
    return ESTIMATORS[estimator]
