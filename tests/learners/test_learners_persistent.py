import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from shortrun.config import InferenceConfig, LearnerConfig, ModelConfig, PersistentConfig
from shortrun.errors import InputError
from shortrun.inference import DrawnNoise, short_run
from shortrun.learners import Persistent, ShortRun
from shortrun.model import Gaussian, TopDown

SHAPE = (1, 4, 4)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int) -> Tensor:
    return torch.randint(2, (n, *SHAPE), generator=rng(2)).float() * 2 - 1


def learner_of(folder: Path, count: int = 6, store: Any = "memory", **model: Any) -> Persistent:
    """A small learner with chains for so many images."""
    description = LearnerConfig(
        SHAPE,
        2,
        model=ModelConfig(**{"latents": (2, 3), "width": 8, **model}),
        inference=InferenceConfig(steps=4, step_size=0.2),
        learner="persistent",
        persistent=PersistentConfig(store, fresh_steps=9),
    )
    learner = Persistent.from_description(description)
    for parameter in learner.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=rng(1))
    learner.start_training(count, 0, folder)
    return learner


def kept(learner: Persistent) -> Tensor:
    return learner.training_state()["chains"].clone()


@pytest.mark.parametrize("parameterization", ["ladder", "conditional"])
def test_a_visit_goes_on_where_the_chain_stood(parameterization: str, tmp_path: Path) -> None:
    learner, x = learner_of(tmp_path, parameterization=parameterization), images(3)
    rows, before = torch.tensor([4, 0, 3]), kept(learner)
    expected = before[rows]
    for seed in (5, 6):
        noise = DrawnNoise(rng(seed), 4, (3, 5))
        expected = short_run(
            lambda z: learner.generator.log_joint(x, z), expected, learner.step_size(4), noise
        ).detach()
        learner.loss(x, rng(seed), rows=rows)
        torch.testing.assert_close(kept(learner)[rows], expected)
    assert (kept(learner)[rows] - before[rows]).abs().min(dim=1).values.max() > 1e-3
    assert torch.equal(kept(learner)[[1, 2, 5]], before[[1, 2, 5]])


def test_the_loss_is_minus_log_joint_where_the_chains_then_stand(tmp_path: Path) -> None:
    learner, x, rows = learner_of(tmp_path, learn_sigma=True), images(3), torch.tensor([4, 0, 3])
    loss, statistics = learner.loss(x, rng(), rows=rows)
    z = kept(learner)[rows]
    expected = -learner.generator.log_joint(x, z).mean()
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(value, list(learner.parameters())) for value in (loss, expected)]
    torch.testing.assert_close(*gradients)
    assert all(gradient.abs().sum() > 0 for gradient in gradients[0])
    torch.testing.assert_close(statistics["mse"], ((learner.decode(z) - x) / 2).square().mean())
    torch.testing.assert_close(statistics["second_moment"], z.square().mean())
    assert statistics["retried"] == statistics["failed"] == 0


def test_parts_of_a_batch_visit_as_the_whole_does(tmp_path: Path) -> None:
    whole, parts, x = learner_of(tmp_path), learner_of(tmp_path), images(6)
    rows = torch.tensor([4, 0, 3, 1, 5, 2])
    whole.loss(x, rng(), rows=rows)
    for i in range(3):
        part = slice(2 * i, 2 * i + 2)
        parts.loss(x[part], rng(), (i, 3), rows[part])
    torch.testing.assert_close(kept(parts), kept(whole))


def test_the_chains_start_from_the_prior_and_follow_from_the_seed(tmp_path: Path) -> None:
    learner = learner_of(tmp_path)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    starts = []
    for seed in (1, 1, 2):
        learner.start_training(4000, seed, tmp_path)
        starts.append(kept(learner))
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(starts[0], starts[1])
    assert (starts[0] - starts[2]).abs().mean() > 0.5
    assert starts[0].mean(0).abs().max() < 5 / math.sqrt(4000)
    assert (starts[0].var(0) - 1).abs().max() < 5 * math.sqrt(2 / 4000)
    assert starts[0][:, 0].unique().numel() == 4000


def test_disk_and_memory_learn_alike(tmp_path: Path) -> None:
    memory, disk = learner_of(tmp_path), learner_of(tmp_path, store="disk")
    x, rows = images(3), torch.tensor([4, 0, 3])
    for seed in range(3):
        assert torch.equal(memory.loss(x, rng(seed), rows=rows)[0], disk.loss(x, rng(seed), rows=rows)[0])
    assert torch.equal(kept(memory), kept(disk))
    assert np.array_equal(np.load(tmp_path / "chains.npy"), kept(disk).numpy())


@pytest.mark.parametrize("store", ["memory", "disk"])
def test_the_kept_state_is_put_back(store: str, tmp_path: Path) -> None:
    learner = learner_of(tmp_path, store=store)
    x, rows = images(3), torch.tensor([4, 0, 3])
    learner.loss(x, rng(), rows=rows)
    state = {name: tensor.clone() for name, tensor in learner.training_state().items()}
    expected = learner.loss(x, rng(1), rows=rows)[0]
    again = learner_of(tmp_path, store=store)
    again.load_training_state(state)
    assert torch.equal(again.loss(x, rng(1), rows=rows)[0], expected)
    with pytest.raises(KeyError):
        again.load_training_state({})


def test_chains_are_no_part_of_the_model(tmp_path: Path) -> None:
    learner = learner_of(tmp_path)
    bare = Persistent.from_description(learner.description)  # pyright: ignore[reportArgumentType]
    assert learner.state_dict().keys() == bare.state_dict().keys()
    assert bare.training_state() == {}
    copied: Any = AveragedModel(bare).module
    assert copied.chains is None
    learner.save_pretrained(tmp_path / "saved")
    loaded = Persistent.from_pretrained(tmp_path / "saved")
    assert loaded.chains is None
    assert torch.equal(loaded.infer(images(2), rng()).z, learner.infer(images(2), rng()).z)


def test_other_images_get_a_run_from_the_prior(tmp_path: Path) -> None:
    learner, x = learner_of(tmp_path), images(3)
    before = kept(learner)
    short = ShortRun(copy.deepcopy(learner.generator), steps=9, step_size=0.2)
    assert torch.equal(learner.infer(x, rng()).z, short.infer(x, rng()).z)
    assert torch.equal(learner.infer(x, rng(), steps=5, noise=False).z, short.infer(x, rng(), steps=5, noise=False).z)
    mask = (torch.rand(3, 1, 4, 4, generator=rng()) > 0.5).float()
    assert torch.equal(learner.infer(x, rng(), mask=mask).z, short.infer(x, rng(), mask=mask).z)
    assert torch.equal(kept(learner), before)
    assert learner.conditions() | {"steps": 9, "steps_per_visit": 4} == learner.conditions()
    assert learner.describe_inference() == "9 steps, with noise, from the prior"
    assert learner.describe_inference(3, False) == "3 steps, without noise, from the prior"


def test_without_rows_or_chains_there_is_one_clear_line(tmp_path: Path) -> None:
    learner, x = learner_of(tmp_path), images(3)
    with pytest.raises(InputError, match=r"^rows: got none for 3 images; write which"):
        learner.loss(x, rng())
    with pytest.raises(InputError, match=r"^rows: got 6 of 6 images"):
        learner.loss(x, rng(), rows=torch.tensor([0, 6, 1]))
    bare = Persistent.from_description(learner.description)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="start_training"):
        bare.loss(x, rng(), rows=torch.arange(3))
    with pytest.raises(InputError, match=r"^fresh_steps: got 0"):
        Persistent(learner.generator, fresh_steps=0)


class Fenced(nn.Module):
    """x = z, and NaN for latents beyond a fence, as an overflow is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, z: Tensor) -> Tensor:
        return (z * self.weight).masked_fill((z.norm(dim=1) > 3)[:, None], math.nan)[:, None, None, :]


def fenced(retries: int, folder: Path) -> Persistent:
    """One step without noise, z + s^2 / 2 (x - 2 z), of s = 1."""
    learner = Persistent(TopDown(Fenced(), Gaussian(1.0), [2]), 1, 1.0, noise=False, retries=retries)
    learner.start_training(4, 0, folder)
    learner.load_training_state({"chains": torch.tensor([[0.5, 0.5], [1.0, -1.0], [2.0, 1.0], [-1.0, 0.0]])})
    return learner


def far() -> Tensor:
    """Images of two pixels; the second is beyond the fence after a whole step, and within after a half of one."""
    return torch.tensor([[0.3, 0.1], [6.0, 4.0], [0.5, 0.5]])[:, None, None, :]


def test_a_chain_that_breaks_goes_again_from_where_it_stood_with_half_the_step(tmp_path: Path) -> None:
    learner, rows, x = fenced(1, tmp_path), torch.tensor([0, 1, 3]), far()
    before = kept(learner)
    _, statistics = learner.loss(x, rng(), rows=rows)
    share = torch.tensor([[1 / 2], [1 / 8], [1 / 2]])
    torch.testing.assert_close(kept(learner)[rows], before[rows] + share * (x[:, 0, 0] - 2 * before[rows]))
    assert (statistics["retried"], statistics["failed"]) == (1, 0)


def test_a_chain_that_breaks_after_all_starts_from_the_prior_and_is_left_out(tmp_path: Path) -> None:
    learner, rows, x = fenced(0, tmp_path), torch.tensor([0, 1, 3]), far()
    before = kept(learner)
    loss, statistics = learner.loss(x, rng(), rows=rows)
    after = kept(learner)
    assert (statistics["retried"], statistics["failed"]) == (0, 1)
    assert torch.isfinite(after).all()
    assert torch.equal(after[2], before[2])
    assert (after[1] - before[1]).abs().min() > 1e-3
    assert after[1].norm() < 5
    others = torch.tensor([0, 3])
    torch.testing.assert_close(loss, -learner.generator.log_joint(x[[0, 2]], after[others]).mean())
    # and goes on from there
    assert torch.isfinite(learner.loss(x, rng(1), rows=rows)[0])


def test_a_bad_image_does_not_spoil_its_chain_for_good(tmp_path: Path) -> None:
    learner, x, rows = learner_of(tmp_path), images(3), torch.tensor([4, 0, 3])
    bad = x.clone()
    bad[1, 0, 0, 0] = math.nan
    loss, statistics = learner.loss(bad, rng(), rows=rows)
    assert torch.isfinite(loss)
    assert statistics["failed"] == 1
    assert torch.isfinite(kept(learner)).all()
    assert learner.loss(x, rng(1), rows=rows)[1]["failed"] == 0
