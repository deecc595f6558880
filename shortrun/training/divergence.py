"""Whether training has diverged, so that it ends early, in one line, with its last sound state kept."""

import math
import sys
from collections.abc import Mapping

import torch
from torch import nn

from shortrun.data import Dataset, ImageSet
from shortrun.errors import InputError
from shortrun.learners import Learner, with_generator
from shortrun.model.energy import Energy
from shortrun.pixels import to_unit
from shortrun.streams import Use, stream
from shortrun.training.position import Position
from shortrun.training.run_folder import RunFolder

PATIENCE = 50
"""Updates in a row that go wrong before a run ends: a mishap mends itself sooner."""
FAR = 1e6
"""Mean square of the latents that no model has which learns anything; N(0, I) has 1."""
MISHAPS = 10
"""Updates in a row at the end of a run that are more than a mishap: none come after them in which it could mend."""
TRIED = 40
"""Test images that the learned model has to infer at the end."""
NOT_FINITE = "had no finite chain, gradient or size of the latents"
GONE = "had a gradient of exactly 0, from which nothing is learned"


class Streak:
    """Counts the last updates in a row that went wrong, by what numbers can hold or by a gradient that is gone.

    A gradient of exactly 0 means that all outputs lie where the decoder's last layer is flat, as weights that a large
    step has thrown far off bring about: finite, and without a way back.
    """

    def __init__(self, run: RunFolder, position: Position, learner: Learner) -> None:
        self.run, self.learner, self.length, self.dead = run, learner, 0, 0
        self._skipped, self._failed = position.skipped, position.failed

    @property
    def sound(self) -> bool:
        """Whether the last update went well."""
        return self.length == self.dead == 0

    def follow(self, position: Position, means: Mapping[str, float], batch_size: int) -> None:
        """Look at the last update; raise InputError where so many in a row went wrong that the run is lost.

        means: of the update's statistics.
        """
        lost = position.skipped > self._skipped or position.failed - self._failed >= batch_size
        lost = lost or _wild(means.get("second_moment", 0.0)) or not math.isfinite(means.get("loss", 0.0))
        self._skipped, self._failed = position.skipped, position.failed
        self.length = self.length + 1 if lost else 0
        # an update without any image has a gradient of 0 too, and is counted above
        self.dead = self.dead + 1 if means.get("grad_norm") == 0 and not lost else 0
        if self.length >= PATIENCE:
            raise self._lost(f"the last {PATIENCE} updates up to {position.step} {NOT_FINITE}")
        if self.dead >= PATIENCE:
            raise self._lost(f"the last {PATIENCE} updates up to {position.step} {GONE}")

    def end(self, position: Position, average: Learner, dataset: Dataset, seed: int, speaks: bool) -> None:
        """Look at the end of a run, before its last state is kept: at its last updates, and at what it has learned.

        A run without numbers at its end has diverged, however short it is. Raises InputError where MISHAPS updates or
        half of all went wrong without a break up to here; where half had no gradient; where weights are not finite; and
        where the model infers nothing finite of test images. Where it does, fewer bad updates are forgiven, and said.

        average: the model that the run leaves behind; seed: of the run; speaks: whether to warn of them.
        """
        if self.length >= MISHAPS or 2 * self.length >= position.step > 0:
            raise self._lost(f"the last {self.length} updates up to {position.step} {NOT_FINITE}")
        if self.dead and 2 * self.dead >= position.step:
            raise self._lost(f"the last {self.dead} updates up to {position.step} {GONE}")
        if problem := _what_is_wrong(average, dataset, seed):
            raise self._lost(f"after {position.step} updates {problem}")
        if self.length and speaks:
            print(
                f"warning: training.learning_rate: the last {self.length} updates up to {position.step} {NOT_FINITE}, "
                "and the model is still finite; where that comes again, write a smaller one",
                file=sys.stderr,
            )

    def _lost(self, what: str) -> InputError:
        return InputError(
            "training.learning_rate",
            problem=f"training diverged: {what}",
            instead=f"{_settings(self.learner)}; the last sound state is in {self.run.path}",
        )


def finite_weights(module: nn.Module) -> bool:
    """Return whether all parameters and buffers of a module are finite.

    >>> finite_weights(nn.Linear(2, 3))
    True
    """
    # one transfer from the device for all of them
    return bool(torch.stack([each.isfinite().all() for each in module.state_dict().values()]).all())


@torch.no_grad()
def _what_is_wrong(model: Learner, dataset: Dataset, seed: int) -> str:
    """Return what of a model is not finite, or nothing."""
    if not finite_weights(model):
        return "the weights are not finite"
    x = dataset.test.images(slice(0, TRIED)).to(model.device)
    inferred = model.infer(x, stream(seed, Use.TEST))
    if inferred.failed.all():
        return "no chain of a test image was finite"
    kept = inferred.z[~inferred.failed]
    if _wild(float(kept.double().square().mean())):
        return f"latents of test images were not finite, or of a mean square beyond {FAR:g}"
    if not model.decode(kept).isfinite().flatten(1).all(1).any():
        return "no reconstruction of a test image was finite"
    return ""


def _wild(moment: float) -> bool:
    return not math.isfinite(moment) or moment > FAR


def _settings(learner: Learner) -> str:
    """Say which settings to change, of those that a learner has."""
    energy = with_generator(learner) and isinstance(learner.generator.prior, Energy)
    first, *others = [
        "write a smaller one",
        *(["a smaller inference.step_size"] if learner.has_chain else []),
        *(["a larger model.sigma"] if learner.has_generator else []),
        *(["a smaller model.energy.learning_rate"] if energy else []),
    ]
    return ", ".join([first, *others[:-1], *(f"or {each}" for each in others[-1:])])


@torch.no_grad()
def learned_nothing(error: float, test: ImageSet) -> str:
    """Return a warning where a model rebuilds test images no better than one image does that is the same for all.

        error >= mean over pixels of var(x),   x over the test images

    A model that a large step has thrown far off can be finite, infer finite latents and rebuild nothing. Returns
    nothing where the model does better, and where all test images are the same, of which there is nothing to learn.

    error: mean squared error of the reconstructions of the test images, for pixels in [0, 1].
    test: at least one image.

    >>> stripes = ImageSet(torch.eye(4).mul(2).sub(1).view(4, 1, 2, 2))
    >>> learned_nothing(0.24, stripes)
    ''
    >>> learned_nothing(0.26, stripes).split(";")[0]
    'test images are rebuilt with an error of 0.26, and their mean image in place of each has 0.25'
    """
    if len(test) < 2:
        return ""
    least = float(to_unit(test.images()).var(0).mean())
    if least == 0 or error < least:
        return ""
    return (
        f"test images are rebuilt with an error of {error:.3g}, and their mean image in place of each has {least:.3g}; "
        "train longer, or write a smaller training.learning_rate"
    )
