"""log p(x) from below by importance weights, with what each learner has in place of the posterior as proposal.

Source: Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", 2016, arXiv 1509.00519.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from shortrun.errors import InputError, check_at_least
from shortrun.evaluation.likelihood import standard_error
from shortrun.evaluation.quantity import LOG_P, Quantity
from shortrun.inference.jacobian import Linearized
from shortrun.learners import LatentLearner, frozen, with_encoder
from shortrun.metrics.figure import Figure
from shortrun.model import TopDown
from shortrun.model.likelihood import Images
from shortrun.progress import shown

SAMPLES, BATCH_SIZE = 1000, 500
MOST_LATENTS = 512
"""Latents of an image whose Hessian is held and factored as a whole."""
NEWTON, HALVINGS = 8, 8
"""Steps towards the mode, and how often each is halved until it rises."""

IMPORTANCE_NATS = Quantity("importance_nats", LOG_P, "its own bound, nats", 6)

Propose = Callable[[int], tuple[Float[Tensor, "rows d"], Float[Tensor, "rows"]]]


class ImportanceBound(NamedTuple):
    """What importance weights say of each image."""

    log_p: Float64[Tensor, "n"]
    """The log of an unbiased estimate of p(x): below log p(x) on average."""
    effective: Float64[Tensor, "n"]
    """The effective sample size (sum w)^2 / sum w^2, from 1 to S; near 1 one draw decides, and the bound is loose."""


def importance_bound(
    learner: LatentLearner, x: Images, rng: torch.Generator, *, samples: int = SAMPLES, batch_size: int = BATCH_SIZE
) -> ImportanceBound:
    """Return a lower bound of log p(x) for each image, which rises with S on average.

        log (1/S) sum_s w_s,   w_s = p(x, z_s) / q(z_s | x),   z_s ~ q(z | x)

    A learner with an encoder proposes from its q(z|x), so that S = 1 is its evidence lower bound. The end of a chain
    has no density in closed form: there q is a Gaussian around it. Its centre is the end of one run, moved up by a few
    Newton steps. Its precision is the Hessian of -log p(x, z) at the centre with eigenvalues of at least that of the
    prior where it is widest, 1 for N(0, I), as a posterior is no wider than the prior where the generator is linear.
    E w = p(x) for whatever centre and precision, so the bound holds however good they are, and the end of the run being
    random does not change it. It is log p(x) itself for a linear generator with a Gaussian likelihood and the prior
    N(0, I).

    learner: ready to use.
    x: (n, c, h, w) in [-1, 1], the images.
    rng: gives the random numbers.
    samples: S, at least 1.
    batch_size: at least 1, rows that go through the networks at a time.

    Raises InputError for no images, counts below 1, more than 512 latents without an encoder, and where log p(x, z) is
    not finite at any draw of an image.

    >>> from shortrun import ModelConfig, Vae
    >>> learner = Vae.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8))
    >>> found = importance_bound(learner, torch.zeros(4, 1, 4, 4), torch.Generator().manual_seed(0), samples=10)
    >>> found.log_p.shape, bool((found.effective <= 10).all())
    (torch.Size([4]), True)
    """
    if not len(x):
        raise InputError("x", "no images", "give at least one, (n, c, h, w)")
    check_at_least(1, samples=samples, batch_size=batch_size)
    if not with_encoder(learner) and learner.dim > MOST_LATENTS:
        raise InputError("learner", f"{learner.dim} latents", f"the proposal is for at most {MOST_LATENTS}")
    parts = []
    with frozen(learner.generator), torch.no_grad():
        for part in x.split(batch_size):
            part = part.to(learner.device)
            log_w = _log_weights(learner, part, rng, samples, max(1, batch_size // len(part)))
            parts.append(torch.where(torch.isfinite(log_w), log_w, -math.inf))  # a weight of 0 keeps the bound
    log_w = torch.cat(parts, dim=1)
    log_p = torch.logsumexp(log_w, 0) - math.log(samples)
    if not torch.isfinite(log_p).all():
        raise InputError(
            "x", problem="log p(x, z) is not finite at any draw of an image", instead="the model or the image is not"
        )
    return ImportanceBound(log_p, 1 / torch.softmax(log_w, 0).square().sum(0))


def importance_figures(
    learner: LatentLearner, x: Images, rng: torch.Generator, *, samples: int = SAMPLES, batch_size: int = BATCH_SIZE
) -> dict[str, Figure]:
    """Return the mean of `importance_bound` over images, as the figure `importance_nats`.

    Its own are its standard error, of the mean as one of a population of images (None for one image), and
    `effective_samples`, the mean over images. Its conditions say what was drawn from, the `proposal`.

    learner: ready to use.
    x: (n, c, h, w) in [-1, 1], the images.
    rng: gives the random numbers.
    samples: S, at least 1.
    batch_size: at least 1, rows that go through the networks at a time.

    Raises InputError as `importance_bound` does.
    """
    found = importance_bound(learner, x, rng, samples=samples, batch_size=batch_size)
    proposal = "the encoder" if with_encoder(learner) else "Gaussian around the end of a run"
    how = {"samples": samples, "proposal": proposal, "images": len(x), **learner.density_conditions()}
    own = {"standard_error": standard_error(found.log_p), "effective_samples": float(found.effective.mean())}
    return {"importance_nats": IMPORTANCE_NATS.figure(float(found.log_p.mean()), how, **own)}


def _log_weights(
    learner: LatentLearner, x: Images, rng: torch.Generator, samples: int, copies: int
) -> Float64[Tensor, "samples n"]:
    """Return the log-weights of `samples` draws for each image, `copies` of all images at a time."""
    if with_encoder(learner):
        propose: Propose = lambda count: learner.propose(x.repeat(count, 1, 1, 1), rng)  # noqa: E731
    else:
        propose = gaussian_proposal(learner.generator, x, learner.infer(x, rng).z.to(x.dtype), rng)
    rows = []
    for done in shown(range(0, samples, copies), "importance weights"):
        count = min(copies, samples - done)
        z, log_q = propose(count)
        log_joint = learner.generator.log_joint(x.repeat(count, 1, 1, 1), z.to(x.dtype))
        rows.append((log_joint.double() - log_q.double()).view(count, len(x)).cpu())
    return torch.cat(rows)


def gaussian_proposal(generator: TopDown, x: Images, z: Float[Tensor, "n d"], rng: torch.Generator) -> Propose:
    """Return what draws latents of images from a Gaussian near z and gives their log-density.

        q = N(m, P^-1),   m from z by Newton steps z + t P(z)^-1 d/dz log p(x, z),   P(z) = max(-Hessian, a I) at m

    max by eigenvalue; 1 / a the largest variance of the prior in any direction; t: 1, halved until log p(x, z) rises.
    The result takes a number of draws of each image, k, and returns z, (k n, d), draw by draw, and log q, (k n,), in
    float64.

    generator: p(x, z).
    x: (n, c, h, w) in [-1, 1], the images.
    z: (n, d), latents near the mode.
    rng: gives the random numbers.
    """
    for _ in range(NEWTON):
        score, values, vectors = _curvature(generator, x, z)
        along = (vectors.mT @ score[..., None]) / values[..., None]
        risen = _risen(generator, x, z, (vectors @ along)[..., 0].to(z.dtype))
        if torch.equal(risen, z):
            break
        z = risen
    _, values, vectors = _curvature(generator, x, z)
    centre, dim = z.double(), z.shape[1]
    log_height = 0.5 * values.log().sum(1) - 0.5 * dim * math.log(2 * math.pi)

    def propose(count: int) -> tuple[Tensor, Tensor]:
        size = (count, *centre.shape)
        noise = torch.randn(size, generator=rng, device=rng.device, dtype=torch.float64).to(centre.device)
        drawn = centre + (vectors @ (noise * values.rsqrt())[..., None])[..., 0]
        log_q = log_height - 0.5 * noise.square().sum(2)
        return drawn.flatten(0, 1), log_q.flatten()

    return propose


def _curvature(
    generator: TopDown, x: Images, z: Float[Tensor, "n d"]
) -> tuple[Float64[Tensor, "n d"], Float64[Tensor, "n d"], Float64[Tensor, "n d d"]]:
    """Return the score and the floored eigenvalues and the eigenvectors of -Hessian; N(0, I)'s where not finite."""
    widest = torch.linalg.matrix_norm(generator.prior.whole()[1].double(), 2) ** 2
    at = Linearized(lambda latents: generator.log_joint(x, latents), z)
    precision = -at.hessian.double()
    identity = torch.eye(z.shape[1], dtype=torch.float64, device=z.device)
    precision = torch.where(torch.isfinite(precision).all(2).all(1)[:, None, None], precision, identity)
    values, vectors = torch.linalg.eigh(precision)
    return at.score.double(), values.clamp(min=1 / float(widest)), vectors


def _risen(generator: TopDown, x: Images, z: Float[Tensor, "n d"], step: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Return z + t step with the first t of 1, 1/2, 1/4, ... at which log p(x, z) is larger, or z itself."""
    best, before = z.clone(), generator.log_joint(x, z)
    waiting = torch.ones_like(before, dtype=torch.bool)
    for halving in range(HALVINGS):
        tried = z + 0.5**halving * step
        risen = waiting & (generator.log_joint(x, tried) > before)
        best = torch.where(risen[:, None], tried, best)
        waiting = waiting & ~risen
        if not waiting.any():
            break
    return best
