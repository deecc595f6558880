"""How unlike the images that a model has learned from an image is: several scores, all larger for a stranger image.

Sources: the log joint at the end of a chain, Pang, Han, Nijkamp, Zhu and Wu, "Learning Latent Space Energy-Based Prior
Model", NeurIPS 2020, arXiv 2006.08205; the bound, Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders",
2016, arXiv 1509.00519; errors of reconstruction, An and Cho, "Variational Autoencoder based Anomaly Detection using
Reconstruction Probability", 2015, SNU Data Mining Center.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from shortrun.errors import InputError, check_at_least
from shortrun.evaluation.density import noisy_density
from shortrun.evaluation.importance import importance_bound
from shortrun.learners import Learner, with_encoder, with_generator
from shortrun.learners.images import check_images, check_pixels
from shortrun.model.likelihood import Images
from shortrun.modes import own_modes, plain
from shortrun.pixels import mse
from shortrun.progress import shown

CHAINS, IMPORTANCE_SAMPLES, BATCH_SIZE = 4, 100, 100
SCORES = {
    "joint": "-log p(x, z) in nats at the latents that were inferred",
    "error": "mean squared error of the reconstruction, pixels in [0, 1]",
    "prior": "-log p(z) in nats of these latents",
    "bound": "minus a lower bound of log p(x) in nats",
}
"""What can be asked for, all larger for an image that is more unlike those of training."""
Each = Float64[Tensor, "n"]


class AnomalyScores(NamedTuple):
    """Scores of images, on the CPU; larger: more unlike the images of training."""

    scores: dict[str, Each]
    """By name, a number for each image."""
    failed: Bool[Tensor, "n"]
    """True where a chain stayed non-finite: a draw from the prior stands in for its end."""


def anomaly_scores(
    learner: Learner,
    x: Images,
    rng: torch.Generator,
    by: Sequence[str] | None = None,
    *,
    chains: int = CHAINS,
    steps: int | None = None,
    noise: bool | None = None,
    importance_samples: int = IMPORTANCE_SAMPLES,
    batch_size: int = BATCH_SIZE,
) -> AnomalyScores:
    """Return how unlike the images of training each image is: larger is stranger, by every score.

        joint = -mean_m log p(x, z_m)          error = mean_m |x - D(z_m)|^2 / pixels
        prior = -mean_m log p(z_m)             bound = -log (1/S) sum_s p(x, z_s) / q(z_s | x)

    z_m is the end of the m-th chain, or the m-th draw from an encoder's q(z | x); a deterministic encoder has one. They
    are the flat latents, whose prior is N(0, I) in a `conditional` generator. The z_s are those of `importance_bound`.
    A flow's own density, of images with the noise of one level, is its bound, and its only score: a flow rebuilds every
    image. A learner without a prior has the density fitted to its latents in place of p(z). A score that is not finite
    is infinite.

    learner: ready to use.
    x: (n, c, h, w) in [-1, 1], the images.
    rng: gives the random numbers.
    by: names of `SCORES`; None for all that the learner has but the bound, which takes far longer.
    chains: at least 1, of each image.
    steps: K, at least 1, in place of the learner's; None keeps that. The bound keeps it always.
    noise: False for no noise, and an encoder's mean, in place of what the learner does; None keeps that.
    importance_samples: S, at least 1.
    batch_size: at least 1, images at a time.

    Raises InputError for images of another shape than the model's, for pixels outside of [-1, 1], for counts below 1,
    and for a score that the learner does not have.

    >>> from shortrun import ModelConfig, ShortRun
    >>> learner = ShortRun.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8))
    >>> found = anomaly_scores(learner, torch.zeros(6, 1, 4, 4), torch.Generator().manual_seed(0))
    >>> {name: tuple(each.shape) for name, each in found.scores.items()}
    {'joint': (6,), 'error': (6,), 'prior': (6,)}
    """
    check_images(learner.description, x)
    check_pixels(x)
    check_at_least(1, chains=chains, importance_samples=importance_samples, batch_size=batch_size, steps=steps)
    names = chosen(learner, by)
    found, failed = {}, torch.zeros(len(x), dtype=torch.bool)
    with own_modes():
        x = plain(x)
        if any(name != "bound" for name in names):
            found, failed = _by_latents(learner, x, rng, chains, steps, noise, batch_size)
        if "bound" in names:
            found["bound"] = -_log_p(learner, x, rng, importance_samples)
    # no finite density is as strange as can be; NaN would have no place in an order
    scores = {name: torch.where(found[name].isfinite(), found[name], torch.inf) for name in names}
    return AnomalyScores(scores, failed)


def available(learner: Learner) -> tuple[str, ...]:
    """Return the names of the scores that a learner has, in the order of `SCORES`.

    learner: any.
    """
    if learner.has_density:
        return ("bound",)
    if with_generator(learner):
        return tuple(SCORES)
    return ("error",) if learner.latent_density is None else ("error", "prior")


def chosen(learner: Learner, by: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of scores, once each; raise InputError for one that there is not, or that the learner lacks."""
    there = available(learner)
    if by is None:
        return tuple(name for name in there if name != "bound") or there
    for name in by:
        if name not in SCORES:
            raise InputError("by", repr(name), f"write some of {', '.join(SCORES)}")
        if name not in there:
            kind = "the learner" if learner.description is None else learner.description.learner
            raise InputError("by", repr(name), f"{kind} has {', '.join(there)}")
    if not by:
        raise InputError("by", problem="names no score", instead=f"write some of {', '.join(there)}")
    return tuple(dict.fromkeys(by))


def describe_chains(learner: Learner, chains: int, steps: int | None = None, noise: bool | None = None) -> str:
    """Return in words what scores of latents are averaged over; see `anomaly_scores`."""
    noise, count = _drawn(learner, noise, chains)
    how = learner.describe_inference(steps, noise)
    return how if count == 1 else f"mean of {count} times {how}"


def _drawn(learner: Learner, noise: bool | None, chains: int) -> tuple[bool | None, int]:
    """Return whether latents are noisy, and how often they are inferred: an encoder's draws are, and its mean once."""
    if with_encoder(learner):
        noise = noise is not False
    return noise, chains if learner.has_chain or (with_encoder(learner) and noise) else 1


def _log_p(learner: Learner, x: Images, rng: torch.Generator, samples: int) -> Each:
    """Return what bounds log p(x) of each image from below."""
    if not with_generator(learner):
        return noisy_density(learner, x.cpu(), rng)
    return importance_bound(learner, x, rng, samples=samples).log_p


@torch.no_grad()
def _by_latents(
    learner: Learner, x: Images, rng: torch.Generator, chains: int, steps: int | None, noise: bool | None, size: int
) -> tuple[dict[str, Each], Bool[Tensor, "n"]]:
    """Return all scores of inferred latents, averaged over the chains, and where one of them failed."""
    noise, count = _drawn(learner, noise, chains)
    parts, failed = [], []
    for rows in shown(torch.arange(len(x)).split(size), "scoring"):
        images, sums, lost = x[rows].to(learner.device), 0.0, torch.zeros(len(rows), dtype=torch.bool)
        for _ in range(count):
            with torch.enable_grad():  # chains follow gradients
                inferred = learner.infer(images, rng, steps=steps, noise=noise)
            sums = sums + torch.stack(_of_latents(learner, images, inferred.z)).double().cpu()
            lost |= inferred.failed.cpu()
        parts.append(sums / count)
        failed.append(lost)
    error, prior, joint = torch.cat(parts, 1)
    return {"joint": joint, "error": error, "prior": prior}, torch.cat(failed)


def _of_latents(learner: Learner, x: Images, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return error, prior and joint of latents, (n,) each; NaN for what the learner does not have."""
    error = mse(learner.decode(z), x)
    missing = torch.full_like(error, torch.nan)
    if with_generator(learner):
        return (
            error,
            -learner.generator.log_prior(z).to(error),
            -learner.generator.log_joint(x, z.to(x.dtype)).to(error),
        )
    if learner.latent_density is None:
        return error, missing, missing
    return error, -learner.latent_density.mixture.log_prob(z.cpu()).to(error), missing
