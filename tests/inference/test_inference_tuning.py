"""Searches for the best step size: on curves whose minimum is known, on a linear generator and on a small network."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from tuning_problems import LATENTS, NEAR, STARTS, STEPS, LinearGaussian, estimate, logs, network, normal

from shortrun.errors import InputError
from shortrun.inference import StepSize
from shortrun.inference.tuning import OVER, Known, Objective, Search, Space, Tuned, checked, derivatives, gradient, grid

# beartype, which checks the types here, picks the items it looks at by chance
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")

TUNERS: dict[str, Callable[..., Tuned]] = {"grid": grid, "gradient": gradient}
SIZES = st.floats(0.001, 10.0)
N = 32
ONE = Space("one", LATENTS)


def held(over: str) -> StepSize:
    """A StepSize that has what is tuned."""
    each = over in ("layers", "both")
    return StepSize((0.3, 0.1) if each else 0.2, LATENTS, 0.4 if over in ("schedule", "both") else 1.0)


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("decay", [1.0, 0.4])
def test_settings_are_read_and_written_back(over: str, decay: float) -> None:
    for values in (0.2, (0.3, 0.1)):
        step_size, space = StepSize(values, LATENTS, decay), Space(over, LATENTS, decay)
        found = space.read(step_size)
        assert found.shape == ({"one": 1, "layers": 2, "schedule": 2, "both": 3}[over],)
        before = step_size(STEPS)
        if space.layers <= len(step_size.values):
            space.write(step_size, found)
            mean = math.sqrt(0.3 * 0.1)
            kept = space.layers == len(step_size.values)
            torch.testing.assert_close(step_size(STEPS), before if kept else StepSize(mean, LATENTS, decay)(STEPS))
            assert step_size.decay == pytest.approx(decay)
        other = found + 0.3 * normal(len(found), seed=1)
        target = held(over)
        space.write(target, other)
        torch.testing.assert_close(space.read(target), other, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(target(STEPS), space.sizes(other, STEPS).float())


@pytest.mark.parametrize("over", OVER)
def test_settings_are_geometric_means_along_the_chain(over: str) -> None:
    step_size, space = held(over), Space(over, LATENTS)
    means = step_size(STEPS)[:, 0].log().mean(0)[[0, LATENTS[0]][: space.layers]]
    found = space.read(step_size)
    torch.testing.assert_close(found[: space.layers].float(), means)
    if space.has_decay:
        assert float(found[-1].exp()) == pytest.approx(0.4)


@pytest.mark.parametrize("over", OVER)
def test_sizes_are_differentiable(over: str) -> None:
    space = Space(over, LATENTS, 0.7)
    at = space.read(held(over))
    for direction in torch.eye(len(at), dtype=torch.float64):
        slope = torch.func.jvp(lambda settings: space.sizes(settings, STEPS), (at,), (direction,))[1]
        ahead, behind = (space.sizes(at + sign * 1e-5 * direction, STEPS) for sign in (1, -1))
        torch.testing.assert_close(slope, (ahead - behind) / 2e-5, rtol=1e-7, atol=1e-9)
        assert slope.abs().max() > 0.01


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="over: got 'layer'; did you mean 'layers'"):
        Space("layer", LATENTS)
    with pytest.raises(InputError, match="over: got 'both' for a learner with one step size"):
        Space("both", LATENTS).write(StepSize(0.1, LATENTS), logs(0.1, 0.2, 1.0))


def test_settings_out_of_reach_are_brought_back() -> None:
    found = Space("both", LATENTS).within(logs(1e-9, 0.2, 30.0))
    torch.testing.assert_close(found, logs(1e-3, 0.2, 1.5))
    torch.testing.assert_close(Space("layers", LATENTS).within(logs(50.0, 1e-9)), logs(10.0, 1e-3))


def bowl(u: Tensor) -> Tensor:
    """Least on average at 0, elsewhere for each image."""
    spread = normal(N, seed=2)
    return 0.5 * (u - 0.4 * (spread - spread.mean())) ** 2


def rough(u: Tensor, seed: int = 0) -> Tensor:
    """Almost a bowl, but the derivatives are spread like Cauchy's over the images: their mean says nothing."""
    rng = torch.Generator().manual_seed(seed)
    speed = torch.empty(N, dtype=torch.float64).cauchy_(sigma=100, generator=rng)
    phase = 6.3 * torch.rand(N, generator=rng, dtype=torch.float64)
    return 0.5 * u**2 + 0.005 * torch.sin(speed * u + phase)


CURVES: dict[str, Callable[[Tensor], Tensor]] = {
    "bowl": bowl,
    "steep beyond": lambda u: bowl(u) + torch.exp(6 * (u - 1.0)) - torch.exp(6 * u.detach() * 0 - 6.0) * (1 + 6 * u),
    "barrier": lambda u: bowl(u) - 4 * torch.exp(-(((u - 3) / 0.4) ** 2)),
    "not finite": lambda u: torch.where(u > 0.8 + 0.1 * torch.arange(N), torch.inf, bowl(u)),
    "not a number": lambda u: torch.where(u > 1.5, u * torch.nan, bowl(u)),
    "rough": rough,
}
"""Of the distance u from the best log s."""


def test_the_curves_are_what_they_are_said_to_be() -> None:
    scan = torch.linspace(-7, 7, 2801, dtype=torch.float64)
    for name, curve in CURVES.items():
        values = torch.stack([curve(u).mean() for u in scan]).nan_to_num(torch.inf)
        assert abs(scan[values.argmin()]) < (0.08 if name == "rough" else 0.02), name
    barrier = [float(CURVES["barrier"](torch.tensor(u)).mean()) for u in (0.0, 2.0, 3.0)]
    assert barrier[0] < barrier[2] < barrier[1]


@pytest.mark.parametrize("name", CURVES)
@settings(max_examples=20, deadline=None)
@given(start=SIZES, best=st.floats(0.01, 1.0))
def test_from_any_start_both_arrive_at_the_known_minimum(name: str, start: float, best: float) -> None:
    for tuner in TUNERS.values():
        found = tuner(lambda at: CURVES[name](at[0] - math.log(best)), logs(start), ONE)
        assert abs(float(found.settings[0]) - math.log(best)) < NEAR, tuner
        assert found.value <= found.start
        assert found.improved == (found.value < found.start)
        assert not math.isnan(found.value + found.start)
        assert found.evaluations < 60


SEVERAL = {"layers": logs(0.05, 0.4), "schedule": logs(0.2, 0.3), "both": logs(0.3, 0.08, 0.5)}


def hilly(best: Tensor, layers: int, correlation: float, reach: float) -> Objective:
    """A correlated bowl, infinite where a step size is `reach` times its best one."""
    p = len(best)
    weight = torch.full((p, p), correlation).double().fill_diagonal_(1) * torch.linspace(1, 1.7, p).double().outer(
        torch.linspace(1, 1.7, p).double()
    )
    spread = 0.3 * normal(N, p, seed=3)
    spread = spread - spread.mean(0)

    def objective(at: Tensor) -> Tensor:
        u = at - best - spread
        far = (at - best)[:layers].max() > math.log(reach)
        return torch.where(far, torch.inf, 0.5 * ((u @ weight) * u).sum(1))

    return objective


@pytest.mark.parametrize("correlation", [0.0, 0.5, -0.3])
@pytest.mark.parametrize("over", SEVERAL)
@settings(max_examples=8, deadline=None)
@given(sizes=st.lists(SIZES, min_size=2, max_size=2), decay=st.floats(0.1, 1.5))
def test_several_settings_are_found_from_any_start(
    over: str, correlation: float, sizes: list[float], decay: float
) -> None:
    space, best = Space(over, LATENTS), SEVERAL[over]
    start = logs(*sizes[: space.layers], *([decay] if space.has_decay else []))
    for tuner in TUNERS.values():
        found = tuner(hilly(best, space.layers, correlation, reach=6), start, space)
        assert (found.settings - best).abs().max() < NEAR, (tuner, found)
        assert found.improved


def test_the_slope_does_not_follow_a_few_images() -> None:
    of_robust, of_mean = [], []
    for seed in range(60):
        objective: Objective = lambda at, seed=seed: rough(at[0], seed)  # noqa: E731
        of_robust.append(Search(objective, torch.ones(1).double()).slope(0))
        of_mean.append(float(derivatives(objective, torch.ones(1).double(), 0).mean()))
    assert all(0.3 < slope < 1.7 for slope in of_robust)
    assert sum(slope < 0 for slope in of_mean) >= 3


@pytest.mark.parametrize("tuner", TUNERS)
@pytest.mark.parametrize("over", OVER)
def test_started_at_the_minimum_it_says_that_nothing_is_better(over: str, tuner: str) -> None:
    space = Space(over, LATENTS)
    best = SEVERAL.get(over, logs(0.07))
    objective = hilly(best, space.layers, 0.3, reach=6)
    found = TUNERS[tuner](objective, best, space)
    assert not found.improved
    assert torch.equal(found.settings, best)
    assert found.value == found.start == pytest.approx(float(objective(best).mean()))
    assert TUNERS[tuner](objective, best + 0.5, space).improved


@pytest.mark.parametrize("tuner", TUNERS)
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_where_nothing_is_finite_the_start_is_kept(value: float, tuner: str) -> None:
    found = TUNERS[tuner](lambda at: at[0] * torch.full((N,), value), logs(0.3), ONE)
    assert not found.improved
    assert torch.equal(found.settings, logs(0.3))
    assert found.value == found.start == math.inf


@pytest.mark.parametrize("tuner", TUNERS)
def test_what_is_known_is_not_computed_again_and_evaluations_are_counted(tuner: str) -> None:
    calls = []

    def counted(at: Tensor) -> Tensor:
        calls.append(0 if torch._C._functorch.is_functorch_wrapped_tensor(at) else 1)  # pyright: ignore
        return bowl(at[0] - math.log(0.13))

    known: Known = {}
    first = TUNERS[tuner](counted, logs(0.5), ONE, known)
    plain, slopes = sum(calls), calls.count(0)
    assert plain == len(known)
    assert first.evaluations == plain + 2 * slopes
    again = TUNERS[tuner](counted, logs(0.5), ONE, known)
    assert sum(calls) == plain
    assert torch.equal(again.settings, first.settings)


@pytest.mark.parametrize("tuner", TUNERS)
def test_a_linear_generators_best_step_size_is_the_closed_forms(tuner: str) -> None:
    problem = LinearGaussian(128)
    best = problem.best()
    assert 0.1 < math.exp(best) < 0.5
    for objective in (problem.exact(ONE), problem.estimate(ONE, "marginal", seed=10)):
        known: Known = {}
        for start in STARTS:
            found = TUNERS[tuner](objective, logs(start), ONE, known)
            assert abs(float(found.settings[0]) - best) < NEAR
            assert found.improved
            assert math.isfinite(found.error)


@pytest.mark.parametrize("over", ["layers", "both"])
def test_more_settings_do_better_on_a_linear_generator(over: str) -> None:
    problem, space = LinearGaussian(16), Space(over, LATENTS)
    one = float(problem.exact(ONE)(torch.tensor([problem.best()]).double()).mean())
    found: dict[str, Any] = {
        name: [tuner(problem.exact(space), space.read(StepSize(s, LATENTS)), space) for s in STARTS]
        for name, tuner in TUNERS.items()
    }
    values = torch.tensor([result.value for results in found.values() for result in results])
    assert values.max() < one - 0.01
    assert values.max() - values.min() < 0.05 * (one - values.min())


@pytest.mark.parametrize("estimator", ["marginal", "conditional", "path"])
def test_a_networks_best_step_size_does_not_depend_on_the_start(estimator: str) -> None:
    """Nor on the tuner, as far as a curve that is flat and rough at its bottom says where its minimum is."""
    objective, found = estimate(network(96), 96, 3, Space("one", (1, 2)), estimator, seed=20), {}
    for name, tuner in TUNERS.items():
        known: Known = {}
        starts = STARTS if name == "grid" else (0.001, 10.0)
        results = [tuner(objective, logs(start), Space("one", (1, 2)), known) for start in starts]
        found[name] = results[0]
        assert all(abs(float(result.settings[0] - results[0].settings[0])) < NEAR for result in results)
        assert all(result.improved for result in results)
    apart = float(found["grid"].settings[0] - found["gradient"].settings[0])
    assert abs(apart) < 0.2
    assert abs(found["grid"].value - found["gradient"].value) < found["grid"].error


def test_a_minimum_among_noise_is_too_low_and_is_not_on_new_draws() -> None:
    """Of many values of pure noise the least is far below 0, the true value; new noise at the chosen one is not."""

    def noise(seed: int) -> Objective:
        def objective(settings: Tensor) -> Tensor:
            return torch.randn(50, generator=torch.Generator().manual_seed(seed + int(1e6 * (20 + settings[0]))))

        return objective

    start, space = torch.zeros(1, dtype=torch.float64), Space("one", latents=(2,))
    found = [checked(grid(noise(seed), start, space), noise(seed + 10**9)) for seed in range(0, 4000, 100)]
    chosen, fresh = (torch.tensor([getattr(each, name) for each in found]) for name in ("value", "fresh_value"))
    assert chosen.mean() < -0.2
    assert fresh.mean().abs() < 4 * fresh.std() / len(found) ** 0.5
    assert abs(sum(each.fresh_error for each in found) / len(found) - 50**-0.5) < 0.01
