"""Small moves with fresh noise each time: they come to the best step size and stay, and noise alone moves nothing."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from tuning_problems import LATENTS, LinearGaussian, logs, normal

from shortrun.inference import StepSize
from shortrun.inference.moves import gradient_move, grid_move
from shortrun.inference.tuning import Objective, Settings, Space, gradient

# beartype, which checks the types here, picks the items it looks at by chance
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")

MOVES: dict[str, Callable[..., Settings]] = {"grid": grid_move, "gradient": gradient_move}
N = 16


def bowl(seed: int, slope: float = 0.0, bend: float = 1.0, noise: float = 1.0, n: int = N) -> Objective:
    """A curve of log s with noise in its height and its slope for each image."""
    height, tilt = noise * normal(2, n, seed=seed)
    return lambda at: height + tilt * at.sum() + (slope * at + 0.5 * bend * at**2).sum()


@pytest.mark.parametrize("start", [0.01, 1.0])
@pytest.mark.parametrize("name", MOVES)
def test_they_come_to_the_best_step_size_and_stay(name: str, start: float) -> None:
    problem, space, at, path = LinearGaussian(16), Space("one", LATENTS), logs(start), []
    for k in range(28):
        at = MOVES[name](problem.estimate(space, "marginal", seed=1000 + 2 * k), at)
        path.append(float(at[0]) - problem_best())
    # 0.3 a move at most: from a factor of 20 it takes 10 of them
    assert max(map(abs, path[14:])) < 0.4
    assert abs(sum(path[14:]) / len(path[14:])) < 0.15


def problem_best(found: list[float] = []) -> float:  # noqa: B006
    """The dense scan, once."""
    if not found:
        found.append(LinearGaussian(16).best())
    return found[0]


@pytest.mark.parametrize(("over", "start"), [("layers", 1.0), ("schedule", 0.02), ("schedule", 1.0)])
def test_moves_of_several_settings_bring_the_divergence_down(over: str, start: float) -> None:
    problem, space = LinearGaussian(16), Space(over, LATENTS)
    exact = problem.exact(space)
    at = space.read(StepSize((start, start) if over == "layers" else start, LATENTS))
    first, found = float(exact(at).mean()), []
    for k in range(32):
        at = space.within(grid_move(problem.estimate(space, "marginal", seed=1000 + 2 * k), at, space.widths()))
        found.append(float(exact(at).mean()))
    best = gradient(exact, at, space).value
    assert sorted(found[-10:])[5] - best < 0.05 * (first - best)


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("n", [2, 3, N])
def test_noise_alone_moves_nothing_on_average(n: int, name: str) -> None:
    start = torch.zeros(1, dtype=torch.float64)
    moves = torch.stack([MOVES[name](bowl(seed, bend=0.0, n=n), start) for seed in range(600)])
    assert abs(float(moves.mean())) < 4 * float(moves.std()) / 600**0.5
    assert float(moves.abs().mean()) < (0.15 if n > 3 else 0.2)
    # and what is sure does move
    sure = torch.stack([MOVES[name](bowl(seed, slope=-3.0, bend=0.0), start) for seed in range(20)])
    assert (sure > 0.27).all()


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("p", [1, 3])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_where_nothing_is_finite_they_move_down(value: float, p: int, name: str) -> None:
    found = MOVES[name](lambda at: at.sum() * torch.full((N,), value), logs(*[0.5] * p))
    torch.testing.assert_close(found, logs(*[0.5] * p) - 0.3)


def test_a_wall_above_is_not_climbed() -> None:
    """Where longer steps are infinite the move is down, even if the curve still falls towards the wall."""

    def objective(at: Tensor) -> Tensor:
        return torch.where(at[0] > 0.1, torch.inf, -at[0] + normal(N, seed=1))

    assert grid_move(objective, torch.zeros(1).double())[0] < 0


@pytest.mark.parametrize("name", MOVES)
def test_each_setting_has_its_width(name: str) -> None:
    widths = Space("both", LATENTS).widths()
    assert widths.tolist() == [0.3, 0.3, 0.6]
    found = MOVES[name](bowl(0, slope=9.0, bend=0.0, noise=0.0), torch.zeros(3).double(), widths)
    torch.testing.assert_close(found, -widths)


@pytest.mark.parametrize("name", MOVES)
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    slope=st.floats(-100, 100),
    bend=st.floats(-10, 10),
    noise=st.floats(0, 100),
    width=st.floats(0.01, 1),
)
def test_no_move_is_longer_than_the_width(
    name: str, seed: int, slope: float, bend: float, noise: float, width: float
) -> None:
    start = torch.tensor([0.5, -0.7], dtype=torch.float64)
    found = MOVES[name](bowl(seed, slope, bend, noise), start, width)
    assert ((found - start).abs() <= width + 1e-12).all()
    assert found.isfinite().all()


def test_a_sure_vertex_within_the_width_is_hit() -> None:
    at = torch.tensor([0.2, -0.1], dtype=torch.float64)
    found = grid_move(lambda u: (u**2).sum() + normal(N, seed=1), at)
    torch.testing.assert_close(found, torch.zeros(2).double(), rtol=0, atol=1e-9)


def test_evaluations_are_as_few_as_said() -> None:
    calls = []

    def counted(at: Tensor) -> Tensor:
        calls.append(at)
        return bowl(0)(at)

    for name, expected in (("grid", 1 + 2 * 3), ("gradient", 3)):
        calls.clear()
        MOVES[name](counted, torch.zeros(3).double())
        assert len(calls) == expected
