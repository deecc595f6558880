"""Features of images as one matrix, for the measures that compare sets of images by them."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from shortrun.errors import InputError, check_at_least


def device_of(features: nn.Module) -> torch.device:
    """Return where a module's images have to be: on the device of its parameters, the CPU where it has none."""
    return next((tensor.device for tensor in (*features.parameters(), *features.buffers())), torch.device("cpu"))


def check_sets(real: Float[Tensor, "n c h w"], made: Float[Tensor, "m _ _ _"]) -> None:
    """Raise InputError for sets of images of unlike shapes, and of fewer than two images."""
    for name, images in (("real", real), ("made", made)):
        if len(images) < 2:
            raise InputError(name, f"{len(images)} images", "write at least two")
    if real.shape[1:] != made.shape[1:]:
        raise InputError(
            "made", problem=f"images of {list(made.shape[1:])}, but the real ones are {list(real.shape[1:])}"
        )


@torch.no_grad()
def feature_matrix(
    features: nn.Module, images: Float[Tensor, "n c h w"], batch_size: int = 500, name: str = "images"
) -> Float64[Tensor, "n d"]:
    """Return the features of images, one row each, (n, d) in float64 on the CPU.

    features: a module in evaluation mode, (n, c, h, w) -> (n, d) row by row: `own_features(dataset)`,
        `torchscript_features(path)`, or the user's own; images go to the device of its parameters.
    images: (n, c, h, w) in [-1, 1], at least one.
    batch_size: at least 1, images at a time.
    name: what errors call the images.

    Raises InputError for no image, for an output that is not (n, d), and where features are not finite.

    >>> feature_matrix(nn.Flatten(), torch.zeros(6, 1, 4, 4)).shape
    torch.Size([6, 16])
    """
    if not len(images):
        raise InputError(name, "0 images", "write at least one")
    check_at_least(1, batch_size=batch_size)
    device = device_of(features)
    rows = []
    for part in images.split(batch_size):
        found = features(part.to(device))
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(part):
            got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError("features", f"{got} for {len(part)} images", "write a module that gives (n, d)")
        rows.append(found.double().cpu())
    matrix = torch.cat(rows)
    if not torch.isfinite(matrix).all():
        raise InputError(name, problem="some features are not finite", instead="leave out images that are not")
    return matrix
