"""Walks from one image to another through the latents."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from shortrun.errors import InputError
from shortrun.learners import Learner
from shortrun.tasks.batches import BATCH_SIZE, decode, infer


class Interpolation(NamedTuple):
    """Walks between images, on the CPU."""

    images: Float[Tensor, "n columns c h w"]
    """Decoded walks in [-1, 1]; the first and the last of each are the reconstructions of its ends."""
    z: Float[Tensor, "n columns d"]
    """Latents of the walks."""
    failed: Bool[Tensor, "n"]
    """True where the chain of one of the two ends stayed non-finite: that end is then a draw from the prior."""


def slerp(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"], columns: int) -> Float[Tensor, "n columns d"]:
    """Return a walk from a to b along a great circle, at t = 0, 1/(columns-1), ..., 1; both ends are exact.

        z(t) = ((1-t)|a| + t|b|) (sin((1-t) w) a/|a| + sin(t w) b/|b|) / sin(w),   w the angle between a and b

    The norm of z ~ N(0, I) in d dimensions is close to sqrt(d). The middle of a straight line between two draws has a
    norm near sqrt(d/2), where there are next to no draws, and would be decoded to a washed-out image. Here the norm
    goes evenly from |a| to |b|. Where the two point the same way, or exactly apart, the plane of the circle is not
    defined and the straight line is taken.

    a: (n, d), where the walks start.
    b: (n, d), where they end.
    columns: at least 2, points of a walk.

    >>> walk = slerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), columns=3)
    >>> [round(value, 3) for value in walk[0, 1].tolist()]
    [0.707, 0.707]
    """
    t = torch.linspace(0, 1, columns, dtype=a.dtype, device=a.device)[:, None]
    t[-1] = 1
    norm_a, norm_b = a.norm(dim=1)[:, None, None], b.norm(dim=1)[:, None, None]
    a, b = a[:, None], b[:, None]
    cosine = (a * b).sum(2, keepdim=True) / (norm_a * norm_b)
    angle = torch.acos(cosine.clamp(-1, 1))
    norm = (1 - t) * norm_a + t * norm_b
    circle = (norm / norm_a) * torch.sin((1 - t) * angle) / torch.sin(angle) * a
    circle = circle + (norm / norm_b) * torch.sin(t * angle) / torch.sin(angle) * b
    # nan (a zero vector) compares false and takes the line too
    round_trip = (cosine.abs() < 1 - 1e-6) & (norm_a > 0) & (norm_b > 0)
    return torch.where(round_trip, circle, (1 - t) * a + t * b)


def walk(
    learner: Learner, a: Float[Tensor, "n d"], b: Float[Tensor, "n d"], columns: int
) -> Float[Tensor, "n columns d"]:
    """Return walks through latents from a to b, in the units of the prior; both ends are exact.

    learner: whose latents they are.
    a: (n, d), where the walks start.
    b: (n, d), where they end.
    columns: at least 2, points of a walk.
    """
    first, last = learner.frame(a), learner.frame(b)
    if first is None or last is None:
        return slerp(a, b, columns)
    u = slerp(_in_units(a, *first), _in_units(b, *last), columns)
    z = torch.empty_like(u)
    for column, t in enumerate(torch.linspace(0, 1, columns, dtype=a.dtype).tolist()):
        mean, root = (torch.lerp(one, other, t) for one, other in zip(first, last, strict=True))
        z[:, column] = mean + (root @ u[:, column, :, None])[..., 0]
    z[:, 0], z[:, -1] = a, b
    return z


def _in_units(
    z: Float[Tensor, "n d"], mean: Float[Tensor, "n d"], root: Float[Tensor, "n d d"]
) -> Float[Tensor, "n d"]:
    return torch.linalg.solve_triangular(root, (z - mean)[..., None], upper=False)[..., 0]


def interpolate(
    learner: Learner,
    x_from: Float[Tensor, "n c h w"],
    x_to: Float[Tensor, "_ _ _ _"],
    rng: torch.Generator,
    columns: int = 10,
    steps: int | None = None,
    noise: bool | None = None,
    batch_size: int = BATCH_SIZE,
) -> Interpolation:
    """Return walks from images to others: the decoded latents of a great circle (`slerp`) between both ends.

    Where the latents follow another distribution than N(0, I), the walk is one in the units of normals N(mu, L L^T):
    from u_a = L_a^-1 (z_a - mu_a) to u_b along a great circle, with mu and L going evenly from the one end's to the
    other's. They are the component of a mixture prior that the end most likely is of, or the mean and the covariance of
    the density that was fitted to the latents of a learner without a prior.

    learner: ready to use, as `load` returns it.
    x_from: (n, c, h, w) in [-1, 1], where the walks start.
    x_to: (n, c, h, w) in [-1, 1], where they end.
    rng: gives the random numbers.
    columns: at least 2, images of a walk, both ends included.
    steps: K, at least 1, in place of the learner's; None keeps that.
    noise: False for plain gradient ascent, in place of what the learner does; None keeps that.
    batch_size: at least 1, images at a time.

    Raises InputError for ends that differ in number, for images of another shape than the model's and for counts out of
    range.

    >>> from shortrun import ModelConfig, ShortRun
    >>> learner = ShortRun.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8))
    >>> x, rng = torch.zeros(2, 1, 4, 4), torch.Generator().manual_seed(0)
    >>> interpolate(learner, x - 1, x + 1, rng, columns=5).images.shape
    torch.Size([2, 5, 1, 4, 4])
    """
    if columns < 2:
        raise InputError("columns", columns, "write a whole number of at least 2: the ends are two of them")
    if len(x_from) != len(x_to):
        raise InputError("x_to", f"{len(x_to)} images to walk to from {len(x_from)}", "give as many of both")
    starts = infer(learner, x_from, rng, steps=steps, noise=noise, batch_size=batch_size)
    ends = infer(learner, x_to, rng, steps=steps, noise=noise, batch_size=batch_size)
    z = walk(learner, starts.z, ends.z, columns)
    images = decode(learner, z.flatten(0, 1), batch_size).unflatten(0, (len(z), columns))
    return Interpolation(images, z, starts.failed | ends.failed)
