"""The network whose activations stand for an image where sets of images are compared: a small classifier."""

import math
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

NUM_FEATURES = 64


class Features(nn.Module):
    """A convolutional classifier that gives the 64 activations before its logits.

        images -> 3x3 convolutions, halved down to 4x4 or less -> 64 features -> logits

    `own_features` trains one. `accuracy` is then the share of the test images that it classifies rightly, and nan
    before; `seed` is the one it was trained with, None before; `task` says what it tells, where that is not the labels.

    image_shape: (c, h, w).
    classes: at least 2.

    >>> import torch
    >>> Features((1, 8, 8), classes=10)(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 64])
    """

    def __init__(self, image_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, h, w = image_shape
        layers: list[nn.Module] = []
        # the first layer of small images keeps their size: else one of 8x8 would be left with too few layers
        strides = [2] if max(h, w) > 16 else [1]
        while max(h, w) > 4 * 2 ** sum(stride == 2 for stride in strides):
            strides.append(2)
        widths = [channels, 32, *[64] * (len(strides) - 1)]
        for (before, after), stride in zip(pairwise(widths), strides, strict=True):
            layers += [nn.Conv2d(before, after, 3, stride, padding=1), nn.GELU()]
            h, w = -(-h // stride), -(-w // stride)
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * h * w, NUM_FEATURES), nn.GELU())
        self.head = nn.Linear(NUM_FEATURES, classes)
        self.num_features = NUM_FEATURES
        self.accuracy = math.nan
        self.seed: int | None = None
        self.task = ""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n features"]:
        """Return the features of images in [-1, 1], (n, 64)."""
        return self.body(x)

    def logits(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Return the scores of the classes, (n, classes)."""
        return self.head(self(x))
