"""The user's own images and masks."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from shortrun.data.arrays import is_array_file, read_arrays
from shortrun.data.folders import list_images
from shortrun.data.framing import Framing
from shortrun.data.image_set import ImageSet, PixelRange
from shortrun.data.layouts import image_sets
from shortrun.data.pictures import frame, framed_files, is_image_file, open_picture, plain, stack
from shortrun.errors import InputError

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow converts colour to grey
OBSERVED_FROM = 128


def read_images(
    path: Path,
    *,
    shape: tuple[int, int, int] | None = None,
    fit: bool = False,
    pixel_range: PixelRange | None = None,
) -> Float[Tensor, "n c h w"]:
    """Return the user's own images as float32 (n, c, h, w) in [-1, 1].

    path: an image file, a folder of them, or an .npz (its test_x first), .npy, .mat or idx(.gz) file.
    shape: (c, h, w) that the images must have; None for whatever they have.
    fit: whether to centre-crop, resize (antialiased bicubic) and turn the images to grey or colour until they have
        `shape`.
    pixel_range: what floats of a file mean, unit for [0, 1] or signed for [-1, 1]; None to find it: signed where any
        is negative, else unit.

    Raises InputError for a path that is missing, empty or damaged, for images that differ from one another, and for
    images of another shape.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "white.png"
    ...     Image.new("RGB", (6, 4), "white").save(path)
    ...     read_images(path).shape, read_images(path, shape=(1, 4, 4), fit=True).shape
    (torch.Size([1, 3, 4, 6]), torch.Size([1, 1, 4, 4]))
    """
    return read_image_set(path, shape, fit, pixel_range).images()


def read_image_set(
    path: Path,
    shape: tuple[int, int, int] | None = None,
    fit: bool = False,
    pixel_range: PixelRange | None = None,
    usual: PixelRange = "unit",
) -> ImageSet:
    """Return the user's own images with what their floats meant, read as `read_images` reads them.

    path: an image, a folder of images or a file of arrays.
    shape: (c, h, w) that they must have; None for any.
    fit: whether pictures are brought to the shape.
    pixel_range: what floats mean; None where the file has to say it.
    usual: what floats mean where pixel_range is not given and none is negative.
    """
    path = Path(path).expanduser()
    if fit and shape is None:
        raise InputError(
            "fit", problem="the shape to fit the images to is not known", instead="give shape, or leave it out"
        )
    if os.path.isdir(path):
        return _read_pictures(list_images(path), shape, fit)
    if not os.path.isfile(path):
        raise InputError("path", problem=f"{path} does not exist", instead="write the path of a file or folder")
    if is_image_file(path):
        return _read_pictures([path], shape, fit)
    if not is_array_file(path):
        raise InputError(
            "path",
            problem=f"{path} is of an unknown kind",
            instead="give an image, a folder of images, .npz, .npy, .mat or idx(.gz)",
        )
    arrays = read_arrays(path, roles=("test_x", "x"))
    array = arrays["test_x"] if "test_x" in arrays else arrays["x"]
    (image_set,) = image_sets([array], [None], path, pixel_range, usual)
    if shape is None or image_set.shape == shape:
        return image_set
    if not fit:
        raise _misfit(str(path), image_set.shape, shape)
    framed = Framing(size=shape[1:]).apply(image_set.images(), str(path))
    fitted = _with_channels(framed, shape[0]).clamp(-1, 1)
    return ImageSet(fitted.contiguous(), pixel_range=image_set.pixel_range)


def read_mask(path: Path, shape: tuple[int, int]) -> Float[Tensor, "1 1 h w"]:
    """Return a mask as float32 (1, 1, h, w), 1 = observed, 0 = missing.

    path: an image file, whose pixels of 128 and above (white) are observed; or an .npy array (h, w) of bools, of 0 and
        1, of numbers in [0, 1] (0.5 and above are observed), or of 0 to 255.
    shape: (h, w) that the mask must have.

    Raises InputError where the file is missing, is no mask, or has another size.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "left.npy"
    ...     np.save(path, np.array([[True, False]]))
    ...     read_mask(path, (1, 2)).flatten().tolist()
    [1.0, 0.0]
    """
    path = Path(path).expanduser()
    if not os.path.isfile(path):
        raise InputError("path", problem=f"{path} does not exist", instead="write the path of a file")
    if path.suffix.lower() == ".npy":
        array = read_arrays(path)["x"]
        alone = array.ndim > 2 and array.size == np.prod(array.shape[-2:])
        observed = observed_pixels(array.reshape(array.shape[-2:]) if alone else array, path)
    elif is_image_file(path):
        picture = plain(open_picture(path), path).convert("L")
        observed = np.asarray(picture) >= OBSERVED_FROM
    else:
        raise InputError(
            "path",
            problem=f"{path} is of an unknown kind",
            instead="give an image file (white = observed, black = missing) or .npy",
        )
    if observed.shape != shape:
        found = "x".join(map(str, observed.shape))
        raise InputError(
            "path",
            problem=f"{path} is {found}, the images are {shape[0]}x{shape[1]} (height x width)",
            instead="give one of the same size",
        )
    return torch.from_numpy(observed).float()[None, None]


def _read_pictures(paths: list[Path], shape: tuple[int, int, int] | None, fit: bool) -> ImageSet:
    if shape is None:
        named = framed_files(paths, Framing())
    elif fit:
        named = ((str(path), _fitted(path, shape)) for path in paths)
    else:
        named = _checked(framed_files(paths, Framing()), shape)
    pixels = stack(named, len(paths), "make all of one size")
    return ImageSet(pixels, levels=256)


def _fitted(path: Path, shape: tuple[int, int, int]) -> UInt8[np.ndarray, "c h w"]:
    picture = plain(open_picture(path), path).convert("L" if shape[0] == 1 else "RGB")
    return frame(picture, Framing(size=shape[1:]), str(path))


def _checked(named: Iterable[tuple[str, np.ndarray]], shape: tuple[int, ...]) -> Iterator[tuple[str, np.ndarray]]:
    for name, picture in named:
        if picture.shape != shape:
            raise _misfit(name, picture.shape, shape)
        yield name, picture


def _misfit(name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> InputError:
    return InputError(
        "path",
        problem=(
            f"{name} is {'x'.join(map(str, found))} (channels x height x width), "
            f"the model wants {'x'.join(map(str, wanted))}"
        ),
        instead="set fit to crop, resize and convert, or give images of that shape",
    )


def _with_channels(images: Float[Tensor, "n c h w"], c: int) -> Float[Tensor, "n d h w"]:
    if images.shape[1] == c:
        return images
    if c == 1:
        return torch.einsum("nchw,c->nhw", images, torch.tensor(LUMA))[:, None]
    return images.expand(-1, c, -1, -1)


def observed_pixels(array: np.ndarray, path: Path) -> np.ndarray:
    """Return where an array of masks says that a pixel is observed, as bools of the same shape.

    array: of bools, of 0 and 1, of numbers in [0, 1] (0.5 and above are observed), or of 0 to 255 (128 and above).
    path: of its file, for the error.

    Raises InputError for other numbers.
    """
    if array.dtype.kind == "b":
        return array
    low, high = (float(array.min()), float(array.max())) if array.dtype.kind in "iuf" and array.size else (1, 0)
    if not 0 <= low <= high <= 255:  # NaN, other types and no entries too
        raise InputError(
            "path", problem=f"{path} is no mask", instead="give bools, 0 and 1, or 0 (missing) to 255 (observed)"
        )
    return array >= (0.5 if high <= 1 else OBSERVED_FROM)
