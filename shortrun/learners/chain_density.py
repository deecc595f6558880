"""What chains climb, as a function of tensors that can be put elsewhere."""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from shortrun.learners.learner import Flat
from shortrun.model import TopDown
from shortrun.model.casting import call_with, cast_now
from shortrun.model.likelihood import Images, Mask, PerImage
from shortrun.model.prior import Held, LogPrior

KNOWN = ("torch.nn.", "shortrun.")
"""Where modules are defined that have no numbers of their own but in tensors."""


class ChainDensity:
    """z -> log p(x | z) + log p(z, c), (n, d) -> (n,), with the component c of each image held.

    generator: p(x, z).
    x: (n, c, h, w) in [-1, 1], the images.
    log_prior: log p(z, c), as `Prior.held` gives it.
    mask: (n or 1, c or 1, h, w), 1 = observed; None where all pixels are.
    """

    def __init__(self, generator: TopDown, x: Images, log_prior: LogPrior, mask: Mask | None = None) -> None:
        self.generator, self.x, self.log_prior, self.mask = generator, x, log_prior, mask

    def __call__(self, z: Flat) -> PerImage:
        """Return log p(x, z, c), (n,).

        z: (n, d), latents.
        """
        return self.generator.log_likelihood(self.x, z, self.mask) + self.log_prior(z)

    @property
    def kind(self) -> Hashable:
        """What the kernels of its gradient depend on beside `tensors`; None where that is not known.

        A module of the user's own may have numbers that no tensor holds.
        """
        generator, log_prior, device = self.generator, self.log_prior, self.x.device.type
        modules = [module for part in (generator.decoder, generator.likelihood) for module in part.modules()]
        if not all(f"{type(module).__module__}.".startswith(KNOWN) for module in modules):
            return None
        if isinstance(log_prior, Held):
            prior: Hashable = log_prior.most
        elif generator.prior.standard:
            prior = None
        else:
            return None
        cast = {id(weight) for weight in cast_now(generator).values()}
        stay = [
            part.data_ptr()
            for part in (*generator.parameters(), *generator.likelihood.buffers())
            if id(part) not in cast
        ]
        cudnn = torch.backends.cudnn
        return (
            *(generator.latents, prior, self.mask is None, generator.training, *stay),
            *(torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)),
            *(cudnn.enabled, cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32),
        )

    @property
    def tensors(self) -> Sequence[Tensor]:
        """The images, the mask, the held normals of the prior, and the weights that are cast."""
        held = self.log_prior.tensors if isinstance(self.log_prior, Held) else ()
        return [self.x, *([] if self.mask is None else [self.mask]), *held, *cast_now(self.generator).values()]

    def on(self, tensors: Sequence[Tensor]) -> "ChainDensity":
        """Return the same function of other tensors.

        tensors: as many as `tensors`, of the same shapes.
        """
        x, *rest = tensors
        mask = None if self.mask is None else rest.pop(0)
        log_prior = self.log_prior
        if isinstance(log_prior, Held):
            count = len(log_prior.tensors)
            log_prior, rest = log_prior.on(rest[:count]), rest[count:]
        return _WithWeights(self.generator, x, log_prior, mask, dict(zip(cast_now(self.generator), rest, strict=True)))


class _WithWeights(ChainDensity):
    """The same with weights of its own in place of those that are cast."""

    def __init__(
        self, generator: TopDown, x: Images, log_prior: LogPrior, mask: Mask | None, weights: dict[str, Tensor]
    ) -> None:
        super().__init__(generator, x, log_prior, mask)
        self.weights = weights

    def __call__(self, z: Flat) -> PerImage:
        return call_with(self.generator, self.weights, lambda: super(_WithWeights, self).__call__(z))
