"""The largest curvature of a log density, which bounds the step sizes of chains on it."""

from jaxtyping import Float
from torch import Tensor

from shortrun.inference.jacobian import pulled_score
from shortrun.inference.langevin import LogDensity
from shortrun.normals import Flat

ROUNDS = 12


def largest_curvature(log_density: LogDensity, z: Flat, direction: Flat, rounds: int = ROUNDS) -> Float[Tensor, "n"]:
    """Return the size of the Hessian's largest eigenvalue at each row, (n,), by power iteration.

    log_density: (n, d) -> (n,), one value for each row from that row alone.
    z: (n, d).
    direction: (n, d), not 0, where the iteration starts; standard normal draws, for example.
    rounds: at least 1, products with the Hessian.

    >>> import torch
    >>> stiff = torch.tensor([9.0, 1.0])
    >>> value = largest_curvature(lambda z: -(stiff * z**2).sum(1) / 2, torch.zeros(1, 2), torch.ones(1, 2))
    >>> round(value.item(), 3)
    9.0
    """
    _, product = pulled_score(log_density, z)
    size = direction.new_ones(len(direction), 1)
    for _ in range(rounds):
        direction = direction / direction.norm(dim=1, keepdim=True).clamp(min=1e-30)
        direction = product(direction)
        size = direction.norm(dim=1, keepdim=True)
    return size[:, 0]
