"""Tuning a learner's step size on some images, and the curves of its estimators."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from mixtures import mixture_of
from task_learners import images, rng, small_learner
from torch import Tensor

from shortrun.config import InferenceConfig, ModelConfig, TuningConfig
from shortrun.errors import InputError
from shortrun.inference import DrawnNoise, Regression
from shortrun.inference.divergence import ESTIMATORS, follow, named
from shortrun.inference.tuning import LOOK, Space
from shortrun.learners import ShortRun, frozen
from shortrun.model import Mixture
from shortrun.training.tuning import TUNERS, Chains, divergence_curves, move_step_size, tune

N = 5
S = 0.4


def sharp(noise: bool = True) -> ShortRun:
    """A learner whose best step is well inside the grid."""
    learner = small_learner()
    learner.noise = noise
    return learner


def three_normals() -> Mixture:
    """A prior of three normals that differ."""
    roots = torch.linalg.cholesky(torch.eye(9) + 0.3 * torch.ones(9, 9))
    return mixture_of(torch.tensor([0.5, 0.3, 0.2]).log(), torch.randn(3, 9, generator=rng(8)), roots.repeat(3, 1, 1))


def fitted_regression() -> Regression:
    """A regression of latents on images that has learned something."""
    regression, x = Regression((1, 6, 5), 9), images(200, seed=6)
    z = x.flatten(1)[:, :9] + 0.3 * torch.randn(200, 9, generator=rng(9))
    regression.learn(regression.features(x), z)
    return regression


def settings_of(over: str, learner: ShortRun) -> Tensor:
    return Space(over, learner.generator.latents).read(learner.step_size)


CALLS: dict[str, Callable[[ShortRun, torch.Generator], Any]] = {
    "grid": lambda learner, r: tune(learner, images(N), r),
    "gradient": lambda learner, r: tune(learner, images(N), r, tuner="gradient", estimator="conditional"),
    "acceptance": lambda learner, r: tune(learner, images(N), r, tuner="acceptance"),
    "both": lambda learner, r: tune(learner, images(N), r, over="schedule", estimator="path"),
    "curves": lambda learner, r: divergence_curves(learner, images(N), r, step_sizes=[0.1, S], tuners=["grid"]),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_learner_is_left_as_it_is(name: str) -> None:
    learner = sharp()
    before = {key: value.clone() for key, value in learner.state_dict().items()}
    learner.generator.likelihood.requires_grad_(False)
    wanted = [parameter.requires_grad for parameter in learner.parameters()]
    state = torch.get_rng_state()
    CALLS[name](learner, rng())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in learner.state_dict().items())
    assert [parameter.requires_grad for parameter in learner.parameters()] == wanted
    assert any(wanted)
    assert all(parameter.grad is None for parameter in learner.parameters())


def test_acceptance_starts_where_the_chains_of_the_learner_start() -> None:
    learner = sharp()
    learner.candidates = 30
    x, space = images(N), Space("one", learner.generator.latents)
    chains = Chains(learner, x, rng(3))
    start = learner.start(x, DrawnNoise(rng(3), learner.steps, (N, learner.dim)))
    assert torch.equal(chains.z, start.z)
    assert not torch.equal(start.z, torch.randn(N, learner.dim, generator=rng(3)))
    found = tune(learner, x, rng(3), tuner="acceptance")
    assert found.value < 0.02 < found.start
    assert float(chains.acceptance(space)(found.settings).mean()) == pytest.approx(0.574, abs=0.02)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("candidates", [1, 30])
@pytest.mark.parametrize("prior", ["normal", "mixture"])
@pytest.mark.parametrize("regressed", [False, True])
def test_the_estimators_take_the_density_of_the_start(
    estimator: str, candidates: int, prior: str, regressed: bool
) -> None:
    learner = sharp()
    learner.candidates = candidates
    if prior == "mixture":
        learner.generator.prior = three_normals()
    if regressed:
        learner.regression = fitted_regression()
    x, space = images(N), Space("one", learner.generator.latents)
    chains = Chains(learner, x, rng(3))
    start = learner.start(x, DrawnNoise(rng(3), learner.steps, (N, learner.dim)))
    at = torch.tensor([math.log(S)]).double()
    with frozen(learner.generator):
        found = chains.divergence(space, estimator)(at)
        # what the chain climbs and what its start was drawn from, both with the component held
        density = learner.log_density(x, start.component)
        expected, plain = (
            follow([named(estimator)()], density, start.z, S, chains.noise, of)[0].kl for of in (start.initial, None)
        )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    assert bool((found - plain).abs().max() > 0.01) == (candidates > 1 or prior == "mixture" or regressed)


@pytest.mark.parametrize(("prior", "start"), [("mixture", "prior"), ("normal", "regression")])
def test_beyond_256_latents_the_dense_estimators_take_other_starts_and_priors(prior: str, start: str) -> None:
    inference = InferenceConfig(steps=1, start=start)  # pyright: ignore[reportArgumentType]
    learner = ShortRun.build((1, 6, 5), ModelConfig(latents=(257,), width=8, prior=prior, components=2), inference)
    if learner.regression is not None:
        z = 2 * torch.randn(300, 257, generator=rng(9))
        learner.regression.learn(learner.regression.features(images(300, seed=6)), z)
    chains = Chains(learner, images(2), rng())
    assert type(chains.density("conditional")) is named("conditional")
    assert type(chains.density("marginal")) is named("marginal")
    assert chains.has_derivative("conditional")
    plain = Chains(ShortRun(learner.generator, 1) if prior == "normal" else sharp(), images(2), rng())
    assert (type(plain.density("marginal")) is named("marginal")) == (prior == "mixture")


@pytest.mark.parametrize("name", ["gradient", "acceptance", "both"])
def test_the_same_seed_gives_the_same_result(name: str) -> None:
    first, again, other = (CALLS[name](sharp(), rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(first.settings, again.settings)
    assert first[1:] == again[1:]
    assert not torch.equal(first.settings, other.settings)


@pytest.mark.parametrize("over", ["one", "schedule", "both"])
def test_what_is_found_is_a_minimum_of_the_objective(over: str) -> None:
    learner = sharp()
    found = tune(learner, images(N), rng(), over=over)
    chains, space = Chains(learner, images(N), rng()), Space(over, learner.generator.latents)
    with frozen(learner.generator), torch.no_grad():
        objective = chains.divergence(space, "marginal")

        def value(at: Tensor) -> float:
            return float(objective(at).double().mean())

        assert value(found.settings) == pytest.approx(found.value)
        assert value(settings_of(over, learner)) == pytest.approx(found.start)
        assert found.improved
        for index in range(len(found.settings)):
            for far in (-0.5, 0.5):
                at = found.settings.clone()
                at[index] += far
                assert value(at) > found.value - 1e-6
    target = ShortRun(learner.generator, 3, (0.1, 0.1, 0.1) if over in ("layers", "both") else 0.1)
    space.write(target.step_size, found.settings)
    again = Chains(target, images(N), rng())
    with frozen(learner.generator):
        constant = again.divergence(space, "marginal")(settings_of(over, target)).mean()
    assert float(constant) == pytest.approx(found.value, rel=1e-4)


def test_the_value_on_new_draws_is_that_of_a_second_start_from_the_same_numbers() -> None:
    learner, numbers = sharp(), rng()
    space = Space("one", learner.generator.latents)
    found = tune(learner, images(N), rng())
    Chains(learner, images(N), numbers)
    fresh = Chains(learner, images(N), numbers)
    with frozen(learner.generator), torch.no_grad():
        values = fresh.divergence(space, "marginal")(found.settings)
    assert found.fresh_value == pytest.approx(float(values.mean()))
    assert found.fresh_error == pytest.approx(float(values.std()) / N**0.5)
    assert found.fresh_value != found.value
    minimum = divergence_curves(learner, images(N), rng(), ["marginal"], tuners=["grid"]).minima["marginal"]["grid"]
    assert minimum.fresh_value == pytest.approx(found.fresh_value, rel=1e-3)


def test_a_model_that_is_tuned_says_that_nothing_is_better() -> None:
    learner = sharp()
    found = tune(learner, images(N), rng())
    Space("one", learner.generator.latents).write(learner.step_size, found.settings)
    again = tune(learner, images(N), rng())
    assert abs(float(again.settings[0] - found.settings[0])) < 0.02
    assert again.value == pytest.approx(found.value, rel=1e-4)


def test_more_steps_than_the_learners() -> None:
    values = [tune(sharp(), images(N), rng(), steps=steps).value for steps in (1, 3, 6)]
    assert values[0] > values[1] > values[2]


def test_the_estimators_see_the_same_draws() -> None:
    learner = sharp()
    one, other = (Chains(learner, images(N), rng()) for _ in range(2))
    for name in ("z", "noise", "adjusted", "uniforms"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    curves = divergence_curves(learner, images(N), rng(), step_sizes=[0.1, S], tuners=[])
    space = Space("one", learner.generator.latents)
    with frozen(learner.generator), torch.no_grad():
        for name in ESTIMATORS:
            alone = one.divergence(space, name)(torch.tensor([math.log(S)]).double())
            torch.testing.assert_close(curves.values[name][(math.log(S),)], alone, rtol=1e-5, atol=1e-4)


def test_curves_hold_every_step_size_seen_and_their_minima() -> None:
    learner = sharp()
    curves = divergence_curves(learner, images(N), rng(), ["path", "marginal"])
    assert set(curves.values) == set(curves.minima) == {"path", "marginal"}
    for name, minima in curves.minima.items():
        points = curves.points(name)
        sizes = [point[0] for point in points]
        assert sizes == sorted(sizes)
        assert len(points) >= len(LOOK)
        assert points[0][0] == pytest.approx(0.001)
        least = min(points, key=lambda point: point[1])
        for tuner, found in minima.items():
            s = float(found.settings[0].exp())
            at = next(point for point in points if point[0] == pytest.approx(s))
            assert (at[1], at[2]) == pytest.approx((found.value, found.error))
            alone = tune(learner, images(N), rng(), estimator=name, tuner=tuner)
            torch.testing.assert_close(found.settings, alone.settings)
            assert found.evaluations < alone.evaluations
        assert least[1] == min(found.value for found in minima.values())


def test_values_that_are_not_finite_are_infinite_in_a_curve() -> None:
    curves = divergence_curves(sharp(), images(N), rng(), ["path"], step_sizes=[0.1, 1e25], tuners=["grid"])
    (_, near, error), (s, far, _) = (curves.points("path")[index] for index in (0, -1))
    assert math.isfinite(near + error) or near == math.inf
    assert s == pytest.approx(1e25)
    assert far == math.inf
    assert math.isfinite(curves.minima["path"]["grid"].value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"estimator": "marginl"}, "estimator: got 'marginl'; did you mean 'marginal'?"),
        ({"tuner": "grit"}, "tuner: got 'grit'; did you mean 'grid'?"),
        ({"tuner": "acceptanse"}, "tuner: got 'acceptanse'; did you mean 'acceptance'?"),
        ({"over": "layer"}, "over: got 'layer'; did you mean 'layers'?"),
        ({"over": "everything"}, "over: got 'everything'; choose one of both, layers, one, schedule"),
        ({"over": "schedule", "tuner": "acceptance"}, "over: got 'schedule'; acceptance moves all step sizes by one"),
        ({"over": "both", "tuner": "acceptance"}, "over: got 'both'; acceptance moves all step sizes by one"),
    ],
)
def test_what_is_none_is_refused_with_a_suggestion(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        tune(sharp(), images(N), rng(), **arguments)  # pyright: ignore[reportArgumentType]
    assert str(caught.value).startswith(message)


def test_curves_refuse_what_is_none_too() -> None:
    with pytest.raises(InputError, match="estimators: got 'pat'; did you mean 'path'"):
        divergence_curves(sharp(), images(N), rng(), ["pat"])
    with pytest.raises(InputError, match="tuners: got 'gradent'; did you mean 'gradient'"):
        divergence_curves(sharp(), images(N), rng(), tuners=["gradent"])


def test_without_noise_only_conditional_works() -> None:
    learner = sharp(noise=False)
    chains = Chains(learner, images(N), rng())
    assert (chains.noise == 0).all()
    assert torch.equal(chains.z, Chains(sharp(), images(N), rng()).z)
    for name in ESTIMATORS:
        if named(name).needs_noise:
            with pytest.raises(InputError, match="for chains without noise; write conditional"):
                tune(learner, images(N), rng(), estimator=name)
            with pytest.raises(InputError, match="for chains without noise; write conditional"):
                divergence_curves(learner, images(N), rng(), [name], tuners=[])
    found = tune(learner, images(N), rng(), estimator="conditional")
    assert math.isfinite(found.value)
    assert found.improved
    assert tune(sharp(), images(N), rng(), estimator="conditional").value != found.value
    curve = divergence_curves(learner, images(N), rng(), ["conditional"], tuners=["grid"])
    assert curve.minima["conditional"]["grid"].value == pytest.approx(found.value)


@pytest.mark.parametrize("tuner", [*TUNERS, "acceptance"])
def test_a_move_changes_the_step_size_alone_and_repeats(tuner: Any) -> None:
    found = []
    for seed in (0, 0, 1):
        learner = sharp()
        before = {key: value.clone() for key, value in learner.state_dict().items()}
        move_step_size(learner, images(N), rng(seed), TuningConfig(tuner=tuner))
        changed = [key for key, value in learner.state_dict().items() if not torch.equal(value, before[key])]
        assert changed == ["step_size.log_values"]
        assert all(parameter.requires_grad and parameter.grad is None for parameter in learner.parameters())
        move = float(learner.step_size.log_values - before["step_size.log_values"])
        # 0.1 is far too short for this learner
        assert 0 < move <= 0.3 + 1e-6
        found.append(move)
    assert found[0] == found[1]


def test_a_decay_does_not_run_away() -> None:
    """Where steps are far too short a chain of rising steps is better, and small moves alone would follow it."""
    learner, decays = ShortRun(small_learner().generator, 8, 0.03), []
    for seed in range(8):
        move_step_size(learner, images(N), rng(seed), TuningConfig(over="schedule"))
        decays.append(learner.step_size.decay)
    assert 1.4 < max(decays) <= 1.5 + 1e-6
    assert learner.step_size.values[0] > 0.06
    fixed = ShortRun(small_learner().generator, 8, 0.1, 0.4)
    move_step_size(fixed, images(N), rng(), TuningConfig())
    assert fixed.step_size.decay == pytest.approx(0.4)
