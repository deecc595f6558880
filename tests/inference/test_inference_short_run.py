import itertools
import math
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shortrun.errors import InputError
from shortrun.inference import DrawnNoise, langevin_step, no_noise, short_run

KINDS = ["number", "scalar", "each latent", "each image", "each image and latent", "each k", "each k and latent", "all"]


def log_density(z: Tensor) -> Tensor:
    """-sum_j w_j cosh(z_j): its gradient is -w sinh(z), known without autograd, and it is not quadratic."""
    return -(torch.cosh(z) * weights(z.shape[1])).sum(1)


def weights(d: int) -> Tensor:
    return 1 + torch.arange(d, dtype=torch.float64) / 3


def step_of(kind: str, steps: int, n: int, d: int, rng: torch.Generator) -> float | Tensor:
    shape = {
        "number": (),
        "scalar": (),
        "each latent": (d,),
        "each image": (n, 1),
        "each image and latent": (n, d),
        "each k": (steps, 1, 1),
        "each k and latent": (steps, 1, d),
        "all": (steps, n, d),
    }[kind]
    value = 0.05 + 0.4 * torch.rand(shape, generator=rng, dtype=torch.float64)
    return float(value) if kind == "number" else value


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(steps=st.integers(1, 7), n=st.integers(1, 4), d=st.integers(1, 4), seed=st.integers(0, 2**32))
def test_chain_is_the_recursion(kind: str, steps: int, n: int, d: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(n, d, generator=rng, dtype=torch.float64)
    noise = torch.randn(steps, n, d, generator=rng, dtype=torch.float64)
    step_size = step_of(kind, steps, n, d, rng)
    start = z.clone()
    end = short_run(log_density, z, step_size, noise)

    s = np.broadcast_to(np.asarray(step_size), (steps, n, d))
    expected = start.numpy().copy()
    for k in range(steps):
        expected += s[k] ** 2 / 2 * (-weights(d).numpy() * np.sinh(expected)) + s[k] * noise[k].numpy()
    torch.testing.assert_close(end, torch.from_numpy(expected))
    assert torch.equal(z, start)


@settings(max_examples=20, deadline=None)
@given(steps=st.integers(1, 7), s=st.floats(0.01, 0.5), seed=st.integers(0, 2**32))
def test_no_noise_is_gradient_ascent(steps: int, s: float, seed: int) -> None:
    z = torch.randn(3, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    end = short_run(log_density, z, s, no_noise(steps, z))
    climber = nn.Parameter(z.clone())
    optimizer = torch.optim.SGD([climber], lr=s**2 / 2)
    for _ in range(steps):
        optimizer.zero_grad()
        (-log_density(climber).sum()).backward()
        optimizer.step()
    torch.testing.assert_close(end, climber.detach())
    assert (log_density(end) > log_density(z)).all()


def test_no_noise_takes_no_memory() -> None:
    z = torch.randn(10, 4)
    zeros = no_noise(1000, z)
    assert zeros.shape == (1000, 10, 4)
    assert zeros.untyped_storage().nbytes() == z.element_size()
    assert zeros.dtype == z.dtype


def test_rows_are_apart() -> None:
    z, noise = torch.randn(5, 3).double(), torch.randn(6, 5, 3).double()
    rows = torch.tensor([3, 1])
    whole = short_run(log_density, z, 0.3, noise)
    torch.testing.assert_close(short_run(log_density, z[rows], 0.3, noise[:, rows]), whole[rows])


def test_a_step_size_for_another_number_of_steps_is_an_error() -> None:
    z = torch.zeros(2, 3).double()
    with pytest.raises(RuntimeError):
        short_run(log_density, z, torch.full((4, 1, 1), 0.1), torch.zeros(5, 2, 3).double())


def test_only_the_latents_are_differentiated() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 1)).double()
    z = torch.randn(2, 3).double()
    end = short_run(lambda z: network(z)[:, 0], z, 0.3, torch.randn(4, 2, 3).double())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not end.requires_grad
    assert z.grad is None
    assert (end != z).all()


def test_gradients_are_there_within_no_grad() -> None:
    z, noise = torch.randn(2, 3).double(), torch.randn(4, 2, 3).double()
    with torch.no_grad():
        inside = short_run(log_density, z, 0.3, noise)
    assert torch.equal(inside, short_run(log_density, z, 0.3, noise))
    z.requires_grad_()
    with torch.no_grad():
        assert not short_run(log_density, z, 0.3, noise).requires_grad


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "number"])
def test_differentiable_in_start_step_size_and_noise(kind: str) -> None:
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(2, 3, generator=rng, dtype=torch.float64)
    noise = torch.randn(4, 2, 3, generator=rng, dtype=torch.float64)
    s = step_of(kind, 4, 2, 3, rng)
    assert isinstance(s, Tensor)

    def chain(z: Tensor, s: Tensor, noise: Tensor) -> Tensor:
        return short_run(log_density, z, s, noise)

    for wanted in itertools.product([False, True], repeat=3):
        if any(wanted):
            arguments = [part.clone().requires_grad_(want) for part, want in zip((z, s, noise), wanted, strict=True)]
            assert torch.autograd.gradcheck(chain, arguments)


def test_one_step_is_the_formula_at_a_known_point() -> None:
    """N(0, 1) at z = 2 with s = 0.5 and noise 3: 2 - 0.125 * 2 + 0.5 * 3."""
    end = langevin_step(lambda z: -0.5 * (z**2).sum(1), torch.tensor([[2.0]]), 0.5, torch.tensor([[3.0]]))
    torch.testing.assert_close(end, torch.tensor([[3.25]]))


class Saved:
    """What a graph keeps for its backward pass."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def most_saved(steps: int, differentiable: bool) -> int:
    """Return the largest number of tensors that were kept for a backward pass at one time."""
    alive: weakref.WeakSet[Saved] = weakref.WeakSet()
    most = 0

    def pack(tensor: Tensor) -> Saved:
        nonlocal most
        saved = Saved(tensor)
        alive.add(saved)
        most = max(most, len(alive))
        return saved

    network = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 1))
    z, s = torch.randn(2, 3), torch.tensor(0.1, requires_grad=differentiable)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        short_run(lambda z: network(z)[:, 0], z, s, DrawnNoise(torch.Generator(), steps, (2, 3)))
    return most


def test_memory_does_not_grow_with_the_chain() -> None:
    assert 0 < most_saved(5, differentiable=False) == most_saved(60, differentiable=False)
    assert most_saved(60, differentiable=True) > 5 * most_saved(5, differentiable=True)  # the measure can see growth


class Watched(DrawnNoise):
    """Noise that counts how many of its matrices are alive."""

    most = 0

    def __iter__(self) -> Iterator[Tensor]:
        drawn = []
        for _ in range(len(self)):
            matrix = self.draw()
            assert matrix.shape == self.size
            drawn.append(weakref.ref(matrix))
            self.most = max(self.most, sum(one() is not None for one in drawn))
            yield matrix
            del matrix


def test_noise_is_drawn_when_it_is_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, randn = [], torch.randn

    def counted(*shape: int, **options) -> Tensor:
        sizes.append(shape)
        return randn(*shape, **options)

    monkeypatch.setattr(torch, "randn", counted)
    noise = DrawnNoise(torch.Generator().manual_seed(0), 50, (4, 3), part=(1, 2))
    turns = iter(noise)
    assert sizes == []
    next(turns)
    assert sizes == [(8, 3)]
    list(turns)
    assert sizes == [(8, 3)] * 50

    watched = Watched(torch.Generator().manual_seed(0), 50, (4, 3))
    short_run(lambda z: -(z**2).sum(1), torch.zeros(4, 3), 0.1, watched)
    assert 1 <= watched.most <= 2


@settings(max_examples=30, deadline=None)
@given(
    steps=st.integers(1, 4), n=st.integers(1, 4), d=st.integers(1, 4), parts=st.integers(1, 4), seed=st.integers(0, 99)
)
def test_parts_draw_what_the_whole_batch_would(steps: int, n: int, d: int, parts: int, seed: int) -> None:
    def drawn(rows: int, share: tuple[int, int]) -> Tensor:
        rng = torch.Generator().manual_seed(seed)
        noise = DrawnNoise(rng, steps, (rows, d), share)
        assert len(noise) == steps
        return torch.stack([noise.draw(), *noise])

    whole = drawn(n * parts, (0, 1))
    assert whole.shape == (steps + 1, n * parts, d)
    assert torch.equal(torch.cat([drawn(n, (part, parts)) for part in range(parts)], dim=1), whole)
    assert torch.equal(drawn(n * parts, (0, 1)), whole)
    assert len(torch.unique(whole)) == whole.numel()  # no number comes twice


def test_noise_is_standard_normal() -> None:
    noise = torch.stack(list(DrawnNoise(torch.Generator().manual_seed(0), 10, (1000, 10)))).flatten().double()
    assert abs(noise.mean()) < 4 / len(noise) ** 0.5
    assert abs(noise.var() - 1) < 4 * (2 / len(noise)) ** 0.5
    assert abs((noise**4).mean() - 3) < 4 * (96 / len(noise)) ** 0.5


def test_same_seed_same_chain() -> None:
    def end(seed: int) -> Tensor:
        rng = torch.Generator().manual_seed(seed)
        return short_run(lambda z: -(z**2).sum(1), torch.ones(3, 2), 0.2, DrawnNoise(rng, 6, (3, 2)))

    assert torch.equal(end(1), end(1))
    assert not torch.equal(end(1), end(2))


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ({"noise": torch.zeros(3, 2)}, "noise"),
        ({"noise": torch.zeros(3, 4, 1)}, "noise"),
        ({"step_size": 0.0}, "step_size"),
        ({"step_size": -0.1}, "step_size"),
        ({"step_size": math.nan}, "step_size"),
        ({"step_size": torch.tensor([0.1, -0.1])}, "step_size"),
        ({"log_density": lambda z: -(z**2) / 2}, "log_density"),
        ({"log_density": lambda z: z @ z.T}, "log_density"),
    ],
)
def test_what_no_chain_can_start_from_is_refused(change: dict[str, Any], argument: str) -> None:
    given: dict[str, Any] = {
        "log_density": lambda z: -(z**2).sum(1) / 2,
        "z": torch.zeros(4, 2),
        "step_size": 0.1,
        "noise": torch.zeros(3, 4, 2),
    }
    assert short_run(**given).shape == (4, 2)
    with pytest.raises(InputError) as caught:
        short_run(**(given | change))
    assert caught.value.argument == argument
