"""Settings that only a learner's class can judge: what it declares, what it refuses, what it has of its own."""

from dataclasses import dataclass, replace
from typing import Annotated

import pytest

from shortrun.config import Config, InferenceConfig, LearnerConfig, ModelConfig, TrainingConfig, TuningConfig
from shortrun.config.ranges import POSITIVE
from shortrun.errors import InputError
from shortrun.learners import ShortRun, checked_for_learner, learner_class
from shortrun.registry import LEARNERS

RISING = ((0.0, 0.5), (1.0, 1.0))
MIXTURE, TUNED = ModelConfig(prior="mixture"), InferenceConfig(step_size="tuned")
ACCEPTANCE = replace(TUNED, tuning=TuningConfig(tuner="acceptance"))

REFUSED = [
    (Config(learner="ladder_vae"), "model.parameterization: got 'ladder', but ladder_vae is for conditional"),
    (
        Config(learner="vlae", model=ModelConfig(parameterization="conditional")),
        "model.parameterization: got 'conditional', but vlae is for ladder",
    ),
    (Config(learner="persistent", inference=TUNED), "inference.step_size: only learners of short runs tune it"),
    (Config(training=TrainingConfig(kl_schedule=RISING)), "training.kl_schedule: short_run has no encoder"),
    (
        Config(learner="vae", training=TrainingConfig(step_size_schedule=RISING)),
        "training.step_size_schedule: vae takes no Langevin steps",
    ),
    (Config(learner="vae", inference=InferenceConfig(candidates=8)), "inference.candidates: vae starts no chains"),
    (Config(learner="glow", inference=InferenceConfig(candidates=8)), "inference.candidates: glow starts no chains"),
    (Config(learner="glow", model=MIXTURE), "learner: glow has neither sigma nor a prior to learn"),
    (Config(learner="glow", training=TrainingConfig(sigma_schedule=RISING)), "learner: glow has neither sigma"),
    (Config(model=MIXTURE, inference=ACCEPTANCE), "inference.tuning.tuner: by acceptance the steps and the prior"),
    (
        Config(model=ModelConfig(likelihood="logistic", learn_sigma=True)),
        "model.likelihood: got 'logistic', which has no sigma",
    ),
    (
        Config(model=ModelConfig(likelihood="bernoulli"), training=TrainingConfig(sigma_schedule=RISING)),
        "model.likelihood: got 'bernoulli', which has no sigma",
    ),
    (Config(own={"rate": 3}), "own: got rate; short_run has no settings of its own"),
    (Config(learner="no_such_module:Mine"), "learner: got 'no_such_module:Mine'; write a module that can be imported"),
    (Config(learner="math:Mine"), "learner: got 'math:Mine'; write a class or a function that the module math has"),
    (Config(learner="__main__:Mine"), "learner: Mine was defined in a script or a notebook; put it into a module"),
    (Config(learner="math:pi"), "learner: got 'math:pi'; write a class or a function that the module math has"),
    (Config(learner="math:sin"), "learner: got 'math:sin'; write the name of a subclass of shortrun.Learner"),
    (
        Config(model=ModelConfig(likelihood="math:sin")),
        "model.likelihood: got 'math:sin'; write the name of a subclass of shortrun.model.Likelihood",
    ),
    (
        Config(model=ModelConfig(prior="pathlib:Path")),
        "model.prior: got 'pathlib:Path'; write the name of a subclass of shortrun.model.Prior",
    ),
]


@pytest.mark.parametrize(("config", "message"), REFUSED, ids=lambda part: part[:40] if isinstance(part, str) else "")
def test_what_a_learner_does_not_take_is_refused(config: Config, message: str) -> None:
    with pytest.raises(InputError, match=r"^[^\n]*$") as caught:
        checked_for_learner(config)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", ["short_run", "persistent", "vae", "vlae", "ladder_vae"])
def test_every_learner_with_a_prior_takes_the_mixture(name: str) -> None:
    kind = learner_class(name).parameterization
    model = replace(MIXTURE, parameterization=kind or "ladder")
    assert checked_for_learner(Config(learner=name, model=model)).model.prior == "mixture"


@pytest.mark.parametrize("name", LEARNERS)
def test_a_recipe_whose_chains_start_from_the_regression_is_for_every_learner(name: str) -> None:
    """As one that says how many steps they take is: a learner without chains has no use for either."""
    conditional = learner_class(name).parameterization == "conditional"
    model = ModelConfig(parameterization="conditional" if conditional else "ladder")
    config = Config(learner=name, model=model, inference=InferenceConfig(start="regression"))
    assert checked_for_learner(config).inference.start == "regression"


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_takes_its_defaults(name: str) -> None:
    conditional = learner_class(name).parameterization == "conditional"
    model = ModelConfig(parameterization="conditional" if conditional else "ladder")
    assert checked_for_learner(Config(learner=name, model=model)).learner == name


def test_a_saved_description_passes_the_same_checks() -> None:
    saved = LearnerConfig((1, 4, 4), inference=InferenceConfig(candidates=8), learner="vae")
    with pytest.raises(InputError, match=r"^inference.candidates: vae starts no chains"):
        checked_for_learner(saved)
    with pytest.raises(InputError, match=r"^image_shape: got 0; write a whole number from 1 to 65,536"):
        checked_for_learner(LearnerConfig((1, 0, 4)))


@dataclass(frozen=True)
class Mine:
    """Settings of a learner of this test."""

    rate: Annotated[float, POSITIVE] = 0.5
    words: str = "none"


class WithSettings(ShortRun):
    """A learner with settings of its own."""

    Settings = Mine


def test_settings_of_its_own_are_checked_like_others() -> None:
    found = checked_for_learner(Config(own={"rate": 3}), WithSettings)
    assert found.own == {"rate": 3.0, "words": "none"}
    description = LearnerConfig((1, 4, 4), own=found.own)
    assert WithSettings.own_settings(description) == Mine(3.0)
    for own, message in [
        ({"rat": 3}, r"own.rat: unknown key; did you mean 'rate'"),
        ({"rate": "3"}, r"own.rate: got '3'; write a number"),
        ({"rate": -1}, r"own.rate: got -1.0; write a positive number"),
    ]:
        with pytest.raises(InputError, match=message):
            checked_for_learner(Config(own=own), WithSettings)
