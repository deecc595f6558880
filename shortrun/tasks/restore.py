"""Images from linear measurements of them with noise: denoising, deblurring, super-resolution."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from shortrun.errors import InputError, check_at_least
from shortrun.inference import DrawnNoise, Regression
from shortrun.inference.curvature import largest_curvature
from shortrun.inference.measured_start import MeasuredRegression, detail_of
from shortrun.learners import ChainLearner, LatentLearner, Learner, ShortRun, frozen
from shortrun.learners.chain_density import ChainDensity
from shortrun.learners.images import check_weights
from shortrun.learners.latent_learner import with_generator
from shortrun.model import Gaussian, TopDown
from shortrun.model.linear_map import LinearMap, Operator
from shortrun.model.measured import Measured
from shortrun.modes import own_modes, plain
from shortrun.progress import shown
from shortrun.tasks.batches import BATCH_SIZE

STEPS = 100
"""K for a learner that takes no Langevin steps itself."""
STRIDE = 1.4
"""Its step size, in units of the least standard deviation of a posterior."""
PROBES = 16
"""Draws of the model at which curvatures are taken."""
SIMULATED = 3000
"""Draws of the model that latents are regressed on, where training has left no regression."""


class Restoration(NamedTuple):
    """Draws of images given measurements of them, on the CPU."""

    draws: Float[Tensor, "m n c h w"]
    """m draws of each image in [-1, 1]: E[x | z, y] with z a draw of the latents."""
    mean: Float[Tensor, "n c h w"]
    """Their mean, in [-1, 1]."""
    deviation: Float[Tensor, "n c h w"]
    """Standard deviation of each pixel given y, pixels in [0, 1]: the spread of draws, and what each leaves open."""
    open: Float[Tensor, "c h w"]
    """What a draw leaves open: the standard deviation of each pixel given latents and y, pixels in [0, 1]."""
    z: Float[Tensor, "m n d"]
    """The latents of the draws."""
    failed: Bool[Tensor, "m n"]
    """True where the chain stayed non-finite: the latents are then where it started."""


def restore(
    learner: Learner,
    y: Float[Tensor, "n *output"],
    operator: Operator,
    sigma: float,
    rng: torch.Generator,
    draws: int = 16,
    steps: int | None = None,
    noise: bool | None = None,
    batch_size: int = BATCH_SIZE,
) -> Restoration:
    """Return draws of images x given y = A x + noise: each from a run of its own, on log p(y, z).

        y | z ~ N(A g(z), s^2 A A^T + sigma^2 I),   draw = E[x | z_K, y],   deviation^2 = var_m(draw_m) + var[x | z, y]

    s is the model's own standard deviation of pixels around g(z), the decoded image, where its likelihood is Gaussian:
    what the model does not explain is then no part of the noise. With another likelihood s is 0. The chain starts from
    the regression of latents on images, carried over to y; a learner that keeps none gets one from draws of its own
    model. Its step size is the learner's times the root of how much flatter log p(y, z) is than log p(x, z).

    learner: ready to use, as `load` returns it; one with a generator and a prior.
    y: (n, ...), the measurements, in the units of images in [-1, 1].
    operator: A, images (n, c, h, w) -> (n, ...): any linear function that can be differentiated and treats each image
        by itself; `shortrun.tasks.operators` makes some.
    sigma: a positive number, the standard deviation of the noise, of pixels in [-1, 1].
    rng: gives the random numbers.
    draws: at least 1, of each image.
    steps: K, at least 1; None for the learner's, or 100 where it takes none.
    noise: False for plain gradient ascent, in place of what the learner does; None keeps that.
    batch_size: at least 1, draws at a time.

    Raises InputError for a learner without a generator, for an operator that is not linear, for measurements of another
    shape than it returns, for a sigma that is not positive and for counts below 1.

    >>> from shortrun import ModelConfig, ShortRun
    >>> from shortrun.tasks.operators import downsample
    >>> learner = ShortRun.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8))
    >>> made = restore(learner, torch.zeros(6, 1, 2, 2), downsample(2), 0.1, torch.Generator().manual_seed(0), draws=3)
    >>> made.draws.shape, made.deviation.shape
    (torch.Size([3, 6, 1, 4, 4]), torch.Size([6, 1, 4, 4]))
    """
    check_at_least(1, draws=draws, steps=steps, batch_size=batch_size)
    generative = checked_learner(learner)
    check_weights(learner)
    with own_modes():
        linear = LinearMap(operator, image_shape(generative), learner.device)
        y = linear.grouped(checked_measurements(plain(y), linear).to(learner.device))
        measured = Measured(linear, sigma, generative.generator.likelihood).to(learner.device)
        chains = measuring(generative, measured, rng)
        rows = torch.arange(draws * len(y)) % len(y)
        if chains.shares_draws:
            batch_size = min(batch_size, len(y))  # each image once: draws are to differ as independent ones do
        parts = []
        for part in shown(rows.split(batch_size), "restoring"):
            found = chains.infer(y[part], rng, steps=steps, noise=noise)
            with torch.no_grad():
                x = measured.expected(y[part], generative.generator.decode(found.z)).clamp(-1, 1)
            parts.append((x.cpu(), found.z.cpu(), found.failed.cpu()))
    x, z, failed = (torch.cat(each).unflatten(0, (draws, len(y))) for each in zip(*parts, strict=True))
    left = measured.open_deviation().cpu() / 2
    spread = x.var(0, correction=0) / 4
    return Restoration(x, x.mean(0), (spread + left**2).sqrt(), left, z, failed)


def checked_learner(learner: Learner) -> LatentLearner:
    """Return a learner that images can be restored by; raise InputError where it is none.

    learner: any.
    """
    if not (with_generator(learner) and learner.has_prior):
        name = type(learner).__name__
        raise InputError("learner", name, "take one with a generator and a prior, short_run or vae for example")
    return learner


def image_shape(learner: LatentLearner) -> tuple[int, int, int]:
    """Return (c, h, w) of a learner's images."""
    if learner.description is not None:
        return learner.description.image_shape
    with torch.no_grad():
        c, h, w = learner.decode(torch.zeros(1, learner.dim, device=learner.device)).shape[1:]
    return c, h, w


def checked_measurements(y: Tensor, linear: LinearMap) -> Float[Tensor, "n *output"]:
    """Return measurements in float32; raise InputError where an operator cannot have returned them."""
    if not y.is_floating_point() or tuple(y.shape[1:]) != linear.output or not len(y):
        sizes = ", ".join(map(str, linear.output))
        raise InputError(
            "y", f"{y.dtype} of shape {tuple(y.shape)}", f"give floats (n, {sizes}): the operator returns such"
        )
    if not bool(y.isfinite().all()):
        raise InputError("y", "numbers that are not finite", "leave them out by an operator that does not return them")
    return y.float()


def measuring(learner: LatentLearner, measured: Measured, rng: torch.Generator) -> ShortRun:
    """Return a learner whose images are measurements, with the decoder and the prior of another.

    learner: of images.
    measured: p(y | z).
    rng: gives the random numbers.
    """
    whole, linear = learner.generator, measured.linear
    generator = TopDown(whole.decoder, measured, whole.latents, whole.prior)
    chain = learner if isinstance(learner, ChainLearner) else ShortRun(whole, STEPS)
    on_images, on_measurements = curvatures(whole, generator, linear, rng)
    if chain is learner:
        factor = float((on_images / on_measurements).sqrt().mean())
        sizes = [factor * size for size in chain.step_size.values]
    else:
        sizes = [STRIDE / float(on_measurements.sqrt().mean())]
    images = chain.regression
    if images is None or not images.fits:
        images = simulated_regression(learner, rng)
    with torch.no_grad():
        detail = detail_of(images, whole.decode(whole.prior.sample(BATCH_SIZE, rng, device=learner.device)))
    regression = MeasuredRegression(images, linear.matrix, linear.groups, measured.sigma, detail)
    return ShortRun(
        generator,
        chain.fresh_steps,
        tuple(sizes),
        chain.step_size.decay,
        chain.noise,
        chain.retries,
        candidates=chain.candidates,
        regression=regression,
    ).eval()


def curvatures(
    whole: TopDown, measured: TopDown, linear: LinearMap, rng: torch.Generator
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Return the largest curvatures of log p(x, z) and of log p(y, z) at draws of the model, x = g(z) and y = A x.

    whole: p(x, z).
    measured: p(y, z).
    linear: A.
    rng: gives the random numbers.
    """
    draws = DrawnNoise(rng, 1, (PROBES, whole.dim), device=linear.device)
    z, component = whole.prior.from_normal(draws.draw(), draws.uniform)
    prior, direction = whole.prior.held(component), draws.draw()
    with torch.no_grad(), frozen(whole):
        x = whole.decode(z)
        on_images, on_measurements = (
            largest_curvature(ChainDensity(generator, image, prior), z, direction)
            for generator, image in ((whole, x), (measured, linear(x)))
        )
    return on_images, on_measurements


@torch.no_grad()
def simulated_regression(learner: LatentLearner, rng: torch.Generator) -> Regression:
    """Return a regression of latents on images that has learned from draws of the model.

    learner: of images.
    rng: gives the random numbers.
    """
    regression = Regression(image_shape(learner), learner.dim).to(learner.device)
    z = learner.draw_prior(SIMULATED, rng)
    x = torch.cat([learner.generator.decode(part) for part in z.split(BATCH_SIZE)])
    likelihood = learner.generator.likelihood
    if isinstance(likelihood, Gaussian):
        x = x + likelihood.sigma * torch.randn(x.shape, generator=rng, device=rng.device).to(x)
    regression.learn(regression.features(x), z)
    return regression
