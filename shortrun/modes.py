"""The modes of PyTorch that the package works in, whatever the caller's code has set."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def own_modes() -> Iterator[None]:
    """Have gradients, and float32 for new tensors, while the block runs.

    Langevin steps follow gradients, which `torch.inference_mode` and `torch.no_grad` take away. Weights, noise and
    images are float32, whatever `torch.get_default_dtype` says.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(mode=False), torch.enable_grad():
            yield
    finally:
        torch.set_default_dtype(before)


def plain(x: Tensor) -> Tensor:
    """Return a tensor that gradients may pass; one that was made in inference mode is copied.

    x: any.
    """
    return x.clone() if x.is_inference() else x
