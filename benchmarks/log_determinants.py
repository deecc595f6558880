"""Estimates of log |det A| of one Langevin step from few Hessian products, on spectra that are known.

    python benchmarks/log_determinants.py [--latents 300] [--probes 6] [--depth 7] [--images 400] [--seed 0]

Three ways to use the same block Krylov space: plain stochastic Lanczos quadrature; `counted`, which takes each
converged Ritz value for one eigenvalue and gives the others what is left (the rule before 2026-11-29); and
`controlled`, what `LanczosConditional` does. For each spectrum and step size: the exact value, and of each way the bias
with its standard error and the standard deviation of one image, nats.
"""

import argparse
import datetime
import json
import math

import torch
from torch import Tensor

from shortrun.inference.jacobian import Step
from shortrun.inference.stochastic import krylov, log_det
from shortrun.training.machine import machine


def spectra(d: int) -> dict[str, tuple[Tensor, float]]:
    """Return eigenvalues of -H and a step size, by what they are."""
    k = torch.arange(d, dtype=torch.float64)
    outliers = torch.cat([torch.tensor([80.0, 40.0, 25.0, 9.0, 4.0]), torch.ones(d - 5)]).double()
    return {
        "1 + 100 * .985^i": (1 + 100 * 0.985**k, 0.05),
        "1 + 100 * .985^i, ": (1 + 100 * 0.985**k, 0.1),
        "1 + 400 * .95^i": (1 + 400 * 0.95**k, 0.05),
        "1 + 400 * .9^i": (1 + 400 * 0.9**k, 0.05),
        "1 + 400 * .9^i, ": (1 + 400 * 0.9**k, 0.1),
        "1 + 1000 * .8^i": (1 + 1000 * 0.8**k, 0.1),
        "80, 40, 25, 9, 4, and 1": (outliers, 0.15),
        "0.2 to 3, evenly": (torch.linspace(0.2, 3, d, dtype=torch.float64), 0.5),
    }


def log_of(theta: Tensor) -> Tensor:
    return (1 + theta).abs().log()


def plain(eigenvalues: Tensor, start: Tensor, depth: int) -> Tensor:
    """Return (d / b) sum_j |tau_j|^2 f(theta_j), by image."""
    d, b = start.shape[1:]
    theta, turn = torch.linalg.eigh(krylov(lambda v: eigenvalues[:, None] * v, start, depth))
    return d / b * ((turn[:, :b] ** 2).sum(1) * log_of(theta)).sum(1)


def counted(eigenvalues: Tensor, start: Tensor, depth: int, prior: float) -> Tensor:
    """Return the sum of f over converged Ritz values, plus the mean of f by the others' shares for all that is left."""
    (d, b), basis = start.shape[1:], start
    for _ in range(depth - 1):
        new = eigenvalues[:, None] * basis[..., -b:]
        for _ in range(2):
            new = torch.linalg.qr(new - basis @ (basis.mT @ new))[0]
        basis = torch.cat([basis, new], dim=2)
    curved = eigenvalues[:, None] * basis
    theta, turn = torch.linalg.eigh(basis.mT @ curved)
    residual = (curved @ turn - basis @ turn * theta[:, None]).norm(dim=1)
    weight, distance = (turn[:, :b] ** 2).sum(1), (theta - prior).abs()
    found = (residual < 0.1 * distance) & (distance > 0.1 * abs(prior))
    found = (found & (d * weight < b * (1 + 5 * (2 / b) ** 0.5))).double()
    rest = weight * (1 - found)
    mean = (rest * log_of(theta)).sum(1) / rest.sum(1).clamp(min=1e-300)
    return (found * log_of(theta)).sum(1) + (d - found.sum(1)) * mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=int, default=300)
    parser.add_argument("--probes", type=int, default=6)
    parser.add_argument("--depth", type=int, default=7)
    parser.add_argument("--images", type=int, default=400, help="independent estimates")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    d, n, b, depth = arguments.latents, arguments.images, arguments.probes, arguments.depth
    print("| eigenvalues of -H | s | exact | plain | counted | controlled |\n|" + " --- |" * 6, flush=True)
    for name, (values, s) in spectra(d).items():
        rng = torch.Generator().manual_seed(arguments.seed)
        scaled = -0.5 * s**2 * values
        start = torch.linalg.qr(torch.randn(n, d, b, generator=rng, dtype=torch.float64))[0]
        z, size = torch.zeros(n, d, dtype=torch.float64), torch.full((1, 1), s, dtype=torch.float64)
        step = Step(lambda z, values=values: -0.5 * (values * z**2).sum(1), z, size, None)
        exact, cells = float(log_of(scaled).sum()), []
        ways = (
            plain(scaled, start, depth),
            counted(scaled, start, depth, -0.5 * s**2),
            log_det(step, b, depth, rng.manual_seed(arguments.seed)),
        )
        for way in ways:
            spread = float(way.std())
            cells.append(f"{float(way.mean()) - exact:+.2f} ± {spread / math.sqrt(n):.2f}, {spread:.2f}")
        print(f"| {name.rstrip(', ')} | {s:g} | {exact:.2f} | {' | '.join(cells)} |", flush=True)
    print(json.dumps(vars(arguments) | {"machine": machine(), "date": datetime.date.today().isoformat()}))


if __name__ == "__main__":
    main()
