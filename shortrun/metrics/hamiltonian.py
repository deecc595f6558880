"""Hamiltonian Monte Carlo between N(0, I) and N(0, I) exp(r + f), by way of exp(a r + b f): knows callables only.

Sources: Neal, "MCMC using Hamiltonian dynamics", 2011, arXiv 1206.1901. Wu, Burda, Salakhutdinov and Grosse, "On the
Quantitative Analysis of Decoder-Based Generative Models", 2017, arXiv 1611.04273.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

Function = Callable[[Float[Tensor, "rows d"]], Float[Tensor, "rows"]]

SHARPNESS = 4.0
WANTED_ACCEPTANCE, GAIN, JITTER = 0.65, 0.2, 0.2
SHORTEST_PASS = 50


def inverse_temperatures(count: int) -> Float64[Tensor, "_"]:
    """Return beta_0 = 0 < ... < beta_T = 1, (T + 1,), by a sigmoid: dense at both ends, as in Wu et al.

        beta_t = (sigmoid(a (2 t / T - 1)) - sigmoid(-a)) / (sigmoid(a) - sigmoid(-a)),   a = 4

    count: T, at least 1.
    """
    curve = torch.sigmoid(SHARPNESS * torch.linspace(-1, 1, count + 1, dtype=torch.float64))
    return (curve - curve[0]) / (curve[-1] - curve[0])


class Place(NamedTuple):
    """Where chains stand, with the functions there and their gradients, so that no point is evaluated twice."""

    z: Float[Tensor, "rows d"]
    value: Float[Tensor, "rows"]
    slope: Float[Tensor, "rows d"]
    relative: Float[Tensor, "rows"]
    drift: Float[Tensor, "rows d"]


class Powers(NamedTuple):
    """Which density a transition keeps: N(z; 0, I) exp(a r(z) + b f(z))."""

    b: float
    a: float = 1.0


class Hamiltonian:
    """Transitions that keep the density proportional to N(z; 0, I) exp(a r(z) + b f(z)), at any powers a and b.

    function: f, (rows, d) -> (rows,), row by row, differentiable.
    leapfrog: at least 1, steps of a transition.
    rng: gives the random numbers.
    relative: r; 0 where not given.
    """

    def __init__(
        self, function: Function, leapfrog: int, rng: torch.Generator, relative: Function | None = None
    ) -> None:
        self.function, self.leapfrog, self.rng, self.relative = function, leapfrog, rng, relative

    def at(self, z: Float[Tensor, "rows d"]) -> Place:
        """Return the place of chains that stand at z."""
        with torch.enable_grad():
            at = z.detach().requires_grad_()
            value = self.function(at)
            slope = torch.autograd.grad(value.sum(), at)[0]
            if self.relative is None:
                return Place(z, value.detach(), slope, torch.zeros_like(value), torch.zeros_like(z))
            relative = self.relative(at)
            drift = torch.autograd.grad(relative.sum(), at)[0]
        return Place(z, value.detach(), slope, relative.detach(), drift)

    def move(self, place: Place, powers: Powers, step: Float[Tensor, "rows 1"]) -> tuple[Place, Float[Tensor, "rows"]]:
        """Return where a transition that keeps the density leads, and the probability of its acceptance.

        A proposal that is not finite is rejected. The step is multiplied by a draw around 1 for each row: no orbit can
        then return to where it began.
        """
        step = step * (1 + JITTER * (2 * self._uniform(step) - 1))[:, None]
        rng = self.rng
        momentum = torch.randn(place.z.shape, generator=rng, device=rng.device, dtype=step.dtype).to(step.device)
        moved, moving = place, momentum + 0.5 * step * _force(place, powers)
        for k in range(self.leapfrog):
            moved = self.at(moved.z + step * moving)
            # two half kicks in one, but for the last
            kick = step if k < self.leapfrog - 1 else 0.5 * step
            moving = moving + kick * _force(moved, powers)
        gain = powers.b * (moved.value - place.value) + powers.a * (moved.relative - place.relative)
        gain = gain - 0.5 * (moved.z**2 - place.z**2 + moving**2 - momentum**2).sum(1)
        chance = gain.clamp(max=0).exp().nan_to_num(nan=0.0)
        accept = self._uniform(step) < chance
        each = [
            torch.where(accept.view(-1, *[1] * (new.ndim - 1)), new, old) for new, old in zip(moved, place, strict=True)
        ]
        return Place(*each), chance

    def tuned(self, z: Float[Tensor, "rows d"], path: Sequence[Powers], chains: int) -> "Steps":
        """Return a step size for each point of a path and image that aims at an acceptance of 0.65, by a pass.

        It is fixed then: a step that follows the chain's own past would not keep the density.

        z: where the pass starts, draws of the path's first density; the images take turns.
        path: the powers, at least two; a shorter path than that of the pass to come is enough.
        chains: rows of an image.
        """
        # a quarter of the orbit in N(0, I): the next point is then independent of the last in every direction that
        # the image does not determine, and more would be wasted
        most = math.log(math.pi / 2 / self.leapfrog)
        place, table = self.at(z), []
        log_step = torch.full((len(z) // chains,), most, dtype=torch.float64)
        for powers in path:
            table.append(log_step.exp())
            place, chance = self.move(place, powers, table[-1].repeat(chains)[:, None].to(place.z))
            error = chance.double().cpu().view(chains, -1).mean(0) - WANTED_ACCEPTANCE
            log_step = (log_step + GAIN * error).clamp(max=most)
        return Steps(torch.stack(table), chains)

    def _uniform(self, like: Float[Tensor, "rows 1"]) -> Float[Tensor, "rows"]:
        rng = self.rng
        return torch.rand(len(like), generator=rng, device=rng.device, dtype=like.dtype).to(like.device)


def shorter(count: int) -> int:
    """Return how many temperatures tune the steps of a pass of so many: a fifth, and not too few to be tuned."""
    return max(count // 5, SHORTEST_PASS)


def _force(place: Place, powers: Powers) -> Float[Tensor, "rows d"]:
    return powers.b * place.slope + powers.a * place.drift - place.z


class Steps(NamedTuple):
    """Step sizes along a path: `table`, (points, n), for `chains` rows of each of n images."""

    table: Float64[Tensor, "_ n"]
    chains: int

    def at(self, height: float) -> Float64[Tensor, "rows 1"]:
        """Return the step of each row at a share of the path, between two of the table by interpolation.

        height: from 0 to 1.
        """
        position = height * (len(self.table) - 1)
        low = min(int(position), len(self.table) - 2)
        return torch.lerp(self.table[low], self.table[low + 1], position - low)[:, None].repeat(self.chains, 1)
