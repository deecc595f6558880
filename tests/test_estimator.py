"""The face of scikit-learn: its own checks, and what this package adds."""

import math
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import shortrun
from shortrun import Config, InputError, ModelConfig, ShortRunEstimator, TrainingConfig

X, LABELS = (np.asarray(part)[:40] for part in load_digits(return_X_y=True))
SMALL: dict[str, Any] = {
    "latents": (2, 3),
    "width": 16,
    "steps": 2,
    "test_steps": 4,
    "epochs": 2,
    "draws": 2,
    "importance_samples": 4,
    "device": "cpu",
}
pytestmark = pytest.mark.filterwarnings("ignore:test images are rebuilt")  # so few updates learn nothing
WHY = "score_samples is a Monte Carlo estimate, whose draws follow the place of an image in its batch"
TYPED = "types are checked while the tests run, and it gives parameters of any type; a test below runs it without"


def small(**more: Any) -> ShortRunEstimator:
    return ShortRunEstimator(**{**SMALL, **more})


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@parametrize_with_checks(
    [small(draws=1)],
    expected_failed_checks=lambda _: {
        "check_methods_sample_order_invariance": WHY,
        "check_methods_subset_invariance": WHY,
        "check_do_not_raise_errors_in_init_or_set_params": TYPED,
    },
)
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def test_latents_of_an_image_do_not_depend_on_those_beside_it() -> None:
    """What scikit-learn's two checks ask of `transform`, for each kind of inference."""
    for learner in ("short_run", "persistent", "vae", "rae"):
        model = small(learner=learner).fit(X)
        whole, order = model.transform(X), np.random.default_rng(0).permutation(len(X))
        np.testing.assert_allclose(model.transform(X[order]), whole[order], atol=1e-4)
        np.testing.assert_allclose(
            np.concatenate([model.transform(X[i : i + 1]) for i in range(5)]), whole[:5], atol=1e-4
        )


def test_a_fit_follows_from_its_seed_and_leaves_nothing_behind(capfd: pytest.CaptureFixture[str]) -> None:
    one, again, other = small().fit(X), small().fit(X), small(random_state=1).fit(X)
    assert np.array_equal(one.transform(X), again.transform(X))
    assert np.array_equal(one.score_samples(X), again.score_samples(X))
    assert np.array_equal(one.sample(3), again.sample(3))
    assert not np.array_equal(one.transform(X), other.transform(X))
    assert not np.array_equal(one.sample(3), one.sample(3, random_state=5))
    assert not list(Path.cwd().iterdir())
    assert capfd.readouterr() == ("", "")


def test_a_run_is_kept_where_it_is_asked_for(tmp_path: Path) -> None:
    model = small(run_dir=tmp_path / "run", verbose=True).fit(X)
    kept = shortrun.load(tmp_path / "run")
    assert torch.equal(kept.state_dict()["step_size.log_values"], model.learner_.state_dict()["step_size.log_values"])
    assert "train" in shortrun.info(tmp_path / "run")
    again = clone(model)
    assert isinstance(again, ShortRunEstimator)
    with pytest.raises(InputError, match=r"^run_dir: .*is not empty"):
        again.fit(X)


@pytest.mark.parametrize("shape", [(64,), (8, 8), (1, 8, 8)])
def test_images_come_back_in_their_shape_and_range(shape: tuple[int, ...]) -> None:
    model = small().fit(X.reshape(-1, *shape))
    z = model.transform(X.reshape(-1, *shape))
    assert z.shape == (40, 5)
    assert model.image_shape_ == (1, 8, 8)
    assert model.pixel_range_ == (0, 16)
    for images in (model.inverse_transform(z), model.sample(4)):
        assert images.shape[1:] == shape
        assert 0 <= images.min() <= images.max() <= 16


def test_a_linear_model_scores_in_the_units_of_x() -> None:
    """The density of 2x + 3 is that of x less log 2 a pixel, and what is learned is the same."""
    one, scaled = small(learner="vae").fit(X), small(learner="vae").fit(2 * X + 3)
    np.testing.assert_allclose(scaled.score_samples(2 * X + 3), one.score_samples(X) - 64 * math.log(2), rtol=1e-3)
    assert one.score(X) == pytest.approx(one.score_samples(X).mean())


def test_probabilities_of_levels_have_no_scale() -> None:
    config = Config(model=ModelConfig(latents=(2,), width=8, likelihood="logistic"), training=TrainingConfig(updates=2))
    model = ShortRunEstimator(config=config, levels=17, pixel_range=(0, 16), device="cpu", importance_samples=4).fit(X)
    assert model.learner_.levels == 17
    assert model.score(X) < 0


def test_numbers_outside_of_the_range_are_refused_where_it_was_said_and_else_cut_off() -> None:
    learned, stated = small().fit(X), small(pixel_range=(0, 16)).fit(X)
    assert np.array_equal(learned.transform(np.maximum(X, -3)), learned.transform(X))
    outside = X.copy()
    outside[0, 0] = -3
    assert np.array_equal(learned.transform(outside), learned.transform(X))
    with pytest.raises(InputError, match=r"^X: got numbers from -3 to 16; pixel_range says 0 to 16"):
        stated.transform(outside)


def test_it_works_in_a_pipeline_and_in_a_search(tmp_path: Path) -> None:
    pipeline = make_pipeline(small(), LogisticRegression()).fit(X, LABELS)
    assert pipeline.predict(X).shape == (40,)
    assert pipeline.named_steps["shortrunestimator"].get_feature_names_out()[0] == "shortrunestimator0"
    search = GridSearchCV(small(), {"sigma": [0.1, 0.3]}, cv=2).fit(X)
    assert search.best_params_["sigma"] in (0.1, 0.3)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert not list(tmp_path.iterdir())
    copied = pickle.loads(pickle.dumps(search.best_estimator_))
    assert np.array_equal(copied.transform(X), search.best_estimator_.transform(X))


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"latents": (0,)}, r"^latents: got 0; write"),
        ({"sigma": -1.0}, r"^sigma: got -1.0; write a positive number"),
        ({"random_state": -1}, r"^random_state: got -1; write"),
        ({"learner": "vea"}, r"^learner: got 'vea'; did you mean 'vae'"),
        ({"config": "digitz"}, r"^config: got 'digitz'; did you mean 'digits'"),
        ({"image_shape": (1, 8, 9)}, r"^image_shape: got \(1, 8, 9\); write .* 64 pixels"),
        ({"pixel_range": (1, 0)}, r"^pixel_range: got \(1.0, 0.0\); write"),
        ({"levels": 1}, r"^levels: got 1; write 2 to 256"),
        ({"draws": 0}, r"^draws: got 0; write"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_line(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        small(**parameters).fit(X)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_the_model_is_refused() -> None:
    model = small(learner="rae").fit(X.reshape(-1, 8, 8))
    with pytest.raises(InputError, match=r"^X: got images of shape \(4, 16\)"):
        model.transform(X.reshape(-1, 4, 16))
    with pytest.raises(InputError, match=r"^X: got rows of 3 numbers; the model has 5 latents"):
        model.inverse_transform(np.zeros((2, 3)))
    with pytest.raises(InputError, match=r"^learner: it has no likelihood"):
        model.score(X)
    with pytest.raises(InputError, match=r"^n_samples: got 0"):
        model.sample(0)
    with pytest.raises(InputError, match=r"^X: got an array of shape \(20, 6, 6, 3\), channels last"):
        small().fit(np.ones((20, 6, 6, 3)))
    with pytest.raises(ValueError, match="minimum of 2"):
        small().fit(X[:1])
    with pytest.raises(ValueError, match="NaN"):
        model.transform(np.full((2, 64), np.nan))


def test_the_package_does_not_wait_for_it_and_no_parameter_is_refused_before_the_fit() -> None:
    code = """if True:
        import sys, shortrun
        assert "sklearn" not in sys.modules
        from sklearn.utils.estimator_checks import check_do_not_raise_errors_in_init_or_set_params as check
        check("ShortRunEstimator", shortrun.ShortRunEstimator())
    """
    root = Path(shortrun.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
