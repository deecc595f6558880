"""The error of reconstructions in both ways that a learner has: from a draw of the latents, and from one best point."""

import torch

from shortrun.evaluation.assessment import Assessment, Figures
from shortrun.learners import LatentLearner
from shortrun.metrics import pixels
from shortrun.streams import Use


def draw_and_point(subject: Assessment, n: int) -> Figures:
    """Return mse_draw and mse_point of the first n test images, so that learners are compared like with like.

    A draw has the spread of the posterior in it, a point has not: a draw is the end of a chain with noise, or one from
    an encoder's Gaussian; a point is the end of the same chain without noise, from a draw of the prior, or the
    Gaussian's mean. Whichever of the two a learner takes unless told otherwise, `mse` is the error of.
    """
    learner = subject.learner
    if not isinstance(learner, LatentLearner):
        reason = "the latents are the images in other coordinates: there is nothing to infer"
        return {name: {"left_out": reason} for name in ("mse_draw", "mse_point")}
    found: Figures = {}
    for name, noise in (("mse_draw", True), ("mse_point", False)):
        rng, errors = subject.rng(Use.DRAW), []
        for rows in subject.batches(n, name.replace("mse_", "reconstructing from a ")):
            x = subject.dataset.test.images(rows)
            rebuilt = learner.reconstruct(x.to(learner.device), rng, noise=noise).cpu()
            errors.append(pixels.mse(x, rebuilt))
        said = learner.describe_inference(noise=noise)
        found[name] = {"value": float(torch.cat(errors).mean()), "images": n, "pixels": "[0, 1]", "inference": said}
    return found
