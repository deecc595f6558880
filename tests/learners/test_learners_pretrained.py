import json
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from shortrun.config import InferenceConfig, LearnerConfig, ModelConfig, TuningConfig
from shortrun.errors import InputError
from shortrun.inference import StepSize
from shortrun.learners import ShortRun
from shortrun.learners.weights import write_weights
from shortrun.model import Gaussian, TopDown

SHAPE = (1, 4, 4)
MODELS = [
    {"likelihood": likelihood, "parameterization": parameterization, "blocks": blocks, **more}
    for likelihood, blocks, more in [
        ("gaussian", "dense", {"sigma": 0.17}),
        ("gaussian", "dense", {"learn_sigma": True, "skip": False}),
        ("bernoulli", "conv", {"depth": 2}),
        ("logistic", "dense", {}),
    ]
    for parameterization in ("ladder", "conditional")
]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a test reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def learner_of(levels: int | None = 17, decoder: nn.Module | None = None, **model: Any) -> ShortRun:
    config = ModelConfig(**{"latents": (2, 3), "width": 8, **model})
    inference = InferenceConfig(steps=4, step_size=(0.2, 0.1), step_decay=0.5, retries=1)
    learner = ShortRun.build(SHAPE, config, inference, levels, decoder, seed=3)
    for parameter in learner.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=rng(1))
    learner.step_size.scale_from((0.2, 0.1), 0.7)  # as a schedule leaves it
    return learner


def outputs(learner: ShortRun) -> list[Tensor]:
    x = torch.rand(3, *SHAPE, generator=rng()).round() * 2 - 1
    return [
        learner.sample(5, rng()),
        learner.infer(x, rng()).z,
        learner.reconstruct(x, rng()),
        learner.loss(x, rng())[0],
    ]


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_what_is_saved_is_what_is_loaded_bit_for_bit(model: dict[str, Any], tmp_path: Path) -> None:
    learner = learner_of(**model)
    learner.save_pretrained(tmp_path / "saved")
    loaded = ShortRun.from_pretrained(tmp_path / "saved")
    assert loaded.description == learner.description
    assert list(loaded.state_dict()) == list(learner.state_dict())
    for before, after in zip(outputs(learner), outputs(loaded), strict=True):
        assert torch.equal(before, after)
    assert not loaded.training
    assert loaded.step_size.values == learner.step_size.values
    loaded.save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "saved" / name).read_bytes()


def test_config_is_what_a_person_can_read(tmp_path: Path) -> None:
    learner_of(levels=None, sigma=0.17).save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text(encoding="utf-8")
    values = json.loads(text)
    assert values["image_shape"] == [1, 4, 4]
    assert values["model"]["latents"] == [2, 3]
    assert values["model"]["sigma"] == 0.17
    assert values["inference"]["step_size"] == pytest.approx([0.14, 0.07])  # as the schedule left it
    assert text.count("\n") > 10
    assert "levels" not in values
    assert ShortRun.from_pretrained(tmp_path).description.levels is None  # pyright: ignore


def test_values_that_were_set_by_hand_are_those_that_are_saved(tmp_path: Path) -> None:
    learner = learner_of()
    learner.steps, learner.noise, learner.candidates, learner.retries = 50, False, 3, 0
    learner.step_size = StepSize(0.3, (2, 3), 0.25)  # one number, where the settings had two
    gaussian = learner.generator.likelihood
    gaussian.set_sigma(0.21)
    learner.save_pretrained(tmp_path)
    loaded = ShortRun.from_pretrained(tmp_path)
    assert (loaded.steps, loaded.noise, loaded.candidates, loaded.retries) == (50, False, 3, 0)
    assert (loaded.step_size.values, loaded.step_size.decay) == (learner.step_size.values, learner.step_size.decay)
    assert loaded.generator.likelihood.values() == gaussian.values()
    assert loaded.description == learner.description
    assert learner.description.model.sigma == pytest.approx(0.21)  # pyright: ignore[reportOptionalMemberAccess]


def test_settings_are_checked_before_weights_are_read(tmp_path: Path) -> None:
    learner_of().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    values = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    values["model"]["width"] = 0
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(InputError, match=r"^config.json.model.width: got 0; write a whole number from 1 to 1,000,000"):
        ShortRun.from_pretrained(tmp_path)


def test_a_value_that_cannot_be_is_not_saved(tmp_path: Path) -> None:
    learner = learner_of()
    learner.steps = 0
    with pytest.raises(InputError, match=r"^inference.steps: got 0; write a whole number of at least 1"):
        learner.save_pretrained(tmp_path / "model")
    assert not list(tmp_path.rglob("*.json"))


def test_the_settings_are_as_they_were_where_nothing_was_set(tmp_path: Path) -> None:
    for inference in (
        InferenceConfig(steps=4, step_size=(0.2, 0.1), step_decay=0.5),
        InferenceConfig(step_size="tuned"),
        InferenceConfig(step_size="tuned", tuning=TuningConfig(over="layers", start=0.3)),
    ):
        learner = ShortRun.build(SHAPE, ModelConfig(latents=(2, 3), width=8, sigma=0.17), inference)
        assert learner.description == LearnerConfig(SHAPE, 256, model=learner.description.model, inference=inference)  # pyright: ignore
        assert learner.description.model == ModelConfig(latents=(2, 3), width=8, sigma=0.17)  # pyright: ignore


def test_weights_are_safetensors_and_nothing_else_is_written(tmp_path: Path) -> None:
    learner = learner_of()
    learner.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert set(weights) == set(learner.state_dict())
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors", "README.md"}


def test_while_weights_are_written_there_is_one_file_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill leaves what is there then: it has a name that the next write takes up."""
    there: list[list[str]] = []
    write = Path.write_bytes

    def seen(path: Path, content: bytes) -> int:
        written = write(path, content)
        there.append([each.name for each in tmp_path.iterdir()])
        return written

    monkeypatch.setattr(Path, "write_bytes", seen)
    write_weights({"a": torch.ones(3)}, tmp_path / "model.safetensors")
    assert there == [[".model.partial.safetensors"]]
    assert load_file(tmp_path / "model.safetensors")["a"].equal(torch.ones(3))


def test_a_learner_put_together_by_hand_is_not_saved(tmp_path: Path) -> None:
    learner = ShortRun(TopDown(own_decoder(), Gaussian(), [2, 3]))
    with pytest.raises(InputError, match=r"^learner: put together by hand, .*ShortRun.build"):
        learner.save_pretrained(tmp_path)


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 16)

    def forward(self, *z: Tensor) -> Tensor:
        return torch.tanh(self.linear(torch.cat(z, dim=1))).unflatten(1, SHAPE)


def own_decoder() -> Own:
    return Own()


def test_a_decoder_of_ones_own_is_given_again(tmp_path: Path) -> None:
    learner = learner_of(decoder=own_decoder())
    learner.save_pretrained(tmp_path)
    loaded = ShortRun.from_pretrained(tmp_path, decoder=own_decoder())
    for before, after in zip(outputs(learner), outputs(loaded), strict=True):
        assert torch.equal(before, after)


Damage = Callable[[Path], object]


def edited(**changes: Any) -> Damage:
    """Damage that writes other values into config.json; model__width is the width in its table model."""

    def edit(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text())
        for key, value in changes.items():
            table, _, name = key.rpartition("__")
            (values[table] if table else values)[name] = value
        (folder / "config.json").write_text(json.dumps(values))

    return edit


def weights(change: Callable[[dict[str, Tensor]], object]) -> Damage:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return edit


def truncate(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


DAMAGES: dict[str, tuple[Damage, str]] = {
    "weights cut short": (truncate, "model.safetensors: damaged ("),
    "weights empty": (
        lambda folder: (folder / "model.safetensors").write_bytes(b""),
        "model.safetensors: damaged (",
    ),
    "weights are a picture": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"\x89PNG\r\n\x1a\n" * 99),
        "model.safetensors: damaged (",
    ),
    "a weight is NaN": (
        weights(lambda w: w["generator.decoder.body.0.1.bias"].__setitem__(0, torch.nan)),
        "model.safetensors: damaged (generator.decoder.body.0.1.bias is not finite); train again, or restore it",
    ),
    "a step size is infinite": (
        weights(lambda w: w["step_size.log_values"].fill_(torch.inf)),
        "model.safetensors: damaged (step_size.log_values is not finite)",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors: not there;"),
    "a weight is missing": (weights(lambda w: w.popitem()), "weights that do not fit the configuration in it ("),
    "a weight too many": (weights(lambda w: w.update(more=torch.ones(1))), "weights that do not fit the configuration"),
    "weights of another size": (edited(model__width=9), "weights that do not fit the configuration in it ("),
    "other layers": (edited(model__latents=[3, 2]), "weights that do not fit the configuration in it ("),
    "no config.json": (lambda folder: (folder / "config.json").unlink(), "no config.json in it;"),
    "config.json cut short": (
        lambda folder: (folder / "config.json").write_text('{"model": {'),
        "config.json: damaged (",
    ),
    "config.json is no text": (
        lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe"),
        "config.json: damaged (",
    ),
    "config.json is a list": (
        lambda folder: (folder / "config.json").write_text("[1]"),
        "config.json: got [1]; write a table",
    ),
    "unknown key": (edited(colour=1), "config.json.colour: unknown key;"),
    "unknown key that is an argument of ShortRun": (edited(steps=1), "config.json.steps: unknown key;"),
    "unknown key that is an argument of loading": (edited(decoder=1), "config.json.decoder: unknown key;"),
    "unknown key in a table": (edited(model__widht=1), "config.json.model.widht: unknown key; did you mean 'width'?"),
    "wrong type": (edited(model__width="8"), "config.json.model.width: got '8'; write a whole number"),
    "image of two sizes": (edited(image_shape=[4, 4]), "config.json.image_shape: got [4, 4]; write"),
    "no layers": (edited(model__latents=[]), "model.latents: got none"),
    "sigma of nothing": (edited(model__sigma=0), "sigma: got 0.0; write a positive number"),
    "no steps": (edited(inference__steps=0), "steps: got 0;"),
    "config.json nested too deep": (
        lambda folder: (folder / "config.json").write_text("[" * 100_000),
        "config.json: damaged (",
    ),
    "a width of 10^9": (edited(model__width=10**9), "model.width: got 1000000000; write a whole number from 1 to"),
    "weights beyond memory": (edited(model__width=10**6), "config.json.model: its weights would take"),
    "10^4 layers": (edited(model__latents=[1] * 10**4), "model.latents: got 10000 layers; write"),
    "10^6 linear layers": (edited(model__depth=10**6), "model.depth: got 1000000; write"),
    "a mixture of 10^8": (edited(model__prior="mixture", model__components=10**8), "model.components: got 100000000;"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_model_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    damage, message = DAMAGES[name]
    learner_of().save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError) as caught:
        ShortRun.from_pretrained(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_decoder_missing_or_too_many_is_refused_in_one_line(tmp_path: Path) -> None:
    learner_of(decoder=own_decoder()).save_pretrained(tmp_path / "own")
    learner_of().save_pretrained(tmp_path / "ours")
    for folder, decoder, message in (
        ("own", None, "give it, decoder="),
        ("ours", own_decoder(), "leave the argument out"),
    ):
        with pytest.raises(InputError, match=rf"^decoder: .*{message}") as caught:
            ShortRun.from_pretrained(tmp_path / folder, decoder=decoder)
        assert "\n" not in str(caught.value)


def test_push_to_hub_uploads_what_from_pretrained_reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    created: list[dict[str, Any]] = []
    uploaded: dict[str, bytes] = {}

    def create_repo(_: HfApi, **arguments: Any) -> SimpleNamespace:
        created.append(arguments)
        return SimpleNamespace(repo_id=arguments["repo_id"])

    def upload_folder(_: HfApi, *, repo_id: str, folder_path: Path, **__: Any) -> str:
        uploaded.update({path.name: path.read_bytes() for path in Path(folder_path).iterdir()})
        return f"https://huggingface.co/{repo_id}"

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    learner = learner_of()
    assert learner.push_to_hub("someone/digits", private=True) == "https://huggingface.co/someone/digits"
    assert created[0]["repo_id"] == "someone/digits"
    assert created[0]["private"] is True
    assert set(uploaded) == {"config.json", "model.safetensors", "README.md"}
    assert json.loads(uploaded["config.json"])["image_shape"] == [1, 4, 4]
    assert b"library_name: shortrun" in uploaded["README.md"]

    for name, content in uploaded.items():
        (tmp_path / name).write_bytes(content)
    asked: list[tuple[str, dict[str, Any]]] = []

    def snapshot_download(name: str, **arguments: Any) -> str:
        asked.append((name, arguments))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    loaded = ShortRun.from_pretrained("someone/digits", revision="v1")
    assert torch.equal(loaded.sample(4, rng()), learner.sample(4, rng()))
    assert asked[0][0] == "someone/digits"
    assert asked[0][1]["revision"] == "v1"
    assert set(asked[0][1]["allow_patterns"]) == {
        "config.json",
        "model.safetensors",
        "latent_density.safetensors",
        "record.json",
    }
