"""Short runs on a log density of the user's own: closed forms on normals, precision, divergence, ArviZ."""

import importlib.util
import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import shortrun
from shortrun import Start, training
from shortrun.densities import DensityTuning
from shortrun.inference.tuning import Space
from shortrun.learners import ChainLearner

SD = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)
STEPS = 6


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(z: Tensor) -> Tensor:
    """log N(z; 1, diag SD^2): normalized, so that free energies are divergences."""
    return (-0.5 * ((z - 1) / SD.to(z)) ** 2 - SD.to(z).log() - 0.5 * math.log(2 * math.pi)).sum(1)


def moments(s: float) -> tuple[Tensor, Tensor]:
    """Return mean and variance of a short run from N(0, I) on `normal`, dimension by dimension."""
    mean, variance = torch.zeros(3).double(), torch.ones(3).double()
    for _ in range(STEPS):
        keeps = 1 - s**2 / 2 / SD**2
        mean, variance = 1 + keeps * (mean - 1), keeps**2 * variance + s**2
    return mean, variance


def divergence(s: float) -> float:
    mean, variance = moments(s)
    ratio = variance / SD**2
    return float(0.5 * (ratio + ((mean - 1) / SD) ** 2 - 1 - ratio.log()).sum())


@pytest.fixture(scope="module")
def tuned() -> DensityTuning:
    return shortrun.tune(normal, Start.standard(3), rng(), steps=STEPS, chains=150, draws=10000)


def test_the_tuned_step_is_the_closed_forms_minimum(tuned: DensityTuning) -> None:
    """On a normal `marginal` estimates the divergence without bias."""
    scan = torch.logspace(-2, 0.3, 400).tolist()
    best = min(scan, key=divergence)
    assert abs(math.log(tuned.step_sizes["marginal"] / best)) < 0.1
    found = tuned.minima["marginal"]
    assert abs(found.fresh_value - divergence(tuned.step_sizes["marginal"])) < 5 * found.fresh_error
    for name in ("conditional", "path"):  # upper bounds
        bound = tuned.minima[name]
        assert bound.fresh_value + 5 * bound.fresh_error > divergence(tuned.step_sizes[name])


def test_curves_are_the_closed_form_at_every_step_size(tuned: DensityTuning) -> None:
    points = tuned.curves.points("marginal")
    assert len(points) > 13
    for s, value, error in points:
        assert abs(value - divergence(s)) < 5 * error + 1e-9, s


def test_draws_have_the_moments_of_the_short_run(tuned: DensityTuning) -> None:
    z = tuned.draws.z
    assert tuned.estimator == "marginal"
    assert tuned.draws.step_size == pytest.approx(tuned.step_sizes["marginal"])
    mean, variance = moments(tuned.draws.step_size)
    assert ((z.mean(0) - mean).abs() < 5 * (variance / len(z)).sqrt()).all()
    assert ((z.var(0) / variance - 1).abs() < 5 * math.sqrt(2 / len(z))).all()
    assert torch.equal(tuned.draws.log_density, normal(z))


@pytest.mark.parametrize("tuner", ["grid", "gradient"])
def test_both_tuners_find_it(tuner: str) -> None:
    found = shortrun.tune(
        normal, Start.standard(3), rng(), steps=STEPS, chains=200, draws=1, tuner=tuner, estimators=["marginal"]
    )
    scan = torch.logspace(-2, 0.3, 400).tolist()
    assert abs(math.log(found.step_sizes["marginal"] / min(scan, key=divergence))) < 0.15


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_all_is_in_the_precision_of_the_start(dtype: torch.dtype) -> None:
    seen = set()

    def watched(z: Tensor) -> Tensor:
        seen.add(z.dtype)
        return normal(z)

    start = Start.standard(3, dtype=dtype)
    found = shortrun.tune(watched, start, rng(), steps=2, chains=4, draws=8)
    checked = shortrun.diagnose(watched, start, rng(), 0.3, steps=2, draws=8, long_steps=20)
    assert seen == {dtype}
    assert found.draws.z.dtype == checked.draws.z.dtype == checked.reference.z.dtype == dtype


def test_the_noise_has_all_digits_of_float64() -> None:
    """Numbers drawn in float32 and widened would all be multiples of a power of two."""
    ends = shortrun.draw(lambda z: 0 * z.sum(1), Start.standard(1), rng(), 1.0, steps=1, draws=100).z
    assert not torch.equal(ends.float().double(), ends)
    start = Start.standard(1).draw(100, rng())
    assert not torch.equal(start.float().double(), start)


def test_the_same_generator_gives_the_same_draws() -> None:
    one, other = (shortrun.draw(normal, Start.standard(3), rng(4), 0.3).z for _ in range(2))
    assert torch.equal(one, other)


def test_starts_are_the_normals_that_they_say() -> None:
    mean, root = torch.tensor([1.0, -2.0]).double(), torch.tensor([[2.0, 0.0], [1.0, 0.5]]).double()
    start = Start.normal(mean, root @ root.T)
    z = start.draw(50000, rng())
    assert torch.allclose(z.mean(0), mean, atol=0.05)
    assert torch.allclose(z.T.cov(), root @ root.T, atol=0.1)
    reference = torch.distributions.MultivariateNormal(mean, scale_tril=root)
    assert torch.allclose(start.initial().log_prob(z), reference.log_prob(z))
    again = Start.of_samples(z)
    assert torch.allclose(again.mean, z.mean(0))
    assert torch.allclose(again.root @ again.root.T, z.T.cov())
    assert Start.normal([0.0], [[4.0]]).mean.dtype == torch.float64
    assert Start.of_samples(torch.arange(5.0)[:, None]).dim == 1


def test_from_the_density_itself_the_divergence_is_that_of_the_steps_alone() -> None:
    start = Start.normal(torch.ones(3).double(), torch.diag(SD**2))
    found = shortrun.tune(normal, start, rng(), steps=STEPS, chains=64, draws=1, estimators=["marginal", "path"])
    for least in found.minima.values():
        assert abs(least.fresh_value) < 0.01


def test_a_chain_that_diverges_is_said_to() -> None:
    with pytest.warns(RuntimeWarning, match=r"^step_size: 1000 of 1000 chains diverged in 25 steps of 2 \(.*\|z\| = "):
        found = shortrun.draw(lambda z: -2 * (z**2).sum(1), Start.standard(2), rng(), 2.0)
    assert found.share_diverged == 1
    # on the edge, where |z| grows as the root of K alone
    with pytest.warns(RuntimeWarning, match="write a shorter one, 1 for example"):
        found = shortrun.draw(lambda z: -0.5 * (z**2).sum(1), Start.standard(20), rng(), 2.0)
    assert found.share_diverged > 0.99


def test_chains_that_become_infinite_are_said_to_and_do_not_end_the_work() -> None:
    """Functions of torch.distributions raise an error for NaN."""

    def log_density(z: Tensor) -> Tensor:
        return torch.distributions.Normal(0.0, 1.0, validate_args=True).log_prob(z).sum(1) - (z**4).sum(1)

    with pytest.warns(RuntimeWarning, match="not finite"):
        assert shortrun.draw(log_density, Start.standard(2), rng(), 2.0).share_diverged > 0.9
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = shortrun.tune(log_density, Start.standard(2), rng(), steps=5, chains=8)
    assert all(0.01 < s < 1 for s in found.step_sizes.values())
    with pytest.warns(RuntimeWarning, match="diverged"):
        checked = shortrun.diagnose(log_density, Start.standard(2), rng(), 2.0, long_steps=200)
    assert "NOT   chains" in str(checked)
    assert "nan" not in str(checked)
    # the long chains find a step of their own
    assert 0.3 < checked.reference.acceptance < 0.9


@pytest.mark.parametrize("sd", [0.01, 1.0, 30.0])
def test_chains_that_settle_are_not_said_to_diverge(sd: float) -> None:
    """Neither from a start at the mode, from where every chain falls, nor from one far out."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start = Start.normal(torch.zeros(20), sd**2 * torch.eye(20))
        shortrun.draw(lambda z: -0.5 * (z**2).sum(1), start, rng(), 1.0)


def test_a_diagnosis_of_good_short_runs_is_good() -> None:
    start = Start.normal(torch.ones(3).double(), torch.diag(SD**2))
    found = shortrun.diagnose(normal, start, rng(), 0.2, draws=4000, long_steps=2000)
    assert all(abs(off.value) < max(0.05, 4 * off.error) for off in (*found.means, *found.deviations))
    assert str(found).endswith("the short runs are good draws, by their means, deviations and energy")
    assert found.reference.z.shape == (32, 125, 3)


def test_a_diagnosis_measures_what_the_closed_form_says() -> None:
    s = 0.4
    found = shortrun.diagnose(normal, Start.standard(3), rng(), s, steps=STEPS, draws=4000, long_steps=2000)
    mean, variance = moments(s)
    for off, truth in zip(found.means, ((mean - 1) / SD).tolist(), strict=True):
        assert abs(off.value - truth) < 5 * off.error
    for off, truth in zip(found.deviations, (variance.sqrt() / SD - 1).tolist(), strict=True):
        assert abs(off.value - truth) < 5 * off.error
    energy = float(0.5 * ((variance + (mean - 1) ** 2) / SD**2 - 1).sum())
    assert abs(found.energy.value - energy) < 5 * found.energy.error
    assert "NOT   means" in str(found)


@pytest.mark.skipif(not importlib.util.find_spec("arviz_stats"), reason="R-hat needs arviz-stats")
def test_a_diagnosis_sees_two_modes() -> None:
    def log_density(z: Tensor) -> Tensor:
        return torch.logaddexp(-0.5 * ((z - 5) ** 2).sum(1), -0.5 * ((z + 5) ** 2).sum(1))

    found = shortrun.diagnose(log_density, Start.standard(2), rng(), 0.5, long_steps=500)
    assert found.reference.rhat is not None
    assert found.reference.rhat > 1.5
    assert "NOT   long chains  the long chains do not agree" in str(found)


def test_draws_become_a_data_tree() -> None:
    pytest.importorskip("arviz_base")
    found = shortrun.diagnose(normal, Start.standard(3), rng(), 0.3, draws=1000, long_steps=100)
    tree = found.draws.to_arviz(name="b")
    assert dict(tree.posterior.sizes) == {"chain": 4, "draw": 250, "dimension": 3}
    assert tree.posterior.b.dtype == "float64"
    assert {"lp", "diverging"} == set(tree.sample_stats.data_vars)
    assert not tree.sample_stats.diverging.any()
    assert torch.equal(torch.from_numpy(tree.posterior.b.values).flatten(0, 1), found.draws.z)
    assert dict(found.reference.to_arviz().posterior.sizes) == {"chain": 32, "draw": 50, "dimension": 3}
    with pytest.raises(shortrun.InputError, match=r"^chains: got 3; write a divisor of 1000"):
        found.draws.to_arviz(chains=3)


def test_beyond_256_dimensions_path_alone_is_taken() -> None:
    found = shortrun.tune(lambda z: -0.5 * (z**2).sum(1), Start.standard(300), rng(), steps=2, chains=4, draws=4)
    assert list(found.step_sizes) == ["path"]
    assert found.estimator == "path"


def test_a_learner_still_goes_to_its_own_functions() -> None:
    learner = shortrun.ShortRun.build((1, 4, 4), shortrun.ModelConfig(latents=(2, 3), width=8))
    x = torch.zeros(4, 1, 4, 4)
    found = [
        shortrun.tune(learner, x, rng(), steps=2),
        shortrun.tune(learner=learner, x=x, rng=rng(), steps=2),
        training.tune(learner, x, rng(), steps=2),
    ]
    assert all(torch.equal(each.settings, found[0].settings) for each in found)
    assert isinstance(learner, ChainLearner)
    assert Space("one", learner.generator.latents).read(learner.step_size).shape == found[0].settings.shape


def numpy_density(z: Tensor) -> Tensor:
    return torch.from_numpy(-(z.detach().numpy() ** 2).sum(1))


BAD: dict[str, tuple[Callable, str]] = {
    "a matrix": (lambda z: -(z @ z.T), r"values of shape \(64, 64\) for z of shape \(64, 2\); return one for each row"),
    "a column": (lambda z: -(z**2).sum(1, keepdim=True), r"values of shape \(64, 1\)"),
    "a scalar": (lambda z: -(z**2).sum(), r"values of shape \(\)"),
    "a number": (lambda z: 1.0, "a float back"),
    "none": (lambda z: None, "a NoneType back"),
    "detached": (lambda z: -(z.detach() ** 2).sum(1), "do not depend on z by functions that PyTorch can differentiate"),
    "numpy": (numpy_density, "do not depend on z"),
    "rounded to integers": (lambda z: z.round().long().sum(1), "got torch.int64 for z of torch.float64"),
    "NaN": (lambda z: z.sum(1).log(), r"values that are not finite at \d+ of 64 draws of the start; start where it is"),
    "infinite": (lambda z: -(z**2).sum(1) / 0, "values that are not finite at 64 of 64"),
    "a gradient of NaN": (lambda z: (z - z).norm(dim=1) - (0 * z).sum(1).sqrt(), "a gradient that is not finite at 64"),
    "float32 back": (lambda z: -(z.float() ** 2).sum(1), "got torch.float32 for z of torch.float64; let its tensors"),
    "float32 inside": (lambda z: -(z @ torch.eye(2)).sum(1), r"raises RuntimeError .* dtype=torch.float32\)"),
    "another dimension": (lambda z: -(z @ torch.eye(3).double()).sum(1), "give a function"),
    "rows that know of one another": (lambda z: -((z - z.mean(0)) ** 2).sum(1), "another value for a row alone"),
    "random": (lambda z: -(z**2).sum(1) * torch.rand(len(z)), "without random numbers"),
    "autograd inside": (
        lambda z: torch.autograd.grad(z.sum(), z, create_graph=True)[0].sum(1) if z.requires_grad else -(z**2).sum(1),
        "cannot be differentiated twice|do not depend on z",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_density_that_cannot_be_is_refused_in_a_line(name: str) -> None:
    log_density, words = BAD[name]
    for call in (
        lambda: shortrun.tune(log_density, Start.standard(2), rng()),
        lambda: shortrun.diagnose(log_density, Start.standard(2), rng(), 0.1),
        lambda: shortrun.draw(log_density, Start.standard(2), rng(), 0.1),
    ):
        with pytest.raises(shortrun.InputError, match=f"^log_density: .*({words})") as refused:
            call()
        assert "\n" not in str(refused.value)


SETTINGS = [
    ({"steps": 0}, "steps: got 0; write a whole number of at least 1"),
    ({"steps": True}, "steps: got True"),
    ({"chains": 1}, "chains: got 1; write a whole number of at least 2"),
    ({"draws": 0}, "draws: got 0"),
    ({"step_sizes": []}, "step_sizes: got none; write positive numbers"),
    ({"step_sizes": [0.1, -0.1]}, "step_sizes: got -0.1; write a positive number"),
    ({"step_sizes": [math.nan]}, "step_sizes: got nan"),
    ({"estimators": []}, "estimators: got none"),
    ({"estimators": ["path", "path"]}, "estimators: got .*write each one once"),
    ({"estimators": ["marginl"]}, "estimators: got 'marginl'; did you mean 'marginal'"),
    ({"estimators": ["path"], "draws_by": "marginal"}, "draws_by: got 'marginal'"),
    ({"tuner": "gird"}, "tuner: got 'gird'; did you mean 'grid'"),
]


@pytest.mark.parametrize(("settings", "words"), SETTINGS, ids=[str(each[0]) for each in SETTINGS])
def test_a_setting_that_cannot_be_is_refused_in_a_line(settings: dict, words: str) -> None:
    with pytest.raises(shortrun.InputError, match=f"^{words}"):
        shortrun.tune(normal, Start.standard(3), rng(), **settings)


@pytest.mark.parametrize("step_size", [0.0, -1.0, math.nan, math.inf])
def test_a_step_size_that_cannot_be_is_refused(step_size: float) -> None:
    for call in (shortrun.draw, shortrun.diagnose):
        with pytest.raises(shortrun.InputError, match=r"^step_size: .*write a positive number"):
            call(normal, Start.standard(3), rng(), step_size)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Start.standard(0), "dim: got 0"),
        (lambda: Start.standard(2, dtype=torch.int64), "dtype: got torch.int64"),
        (lambda: Start.normal([0.0, 0.0], [[1.0]]), r"covariance: got shape \(1, 1\) for a mean of 2"),
        (lambda: Start.normal([[0.0]], [[1.0]]), "mean: got shape"),
        (lambda: Start.normal([], []), "mean: got shape"),
        (lambda: Start.normal([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]]), "covariance: got a matrix that is not symmetric"),
        (lambda: Start.normal([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]), "covariance: .*not positive definite"),
        (lambda: Start.normal([math.nan], [[1.0]]), "mean: got numbers that are not finite"),
        (lambda: Start.normal("abc", [[1.0]]), "mean: got str"),
        (lambda: Start.of_samples(torch.randn(2, 2)), r"samples: got shape \(2, 2\); .*more than d samples"),
        (lambda: Start.of_samples(torch.ones(9, 2)), "samples: they vary in fewer directions"),
    ],
)
def test_a_start_that_cannot_be_is_refused(make: Callable, words: str) -> None:
    with pytest.raises(shortrun.InputError, match=f"^{words}"):
        make()
