"""When the step size is tuned: counted, repeatable, within its share of the work, more often early."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortrun.config import Config, InferenceConfig, ModelConfig, TrainingConfig, TuningConfig
from shortrun.training.tuning_schedule import tuning_steps

# beartype, which checks the dataclasses here, picks the items it looks at by chance
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")

WAYS = [(tuner, over) for tuner in ("grid", "gradient") for over in ("one", "layers", "schedule", "both")]
WAYS.append(("acceptance", "one"))
EVALUATIONS: dict[str, Callable[[int], int]] = {
    "grid": lambda p: 1 + 2 * p,
    "gradient": lambda p: 4 * p,
    "acceptance": lambda p: 2,
}


@settings(max_examples=200, deadline=None)
@given(
    way=st.sampled_from(WAYS),
    estimator=st.sampled_from(["marginal", "conditional", "path"]),
    latents=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    total=st.integers(1, 50_000),
    batch=st.integers(1, 500),
    images=st.integers(2, 64),
    share=st.floats(0.001, 0.99),
)
def test_tunings_keep_to_their_share_of_the_work(
    way: tuple[str, str], estimator: str, latents: list[int], total: int, batch: int, images: int, share: float
) -> None:
    tuner, over = way
    tuning = TuningConfig(estimator=estimator, tuner=tuner, over=over, images=images, share=share)  # pyright: ignore
    config = Config(
        model=ModelConfig(latents=tuple(latents)),
        inference=InferenceConfig(step_size="tuned", tuning=tuning),
        training=TrainingConfig(batch_size=batch),
    )
    dim = sum(latents)
    steps = tuning_steps(config, dim, total)
    assert steps == tuning_steps(config, dim, total)
    assert 1 <= len(steps) <= 100
    assert all(0 <= step < total for step in steps)
    settings_ = (len(latents) if over in ("layers", "both") else 1) + (over in ("schedule", "both"))
    hessians = 0 if tuner == "acceptance" or estimator == "path" else 1.5 * dim * images
    once = EVALUATIONS[tuner](settings_) * max(hessians, 1.5 * batch)
    if len(steps) > 1:
        assert len(steps) * once <= share * total * batch * (1 + 1e-9)
    if len(steps) > 3 and total > 10 * len(steps):
        ordered = sorted(steps)
        gaps = [later - sooner for sooner, later in itertools.pairwise(ordered)]
        assert gaps[0] < gaps[-1]
        assert sum(step < total / 2 for step in steps) > len(steps) / 2


def test_dense_estimators_are_counted_where_there_are_no_stand_ins() -> None:
    """Stand-ins are for starts from N(0, I) under it alone: beyond 256 latents others are tuned less often."""

    def count(start: str = "prior", prior: str = "normal") -> int:
        inference = InferenceConfig(step_size="tuned", start=start, tuning=TuningConfig(share=0.2))  # pyright: ignore
        return len(tuning_steps(Config(model=ModelConfig(prior=prior), inference=inference), 300, 20_000))

    assert count() > 2 * count("regression")
    assert count("regression") == count(prior="mixture") == count("regression", "mixture") > 1


def test_more_work_allows_more_tunings() -> None:
    def count(share: float, dim: int, total: int) -> int:
        tuning = TuningConfig(share=share)
        return len(tuning_steps(Config(inference=InferenceConfig(step_size="tuned", tuning=tuning)), dim, total))

    counts = [count(share, 8, 2000) for share in (0.01, 0.05, 0.2)]
    assert 1 < counts[0] < counts[1] < counts[2] < 100
    assert count(0.9, 8, 100_000) == 100
    assert count(0.001, 1000, 10) == 1
