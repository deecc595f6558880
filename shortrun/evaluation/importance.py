"""log p(x) from below by importance weights, with what each learner has in place of the posterior as proposal.

Source: Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", 2016, arXiv 1509.00519.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from shortrun.errors import InputError, check_at_least
from shortrun.evaluation.likelihood import standard_error
from shortrun.evaluation.normalizer import Normalizer, normalizer
from shortrun.evaluation.quantity import LOG_P, Quantity
from shortrun.inference.jacobian import Linearized
from shortrun.inference.langevin import LogDensity, score
from shortrun.learners import EncoderLearner, LatentLearner, frozen, with_encoder
from shortrun.metrics.figure import Figure
from shortrun.model import TopDown
from shortrun.model.likelihood import Images
from shortrun.model.prior import Parts, choose_each
from shortrun.normals import log_heights
from shortrun.progress import shown

SAMPLES, BATCH_SIZE = 1000, 500
MOST_LATENTS = 512
"""Latents of an image whose Hessian is held and factored as a whole."""
NEWTON, HALVINGS = 8, 8
"""Steps towards the mode, and how often each is halved until it rises."""
COMPONENTS, ENTRIES = 8, 2**27
"""Normals of a proposal, at most, and entries of the matrices of all of them for a batch."""

IMPORTANCE_NATS = Quantity("importance_nats", LOG_P, "its own bound, nats", 6)

Weigh = Callable[[int], Float[Tensor, "rows"]]
"""Takes a number of draws for each image and returns their log-weights, draw by draw."""


class ImportanceBound(NamedTuple):
    """What importance weights say of each image."""

    log_p: Float64[Tensor, "n"]
    """The log of an unbiased estimate of p(x): below log p(x) on average."""
    effective: Float64[Tensor, "n"]
    """The effective sample size (sum w)^2 / sum w^2, from 1 to S; near 1 one draw decides, and the bound is loose."""


def importance_bound(
    learner: LatentLearner,
    x: Images,
    rng: torch.Generator,
    *,
    samples: int = SAMPLES,
    batch_size: int = BATCH_SIZE,
    constant: Normalizer | None = None,
) -> ImportanceBound:
    """Return a lower bound of log p(x) for each image, which rises with S on average.

        log (1/S) sum_s w_s,   w_s = p(x, z_s) / q(z_s | x),   z_s ~ q(z | x)

    A learner with an encoder proposes from its q(z|x), so that S = 1 is its evidence lower bound. The end of a chain
    has no density in closed form: there q is a Gaussian around it. Its centre is the end of one run, moved up by a few
    Newton steps. Its precision is that of the prior plus the Hessian of -log p(x | z) at the centre, whose eigenvalues
    are floored at 0: a posterior is no wider than the prior where the generator is linear. Where the prior is a
    mixture, each of its components has a Gaussian of its own, by its own mean and precision, and z is drawn with its
    component c: w_s = p(x, z_s, c_s) / q(z_s, c_s). E w = p(x) for whatever centre and precision, so the bound holds
    however good they are, and the end of the run being random does not change it. Of a mixture the 8 likeliest
    components are drawn from; E w is then less by what the others hold. The bound is log p(x) itself for a linear
    generator with a Gaussian likelihood and a prior of at most 8 normals. Of a prior that lacks its constant, log Z is
    estimated and taken off: see `normalizer`.

    learner: ready to use.
    x: (n, c, h, w) in [-1, 1], the images.
    rng: gives the random numbers.
    samples: S, at least 1.
    batch_size: at least 1, rows that go through the networks at a time.
    constant: log Z of the prior; estimated where not given.

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
    constant = normalizer(learner.generator, rng, x[:1].to(learner.device)) if constant is None else constant
    parts = []
    with frozen(learner.generator), torch.no_grad():
        for part in x.split(batch_size):
            part = part.to(learner.device)
            log_w = _log_weights(learner, part, rng, samples, max(1, batch_size // len(part)))
            parts.append(torch.where(torch.isfinite(log_w), log_w, -math.inf))  # a weight of 0 keeps the bound
    log_w = torch.cat(parts, dim=1)
    log_p = torch.logsumexp(log_w, 0) - math.log(samples) - constant.log_z
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
    constant = normalizer(learner.generator, rng, x[:1].to(learner.device))
    found = importance_bound(learner, x, rng, samples=samples, batch_size=batch_size, constant=constant)
    proposal = "the encoder" if with_encoder(learner) else "Gaussian around the end of a run"
    how = {"samples": samples, "proposal": proposal, "images": len(x), **learner.density_conditions()}
    how |= constant.conditions()
    own = {"standard_error": constant.with_error(standard_error(found.log_p)), **constant.own()}
    own |= {"effective_samples": float(found.effective.mean())}
    return {"importance_nats": IMPORTANCE_NATS.figure(float(found.log_p.mean()), how, **own)}


def _log_weights(
    learner: LatentLearner, x: Images, rng: torch.Generator, samples: int, copies: int
) -> Float64[Tensor, "samples n"]:
    """Return the log-weights of `samples` draws for each image, `copies` of all images at a time."""
    if with_encoder(learner):
        weigh = by_encoder(learner, x, rng)
    else:
        weigh = by_gaussians(learner.generator, x, learner.infer(x, rng).z.to(x.dtype), rng)
    rows = []
    for done in shown(range(0, samples, copies), "importance weights"):
        count = min(copies, samples - done)
        rows.append(weigh(count).double().view(count, len(x)).cpu())
    return torch.cat(rows)


def by_encoder(learner: EncoderLearner, x: Images, rng: torch.Generator) -> Weigh:
    """Return what draws latents of images from an encoder's q(z | x) and weighs them.

    learner: ready to use.
    x: (n, c, h, w) in [-1, 1], the images.
    rng: gives the random numbers.
    """

    def weigh(count: int) -> Tensor:
        repeated = x.repeat(count, 1, 1, 1)
        z, log_q = learner.propose(repeated, rng)
        return learner.generator.log_joint(repeated, z.to(x.dtype)).double() - log_q.double()

    return weigh


def by_gaussians(generator: TopDown, x: Images, z: Float[Tensor, "n d"], rng: torch.Generator) -> Weigh:
    """Return what draws latents of images from Gaussians near z, one for each component of the prior, and weighs them.

        q(z, c) = r_c N(m_c, P_c^-1),   P_c = max(H, 0) + C_c^-1,   m_c = m + P_c^-1 (g + C_c^-1 (mu_c - m))

    H and g are the Hessian of -log p(x | z) and the gradient of log p(x | z) at m; max by eigenvalue; mu_c and C_c the
    prior's. m is moved from z by Newton steps up log p(x, z, c), c drawn from p(c | z): z + t P_c^-1 score, t: 1,
    halved until it rises. The Gaussian of that c stays around m. r_c is in proportion to p(x, c), as far as
    log p(x | z) is quadratic.

    generator: p(x, z).
    x: (n, c, h, w) in [-1, 1], the images.
    z: (n, d), latents near the mode.
    rng: gives the random numbers.
    """
    prior = generator.prior
    own = prior.draw_component(z, lambda: torch.rand(len(z), generator=rng, device=rng.device).to(z.device))
    _, means, _, inverse = (part.double() for part in prior.parts().to(z))
    precisions, held = inverse.mT @ inverse, prior.held(own)

    def log_density(latents: Tensor) -> Tensor:
        return generator.log_likelihood(x, latents) + held(latents)

    def towards_prior(latents: Tensor) -> Tensor:
        if prior.exact:
            return _times(precisions[own], means[own] - latents.double())
        return score(held, latents, create_graph=False).double()

    for _ in range(NEWTON):
        gradient, curvature = _likelihood(generator, x, z)
        pull = gradient + towards_prior(z)
        root = torch.linalg.cholesky(curvature + precisions[own])
        risen = _risen(log_density, z, torch.cholesky_solve(pull[..., None], root)[..., 0].to(z.dtype))
        if torch.equal(risen, z):
            break
        z = risen
    found = _gaussians(prior.parts().to(z), own, z.double(), *_likelihood(generator, x, z))
    log_height = found.roots.diagonal(dim1=2, dim2=3).log().sum(2) - 0.5 * z.shape[1] * math.log(2 * math.pi)

    def weigh(count: int) -> Tensor:
        size = (count, *z.shape)
        slot = torch.zeros(size[:2], dtype=torch.long, device=z.device)
        if found.log_shares.shape[1] > 1:
            uniform = torch.rand(slot.numel(), generator=rng, device=rng.device).to(z.device)
            slot = choose_each(found.log_shares.exp().repeat(count, 1), uniform).view_as(slot)
        noise = torch.randn(size, generator=rng, device=rng.device, dtype=torch.float64).to(z.device)
        drawn = torch.zeros_like(noise)
        for place in range(found.log_shares.shape[1]):
            away = torch.linalg.solve_triangular(found.roots[:, place].mT, noise.permute(1, 2, 0), upper=True)
            there = found.centres[:, place] + away.permute(2, 0, 1)
            drawn = torch.where((slot == place)[..., None], there, drawn)
        heights = (found.log_shares + log_height).expand(count, -1, -1).gather(2, slot[..., None])[..., 0]
        log_q = (heights - 0.5 * noise.square().sum(2)).flatten()
        component = found.component.expand(count, -1, -1).gather(2, slot[..., None])[..., 0].flatten()
        latents = drawn.flatten(0, 1).to(x.dtype)
        log_p = generator.log_likelihood(x.repeat(count, 1, 1, 1), latents) + prior.held(component)(latents)
        return log_p.double() - log_q

    return weigh


class _Gaussians(NamedTuple):
    """The normals N(centre, (L L^T)^-1) that the latents of each image are drawn from, t of the prior's components."""

    component: Int64[Tensor, "n t"]
    log_shares: Float64[Tensor, "n t"]
    centres: Float64[Tensor, "n t d"]
    roots: Float64[Tensor, "n t d d"]
    """Lower triangular, L."""


def _gaussians(
    parts: Parts,
    own: Int64[Tensor, "n"],
    z: Float64[Tensor, "n d"],
    gradient: Float64[Tensor, "n d"],
    curvature: Float64[Tensor, "n d d"],
) -> _Gaussians:
    """Return the likeliest components with their normals, for log p(x | z) quadratic around z; see `by_gaussians`.

    parts: of the prior. own: the component whose normal stays around z.
    """
    log_weights, means, roots, inverse = (part.double() for part in parts)
    precisions, (n, d), m = inverse.mT @ inverse, z.shape, len(means)

    def normal(component: Int64[Tensor, "n"]) -> tuple[Tensor, Tensor, Tensor]:
        root = torch.linalg.cholesky(curvature + precisions[component])
        pull = gradient + _times(precisions[component], means[component] - z)
        away = torch.cholesky_solve(pull[..., None], root)[..., 0]
        away = torch.where((component == own)[:, None], torch.zeros_like(away), away)
        there = (away * gradient).sum(1) - 0.5 * (away * _times(curvature, away)).sum(1)
        white = _times(inverse[component], z + away - means[component])
        of_prior = (log_weights + log_heights(roots))[component] - 0.5 * white.square().sum(1)
        volume = 0.5 * d * math.log(2 * math.pi) - root.diagonal(dim1=1, dim2=2).log().sum(1)
        return there + of_prior + volume, z + away, root

    kept = max(1, min(m, COMPONENTS, ENTRIES // max(1, n * d * d)))
    every = [torch.full_like(own, component) for component in range(m)]
    log_p = torch.stack([normal(component)[0] for component in every], 1) if m > 1 else z.new_zeros(n, 1)
    component = log_p.topk(kept, dim=1)[1]
    log_shares = torch.log_softmax(log_p.gather(1, component), 1)
    normals = [normal(component[:, place])[1:] for place in range(kept)]
    centres, found = (torch.stack(part, 1) for part in zip(*normals, strict=True))
    return _Gaussians(component, log_shares, centres, found)


def _times(matrix: Float64[Tensor, "n d d"], v: Float64[Tensor, "n d"]) -> Float64[Tensor, "n d"]:
    return (matrix @ v[..., None])[..., 0]


def _likelihood(
    generator: TopDown, x: Images, z: Float[Tensor, "n d"]
) -> tuple[Float64[Tensor, "n d"], Float64[Tensor, "n d d"]]:
    """Return the gradient of log p(x | z) and its -Hessian with eigenvalues of at least 0; zeros where not finite."""
    at = Linearized(lambda latents: generator.log_likelihood(x, latents), z)
    gradient, curvature = at.score.double(), -at.hessian.double()
    lost = ~(torch.isfinite(curvature).all(2).all(1) & torch.isfinite(gradient).all(1))
    curvature = curvature.masked_fill(lost[:, None, None], 0)
    values, vectors = torch.linalg.eigh(0.5 * (curvature + curvature.mT))
    return gradient.masked_fill(lost[:, None], 0), (vectors * values.clamp(min=0)[:, None]) @ vectors.mT


def _risen(log_density: LogDensity, z: Float[Tensor, "n d"], step: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Return z + t step with the first t of 1, 1/2, 1/4, ... at which the density is larger, or z itself."""
    best, before = z.clone(), log_density(z)
    waiting = torch.ones_like(before, dtype=torch.bool)
    for halving in range(HALVINGS):
        tried = z + 0.5**halving * step
        risen = waiting & (log_density(tried) > before)
        best = torch.where(risen[:, None], tried, best)
        waiting = waiting & ~risen
        if not waiting.any():
            break
    return best
