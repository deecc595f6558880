"""The normal that chains on a log density start from, in whose precision they run."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.errors import InputError, check_at_least
from shortrun.inference.initial import Initial
from shortrun.normals import Flat

Numbers = Tensor | np.ndarray | Sequence


@dataclass(frozen=True)
class Start:
    """q(z_0) = N(mean, L L^T): where chains on a log density start, on its device and in its precision.

    Its precision is that of the chains, of their noise and of all that is computed from them.

    mean: (d,).
    root: (d, d), L, lower triangular with a positive diagonal.

    >>> start = Start.standard(3)
    >>> start.dim, start.mean.dtype
    (3, torch.float64)
    """

    mean: Float[Tensor, "d"]
    root: Float[Tensor, "d d"]

    @classmethod
    def standard(cls, dim: int, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> "Start":
        """Return N(0, I).

        dim: d, at least 1.
        dtype: float64 or float32.
        device: where the chains run.

        Raises InputError for a dimension below 1 and for a dtype that is not a floating one.
        """
        check_whole(1, dim=dim)
        if not dtype.is_floating_point:
            raise InputError("dtype", dtype, "write torch.float64 or torch.float32")
        return cls(torch.zeros(dim, dtype=dtype, device=device), torch.eye(dim, dtype=dtype, device=device))

    @classmethod
    def normal(cls, mean: Numbers, covariance: Numbers) -> "Start":
        """Return N(mean, covariance), in the precision of the mean; lists are taken for float64.

        mean: (d,).
        covariance: (d, d), symmetric and positive definite.

        Raises InputError for what is no mean or no covariance.

        >>> Start.normal([0.0, 1.0], [[4.0, 0.0], [0.0, 1.0]]).root.diagonal().tolist()
        [2.0, 1.0]
        """
        centre = floats("mean", mean)
        spread = floats("covariance", covariance).to(centre)
        d = len(centre) if centre.ndim else 0
        if centre.ndim != 1 or not d:
            raise InputError("mean", f"shape {tuple(centre.shape)}", "give one number for each dimension, (d,)")
        if spread.shape != (d, d):
            raise InputError("covariance", f"shape {tuple(spread.shape)} for a mean of {d}", f"give ({d}, {d})")
        if not torch.allclose(spread, spread.mT, rtol=1e-5, atol=1e-8 * float(spread.abs().max())):
            raise InputError("covariance", "a matrix that is not symmetric", "give a covariance")
        root, failed = torch.linalg.cholesky_ex(spread)
        if failed:
            raise InputError("covariance", "a matrix that is not positive definite", "give a covariance of full rank")
        return cls(centre, root)

    @classmethod
    def of_samples(cls, samples: Numbers) -> "Start":
        """Return the normal with the mean and the covariance of samples, of an earlier run for example.

        The density of a start must be known: chains start from draws of that normal and not from the samples.

        samples: (m, d), more than d of them, finite.

        Raises InputError for too few samples, and for samples that vary in fewer than d directions.
        """
        rows = floats("samples", samples)
        if rows.ndim != 2 or len(rows) <= rows.shape[1]:
            raise InputError("samples", f"shape {tuple(rows.shape)}", "give (m, d), more than d samples")
        try:
            return cls.normal(rows.mean(0), rows.mT.cov().reshape(rows.shape[1], rows.shape[1]))
        except InputError:
            raise InputError(
                "samples", problem="they vary in fewer directions than they have", instead="leave out what is constant"
            ) from None

    @property
    def dim(self) -> int:
        """d."""
        return len(self.mean)

    def draw(self, count: int, rng: torch.Generator) -> Flat:
        """Return draws, (n, d).

        count: n.
        rng: gives the random numbers.
        """
        return self.mean + normals(count, self, rng) @ self.root.mT

    def initial(self) -> Initial:
        """Return what estimators have to know of it, float64."""
        zeros = torch.zeros(1, dtype=torch.float64, device=self.mean.device)
        return Initial(self.mean.double()[None], self.root.double()[None], zeros.long(), zeros)


def normals(count: int, start: Start, rng: torch.Generator, *more: int) -> Float[Tensor, "*more n d"]:
    """Return standard normal numbers (*more, n, d) in the precision of a start, on its device."""
    size = (*more, count, start.dim)
    return torch.randn(size, generator=rng, device=rng.device, dtype=start.mean.dtype).to(start.mean.device)


def floats(argument: str, value: Numbers) -> Tensor:
    """Return finite floating-point numbers as a tensor: those of tensors and arrays as they are, others float64."""
    try:
        found = torch.as_tensor(value, dtype=None if isinstance(value, Tensor | np.ndarray) else torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(argument, type(value).__name__, "give a tensor or an array of numbers") from None
    found = found.detach() if found.is_floating_point() else found.double()
    if not torch.isfinite(found).all():
        raise InputError(argument, "numbers that are not finite", "give finite ones")
    return found


def check_whole(least: int, /, **numbers: object) -> None:
    """Raise InputError for the first of the numbers that is not a whole one or smaller than it may be."""
    for name, number in numbers.items():
        if not isinstance(number, int) or isinstance(number, bool):
            raise InputError(name, number, f"write a whole number of at least {least}")
        check_at_least(least, **{name: number})
