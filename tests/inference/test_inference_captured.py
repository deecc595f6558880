"""Steps that are recorded on a GPU: the same numbers, in no more memory, and done without where they cannot be."""

import weakref

import pytest
import torch
from torch import Tensor, nn

from shortrun.config import InferenceConfig, ModelConfig, TrainingConfig
from shortrun.inference import captured, langevin_step, short_run
from shortrun.inference.captured import CapturedStep
from shortrun.learners import ShortRun
from shortrun.training.compiling import choose_step
from shortrun.training.position import Position
from shortrun.training.precision import autocast
from shortrun.training.processes import Processes

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
DEVICE = torch.device("cuda")


def rng(seed: int = 0, device: str = "cuda") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def learner(blocks: str = "dense", **inference: object) -> ShortRun:
    model = ModelConfig(latents=(2, 3), width=16, blocks=blocks, prior="mixture", components=2)  # pyright: ignore[reportArgumentType]
    return ShortRun.build((3, 16, 16), model, InferenceConfig(steps=6, step_size=0.05, **inference))  # pyright: ignore[reportArgumentType]


def images(n: int = 8) -> Tensor:
    return 2 * torch.rand(n, 3, 16, 16, generator=rng(9, "cpu")) - 1


def test_on_a_cpu_and_with_gradients_nothing_is_recorded() -> None:
    z, noise = torch.randn(4, 3, generator=rng(0, "cpu")), torch.randn(5, 4, 3, generator=rng(1, "cpu"))

    def log_density(z: Tensor) -> Tensor:
        return -(z**4).sum(1)

    ends = [short_run(log_density, z, torch.tensor(0.1), noise, *step) for step in ((), (CapturedStep(),))]
    assert torch.equal(ends[0], ends[1])


class Replayed:
    """Stands in for a graph where there is no GPU: takes the step at the places that it was recorded with."""

    count = 0

    def __init__(self, recording: captured._Recording) -> None:
        self.recording = recording
        Replayed.count += 1

    def pool(self) -> None:
        return None

    def replay(self) -> None:
        self.recording.end = self.recording.take(*self.recording.inputs)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_recordings_read_what_each_chain_has(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    def record(self: captured._Recording, inputs: tuple[Tensor, ...], warm_up: bool) -> None:
        self.inputs = [value.clone(memory_format=torch.contiguous_format) for value in inputs]
        self.graph = Replayed(self)  # pyright: ignore[reportAttributeAccessIssue]

    monkeypatch.setattr(captured._Recording, "record", record)
    monkeypatch.setattr(captured, "_can_record", lambda z: True)
    monkeypatch.setattr(Replayed, "count", 0)
    made, x, cpu = learner(), images(), torch.device("cpu")
    mask = (torch.rand(8, 1, 16, 16, generator=rng(3, "cpu")) < 0.5).float()

    def ends() -> list[Tensor]:
        with autocast(precision, cpu):  # pyright: ignore[reportArgumentType]
            return [
                made.infer(part, rng(i, "cpu"), steps=4 + i, mask=covered).z
                for i, (part, covered) in enumerate(
                    [(x, None), (x.flip(0), None), (x, mask), (x.flip(0), mask), (x[:5], None)]
                )
            ]

    for shift in (0.0, 0.01):
        with torch.no_grad():
            for weight in made.parameters():
                weight.add_(shift)
        z = torch.randn(500, 5, generator=rng(4, "cpu")) + shift
        for _ in range(3):
            made.generator.prior.learn(z, rng(5, "cpu"))
        made.step = langevin_step
        plain = ends()
        if not shift:
            recorded_step = CapturedStep()
        made.step = recorded_step
        assert all(torch.equal(one, other) for one, other in zip(plain, ends(), strict=True))
        if not shift:
            recorded = Replayed.count
    # the second time around nothing new is recorded: the weights are in the places they had
    assert 0 < recorded <= 5
    assert Replayed.count == recorded


def test_chains_of_one_step_keep_no_density_but_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured, "_can_record", lambda z: True)
    step, z, kept = CapturedStep(), torch.zeros(2, 3), []
    for power in range(2, 9):

        def log_density(z: Tensor, power: int = power) -> Tensor:
            return -(z**power).sum(1)

        kept.append(weakref.ref(log_density))
        with torch.no_grad():
            step(log_density, z, torch.tensor(0.1), z)
    del log_density
    assert [density() is None for density in kept] == [True] * 6 + [False]


def test_a_module_of_the_users_own_may_hold_numbers_that_no_tensor_holds() -> None:
    description = (3, 16, 16), ModelConfig(latents=(2, 3), width=16), InferenceConfig(steps=2)
    component = torch.zeros(8, dtype=torch.long)
    found = [
        ShortRun.build(*description, decoder=decoder).log_density(images(), component).movable()  # pyright: ignore[reportFunctionMemberAccess]
        for decoder in (None, Waits())
    ]
    assert found[0] is not None
    assert found[1] is None


@on_gpu
@pytest.mark.parametrize("blocks", ["dense", "conv"])
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_recorded_chains_end_where_the_others_do(blocks: str, precision: str) -> None:
    made, x = learner(blocks, start="regression").to(DEVICE), images().to(DEVICE)

    def ends() -> list[Tensor]:
        with autocast(precision, DEVICE), torch.backends.cudnn.flags(enabled=True, deterministic=True):
            return [made.infer(x[: 8 - 2 * i], rng(i), steps=6 + i).z for i in range(3)]

    plain = ends()
    made.step = CapturedStep()
    recorded = ends()
    # the weights have moved: the next chain must not replay what was recorded with the old ones
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.01)
    moved = ends()
    made.step = langevin_step
    assert all(torch.equal(one, other) for one, other in zip(plain, recorded, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(moved, ends(), strict=True))
    assert not torch.equal(plain[0], moved[0])


@on_gpu
def test_many_chains_take_no_more_memory_than_a_few() -> None:
    made, x = learner("conv").to(DEVICE), images().to(DEVICE)
    made.step = CapturedStep()
    taken = []
    for i in range(30):
        made.infer(x, rng(i))
        taken.append(torch.cuda.memory_reserved())
    assert taken[-1] == taken[5]


class Waits(nn.Module):
    """A user's decoder that asks the device for a number."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(5, 768)

    def forward(self, *layers: Tensor) -> Tensor:
        decoded = self.map(torch.cat(layers, 1)).tanh()
        return decoded.view(-1, 3, 16, 16) * (1 if decoded.mean().item() < 2 else 2)


@on_gpu
def test_a_decoder_that_waits_for_the_host_goes_on_without(capsys: pytest.CaptureFixture[str]) -> None:
    model = ModelConfig(latents=(2, 3), width=16)
    made = ShortRun.build((3, 16, 16), model, InferenceConfig(steps=4), decoder=Waits()).to(DEVICE)
    before, x = made.step, images().to(DEVICE)
    choose_step(made, x, TrainingConfig(), Position(total=100), Processes(0, 1, DEVICE))
    assert made.step is before
    assert "cannot be recorded in a CUDA graph" in capsys.readouterr().err
    assert torch.isfinite(made.infer(x, rng()).z).all()


@on_gpu
def test_training_records_unless_told_not_to() -> None:
    for wanted, kind in (("auto", True), ("never", False)):
        made = learner().to(DEVICE)
        settings = TrainingConfig(cuda_graphs=wanted)  # pyright: ignore[reportArgumentType]
        choose_step(made, images().to(DEVICE), settings, Position(total=100), Processes(0, 1, DEVICE))
        assert isinstance(made.step, CapturedStep) is kind
