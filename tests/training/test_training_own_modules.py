"""Decoders and encoders of the user's own: refused in a line before there is a folder, or right from start to end."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import own_modules as own
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

import shortrun
from shortrun import InputError
from shortrun.cli import main
from shortrun.config import Config, DataConfig, EncoderConfig, InferenceConfig, ModelConfig, TrainingConfig
from shortrun.learners import with_generator
from shortrun.learners.own_modules import check_module
from shortrun.training.watching import Moment

Make = Callable[[], Any]


def config(learner: str = "short_run", blocks: str = "dense", encoder: str = "dense", **training: Any) -> Config:
    return Config(
        DataConfig("digits", train_limit=100, test_limit=20),
        ModelConfig(latents=(3, 5), width=16, blocks=blocks),
        InferenceConfig(steps=2, step_size=0.1),
        TrainingConfig(**{"updates": 4, "batch_size": 20, "fit_images": 0, "threads": 1, **training}),
        learner,
        EncoderConfig(blocks=encoder),
    )


def line_of(settings: Config, out: Path, **more: Any) -> str:
    """Train what must be refused, and return the line; no folder may be there then."""
    with pytest.raises(InputError) as refused:
        shortrun.train(settings, out, device="cpu", **more)
    assert not out.exists()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return own.With(weight_norm(nn.Linear(16, 16)))


def square_root(h: torch.Tensor) -> torch.Tensor:
    return h + (h - h).norm(dim=1, keepdim=True)


SOURCES_OF_KINKS = {
    "relu": torch.relu,
    "leaky": F.leaky_relu,
    "clamp": lambda h: h.clamp(min=0),
    "maximum": lambda h: torch.maximum(h, 0.1 * h),
    "absolute": torch.abs,
    "where": lambda h: h * (h > 0),
    "pool": lambda h: F.max_pool1d(h[:, None], 3, 1, 1)[:, 0],
}
BAD: dict[str, tuple[Make, str]] = {
    "shape": (own.Flat, "Flat returns (2, 64) for 2 images; return (2, 1, 8, 8): (n, channels, height, width)"),
    "two values": (own.Pair, "Pair returns a tuple for 2 images; return (2, 1, 8, 8)"),
    "dtype": (own.Double, "Double returns torch.float64; return torch.float32"),
    "signature": (own.OneLayer, "write forward(self, z2, z1), with z_2 of (n, 3), z_1 of (n, 5)"),
    "raises": (own.Raises, "Raises, called with (2, 3), (2, 5), raised KeyError ('no such layer'); write forward"),
    "dtype of weights": (own.DoubleWeights, "DoubleWeights has weights of torch.float64 (enter.weight); call .float()"),
    "ReLU": (lambda: own.With(nn.ReLU()), "With has layer, of kind ReLU, whose derivative jumps; write GELU"),
    "LeakyReLU": (lambda: own.With(nn.Sequential(nn.LeakyReLU())), "With has layer.0, of kind LeakyReLU,"),
    "Hardtanh": (lambda: own.With(nn.Hardtanh()), "With has layer, of kind Hardtanh,"),
    "sharp ELU": (lambda: own.With(nn.ELU(2.0)), "With has layer, of kind ELU,"),
    **{
        f"function {name}": (lambda f=f: own.Of(f), "Of has a derivative that jumps, as that of relu")
        for name, f in SOURCES_OF_KINKS.items()
    },
    "relu of convolutions": (
        own.ConvolutionsOfRelu,
        "ConvolutionsOfRelu calls relu, whose derivative jumps; write GELU",
    ),
    "dropout": (lambda: own.With(nn.Dropout()), "With returns something else for the same inputs; write it without"),
    "noise": (lambda: own.Of(lambda h: h + torch.randn_like(h)), "Of returns something else for the same inputs"),
    "noise of numpy": (lambda: own.Of(lambda h: h + np.random.rand()), "Of returns something else for the same"),
    "batch norm": (lambda: own.With(nn.BatchNorm1d(16)), "layer is a batch normalization, which couples the images"),
    "mean of the batch": (lambda: own.Of(lambda h: h - h.mean(0)), "Of couples the images of a batch, while an image"),
    "softmax of the batch": (lambda: own.Of(lambda h: h.softmax(0)), "Of couples the images of a batch"),
    "spectral norm": (
        lambda: own.With(parametrizations.spectral_norm(nn.Linear(16, 16))),
        "With changes its own layer.parametrizations.weight.0._u when it is called",
    ),
    "counter": (own.Counts, "Counts changes its own calls when it is called"),
    "two modes": (own.ModeDependent, "ModeDependent returns something else after .eval()"),
    "in place": (own.InPlace, "InPlace changes what it is called with, in place"),
    "NaN": (lambda: own.Of(lambda h: (h - 100).log()), "Of returns NaN or infinite numbers; look at its divisions"),
    "infinite": (lambda: own.Of(lambda h: h / (h - h)), "Of returns NaN or infinite numbers"),
    "NaN sometimes": (lambda: own.Sometimes(1.5), "Sometimes returns NaN or infinite numbers for 1 of 16 draws"),
    "NaN of the derivative": (lambda: own.Of(square_root), "Of has a second derivative that is not finite"),
    "detached": (lambda: own.Of(lambda h: h.detach()), "Of has no gradient with respect to its latents"),
    "rounded": (lambda: own.Of(lambda h: h.round()), "Of has no gradient with respect to its latents"),
    "all frozen": (own.Fixed, "Fixed has no weights that are learned; give it parameters"),
    "no part": (own.Unused, "Unused has weights, none of which has a part in what it returns"),
    "overlapping weights": (own.Overlapping, "Overlapping has weights that are two and lie in the same memory"),
    "old weight norm": (old_weight_norm, "With cannot be copied (Only Tensors created explicitly by the user"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_decoder_that_would_fail_or_be_wrong_is_refused_in_a_line(name: str, tmp_path: Path) -> None:
    make, words = BAD[name]
    decoder, before = make(), torch.random.get_rng_state()
    line = line_of(config(), tmp_path / "run", decoder=decoder)
    assert line.startswith("decoder: ")
    assert words in line
    assert torch.random.get_rng_state().equal(before)


@pytest.mark.parametrize(
    ("given", "words"), [(own.Decoder, "it is the class Decoder, no network"), (own.decoder, "it is a function, no")]
)
def test_what_is_no_module_is_refused(given: object, words: str) -> None:
    with pytest.raises(InputError, match=f"decoder: {words}"):
        check_module(given, "decoder", "it")


GOOD: dict[str, Make] = {
    "plain": own.Decoder,
    **{kind.__name__: lambda kind=kind: own.With(kind()) for kind in (nn.GELU, nn.Mish, nn.Softplus, nn.ELU, nn.CELU)},
    "sharp": lambda: own.Of(lambda h: F.softplus(h, beta=50)),
    "waves": lambda: own.Of(lambda h: torch.sin(30 * h)),
    "clamp of no effect": lambda: own.Of(lambda h: F.silu(h).clamp(-20, 20)),
    "layer norm": lambda: own.With(nn.LayerNorm(16)),
    "attention": lambda: own.Of(lambda h: (h.view(-1, 4, 4) @ h.view(-1, 4, 4).softmax(2)).flatten(1)),
    "linear": lambda: own.Of(lambda h: h),
    "convolutions": own.Convolutions,
    "lazy": own.Lazy,
    "buffer": own.WithBuffer,
}


@pytest.mark.parametrize("name", GOOD)
def test_a_sound_decoder_is_left_as_it_is(name: str, tmp_path: Path) -> None:
    """An update without a learning rate leaves the weights: those that the probe left are the user's own."""
    decoder = GOOD[name]()
    before = {key: each.clone() for key, each in decoder.state_dict().items() if name != "lazy"}
    state = torch.random.get_rng_state(), str(np.random.get_state())
    shortrun.train(config(updates=1, learning_rate=1e-30), tmp_path / "run", decoder=decoder, device="cpu")
    assert all(float((decoder.state_dict()[key] - each).abs().max()) < 1e-20 for key, each in before.items())
    assert torch.random.get_rng_state().equal(state[0])
    assert str(np.random.get_state()) == state[1]


def test_encoders_may_learn_decoders_with_jumps_in_their_derivatives(tmp_path: Path) -> None:
    """Only chains follow the gradient by the latents."""
    shortrun.train(config("vae"), tmp_path / "run", decoder=own.With(nn.ReLU()), device="cpu")


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ("of_two_arguments", "raised TypeError (of_two_arguments() got an unexpected keyword argument"),
        ("of_nothing", "'own_modules:of_nothing' is a NoneType, no network"),
        ("Decoder", "write a function of (image_shape, latents, *, parameterization, width, depth, skip, activation)"),
        ("unsaved", "Unsaved returns something else once it is loaded again; keep all that it needs in parameters"),
    ],
)
@pytest.mark.parametrize("learner", ["short_run", "rae"])
def test_what_makes_a_decoder_is_probed_too(blocks: str, words: str, learner: str, tmp_path: Path) -> None:
    line = line_of(config(learner, f"own_modules:{blocks}"), tmp_path / "run")
    assert line.startswith("model.blocks: ")
    assert words in line


@pytest.mark.parametrize("learner", ["vae", "vlae", "rae"])
@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ("plain_pairs", "PlainPairs returns a list of"),
        ("noisy", "Noisy returns something else for the same inputs"),
        ("centred", "Centred couples the images of a batch, while latents have to depend on their own image alone"),
        ("normed", "Normed changes its own norm.running_mean when it is called"),
        ("Encoder", "raised TypeError"),
    ],
)
def test_an_encoder_that_would_fail_or_be_wrong_is_refused(
    blocks: str, words: str, learner: str, tmp_path: Path
) -> None:
    line = line_of(config(learner, encoder=f"own_modules:{blocks}"), tmp_path / "run")
    assert line.startswith("encoder.blocks: ")
    assert words in line


def test_an_encoder_without_the_heads_that_a_learner_wants_is_refused(tmp_path: Path) -> None:
    line = line_of(config("vae", encoder="own_modules:each_layer"), tmp_path / "run")
    assert "EachLayer returns (2, 3), (2, 3), (2, 5), (2, 5) for 2 images; return a list of 1 shortrun.model" in line


@pytest.mark.parametrize("learner", ["vae", "vlae", "rae"])
def test_a_sound_encoder_learns_and_loads(learner: str, tmp_path: Path) -> None:
    run = shortrun.train(config(learner, encoder="own_modules:encoder"), tmp_path / "run", device="cpu")
    x = shortrun.load_dataset("digits").test.images()[:3]
    assert shortrun.load(run).reconstruct(x, torch.Generator().manual_seed(0)).isfinite().all()


class Stops:
    """Interrupts a run after so many updates."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, moment: Moment) -> None:
        if moment.step == self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", [own.WeightNorm, own.Tied, own.PartFrozen, own.Lazy])
def test_a_whole_life(kind: type[own.Decoder], precision: str, tmp_path: Path) -> None:
    """Trained, stopped, resumed, loaded, sampled: as the unbroken run, with what is tied or frozen still so."""

    def new() -> own.Decoder:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return kind()

    settings = config(precision=precision, checkpoint_seconds=1e-9, log_steps=1)
    settings = replace(settings, inference=InferenceConfig(steps=2, step_size="tuned"))
    whole = shortrun.train(settings, tmp_path / "whole", decoder=new(), device="cpu")
    with pytest.raises(KeyboardInterrupt):
        shortrun.train(settings, tmp_path / "parts", decoder=new(), device="cpu", watch=Stops(3))
    parts = shortrun.resume(tmp_path / "parts", decoder=new(), device="cpu")
    one, other = (shortrun.load(run, decoder=kind()) for run in (whole, parts))
    assert all(torch.equal(each, other.state_dict()[name]) for name, each in one.state_dict().items())
    assert shortrun.sample(other, 3, torch.Generator().manual_seed(0)).isfinite().all()
    assert with_generator(other)
    learned: Any = other.generator.decoder
    start, now = new().state_dict(), learned.state_dict()
    if kind is own.Tied:
        assert learned.one.weight is learned.two.weight
        assert not torch.equal(now["one.weight"], start["one.weight"])
    if kind is own.PartFrozen:
        assert torch.equal(now["enter.weight"], start["enter.weight"])
        assert not torch.equal(now["leave.weight"], start["leave.weight"])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--model.blocks", "own_modules:of_nothing"], "--model.blocks: 'own_modules:of_nothing' is a NoneType"),
        (["--model.blocks", "own_modules:unsaved"], "--model.blocks: Unsaved returns something else once"),
        (
            ["--learner", "vae", "--encoder.blocks", "own_modules:noisy"],
            "--encoder.blocks: Noisy returns something else",
        ),
    ],
)
def test_the_command_says_it_in_one_line(
    words: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "digits", *words, "--out", "run"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"shortrun: error: {line}")
    assert said.err.count("\n") == 1
    assert not (tmp_path / "run").exists()
