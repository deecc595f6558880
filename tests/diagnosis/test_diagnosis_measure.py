"""The diagnosis of linear generators, whose posteriors are known."""

import dataclasses
import json
import sys

import pytest
import torch
from diagnosis_learners import (
    LATENTS,
    SIGMA,
    changed,
    good_diagnosis,
    images,
    linear_learner,
    measured,
    mixed_learner,
    posterior,
)
from torch import Tensor

from shortrun.diagnosis import conclusion, diagnose, summary, verdict
from shortrun.diagnosis.adjusted import long_run
from shortrun.diagnosis.chains import ChainSettings, recorded_steps, short_ends, trace, walk
from shortrun.diagnosis.measure import Diagnosis, plain
from shortrun.diagnosis.one_mode import one_mode_chains
from shortrun.diagnosis.page import draw_diagnosis
from shortrun.diagnosis.posterior import aggregate, compare, energy_share, mean_shift, posterior_mean_variance
from shortrun.errors import InputError
from shortrun.inference import DrawnNoise, StepSize, no_noise, short_run
from shortrun.inference.initial import Initial


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def good() -> Diagnosis:
    """What is measured of a chain that is long enough for its steps to be small."""
    return good_diagnosis()


@pytest.fixture(scope="module")
def hasty() -> Diagnosis:
    """The same of one step."""
    return measured(1, 0.3)


# --- chains


def test_the_short_runs_of_an_image_are_independent_though_a_batch_shares_candidates() -> None:
    learner = mixed_learner(1, 1e-6, candidates=200)
    x = images(learner, 5)
    z, failed = short_ends(ChainSettings(learner, 1, True, 100), x, rng(), 20, "")
    assert failed == 0
    for image, starts in zip(x, z, strict=True):
        assert len(torch.unique((1e3 * starts).round(), dim=0)) == 20
        # and are of this image: nearer to it than draws of the prior are
        errors = ((learner.generator.decode(starts) - image) ** 2).sum((1, 2, 3))
        others = ((learner.generator.decode(learner.generator.prior.sample(500, rng(1))) - image) ** 2).sum((1, 2, 3))
        assert errors.median() < others.quantile(0.2)


def test_the_walk_begins_with_the_short_run() -> None:
    learner = linear_learner(7, 0.3)
    learner.step_size = StepSize((0.3, 0.2), LATENTS, 0.5)
    x = images(learner, 3)
    seen = walk(ChainSettings(learner, 7, False, 100), x, rng(5), 2, "")
    repeated = x.repeat_interleave(2, 0)
    start = torch.randn(6, sum(LATENTS), generator=rng(5))

    def log_joint(z: Tensor) -> Tensor:
        return learner.generator.log_joint(repeated, z)

    z = short_run(log_joint, start, learner.step_size(7), no_noise(7, start)).detach()
    at = seen.k.index(7)
    torch.testing.assert_close(seen.energy[at].flatten().float(), -log_joint(z).detach())
    error = (learner.decode(z) - repeated).square().flatten(1).mean(1) / 4
    torch.testing.assert_close(seen.mse[at].flatten().float(), error)
    chosen = mixed_learner(7, 0.3, candidates=5)
    begun = chosen.start(repeated, DrawnNoise(rng(5), 70, (6, sum(LATENTS))))
    first = walk(ChainSettings(chosen, 7, False, 100), x, rng(5), 2, "").energy[0].flatten()
    torch.testing.assert_close(first.float(), -chosen.generator.log_joint(repeated, begun.z).detach())
    # and goes on with the last step
    beyond = short_run(log_joint, z, learner.step_size(7)[-1], no_noise(63, z)).detach()
    torch.testing.assert_close(seen.energy[-1].flatten().float(), -log_joint(beyond).detach(), rtol=1e-4, atol=1e-4)


def test_a_long_walk_rests_at_the_energy_of_the_posterior() -> None:
    learner = linear_learner(30, 0.2)
    x = images(learner, 20)
    found = trace(walk(ChainSettings(learner, 30, True, 1000), x, rng(), 16, ""), True)
    mean, _ = posterior(learner, x)
    least = -learner.generator.double().log_joint(x.double(), mean).mean().item()
    expected = least + sum(LATENTS) / 2  # d/2 above the mode, and the bias of the step below 3%
    assert sum(found.energy[-20:]) / 20 == pytest.approx(expected, abs=0.25)
    assert found.diverged == 0
    assert found.chains == 320
    assert all(
        low <= middle <= high for low, middle, high in zip(found.mse_low, found.mse, found.mse_high, strict=True)
    )
    assert found.acceptance[-1] > 0.95


@pytest.mark.parametrize("steps", [1, 3, 50])
def test_every_step_of_the_short_run_is_seen(steps: int) -> None:
    seen = recorded_steps(steps, 10 * steps)
    assert seen[: steps + 1] == list(range(steps + 1))
    assert seen[-1] == 10 * steps
    assert seen == sorted(set(seen))


def test_the_long_run_samples_the_posterior_from_a_bad_start() -> None:
    learner = linear_learner(20, 3.0)  # far too long: the search has to shorten it
    x = images(learner, 6)
    start = torch.randn(6, 400, sum(LATENTS), generator=rng(1)) + 2
    run = long_run(ChainSettings(learner, 20, True, 1000), x, start, rng(), keep=4)
    mean, covariance = posterior(learner, x)
    variance = covariance.diagonal()
    assert ((run.ends.mean(1) - mean).abs() < 5 * (variance / 400).sqrt()).all()
    assert (run.ends.var(1) / variance - 1).abs().max() < 0.4
    torch.testing.assert_close(run.ends.var(1).mean(0).double(), variance, rtol=0.1, atol=0)
    assert run.acceptance == pytest.approx(0.574, abs=0.15)
    assert run.kept.shape == (4, 400, 100, sum(LATENTS))
    again = learner.generator.log_joint(x[:1], run.kept[0, :1, 7]).item()
    assert run.log_joint[0, 0, 7].item() == pytest.approx(again, rel=1e-5)


# --- distances and the use of latents


def test_equal_samples_are_at_no_distance_and_shifted_ones_at_theirs() -> None:
    n, m = 200, 12
    long = torch.randn(n, m, 5, generator=rng()) * 0.5 + torch.randn(n, 1, 5, generator=rng(1))
    same = torch.randn(n, m, 5, generator=rng(2)) * 0.5 + torch.randn(n, 1, 5, generator=rng(1))
    for far in compare(same, long, LATENTS, rng()):
        assert abs(far.energy) < far.energy_null < 0.01
        assert far.mean_shift < 0.1
        assert far.variance_ratio == pytest.approx(1, abs=0.06)
    other = torch.cat([same[..., :2] + 0.4, 2 * (same[..., 2:] - same[..., 2:].mean(1, keepdim=True))], dim=2)
    top, bottom = compare(other, long, LATENTS, rng())
    assert top.mean_shift == pytest.approx(0.8, abs=0.08)
    assert top.variance_ratio == pytest.approx(1, abs=0.06)
    assert bottom.variance_ratio == pytest.approx(4, rel=0.1)
    assert min(top.energy, bottom.energy) > 10 * max(top.energy_null, bottom.energy_null)


def test_the_energy_distance_is_that_of_all_pairs() -> None:
    a, b = torch.randn(3, 4, 2, generator=rng()).double(), 1 + torch.randn(3, 5, 2, generator=rng(1)).double()
    both = torch.cat([a, b], dim=1)

    def mean_distance(i: Tensor, j: Tensor) -> float:
        pairs = [(one - other).norm() for one in i for other in j if not torch.equal(one, other)]
        return float(torch.stack(pairs).mean())

    between, first, second = (
        sum(mean_distance(i, j) for i, j in pairs) / 3
        for pairs in (list(zip(a, b, strict=True)), [(one, one) for one in a], [(one, one) for one in b])
    )
    found = energy_share(torch.cdist(both, both), torch.arange(4), torch.arange(4, 9))
    assert found == pytest.approx((2 * between - first - second) / (2 * between), rel=1e-6)


def test_the_shift_of_the_mean_is_free_of_the_noise_of_few_draws() -> None:
    a, b = (torch.randn(4000, 4, 3, generator=rng(seed)) for seed in (0, 1))
    assert mean_shift(a, b, b) < 0.1  # the plain difference would be sqrt(1/4 + 1/4)
    assert mean_shift(a + 0.5, b, b) == pytest.approx(0.5, abs=0.03)


def test_active_latents_are_those_whose_posterior_mean_varies() -> None:
    n, restarts = 64, 64
    means = torch.randn(n, 1, 5, generator=rng()) * torch.tensor([0.9, 0.0, 0.3, 0.0, 0.0])
    deviation = torch.tensor([0.4, 1.0, 0.95, 1.0, 1.0])
    draws = means + deviation * torch.randn(n, restarts, 5, generator=rng(1))
    varied = posterior_mean_variance(draws)
    torch.testing.assert_close(varied, means.var(0)[0], atol=0.02, rtol=0.1)
    top, bottom = aggregate(draws[:, 0], draws, LATENTS)
    assert (top.active, bottom.active) == (1, 1)
    assert top.threshold == pytest.approx(0.01, abs=0.002)
    assert aggregate(draws[:8, 0], draws[:8, :8], LATENTS)[0].threshold > 0.2  # so few cannot tell 0.01
    few = posterior_mean_variance(torch.randn(20_000, 2, 1, generator=rng(3)))
    assert abs(float(few)) < 0.02  # the plain variance would be 1/2


def test_a_layer_that_the_generator_ignores_is_dead() -> None:
    found = measured(15, 0.35, ignored=(2, 3, 4), n=64)
    assert [layer.active for layer in found.aggregates] == [2, 0]
    use = next(each for each in verdict(found) if each.subject == "use")
    assert not use.well
    assert "dead: layer 1" in use.words
    assert use.change == "--model.latents 2"


# --- the whole


def test_a_learned_prior_is_what_the_latents_are_held_against() -> None:
    """Many candidates start the chains in the right component; against N(0, I) the moments would be 10 and more."""
    learner = mixed_learner(60, 0.2, candidates=2000)
    x = images(learner, 1000)
    found = diagnose(learner, x[:64], rng(), more=x, batch_size=8192, seed=0)
    assert float((learner.infer(x, rng()).z ** 2).mean()) > 10
    assert (found.conditions.prior, found.conditions.candidates) == ("Mixture", 2000)
    for layer in found.aggregates:
        assert layer.second_moment == pytest.approx(1, abs=0.15)
        assert max(map(abs, layer.mean)) < 0.15
        assert layer.active == len(layer.mean)
    assert all(layer.p_adjusted > 0.01 for layer in found.calibration.layers)
    assert abs(found.gap.gap[-1]) < 4 * found.gap.error[-1]
    assert all(each.well for each in verdict(found) if each.subject in ("prior", "use", "arrival", "calibration"))
    assert found.prior_fit is not None
    assert found.prior_fit == pytest.approx([1, 1], abs=0.15)
    words = [each.words for each in verdict(found) if each.subject == "prior"]
    assert all("in units of the prior (1 where they fit)" in each for each in words)
    lines = "\n".join(summary(found))
    assert f"in units of the prior {found.prior_fit[0]:.2f}  second moment" in lines
    assert "with noise, from 2000 candidates, Gaussian sigma 0.8, Mixture prior" in lines
    assert "against the prior: less its mean, in its standard deviations" in lines
    # from draws of the prior as many chains stay in the wrong component
    lost = diagnose(mixed_learner(60, 0.2), x[:64], rng(), more=x, batch_size=8192, seed=0)
    assert lost.gap.gap[lost.gap.k.index(60)] > 10 * found.gap.error[-1]


def test_a_good_inference_is_said_to_be_good(good: Diagnosis) -> None:
    findings = verdict(good)
    assert [each.words for each in findings if not each.well] == []
    assert conclusion(findings) == ["verdict: the inference is good; nothing to change"]
    for far in good.distances:
        assert far.energy < 2 * far.energy_null
    assert [layer.active for layer in good.aggregates] == list(LATENTS)
    assert good.mixing is not None
    assert [one.name for one in good.mixing] == ["layer 2 (top)", "layer 1", "log p(x, z)"]
    assert all(one.rhat_median < 1.1 for one in good.mixing)
    at = good.gap.k.index(60)
    assert abs(good.gap.gap[at]) < 4 * good.gap.error[at] < 1.5
    assert good.conditions.sigma == pytest.approx(SIGMA)
    assert good.conditions.start == "prior"
    assert good.prior_fit is None


def test_one_step_is_seen_to_be_too_few(hasty: Diagnosis) -> None:
    wrong = {each.subject: each for each in verdict(hasty) if not each.well}
    assert {"length", "arrival", "layer 2 (top)", "layer 1"} <= set(wrong)
    assert "--inference.steps" in wrong["length"].change
    for far in hasty.distances:
        assert far.energy > 5 * far.energy_null
    assert any("change first" in line for line in conclusion(verdict(hasty)))


def test_the_same_seed_gives_the_same_numbers() -> None:
    first, again = (dataclasses.asdict(measured(2, 0.3, n=8)) for _ in range(2))
    assert json.dumps(first) == json.dumps(again)  # as text, where nan equals nan


def test_steps_that_explode_are_told_and_everything_can_still_be_written() -> None:
    learner = linear_learner(20, 40.0)
    x = images(learner, 8)
    found = diagnose(learner, x, rng())
    chains = verdict(found)[0]
    assert (chains.subject, chains.well) == ("chains", False)
    assert chains.change == "--inference.step-size 20"
    json.dumps(plain(dataclasses.asdict(found)), allow_nan=False)
    assert draw_diagnosis(found).width > 500  # whatever is not finite
    assert summary(found)
    assert conclusion(verdict(found))


def test_a_chain_without_noise_is_too_narrow() -> None:
    found = measured(20, 0.35, noise=False, n=16)
    assert found.trace.acceptance == []
    assert draw_diagnosis(found).width > 500
    wrong = {each.subject: each for each in verdict(found) if not each.well}
    assert "too close to the mode" in wrong["arrival"].words
    assert "too narrow" in wrong["calibration"].words
    assert "noise" in wrong["calibration"].change


def test_without_arviz_stats_the_rest_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measured(3, 0.3, n=8)
    assert whole.mixing is not None
    monkeypatch.setitem(sys.modules, "arviz_stats.base.array", None)
    monkeypatch.setitem(sys.modules, "arviz_stats", None)
    found = measured(3, 0.3, n=8)
    assert found.mixing is None
    assert json.dumps(dataclasses.asdict(found)) == json.dumps(dataclasses.asdict(changed(whole, mixing=None)))
    line = "effective sample sizes and R-hat left out: pip install 'shortrun[diagnose]'"
    assert sum(line in said for said in summary(found)) == 1
    assert draw_diagnosis(found).width > 500


def test_too_few_images_are_refused() -> None:
    learner = linear_learner(2, 0.3)
    with pytest.raises(InputError, match=r"x: got 7 images; give at least 8"):
        diagnose(learner, images(learner, 7), rng())


@pytest.mark.parametrize("step_size", [0.1, 1.5, 2.7])
def test_chains_on_one_mode_stay_on_the_normal_that_chains_start_from_at_any_step(step_size: float) -> None:
    """Also where a step is longer than the prior bears: a square root of a negative number it was once."""
    root = torch.linalg.cholesky(torch.tensor([[16.0, 6.0, 0.0], [6.0, 9.0, 1.0], [0.0, 1.0, 0.25]]).double())
    initial = Initial(torch.zeros(1, 3), root[None], torch.zeros(1, dtype=torch.long), torch.zeros(1))
    size = torch.tensor([step_size, step_size, 0.3 * step_size])
    found = one_mode_chains(initial, size, chains=40, draws=50, every=3, sets=20, rng=rng())
    assert found.shape == (40, 50, 20, 3)
    flat = torch.from_numpy(found)
    covariance = torch.einsum("cdsi,cdsj->ij", flat, flat) / (40 * 50 * 20)
    torch.testing.assert_close(covariance, root @ root.T, rtol=0.1, atol=0.3)
    # and from draw to draw they move as three steps do
    pairs = torch.einsum("cdsi,cdsj->ij", flat[:, 1:], flat[:, :-1]) / (40 * 49 * 20)
    if step_size < 1:
        move = torch.eye(3).double() - 0.5 * torch.diag(size.double() ** 2) @ torch.linalg.inv(root @ root.T)
        wanted = torch.linalg.matrix_power(move, 3) @ root @ root.T
        torch.testing.assert_close(pairs, wanted, rtol=0.1, atol=0.4)


def test_the_scale_of_the_start_does_not_count_where_steps_follow_it() -> None:
    """R-hat of a prior of standard deviation 4 is that of N(0, I) with a fourth of the step."""
    which, no_tilt = torch.tensor([0, 1]), torch.zeros(2)
    roots = torch.stack([torch.eye(2), torch.eye(2)]).double()
    narrow, wide = (Initial(torch.zeros(2, 2), scale * roots, which, no_tilt) for scale in (1, 4))
    counts = {"chains": 3, "draws": 9, "every": 2, "sets": 4}
    one, four = (
        one_mode_chains(initial, torch.full((2,), float(s)), **counts, rng=rng())
        for initial, s in ((narrow, 0.5), (wide, 2))
    )
    torch.testing.assert_close(torch.from_numpy(four), 4 * torch.from_numpy(one))
