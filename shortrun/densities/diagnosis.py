"""Are short runs on a log density good? They are held against long Metropolis-adjusted chains."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.densities.door import check_step_size, entered
from shortrun.densities.draws import drawn
from shortrun.densities.start import Start, check_whole, normals
from shortrun.densities.verdict import DensityDiagnosis, Off, Reference
from shortrun.inference.acceptance import acceptance_rates
from shortrun.inference.adjusted import AdjustedChains, Course, adjusted_chains
from shortrun.inference.diagnostics import effective_sizes, split_rhat
from shortrun.inference.langevin import LogDensity

ACCEPTANCE_STEPS = 5
"""Adjusted steps after each short run that its acceptance is the mean of."""


def diagnose(
    log_density: LogDensity,
    start: Start,
    rng: torch.Generator,
    step_size: float,
    *,
    steps: int = 25,
    draws: int = 1000,
    chains: int = 32,
    long_steps: int = 5000,
) -> DensityDiagnosis:
    """Return how short runs on a log density compare with long Metropolis-adjusted chains that go on from their ends.

    The step of the long chains is searched for in their first fifth; what is kept is of their second half. R-hat and
    effective sizes say whether they are a reference at all: they need `pip install 'shortrun[diagnose]'`.

    log_density: (n, d) -> (n,), one value for each row from that row alone, up to a constant; twice differentiable.
    start: the normal that the chains start from, in whose precision they run.
    rng: gives the random numbers.
    step_size: s of the short runs, a positive number.
    steps: K, at least 1.
    draws: short runs, at least 2.
    chains: long ones, from 2 to as many as there are short runs.
    long_steps: of each long chain, at least 10.

    Raises InputError for a density, a start or a setting that cannot be. Warns where short runs diverged.

    >>> import torch
    >>> start, rng = Start.standard(2), torch.Generator().manual_seed(0)
    >>> found = diagnose(lambda z: -(z**2).sum(1) / 2, start, rng, 0.5, draws=100, long_steps=100)
    >>> len(found.means), found.acceptance > 0.9, found.reference.z.shape
    (2, True, torch.Size([32, 50, 2]))
    """
    check_whole(2, draws=draws, chains=chains)
    check_whole(10, long_steps=long_steps)
    chains = min(chains, draws)
    step_size = check_step_size(step_size)
    density = entered(log_density, start, rng, steps=steps)
    begun, short = drawn(density, start, rng, step_size, steps, draws, depth=4)
    accepted = _acceptance(density, start, rng, step_size, steps, draws)
    # a chain that diverged would not come back: the long one starts where it had started
    ends = torch.where(short.diverged[:, None], begun, short.z)
    course = Course(long_steps, long_steps // 5, long_steps // 2)
    kind = start.mean.dtype
    run = adjusted_chains(density, ends[None, :chains], step_size, course, rng, dtype=kind)
    reference = _reference(run, step_size, long_steps)
    kept = ~short.diverged.cpu()
    z, heights = short.z.cpu().double()[kept], short.log_density.cpu().double()[kept]
    means, deviations = compared(z, reference.z.double())
    energy = compared(-heights[:, None], -reference.log_density.double()[..., None], units=False)[0][0]
    return DensityDiagnosis(short, accepted, means, deviations, energy, reference)


def compared(
    z: Float[Tensor, "n d"], long: Float[Tensor, "chains draws d"], units: bool = True
) -> tuple[list[Off], list[Off]]:
    """Return how far the means and the standard deviations of independent draws are from those of chains.

    Errors of the chains are of the spread of their own means, which holds however slowly they move.

    z: (n, d), independent of one another; all is NaN for fewer than 2.
    long: (chains, draws, d).
    units: whether differences of means are in standard deviations of the chains.
    """
    z = z if len(z) > 1 else z.new_full((2, z.shape[1]), math.nan)
    flat = long.flatten(0, 1)
    sd, centre = flat.std(0), flat.mean(0)
    unit = sd if units else torch.ones_like(sd)
    squares, own = (long - centre) ** 2, (z - z.mean(0)) ** 2
    n, chains = math.sqrt(len(z)), math.sqrt(len(long))
    mean_error = ((z.std(0) / n) ** 2 + (long.mean(1).std(0) / chains) ** 2).sqrt() / unit
    ratio = z.std(0) / sd
    # of a standard deviation: half of that of its variance, as a share of it
    shares = (own.std(0) / n / own.mean(0)) ** 2 + (squares.mean(1).std(0) / chains / sd**2) ** 2
    off = (z.mean(0) - centre) / unit
    return (
        [Off(*each) for each in zip(off.tolist(), mean_error.tolist(), strict=True)],
        [Off(*each) for each in zip((ratio - 1).tolist(), (ratio * shares.sqrt() / 2).tolist(), strict=True)],
    )


def _acceptance(
    density: LogDensity, start: Start, rng: torch.Generator, step_size: float, steps: int, draws: int
) -> float:
    """Return the mean acceptance of adjusted steps where short runs of their own end."""
    z, noise = start.draw(draws, rng), normals(draws, start, rng, steps)
    adjusted = normals(draws, start, rng, ACCEPTANCE_STEPS)
    size = (ACCEPTANCE_STEPS, draws)
    uniforms = torch.rand(size, generator=rng, device=rng.device, dtype=z.dtype).to(z.device)
    with torch.no_grad():
        return float(acceptance_rates(density, z, step_size, noise, adjusted, uniforms).mean())


def _reference(run: AdjustedChains, step_size: float, steps: int) -> Reference:
    z, heights = run.kept[0], run.log_density[0]
    found, accepted = float(run.scale[0]) * step_size, float(run.passed[:, 0].mean())
    try:
        array = z.double().numpy()
        rhat, ess = float(split_rhat(array).max()), float(effective_sizes(array).min())
    except ModuleNotFoundError:
        rhat = ess = None
    return Reference(z, heights, found, accepted, steps, rhat, ess)
