"""Estimators of the divergence from few Hessian-vector products against the dense ones, on a trained run.

    python benchmarks/stochastic_estimators.py RUN [--images 8] [--step-sizes 0.05 0.1 0.15 0.2 0.25] [--seed 0]

For each estimator and step size: the dense value, the mean over test images of `Estimate.kl`; that of its stochastic
stand-in for the same chains; the error of the mean, in per cent of the value and in nats; the error of one image, root
mean square; Hessian-vector products per step and image, and the dense one's; how many times less CPU time of one thread
the whole estimator takes. A value's zero lies where the units of the pixels put it, so its per cent means little near
it: at the end, the largest error also as a share of the dense values' range over the step sizes.
"""

import argparse
import datetime
import json
import time
from pathlib import Path

import torch
from torch import Tensor

from shortrun.config import load_config
from shortrun.inference.divergence import ChainDensity, Conditional, Estimate, Marginal, follow
from shortrun.inference.langevin import LogDensity
from shortrun.inference.stochastic import LanczosConditional
from shortrun.inference.subspace import SubspaceMarginal
from shortrun.learners import ShortRun, frozen
from shortrun.training.machine import machine
from shortrun.training.setup import read_dataset

LANCZOS = ("probes", "depth", "every")
SUBSPACE = ("rank", "stiff", "whole", "outside")
HEAD = ["estimator", "s", "dense", "stochastic", "error", "nats", "one image", "products", "time"]


def timed(
    density: ChainDensity, log_density: LogDensity, z: Tensor, step_size: float, noise: Tensor
) -> tuple[Estimate, float]:
    """Return an estimate and the CPU seconds it took."""
    start = time.process_time()
    estimate = follow([density], log_density, z, step_size, noise)[0]
    return estimate, time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=8, help="test images")
    parser.add_argument("--first", type=int, default=0, help="the first test image")
    parser.add_argument("--step-sizes", type=float, nargs="+", default=[0.05, 0.1, 0.15, 0.2, 0.25])
    parser.add_argument("--seed", type=int, default=0, help="of the chains' noise and of the estimators' draws")
    for name in (*LANCZOS, *SUBSPACE):
        parser.add_argument(f"--{name}", type=int, help="in place of the setting for the number of latents")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    learner = ShortRun.from_pretrained(arguments.run / "checkpoint")
    dataset = read_dataset(load_config(str(arguments.run / "config.toml")))
    x = dataset.test.images(slice(arguments.first, arguments.first + arguments.images))
    n, d, steps = len(x), learner.generator.dim, learner.steps
    rng = torch.Generator().manual_seed(arguments.seed)
    z, noise = torch.randn(n, d, generator=rng), torch.randn(steps, n, d, generator=rng)

    def log_density(latents: Tensor) -> Tensor:
        return learner.generator.log_joint(x, latents)

    def stand_ins() -> list[tuple[str, ChainDensity, LanczosConditional | SubspaceMarginal]]:
        draws = torch.Generator().manual_seed(arguments.seed)
        given = {name: value for name, value in vars(arguments).items() if value is not None}
        lanczos, subspace = ({name: given[name] for name in names if name in given} for names in (LANCZOS, SUBSPACE))
        lanczos = LanczosConditional.at_a_tenth(draws, d, **lanczos)
        subspace = SubspaceMarginal.at_a_tenth(draws, d, **subspace)
        return [("conditional", Conditional(), lanczos), ("marginal", Marginal(), subspace)]

    print(f"| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}", flush=True)
    with frozen(learner.generator):
        timed(Conditional(), log_density, z, arguments.step_sizes[0], noise[:1])  # whatever is set up on first use
        told: dict[str, list[tuple[float, float]]] = {}
        for size in arguments.step_sizes:
            for name, dense, cheap in stand_ins():
                (exact, slow), (found, fast) = (timed(way, log_density, z, size, noise) for way in (dense, cheap))
                value, errors = float(exact.kl.mean()), found.kl - exact.kl
                error, typical = float(errors.mean()), float((errors**2).mean().sqrt())
                told.setdefault(name, []).append((value, error))
                columns = [
                    name,
                    f"{size:g}",
                    f"{value:.1f}",
                    f"{value + error:.1f}",
                    f"{100 * error / abs(value):+.1f}%",
                ]
                columns += [f"{error:+.1f}", f"{typical:.1f}", f"{cheap.products_per_step(steps):.1f} of {d}"]
                print(f"| {' | '.join([*columns, f'{slow / fast:.1f} times less'])} |", flush=True)
    for name, pairs in told.items():
        values, errors = zip(*pairs, strict=True)
        largest, spread = max(map(abs, errors)), max(values) - min(values)
        share = f", {largest / spread:.1%} of the range {spread:.0f}" if spread else ""  # one step size has no range
        print(f"{name}: error at most {largest:.1f} nats{share}")
    conditions = {name: value for name, value in vars(arguments).items() if name != "run" and value is not None}
    conditions |= {"run": str(arguments.run), "data": dataset.name, "d": d, "K": steps, "test_images": n}
    print(json.dumps(conditions | {"machine": machine(), "date": datetime.date.today().isoformat()}))


if __name__ == "__main__":
    main()
