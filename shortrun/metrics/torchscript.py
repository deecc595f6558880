"""Features of images by a network that the user brings as a TorchScript file."""

import hashlib
import io
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from shortrun.errors import InputError, check_at_least, did_you_mean, in_one_line

INPUT_RANGES = {"[-1,1]": (1.0, 0.0), "[0,1]": (0.5, 0.5), "[0,255]": (127.5, 127.5)}
"""Factor and offset that bring pixels of [-1, 1] into each range."""


class TorchScriptFeatures(nn.Module):
    """A network of the user's that takes images in [-1, 1]; `torchscript_features` makes one.

    module: the network.
    name: what a figure has to quote with it: the file, the range and size it is given, and the start of the SHA-256 of
        the file.
    input_range: of the pixels that the network takes, "[-1,1]", "[0,1]" or "[0,255]".
    size: the side of the images that it takes; None leaves them as they are.
    channels: how many it takes; None leaves them.
    """

    def __init__(
        self,
        module: nn.Module,
        name: str,
        input_range: str = "[-1,1]",
        size: int | None = None,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        self.module, self.name, self.size, self.channels = module, name, size, channels
        self.factor, self.offset = INPUT_RANGES[input_range]

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Return the features of images in [-1, 1], (n, c, h, w) -> (n, d): all that the network gives of each."""
        shape = list(x.shape)
        # the network's own precision; a frozen one shows no parameters, and is of float32 as a rule
        floats = (tensor.dtype for tensor in self.module.parameters() if tensor.is_floating_point())
        x = x.to(next(floats, torch.float32)) * self.factor + self.offset
        if self.size is not None:
            x = F.interpolate(x, size=(self.size, self.size), mode="bilinear", align_corners=False, antialias=True)
        if self.channels is not None and x.shape[1] != self.channels:
            if x.shape[1] != 1:
                raise InputError(
                    "channels", f"{self.channels} for images of {x.shape[1]}", "only grey ones are repeated"
                )
            x = x.repeat(1, self.channels, 1, 1)
        try:
            found = self.module(x)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, torch.jit.Error) as error:
            # the cause stands at the end, after the lines of the network
            cause = " ".join(str(error).split())[-200:]
            raise InputError(
                "features",
                problem=f"{self.name} does not take images of {shape} ({cause})",
                instead="set input_range, size or channels",
            ) from None
        if not isinstance(found, Tensor) or found.ndim < 2 or len(found) != len(x) or not found.is_floating_point():
            got = f"{found.dtype} of {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise InputError(
                "features",
                problem=f"{self.name} gives {got} for images of {shape}",
                instead="write a module that gives (n, d) floats",
            )
        return found.flatten(1)


def torchscript_features(
    path: str | Path, *, input_range: str = "[-1,1]", size: int | None = None, channels: int | None = None
) -> TorchScriptFeatures:
    """Return the network of a TorchScript file as features of images in [-1, 1], on the CPU and in evaluation mode.

        x -> a x + b (the input range) -> size x size pixels -> channels -> the network -> one row for each image

    The result gives (n, c, h, w) -> (n, d), d being all that the network gives of an image, and its `name` is what to
    quote beside a figure.

    path: a file that `torch.jit.save` wrote. It holds a program: load only files that you trust.
    input_range: of the pixels that the network takes, "[-1,1]", "[0,1]" or "[0,255]" (not rounded).
    size: the side of the images that it takes, reached by antialiased bilinear interpolation; None leaves them as they
        are.
    channels: how many it takes, by repeating a grey one; None leaves them.

    Raises InputError for a file that is absent or damaged and for other options. The result, when called, raises it for
    images that the network does not take and for an output that is not (n, d).
    """
    if input_range not in INPUT_RANGES:
        raise InputError("input_range", repr(input_range), did_you_mean(input_range, INPUT_RANGES))
    check_at_least(1, size=size, channels=channels)
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            "path", problem=f"cannot read {path} ({error.strerror})", instead="write the path of a TorchScript file"
        ) from None
    try:
        # from memory, so that the bytes that are run are the ones that the name tells of
        module = torch.jit.load(io.BytesIO(content), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        problem = f"{path} is damaged or no TorchScript file ({in_one_line(error)})"
        raise InputError("path", problem=problem, instead="write it by torch.jit.save") from None
    parts = [path.name, f"range {input_range}", f"size {size or 'as given'}"]
    parts += [f"channels {channels}"] if channels is not None else []
    name = ", ".join([*parts, f"sha256 {hashlib.sha256(content).hexdigest()[:12]}"])
    return TorchScriptFeatures(module, name, input_range, size, channels).eval().requires_grad_(False)
