"""The rules of the verdict, each on constructed numbers: those of a good inference with some of them changed."""

import math

import pytest
from diagnosis_learners import changed, good_diagnosis

from shortrun.diagnosis import conclusion, verdict
from shortrun.diagnosis.calibration import Statistic
from shortrun.diagnosis.measure import Diagnosis
from shortrun.diagnosis.page import draw_diagnosis
from shortrun.diagnosis.verdict import Finding, falling, flat_from


@pytest.fixture(scope="module")
def good() -> Diagnosis:
    """What is measured of a chain that is long enough for its steps to be small."""
    return good_diagnosis()


def wrong(d: Diagnosis) -> dict[str, Finding]:
    return {each.subject: each for each in verdict(d) if not each.well}


def curve(d: Diagnosis, start: float, end: float, half_life: float) -> list[float]:
    return [end + (start - end) * 0.5 ** (k / half_life) for k in d.trace.k]


def test_steps_that_overshoot(good: Diagnosis) -> None:
    found = wrong(changed(good, trace={"acceptance": [0.03] * len(good.trace.k)}, adjusted={"step_size": [0.07, 0.07]}))
    assert list(found) == ["steps"]
    assert "overshoot" in found["steps"].words
    assert "3%" in found["steps"].words
    assert found["steps"].change.startswith("--inference.step-decay 0.2, or --inference.step-size 0.07 ")
    assert found["steps"].change.endswith("--inference.steps 600")  # ten times, not (0.35 / 0.07)^2 = 25 times


def test_steps_that_are_timid(good: Diagnosis) -> None:
    d = changed(good, trace={"acceptance": [0.97] * len(good.trace.k)}, adjusted={"step_size": [0.9, 0.5]})
    assert wrong(d)["steps"].change == "--inference.step-size 0.9 0.5"
    # steps that fall are small at the end on purpose
    falling_steps = changed(d, conditions={"step_size": [0.9, 0.5], "last_step_size": [0.3, 0.2]})
    assert "steps" not in wrong(falling_steps)


def test_too_few_steps_for_the_reconstruction(good: Diagnosis) -> None:
    d = changed(good, trace={"mse": curve(good, 0.5, 0.01, 30)})
    flat = flat_from(d)
    assert flat == pytest.approx(30 * math.log2(49 / 0.05), rel=0.1)
    assert wrong(d)["length"].change.startswith(f"--inference.steps {flat} ")
    assert "length" not in wrong(changed(good, trace={"mse": curve(good, 0.5, 0.01, 5)}))


def test_chains_that_have_not_arrived(good: Diagnosis) -> None:
    error = [0.01] * len(good.gap.k)
    late = wrong(changed(good, gap={"gap": curve(good, 300, 0.0, 20), "error": error}))["arrival"]
    at = 20 * math.log2(300 / 0.5)  # 0.2 (d / 2)
    assert "have not arrived" in late.words
    assert int(late.change.split()[1]) == pytest.approx(at, rel=0.1)
    stuck = wrong(changed(good, gap={"gap": curve(good, 300, 4.0, 5), "error": error}))["arrival"]
    assert "do not get there" in stuck.words
    assert stuck.change == "--inference.steps 120 --inference.step-decay 0.25"  # sqrt(0.25 / 4)
    near = wrong(changed(good, gap={"gap": [-2.0] * len(good.gap.k), "error": error}))["arrival"]
    assert "too close to the mode" in near.words


def test_last_steps_that_are_too_long(good: Diagnosis) -> None:
    d = changed(good, adjusted={"energy": good.trace.energy[-1] - 1})
    assert wrong(d)["step noise"].change == falling(d) == "--inference.step-decay 0.5"


def test_layers_that_end_elsewhere(good: Diagnosis) -> None:
    far = {"mean_shift": 0.9, "energy": 0.2}
    assert "layer 1" in wrong(changed(good, distances=[good.distances[0], changed(good.distances[1], **far)]))
    assert "layer 1" in wrong(changed(good, distances={"variance_ratio": 0.4, "energy": 0.2}))
    # beyond the threshold, but no more than long runs are from each other
    assert "layer 1" not in wrong(changed(good, distances={"mean_shift": 0.9, "energy": 0.01, "energy_null": 0.02}))


def test_restarts_that_disagree(good: Diagnosis) -> None:
    several = wrong(changed(good, mixing={"rhat_median": 1.9, "rhat_one_mode": 1.05}))["restarts"]
    assert "several modes" in several.words
    assert several.change == ""
    slow = changed(good, mixing={"rhat_median": 1.9, "rhat_one_mode": 1.8})
    assert "restarts" not in wrong(slow)
    assert any("slow steps explain it" in each.words for each in verdict(slow))
    assert conclusion(verdict(changed(good, mixing={"rhat_median": 1.9})))[-1].startswith("no setting would mend this")


def test_latents_that_leave_the_prior(good: Diagnosis) -> None:
    top = changed(good.aggregates[0], second_moment=1.69)
    d = changed(good, aggregates=[top, good.aggregates[1]])
    assert wrong(d)["prior"].change == "--model.sigma 1 (now 0.8)"
    ranks = good.calibration.layers
    inflated = changed(ranks[0], shift=-0.2, shifted=Statistic.NORM, p_adjusted=1e-6)
    change = wrong(changed(d, calibration={"layers": [inflated, *ranks[1:]]}))["prior"].change
    assert change == "a shorter step of that layer, --inference.step-size 0.25 0.35"
    assert wrong(changed(d, conditions={"sigma": None}))["prior"].change == "--inference.steps 120"


def test_latents_that_leave_a_prior_of_several_normals(good: Diagnosis) -> None:
    """The second moment says nothing of it: it is of the mixture as a whole."""
    top = changed(good.aggregates[0], second_moment=1.69)
    d = changed(good, aggregates=[top, good.aggregates[1]], prior_fit=[1.05, 1.0])
    assert "prior" not in wrong(d)
    found = wrong(changed(good, prior_fit=[1.0, 1.44]))["prior"]
    assert "the inferred latents of layer 1 are at 1.44 in units of the prior (1 where they fit)" in found.words
    assert found.change == "--model.sigma 0.96 (now 0.8)"


def test_latents_that_are_hardly_used(good: Diagnosis) -> None:
    few = changed(good, aggregates=[good.aggregates[0], changed(good.aggregates[1], active=1)])
    assert wrong(few)["use"].change == "--model.latents 2 1"


@pytest.mark.parametrize(
    ("parts", "words", "change"),
    [
        ({"spread": 1.4}, "draws too narrow", "--inference.step-size 0.53 --inference.step-decay 0.5"),
        ({"spread": 0.7}, "draws too wide", "--inference.steps 120"),
        (
            {"shift": -0.2, "shifted": Statistic.NORM},
            "biased: the true norm is below the draws'",
            "--inference.steps 120",
        ),
    ],
)
def test_draws_that_do_not_cover_the_truth(good: Diagnosis, parts: dict, words: str, change: str) -> None:
    ranks = good.calibration.layers
    parts = {"spread": 1.0, "shift": 0.0, **parts}
    layer = changed(ranks[1], p_adjusted=1e-5, **parts)
    found = wrong(changed(good, calibration={"layers": [ranks[0], layer, ranks[2]]}))["calibration"]
    assert f"layer 1: {words}" in found.words
    assert change in found.change
    # one small p-value among many is no finding
    by_chance = changed(ranks[1], p_adjusted=0.02, **parts)
    assert not wrong(changed(good, calibration={"layers": [ranks[0], by_chance, ranks[2]]}))


def test_the_page_has_room_for_other_numbers_of_layers(good: Diagnosis) -> None:
    ranks = good.calibration.layers
    picture = draw_diagnosis(changed(good, calibration={"layers": ranks * 2}))
    assert picture.mode == "RGB"
    assert (picture.width, picture.height) == (1920, 1440)  # a row more than for three
