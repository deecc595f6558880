"""What chains climb, as a function of tensors that can be put elsewhere."""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from shortrun.inference.captured import Take
from shortrun.inference.langevin import Step
from shortrun.learners.learner import Flat
from shortrun.model import TopDown
from shortrun.model.casting import call_with, is_cast
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

    def movable(self) -> tuple[Hashable, Sequence[Tensor]] | None:
        """Return what the kernels of its gradient depend on beside values of tensors, and the tensors that may change.

        Those are the images, the mask, the held normals of the prior, and the weights that are cast. None where
        modules of the user's own take part: they may have numbers that no tensor holds.
        """
        generator, log_prior, device = self.generator, self.log_prior, self.x.device.type
        held = log_prior if isinstance(log_prior, Held) else None
        if (held is None and not generator.prior.standard) or not _known(generator):
            return None
        weights = [*generator.parameters()]
        stay = [
            each.data_ptr()
            for each in (*weights, *generator.decoder.buffers(), *generator.likelihood.buffers())
            if not is_cast(each)
        ]
        tensors = [self.x, *([] if self.mask is None else [self.mask]), *(() if held is None else held.tensors)]
        cudnn = torch.backends.cudnn
        kind = (
            *(generator.latents, held and held.most, self.mask is None, generator.training, *stay),
            *(torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)),
            *(cudnn.enabled, cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32),
        )
        return kind, [*tensors, *filter(is_cast, weights)]

    def on(self, tensors: Sequence[Tensor], step: Step) -> Take:
        """Return what takes steps of the same function of other tensors.

        tensors: as many as `movable` gives, of the same shapes.
        step: takes the steps.
        """
        generator, log_prior, (x, *rest) = self.generator, self.log_prior, tensors
        mask = None if self.mask is None else rest.pop(0)
        if isinstance(log_prior, Held):
            count = len(log_prior.tensors)
            log_prior, rest = log_prior.on(rest[:count]), rest[count:]
        names = [name for name, weight in generator.named_parameters() if is_cast(weight)]
        weights, density = dict(zip(names, rest, strict=True)), ChainDensity(generator, x, log_prior, mask)
        return lambda *inputs: call_with(generator, weights, lambda: step(density, *inputs))


def _known(generator: TopDown) -> bool:
    """Return whether all modules of p(x | z) are of PyTorch or of this package."""
    modules = (module for part in (generator.decoder, generator.likelihood) for module in part.modules())
    return all(f"{type(module).__module__}.".startswith(KNOWN) for module in modules)
