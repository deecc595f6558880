"""A linear operator of images: the user's own function, checked, with its matrix."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.errors import InputError
from shortrun.model.likelihood import Images

Operator = Callable[[Tensor], Tensor]
"""Images (n, c, h, w) -> measurements (n, ...), linear, each image by itself."""
Measurements = Float[Tensor, "n groups q 1"]
"""Of each image, the groups of numbers that an operator gives; the last 1 makes them look like images to a chain."""

ROUNDING = 1e-4
"""Share of the largest number by which both sides of an equation may differ in float32."""
CHUNK = 256
"""Basis images that go through the operator at once."""


class LinearMap:
    """A linear operator A of images with its matrix, found by calling it on the images of a basis.

    Where A treats all channels alike and apart, as a blur does, one matrix serves all of them: there are c groups of
    numbers then, else there is one group.

    operator: images (n, c, h, w) in float32 -> floats (n, ...), linear, differentiable, each image by itself.
    shape: of the images, (c, h, w).
    device: where the images are.

    Raises InputError where the operator is not linear, couples images, is not differentiable, or returns something else
    than finite floats.

    >>> halves = LinearMap(lambda x: x[..., ::2], (3, 1, 4))
    >>> halves.output, halves.groups, halves.matrix.tolist()
    ((3, 1, 2), 3, [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    """

    def __init__(self, operator: Operator, shape: tuple[int, int, int], device: torch.device | str = "cpu") -> None:
        self.operator, self.shape, self.device = operator, tuple(shape), torch.device(device)
        rng = torch.Generator().manual_seed(0)
        x = torch.randn(3, *self.shape, generator=rng).to(self.device)
        self.output = self._checked(x)
        self.groups = self.shape[0] if self._treats_channels_alike(x[0, 0]) else 1
        self.matrix: Float[Tensor, "q p"] = self._found()
        """Of one group: its numbers from the pixels that they depend on."""
        self._check_gradient(x)

    def __call__(self, x: Images) -> Measurements:
        """Return A x in groups.

        x: (n, c, h, w), the images.
        """
        return self.grouped(self.operator(x))

    def grouped(self, y: Float[Tensor, "n *output"]) -> Measurements:
        """Return measurements in groups.

        y: (n, ...), as the operator returns them.
        """
        return y.reshape(len(y), self.groups, -1, 1)

    def transposed(self, y: Measurements) -> Images:
        """Return A^T y, (n, c, h, w).

        y: in groups.
        """
        return (y[..., 0] @ self.matrix.to(y)).reshape(len(y), *self.shape)

    def _checked(self, x: Images) -> tuple[int, ...]:
        """Return the shape of an image's measurements; raise InputError unless the operator is linear."""
        with torch.no_grad():
            y = self.operator(x)
            fine = isinstance(y, Tensor) and y.is_floating_point() and y.ndim > 1 and len(y) == len(x) and y.numel()
            if not fine or not bool(y.isfinite().all()):
                got = f"{y.dtype} of shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
                finite = " that are not all finite" if fine else ""
                raise InputError("operator", f"{got}{finite}", f"return finite floats ({len(x)}, ...) of such images")
            mixed = self.operator(1.5 * x[:1] - 0.7 * x[1:2])
            if not _near(mixed, 1.5 * y[:1] - 0.7 * y[1:2]):
                raise InputError(
                    "operator",
                    problem="is not linear: A(a x + b y) is not a A(x) + b A(y)",
                    instead="write one that is",
                )
            if not _near(self.operator(x[2:]), y[2:]):
                raise InputError(
                    "operator", problem="couples the images of a batch", instead="treat each image by itself"
                )
        return tuple(y.shape[1:])

    @torch.no_grad()
    def _treats_channels_alike(self, picture: Float[Tensor, "h w"]) -> bool:
        c = self.shape[0]
        if len(self.output) < 2 or self.output[0] != c:
            return False
        eye = torch.eye(c, device=self.device)
        y = self.operator(eye[..., None, None] * picture).flatten(2)  # the picture in one channel each
        return _near(y, eye[..., None] * y[:1, :1])

    @torch.no_grad()
    def _found(self) -> Float[Tensor, "q p"]:
        c, h, w = self.shape
        p = math.prod(self.shape) // self.groups
        columns = []
        for index in torch.arange(p, device=self.device).split(CHUNK):
            basis = torch.nn.functional.one_hot(index, p).float()
            x = basis.reshape(-1, 1, h, w).expand(-1, c, -1, -1) if self.groups == c else basis.reshape(-1, c, h, w)
            columns.append(self(x)[:, 0, :, 0])
        return torch.cat(columns).T.contiguous()

    def _check_gradient(self, x: Images) -> None:
        with torch.enable_grad():
            x = x.detach().clone().requires_grad_()
            y = self(x)
            weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
            gradient = None
            if y.requires_grad:
                (gradient,) = torch.autograd.grad((y * weights).sum(), x, allow_unused=True)
        if gradient is None or not _near(gradient, self.transposed(weights)):
            raise InputError(
                "operator",
                problem="its gradient is not that of what it returns",
                instead="write it in operations of PyTorch that can be differentiated",
            )


def _near(one: Tensor, other: Tensor) -> bool:
    scale = max(float(one.abs().max()), float(other.abs().max()), 1e-30)
    return one.shape == other.shape and float((one - other).abs().max()) <= ROUNDING * scale
