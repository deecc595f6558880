"""Chains that are looked at on their way end where the others do."""

import pytest
import torch
from task_learners import images, mixed_learner, rng, small_learner

from shortrun.config import InferenceConfig, ModelConfig
from shortrun.errors import InputError
from shortrun.learners import ShortRun, Vae


def falling_learner() -> ShortRun:
    """Steps of another size for each layer, which fall along the chain."""
    chain = InferenceConfig(steps=7, step_size=(0.1, 0.2, 0.3), step_decay=0.2)
    return ShortRun.build((1, 6, 5), ModelConfig(latents=(2, 3, 4), width=16), chain).eval()


LEARNERS = {
    "plain": small_learner,
    "falling": falling_learner,
    "conditional": lambda: small_learner("conditional"),
    "mixture": lambda: mixed_learner()[0],
}


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("noise", [True, False])
@pytest.mark.parametrize("every", [1, 3, 50])
def test_the_last_stage_is_what_infer_returns_to_the_bit(name: str, noise: bool, every: int) -> None:
    learner, x = LEARNERS[name](), images(4)
    mask = (images(4, seed=3) > 0).float()
    stages = list(learner.watch(x, rng(), every, mask=mask, noise=noise))
    steps = learner.fresh_steps
    assert [stage.step for stage in stages] == [*range(0, steps, every), steps]
    assert torch.equal(stages[-1].found.z, learner.infer(x, rng(), mask=mask, noise=noise).z)
    assert not torch.equal(stages[0].found.z, stages[-1].found.z)


def test_stages_are_those_of_a_longer_look() -> None:
    learner, x = small_learner(), images(3)
    fine = {stage.step: stage.found.z for stage in learner.watch(x, rng(), 1, steps=12)}
    for stage in learner.watch(x, rng(), 5, steps=12):
        assert torch.equal(stage.found.z, fine[stage.step])


def test_a_chain_that_fails_shows_its_start_and_is_run_again_at_the_end() -> None:
    learner, x = small_learner(), images(4)
    learner.step_size.scale_from(1.0, 1e30)
    *way, end = learner.watch(x, rng(), 1)
    assert all(stage.found.z.isfinite().all() for stage in (*way, end))
    assert way[1].found.failed.all()
    assert end.found.retried
    learner.retries = 0
    again = learner.infer(x, rng())
    *_, end = learner.watch(x, rng(), 2)
    assert torch.equal(end.found.z, again.z)
    assert end.found.failed.all()


def test_a_learner_without_a_chain_shows_its_end_alone() -> None:
    learner = Vae.build((1, 6, 5), ModelConfig(latents=(2, 3), width=8)).eval()
    (stage,) = learner.watch(images(3), rng(), 2)
    assert (stage.step, stage.steps) == (1, 1)
    assert torch.equal(stage.found.z, learner.infer(images(3), rng()).z)


@pytest.mark.parametrize(("every", "steps"), [(0, None), (1, 0)])
def test_counts_below_one_are_refused(every: int, steps: int | None) -> None:
    with pytest.raises(InputError):
        list(small_learner().watch(images(1), rng(), every, steps=steps))
