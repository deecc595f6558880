"""Inference and decoding of any number of images, a batch at a time, with progress on a terminal."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from shortrun.errors import check_at_least
from shortrun.learners import Learner
from shortrun.learners.images import check_images, check_pixels, check_weights
from shortrun.learners.learner import Stage
from shortrun.model.likelihood import Images
from shortrun.modes import own_modes, plain
from shortrun.progress import shown

BATCH_SIZE = 100


class Latents(NamedTuple):
    """Latents of images, on the CPU."""

    z: Float[Tensor, "n d"]
    """(n, d), the layers (z_L, ..., z_1) side by side."""
    failed: Bool[Tensor, "n"]
    """True where the chain stayed non-finite: z is then a draw from the prior."""


def infer(
    learner: Learner,
    x: Images,
    rng: torch.Generator,
    *,
    mask: Float[Tensor, "n _ h w"] | None = None,
    steps: int | None = None,
    noise: bool | None = None,
    batch_size: int = BATCH_SIZE,
) -> Latents:
    """Return the latents of images, inferred as the learner does it.

    learner: ready to use.
    x: (n, c, h, w) in [-1, 1], the images.
    rng: gives the random numbers.
    mask: (n, 1 or c, h, w), 1 = observed; None where all pixels are.
    steps: K, at least 1, in place of the learner's; None keeps that.
    noise: in place of what the learner does; None keeps that.
    batch_size: at least 1, images at a time.

    Raises InputError for images of another shape than the model's, for pixels outside of [-1, 1] and for counts below
    1.
    """
    _check(learner, x, batch_size, steps)
    parts = []
    for rows in shown(torch.arange(len(x)).split(batch_size), "inferring"):
        with own_modes():
            part = None if mask is None else plain(mask[rows].to(learner.device))
            inferred = learner.infer(plain(x[rows].to(learner.device)), rng, mask=part, steps=steps, noise=noise)
        parts.append((inferred.z.cpu(), inferred.failed.cpu()))
    return Latents(torch.cat([z for z, _ in parts]), torch.cat([failed for _, failed in parts]))


def watch(
    learner: Learner,
    x: Images,
    rng: torch.Generator,
    every: int,
    *,
    mask: Float[Tensor, "n _ h w"],
    steps: int | None = None,
    noise: bool | None = None,
    batch_size: int = BATCH_SIZE,
) -> Iterator[Stage[Latents]]:
    """Yield the latents of images with missing pixels on their way, all batches side by side.

    The last are those that `infer` returns, where all images are one batch. The numbers of several batches are drawn in
    another order.

    learner: ready to use.
    x: (n, c, h, w) in [-1, 1], the images.
    rng: gives the random numbers.
    every: at least 1, the steps from one stage to the next.
    mask: (n, 1 or c, h, w), 1 = observed.
    steps: K, at least 1, in place of the learner's; None keeps that.
    noise: in place of what the learner does; None keeps that.
    batch_size: at least 1, images at a time.

    Raises InputError as `infer` does.
    """
    _check(learner, x, batch_size, steps)
    check_at_least(1, every=every)
    chains = []
    for rows in torch.arange(len(x)).split(batch_size):
        images, part = (plain(each[rows].to(learner.device)) for each in (x, mask))
        chains.append(learner.watch(images, rng, every, mask=part, steps=steps, noise=noise))
    while True:
        with own_modes():
            stages = [stage for chain in chains if (stage := next(chain, None)) is not None]
        if not stages:
            return
        z, failed = (
            torch.cat(each) for each in zip(*((s.found.z.cpu(), s.found.failed.cpu()) for s in stages), strict=True)
        )
        yield Stage(stages[0].step, stages[0].steps, Latents(z, failed))


def _check(learner: Learner, x: Images, batch_size: int, steps: int | None) -> None:
    """Raise InputError for what cannot be inferred."""
    check_weights(learner)
    check_images(learner.description, x)
    check_pixels(x)
    check_at_least(1, batch_size=batch_size, steps=steps)


def decode(learner: Learner, z: Float[Tensor, "n d"], batch_size: int = BATCH_SIZE) -> Images:
    """Return the images of latents, (n, c, h, w) in [-1, 1], on the CPU.

    learner: ready to use.
    z: (n, d), latents.
    batch_size: at least 1, images at a time.
    """
    check_at_least(1, batch_size=batch_size)
    return torch.cat([learner.decode(part.to(learner.device)).cpu() for part in shown(z.split(batch_size), "decoding")])
