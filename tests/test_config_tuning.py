"""How a step size is to be tuned: recipes that say so, and what they cannot say."""

from pathlib import Path
from typing import Any

import pytest
import tomli_w

from shortrun.config import (
    Config,
    InferenceConfig,
    LearnerConfig,
    TrainingConfig,
    TuningConfig,
    checked_settings,
    load_config,
)
from shortrun.errors import InputError
from shortrun.mapping import from_mapping, to_mapping

TUNED = "inference.step_size = 'tuned'\n"
SAYS = "inference.tuning"
KINDS = "write a number or a list of numbers or one of tuned"

REFUSED = {
    "inference.step_size = 'fast'": f"inference.step_size: got 'fast'; {KINDS}",
    "inference.step_size = 'Tuned'": f"inference.step_size: got 'Tuned'; {KINDS}",
    "inference.step_size = ['tuned']": "inference.step_size: got ['tuned']; write a number or a list of numbers",
    "inference.step_size = -1": "inference.step_size: got -1.0; write a positive number",
    "inference.tuning = 'tuned'": f"{SAYS}: got 'tuned'; write a table of TuningConfig",
    f"{TUNED}{SAYS}.estimater = 'path'": f"{SAYS}.estimater: unknown key; did you mean 'estimator'?",
    f"{TUNED}{SAYS}.estimator = 'exact'": f"{SAYS}.estimator: got 'exact'; write one of marginal, conditional, path",
    f"{TUNED}{SAYS}.tuner = 'adam'": f"{SAYS}.tuner: got 'adam'; write one of grid, gradient, acceptance",
    f"{TUNED}{SAYS}.over = 'steps'": f"{SAYS}.over: got 'steps'; write one of one, layers, schedule, both",
    f"{TUNED}{SAYS}.start = 0": f"{SAYS}.start: got 0.0; write a positive number",
    f"{TUNED}{SAYS}.start = -0.1": f"{SAYS}.start: got -0.1; write a positive number",
    f"{TUNED}{SAYS} = {{start = nan, over = 'layers'}}": f"{SAYS}.start: got nan; write a positive number",
    f"{SAYS}.start = inf": f"{SAYS}.start: got inf; write a positive number",
    f"{TUNED}{SAYS}.images = 1": f"{SAYS}.images: got 1; write a whole number of at least 2",
    f"{TUNED}{SAYS}.images = -8": f"{SAYS}.images: got -8; write a whole number of at least 2",
    f"{TUNED}{SAYS}.images = 8.5": f"{SAYS}.images: got 8.5; write a whole number",
    f"{TUNED}{SAYS}.share = 0.0": f"{SAYS}.share: got 0.0; write a number between 0 and 1",
    f"{TUNED}{SAYS}.share = 1.0": f"{SAYS}.share: got 1.0; write a number between 0 and 1",
    f"{TUNED}{SAYS}.share = nan": f"{SAYS}.share: got nan; write a number between 0 and 1",
    f"{TUNED}{SAYS} = {{tuner = 'acceptance', over = 'layers'}}": f"{SAYS}.over: got 'layers'; acceptance tunes",
    f"{TUNED}{SAYS} = {{tuner = 'acceptance', over = 'both'}}": f"{SAYS}.over: got 'both'; acceptance tunes one step",
    f"{TUNED}training.step_size_schedule = [[0.0, 1.0]]": "training.step_size_schedule: the step size is tuned",
    f"{TUNED}inference.noise = false": "inference.noise: without noise the chain's density is the conditional one",
    f"{TUNED}inference.noise = false\n{SAYS}.estimator = 'path'": "inference.noise: without noise",
    f"{TUNED}inference.noise = false\n{SAYS} = {{estimator = 'conditional', tuner = 'acceptance'}}": "inference.noise",
}


@pytest.mark.parametrize(("text", "message"), REFUSED.items(), ids=range(len(REFUSED)))
def test_what_cannot_be_tuned_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_config(str(path))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


ACCEPTED: dict[str, Any] = {
    TUNED: InferenceConfig(step_size="tuned"),
    f"{TUNED}{SAYS}.over = 'both'": InferenceConfig(step_size="tuned", tuning=TuningConfig(over="both")),
    f"{TUNED}{SAYS}.tuner = 'acceptance'": InferenceConfig(step_size="tuned", tuning=TuningConfig(tuner="acceptance")),
    f"{TUNED}inference.noise = false\n{SAYS}.estimator = 'conditional'": InferenceConfig(
        step_size="tuned", noise=False, tuning=TuningConfig(estimator="conditional")
    ),
    f"{TUNED}{SAYS} = {{start = 1, images = 2, share = 0.99}}": InferenceConfig(
        step_size="tuned", tuning=TuningConfig(start=1.0, images=2, share=0.99)
    ),
    "inference = {noise = false, step_size = 0.2}": InferenceConfig(noise=False, step_size=0.2),
}


@pytest.mark.parametrize(("text", "inference"), ACCEPTED.items(), ids=range(len(ACCEPTED)))
def test_a_recipe_says_how_and_survives_a_round_trip(text: str, inference: InferenceConfig, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text, encoding="utf-8")
    config = load_config(str(path))
    checked_settings(config)
    assert config.inference == inference
    path.write_text(tomli_w.dumps(to_mapping(config)), encoding="utf-8")
    assert load_config(str(path)) == config
    described = LearnerConfig((1, 8, 8), 17, False, config.model, config.inference)
    assert from_mapping(LearnerConfig, to_mapping(described), "config.json") == described


@pytest.mark.parametrize(
    ("inference", "tuned", "first"),
    [
        (InferenceConfig(step_size=0.2), False, (0.2,)),
        (InferenceConfig(step_size=(0.1, 0.2, 0.3)), False, (0.1, 0.2, 0.3)),
        (InferenceConfig(step_size="tuned"), True, (0.1,)),
        (InferenceConfig(step_size="tuned", tuning=TuningConfig(over="schedule", start=0.3)), True, (0.3,)),
        (InferenceConfig(step_size="tuned", tuning=TuningConfig(over="layers")), True, (0.1, 0.1, 0.1)),
        (InferenceConfig(step_size="tuned", tuning=TuningConfig(over="both", start=0.3)), True, (0.3, 0.3, 0.3)),
    ],
)
def test_what_training_begins_with(inference: InferenceConfig, tuned: bool, first: tuple[float, ...]) -> None:
    assert inference.tuned is tuned
    assert inference.first_step_size(3) == first
    checked_settings(Config(inference=inference))


def test_a_schedule_and_a_fixed_step_size_go_together() -> None:
    training = TrainingConfig(step_size_schedule=((0.0, 1.0), (1.0, 0.5)))
    checked_settings(Config(inference=InferenceConfig(step_size=0.2), training=training))
    with pytest.raises(InputError, match="the step size is tuned; write one or the other"):
        checked_settings(Config(inference=InferenceConfig(step_size="tuned"), training=training))


def test_a_run_of_before_tuning_is_read() -> None:
    assert from_mapping(InferenceConfig, {"steps": 3, "step_size": 0.1}, "").tuning == TuningConfig()
