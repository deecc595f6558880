"""What tuned short runs get of densities whose moments are known: a funnel, a banana, a stiff normal, and two more.

    python -m benchmarks.densities [--steps 25] [--draws 4000] [--seed 0] [--small]

Each density is climbed from N(0, I) with the step size that each estimator chooses. `again` is a second round as
`shortrun.diagnose` advises it: from the normal with the moments of the draws of `marginal`, with half its step size and
4 K steps.
Columns: the free energy that the estimator claims, on draws that had no part in the choice, which is the divergence
where the density is normalized (all but the regression); errors of mean and standard deviation, in true standard
deviations, of the dimension that is farthest off, and their root mean square over dimensions; the share of chains that
diverged; what a Metropolis test would accept; and what `shortrun.diagnose`, which does not know the true moments, calls
not well.
"""

import argparse
import datetime
import json
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import shortrun
from shortrun import Start
from shortrun.densities import DensityDiagnosis
from shortrun.densities.verdict import verdict
from shortrun.normals import full_components, mixture
from shortrun.training.machine import machine

HEAD = ("density", "by", "s", "claimed", "mean: worst", "mean: rms", "sd: worst", "sd: rms", "diverged", "accepted")


@dataclass(frozen=True)
class Target:
    """A density with its moments, float64."""

    log_density: Callable[[Tensor], Tensor]
    mean: Tensor
    sd: Tensor


def log_normal(z: Tensor, mean: Tensor | float, log_sd: Tensor | float) -> Tensor:
    """Return log N(z; mean, sd^2), number by number."""
    return -0.5 * ((z - mean) * torch.exp(-torch.as_tensor(log_sd))) ** 2 - log_sd - 0.5 * math.log(2 * math.pi)


def funnel(d: int = 10, sd: float = 3.0) -> Target:
    """v ~ N(0, sd^2), the others N(0, e^v) (Neal, "Slice Sampling", 2003)."""

    def log_density(z: Tensor) -> Tensor:
        v = z[:, :1]
        return (log_normal(v, 0.0, math.log(sd)) + log_normal(z[:, 1:], 0.0, 0.5 * v).sum(1, keepdim=True))[:, 0]

    others = math.exp(sd**2 / 4)
    return Target(log_density, torch.zeros(d).double(), torch.tensor([sd, *[others] * (d - 1)]).double())


def banana(bend: float = 1.0, width: float = 0.5) -> Target:
    """a ~ N(0, 1), b ~ N(bend (a^2 - 1), width^2)."""

    def log_density(z: Tensor) -> Tensor:
        a, b = z.unbind(1)
        return log_normal(a, 0.0, 0.0) + log_normal(b, bend * (a**2 - 1), math.log(width))

    return Target(log_density, torch.zeros(2).double(), torch.tensor([1.0, math.sqrt(2 * bend**2 + width**2)]).double())


def stiff(d: int = 20, condition: float = 1000.0) -> Target:
    """A normal with variances from 1 / condition to 1."""
    sd = torch.logspace(-math.log10(condition) / 2, 0, d, dtype=torch.float64)
    return Target(lambda z: log_normal(z, 0.0, sd.log()).sum(1), torch.zeros(d).double(), sd)


def two_modes(apart: float = 3.0, weight: float = 0.7) -> Target:
    """weight N((apart, 0), I) + (1 - weight) N((-apart, 0), I)."""
    weights, means = torch.tensor([weight, 1 - weight]).double(), torch.tensor([[apart, 0.0], [-apart, 0.0]]).double()
    roots = torch.eye(2).double().expand(2, 2, 2)
    mean = weights @ means
    sd = (1 + weights @ means**2 - mean**2).sqrt()
    return Target(lambda z: mixture(full_components(z, weights.log(), means, roots)), mean, sd)


def regression(long_steps: int, seed: int, n: int = 200, d: int = 20) -> Target:
    """Coefficients N(0, I) of a logistic regression; their moments by long adjusted chains from two short runs."""
    rng = torch.Generator().manual_seed(seed)
    x, truth = (torch.randn(*size, generator=rng, dtype=torch.float64) for size in ((n, d), (d,)))
    y = torch.bernoulli(torch.sigmoid(x @ truth), generator=rng)

    def log_density(z: Tensor) -> Tensor:
        logits = z @ x.T
        return (y * logits - torch.nn.functional.softplus(logits)).sum(1) + log_normal(z, 0.0, 0.0).sum(1)

    start = shortrun.Start.standard(d)
    long = shortrun.diagnose(log_density, start, rng, 0.2, long_steps=long_steps).reference.z.flatten(0, 1)
    return Target(log_density, long.mean(0), long.std(0))


def row(name: str, estimator: str, s: float, claimed: str, target: Target, found: DensityDiagnosis) -> list[str]:
    """Return the cells of one line."""
    z = found.draws.z[~found.draws.diverged]
    mean, sd = (z.mean(0) - target.mean).abs() / target.sd, z.std(0) / target.sd - 1
    worst = sd[sd.abs().argmax()]
    cells = [name, estimator, f"{s:.3g}", claimed, f"{float(mean.max()):.2f}", f"{rms(mean):.2f}"]
    cells += [f"{float(worst):+.0%}", f"{rms(sd):.0%}", f"{found.draws.share_diverged:.1%}", f"{found.acceptance:.0%}"]
    return [*cells, ", ".join(each.subject for each in verdict(found) if not each.well) or "all well"]


def rms(values: Tensor) -> float:
    """Return the root mean square."""
    return float((values**2).mean().sqrt())


def rows(
    name: str, target: Target, seed: int, steps: int, draws: int, chains: int, long_steps: int
) -> Iterator[list[str]]:
    """Yield the lines of a density: one for each estimator, and one of a second round."""
    rng = torch.Generator().manual_seed(seed)

    def line(label: str, claimed: str, start: Start, s: float, steps: int) -> list[str]:
        found = shortrun.diagnose(target.log_density, start, rng, s, steps=steps, draws=draws, long_steps=long_steps)
        return row(name, label, s, claimed, target, found)

    start = Start.standard(len(target.mean))
    tuned = shortrun.tune(target.log_density, start, rng, steps=steps, chains=chains, draws=draws)
    for estimator, least in tuned.minima.items():
        claimed = f"{least.fresh_value:.2f} ± {least.fresh_error:.2f}"
        yield line(estimator, claimed, start, tuned.step_sizes[estimator], steps)
    start = Start.of_samples(tuned.draws.z[~tuned.draws.diverged])
    yield line("again", "", start, tuned.draws.step_size / 2, 4 * steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=25, help="K")
    parser.add_argument("--draws", type=int, default=4000, help="short runs that moments are taken of")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true", help="seconds in place of minutes; its figures are rough")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    steps, chains, draws, long_steps = (
        (5, 8, 200, 100) if arguments.small else (arguments.steps, 64, arguments.draws, 5000)
    )
    targets = {
        "funnel": funnel(),
        "banana": banana(),
        "condition 1,000": stiff(),
        "regression": regression(4 * long_steps, arguments.seed),
        "two modes": two_modes(),
    }
    print(f"| {' | '.join([*HEAD, 'not well by diagnose'])} |\n|{' --- |' * (len(HEAD) + 1)}", flush=True)
    about = {"steps": steps, "draws": draws, "chains": chains, "long_steps": long_steps}
    with warnings.catch_warnings():  # the column says what diverged
        warnings.simplefilter("ignore", RuntimeWarning)
        for name, target in targets.items():
            for cells in rows(name, target, arguments.seed, **about):
                print(f"| {' | '.join(cells)} |", flush=True)
    about["seed"] = arguments.seed
    print(json.dumps(about | {"machine": machine(), "date": datetime.date.today().isoformat()}))


if __name__ == "__main__":
    main()
