"""The checks of decoders and encoders of the user's own that a run makes before its folder is there."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from shortrun.config import LearnerConfig
from shortrun.errors import in_one_line
from shortrun.learners.encoder import encoder_shape, with_encoder
from shortrun.learners.latent_learner import with_generator
from shortrun.learners.learner import Learner
from shortrun.learners.probe import (
    LOOK,
    ROUNDING,
    Own,
    check_gradients,
    check_outputs,
    differ,
    leaving_no_trace,
)
from shortrun.learners.rae import Rae
from shortrun.learners.smoothness import derivative_jumps, has_convolutions, kinked_function, kinked_layer
from shortrun.model.encoders import Moments

DRAWS = 16
"""Draws of latents whose images have to be finite."""


def check_own_modules(
    learner: Learner,
    description: LearnerConfig,
    precision: AbstractContextManager[object],
    device: torch.device,
    again: Callable[[], Learner],
) -> None:
    """Raise InputError for a decoder or an encoder of the user's own that would fail, or be wrong without a word.

    Built-in ones are not looked at. The learner stays as it is, and so do all global random numbers.

    learner: with new weights.
    description: that it was built from.
    precision: the context in which an update computes.
    device: where it will learn; it is moved there.
    again: builds it with other weights.
    """
    blocks, encoder_blocks = description.model.blocks, description.encoder.blocks or description.model.blocks
    own: list[tuple[Own, Tensor]] = []
    rng = torch.Generator().manual_seed(0)
    decoder, encoder = _decoder(learner), _encoder(learner)
    if decoder is not None and (description.own_decoder or ":" in blocks):
        own.append((_own_decoder(learner, decoder, description), torch.randn(2, learner.dim, generator=rng)))
    if encoder is not None and ":" in encoder_blocks:
        x = torch.rand(2, *encoder_shape(description), generator=rng) * 2 - 1
        own.append((_own_encoder(learner, encoder, description), x))
    if not own:
        return
    learner.to(device)
    with leaving_no_trace(device):
        for each, inputs in own:
            inputs = inputs.to(device)
            module, first = check_outputs(each, inputs, precision)
            if each.module is decoder:
                _check_decoder(each, module, inputs, rng, learner.has_chain)
            if not (each.module is decoder and description.own_decoder):
                _check_rebuilt(each, first, inputs, learner, again)


def _decoder(learner: Learner) -> nn.Module | None:
    if with_generator(learner):
        return learner.generator.decoder
    return learner.decoder if isinstance(learner, Rae) else None


def _encoder(learner: Learner) -> nn.Module | None:
    return learner.encoder if with_encoder(learner) or isinstance(learner, Rae) else None


def _own_decoder(learner: Learner, decoder: nn.Module, description: LearnerConfig) -> Own:
    """Say how a decoder is called, and what it has to return."""
    shape = description.image_shape
    mean = (
        learner.generator.likelihood.mean if with_generator(learner) and ":" in description.model.likelihood else None
    )

    def read(own: Own, found: Any, n: int) -> Tensor:
        wanted = f"({n}, {', '.join(map(str, shape))})"
        instead = f"return {wanted}: (n, channels, height, width)"
        if not isinstance(found, Tensor):
            raise own.refused(f"returns a {type(found).__name__} for {n} images", f"{instead}, one tensor")
        # a likelihood of the user's own may want other shapes: its mean is an image all the same
        image = found if mean is None else mean(found)
        if image.shape != (n, *shape):
            raise own.refused(f"returns {tuple(image.shape)} for {n} image{'s' if n > 1 else ''}", instead)
        return image

    sizes = learner.latents
    layers = ", ".join(f"z_{len(sizes) - i} of (n, {size})" for i, size in enumerate(sizes))
    return Own(
        decoder,
        "decoder" if description.own_decoder else "model.blocks",
        lambda z: z.split(sizes, dim=1),
        read,
        f"write forward(self, {', '.join(f'z{len(sizes) - i}' for i in range(len(sizes)))}), with {layers}",
        "an image has to depend on its own latents alone",
    )


def _own_encoder(learner: Learner, encoder: nn.Module, description: LearnerConfig) -> Own:
    """Say how an encoder is called, and what it has to return."""
    layered = with_encoder(learner) and learner.layered
    sizes: Sequence[int] = learner.latents if layered else [learner.dim]
    listed = ", ".join(f"(n, {size})" for size in sizes)
    instead = f"return a list of {len(sizes)} shortrun.model.encoders.Moments(mu, log_sigma), each of both {listed}"

    def read(own: Own, found: Any, n: int) -> Tensor:
        if not isinstance(found, list | tuple) or not all(isinstance(each, Moments) for each in found):
            raise own.refused(f"returns {_kind(found)}", instead)
        shapes = [tuple(part.shape) for each in found for part in each]
        if shapes != [(n, size) for size in sizes for _ in range(2)]:
            raise own.refused(f"returns {', '.join(map(str, shapes))} for {n} images", instead)
        return torch.cat([part for each in found for part in each], 1)

    shape = ", ".join(map(str, encoder_shape(description)))
    return Own(
        encoder,
        "encoder.blocks",
        lambda x: [x],
        read,
        f"write forward(self, x), with x of (n, {shape})",
        "latents have to depend on their own image alone",
    )


def _kind(found: Any) -> str:
    """Say what something is, and what is in it."""
    if not isinstance(found, list | tuple):
        return f"a {type(found).__name__}"
    kinds = " and ".join(sorted({type(each).__name__ for each in found}))
    return f"a {type(found).__name__} of {len(found)} {kinds}"


def _check_decoder(own: Own, module: nn.Module, z: Tensor, rng: torch.Generator, chain: bool) -> None:
    """Check what only decoders have to do; chain: whether Langevin steps follow its gradients."""
    many = torch.randn(DRAWS, z.shape[1], generator=rng).to(z)
    with torch.no_grad():
        bad = int((~own(module, many).isfinite()).flatten(1).any(1).sum())
    if bad:
        raise own.refused(
            f"returns NaN or infinite numbers for {bad} of {DRAWS} draws of the prior",
            LOOK,
        )
    instead = "write GELU, SiLU, softplus or tanh, and average pooling: chains follow its gradient"
    if chain and (name := kinked_layer(module)) is not None:
        raise own.refused(f"has {name} whose derivative jumps", instead)
    check_gradients(own, module, z, rng, twice=chain)
    if not chain:
        return
    if has_convolutions(module):
        if (name := kinked_function(own, module, z)) is not None:
            raise own.refused(f"calls {name}, whose derivative jumps", instead)
    elif derivative_jumps(own, module, z, rng):
        raise own.refused("has a derivative that jumps, as that of relu, clamp, abs or a maximum does", instead)


@torch.no_grad()
def _check_rebuilt(own: Own, first: Tensor, x: Tensor, learner: Learner, again: Callable[[], Learner]) -> None:
    """Check that a new module with the same weights gives the same, as a model that is loaded has to."""
    other = again().to(x.device)
    instead = "keep all that it needs in parameters and buffers that are saved, the same ones each time it is made"
    try:
        other.load_state_dict(learner.state_dict())
    except RuntimeError as error:
        raise own.refused(f"cannot be loaded again ({in_one_line(error)})", instead) from error
    module = _decoder(other) if own.module is _decoder(learner) else _encoder(other)
    assert module is not None
    if differ(own(module, x), first, ROUNDING):
        raise own.refused("returns something else once it is loaded again", instead)
