"""Variational optimization of a learner's step size, and the curves that it minimizes."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.config import DENSE, TuningConfig
from shortrun.errors import InputError, did_you_mean
from shortrun.inference import DrawnNoise
from shortrun.inference.acceptance import acceptance, acceptance_move
from shortrun.inference.curves import TUNERS, Curves, DrawnChains, check_tuners, curves_of
from shortrun.inference.divergence import ESTIMATORS, ChainDensity, named
from shortrun.inference.moves import gradient_move, grid_move
from shortrun.inference.stochastic import LanczosConditional
from shortrun.inference.subspace import SubspaceMarginal
from shortrun.inference.tuning import Settings, Space, Tuned, checked
from shortrun.learners import ChainLearner, frozen
from shortrun.model.likelihood import Images, Mask
from shortrun.progress import Shown, silent

STAND_INS: dict[str, Callable[[torch.Generator, int], ChainDensity]] = {
    "conditional": LanczosConditional.at_a_tenth,
    "marginal": SubspaceMarginal.at_a_tenth,
}
"""What stands in for an estimator where there are more than DENSE latents."""
MOVES = {"grid": grid_move, "gradient": gradient_move}


class Chains(DrawnChains):
    """Chains of some images, start and noise drawn once: all step sizes are compared on the same draws.

    Its functions of the settings are to be called with the generator frozen.

    x: (n, c, h, w) in [-1, 1], on the learner's device; steps: K, the learner's own where not given; mask: (n, 1, h,
    w), 1 = observed, None where all pixels are.
    """

    def __init__(
        self,
        learner: ChainLearner,
        x: Images,
        rng: torch.Generator,
        steps: int | None = None,
        mask: Mask | None = None,
    ) -> None:
        self.learner, self.x = learner, x
        steps = steps or learner.steps
        draws = DrawnNoise(rng, steps, (len(x), learner.generator.dim), device=x.device)
        start = learner.start(x, draws, mask)
        noise = torch.stack(list(draws)) if learner.noise else start.z.new_zeros(steps, *start.z.shape)
        adjusted = torch.randn(noise.shape, generator=rng, device=rng.device).to(x.device)
        uniforms = torch.rand(noise.shape[:2], generator=rng, device=rng.device).to(x.device)
        # the probes of stochastic estimators too are the same for all step sizes
        self.probes = int(torch.randint(2**62, (), generator=rng, device=rng.device))
        # of N(0, I), which has one component, it is log p(x, z)
        log_density = learner.log_density(x, start.component, mask)
        super().__init__(log_density, start.z, start.initial, noise, adjusted, uniforms)

    def density(self, estimator: str) -> ChainDensity:
        """Return an estimator of log q_s(z_K): stochastic for many latents and starts from N(0, I), else dense.

        Raises InputError for a name that is none, and for one that needs noise where the learner has none.
        """
        kind = named(estimator)
        if kind.needs_noise and not self.learner.noise:
            raise InputError("estimator", f"{estimator!r} for chains without noise", "write conditional")
        # what the stochastic ones leave out they take at the curvature of N(0, I)
        standard = self.initial.standard and self.learner.generator.prior.standard
        if self.z.shape[1] <= DENSE or estimator not in STAND_INS or not standard:
            return kind()
        return STAND_INS[estimator](torch.Generator(self.z.device).manual_seed(self.probes), self.z.shape[1])


def tune(
    learner: ChainLearner,
    x: Images,
    rng: torch.Generator,
    *,
    estimator: str = "marginal",
    tuner: str = "grid",
    over: str = "one",
    steps: int | None = None,
) -> Tuned:
    """Return the step sizes that are best for a learner's chains on some images; the learner is left as it is.

    `Space(over, latents, decay).write(learner.step_size, result.settings)`, decay the learner's, puts the result into a
    learner with as many step sizes.

    learner: whose chains are tuned, ready to use.
    x: (n, c, h, w) in [-1, 1], the images, 8 for example.
    rng: gives the random numbers; all step sizes are compared on the same draws. `value` and `error` of the result are
        of these draws, which chose the settings; `fresh_value` and `fresh_error`, of a divergence, are of new ones.
    estimator: of the divergence that is minimized: marginal, conditional or path.
    tuner: grid or gradient, which minimize the divergence, or acceptance, which aims at 57.4% of a Metropolis step.
    over: what is tuned: one step size, one for each of the layers, schedule for one and its decay, or both.
    steps: K, at least 1, in place of the learner's; None keeps that.

    Raises InputError for words that are none of these, and for words that do not go together.

    >>> from shortrun import ModelConfig, ShortRun
    >>> learner = ShortRun.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8))
    >>> found = tune(learner, torch.zeros(4, 1, 4, 4), torch.Generator().manual_seed(0), steps=2)
    >>> found.settings.shape, found.value <= found.start
    (torch.Size([1]), True)
    """
    chains = Chains(learner, x.to(learner.device), rng, steps)
    space = Space(over, learner.generator.latents, learner.step_size.decay)
    start = space.read(learner.step_size)
    if tuner not in (*TUNERS, "acceptance"):
        raise InputError("tuner", repr(tuner), did_you_mean(tuner, [*TUNERS, "acceptance"]))
    if tuner == "acceptance" and space.has_decay:
        raise InputError("over", repr(over), "acceptance moves all step sizes by one factor: write one or layers")
    if tuner == "gradient" and not chains.has_derivative(estimator):
        raise InputError("tuner", f"{tuner!r} for {estimator} of more than {DENSE} latents", "write grid")
    with frozen(learner.generator):
        if tuner == "acceptance":
            return acceptance(chains.acceptance(space), start)
        found = TUNERS[tuner](chains.divergence(space, estimator), start, space)
        fresh = Chains(learner, chains.x, rng, steps)
        return checked(found, fresh.divergence(space, estimator))


def image_acceptance(
    learner: ChainLearner, x: Images, rng: torch.Generator, settings: Settings, steps: int | None = None
) -> Float[Tensor, "n"]:
    """Return how often each image's Metropolis-adjusted chain accepts with settings that `tune` found, (n,) in [0, 1].

    learner: as `tune` was given it.
    x: (n, c, h, w) in [-1, 1], the images that `tune` was given.
    rng: in the state that `tune` was given, for the same draws.
    settings: of one step size.
    steps: as `tune` was given it.
    """
    chains = Chains(learner, x.to(learner.device), rng, steps)
    with frozen(learner.generator):
        return chains.acceptance(Space("one", learner.generator.latents, learner.step_size.decay))(settings)


def move_step_size(
    learner: ChainLearner, x: Images, rng: torch.Generator, tuning: TuningConfig, mask: Mask | None = None
) -> None:
    """Move a learner's step sizes a little towards the best for its present weights, as training does now and then.

    learner: whose step sizes are changed.
    x: (n, c, h, w) in [-1, 1], training images, on the learner's device.
    rng: gives the random numbers.
    tuning: what is tuned, and how.
    mask: (n, 1, h, w), 1 = observed; None where all pixels are.
    """
    chains = Chains(learner, x, rng, mask=None if mask is None else mask.to(x.device))
    space = Space(tuning.over, learner.generator.latents, learner.step_size.decay)
    start = space.read(learner.step_size)
    with frozen(learner.generator):
        if tuning.tuner == "acceptance":
            moved = acceptance_move(chains.acceptance(space), start)
        else:
            moved = MOVES[tuning.tuner](chains.divergence(space, tuning.estimator), start, space.widths())
    # small moves alone let r run away where the steps are far too short: a chain of rising steps is better there
    space.write(learner.step_size, space.within(moved))


def divergence_curves(
    learner: ChainLearner,
    x: Images,
    rng: torch.Generator,
    estimators: Sequence[str] = tuple(ESTIMATORS),
    step_sizes: Sequence[float] | None = None,
    tuners: Sequence[str] = tuple(TUNERS),
    shown: Shown = silent,
) -> Curves:
    """Return each estimator's curve over constant step sizes, and where the tuners find its minimum.

    The estimators share each chain and its Hessians. Beyond 256 latents they are stochastic, and the conditional one
    goes without gradient.

    learner: whose chains are looked at, ready to use.
    x: (n, c, h, w) in [-1, 1], the images.
    rng: gives the random numbers; all step sizes are compared on the same draws.
    estimators: of marginal, conditional and path.
    step_sizes: those looked at before the tuners look closer; 13 from 0.001 to 10 where not given.
    tuners: of grid and gradient.
    shown: called with a sequence of work and words for it, returns it, to show progress.

    Raises InputError for names that are none.

    >>> from shortrun import ModelConfig, ShortRun
    >>> learner = ShortRun.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8))
    >>> x, rng = torch.zeros(4, 1, 4, 4), torch.Generator().manual_seed(0)
    >>> curves = divergence_curves(learner, x, rng, ["marginal"], step_sizes=[0.1, 0.5], tuners=[])
    >>> [round(s, 3) for s, mean, error in curves.points("marginal")]
    [0.1, 0.5]
    """
    check_tuners(tuners)
    chains = Chains(learner, x.to(learner.device), rng)
    with frozen(learner.generator):
        return curves_of(
            chains,
            lambda: Chains(learner, chains.x, rng),
            Space("one", learner.generator.latents).read(learner.step_size),
            Space("one", learner.generator.latents),
            estimators=estimators,
            step_sizes=step_sizes,
            tuners=tuners,
            shown=shown,
        )
