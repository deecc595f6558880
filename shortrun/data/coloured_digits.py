"""Colour images of real handwritten digits whose factors are known: which digit, in which colours, where, how thick.

The digits are those of scikit-learn (UCI, Alpaydin and Kaynak), 8x8 pixels, enlarged.
"""

import colorsys

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8

from shortrun.data.image_set import ImageSet

SIZE = 32  # pixels of a side
SCALE = 2.4  # pixels of an image for each of a digit, which is then 19 pixels high
HUES = np.arange(8) / 9  # red to violet: an open range, so that a hue is a quantity and no angle
SHIFTS = np.arange(-4, 5)  # pixels from the centre, to the right and downwards
THICKNESSES = np.array([3.0, 3.5, 4.0, 4.5, 5.0])  # mean widths of a stroke, pixels
FACTORS = ("background", "ink", "digit", "right", "down", "thickness")
"""Names of the factors. All but the digit are quantities; see `coloured`."""

LUMA = np.array([0.2126, 0.7152, 0.0722])
DARKEST, LIGHTEST = 0.25, 0.65  # luma that no background exceeds, and that every ink has at least
FAINT = 0.5  # of the darkest possible pixel: where no ink around is darker, strokes stay faint
INK = 0.4  # of the ink around: what counts for the middle of a digit
LEVELS = np.linspace(0.05, 0.95, 16)  # thresholds whose strokes are measured; between them we interpolate
FLAT = 0.1  # a pixel: the least slope that an edge is sharpened by
CHUNK = 2048  # images that are 16-bit at one time


def _background(hue: float) -> np.ndarray:
    """Return a full colour, darkened."""
    full = np.array(colorsys.hsv_to_rgb(hue, 1, 1))
    return full * min(0.75, DARKEST / (LUMA @ full))


def _ink(hue: float) -> np.ndarray:
    """Return a full colour with as much white as it needs."""
    full = np.array(colorsys.hsv_to_rgb(hue, 1, 1))
    white = max(0.0, (LIGHTEST - LUMA @ full) / (1 - LUMA @ full))
    return full + white * (1 - full)


BACKGROUNDS = np.round(255 * np.stack([_background(hue) for hue in HUES])).astype(np.uint8)
"""(8, 3), the colour of each value of the factor background, dark."""
INKS = np.round(255 * np.stack([_ink(hue) for hue in HUES])).astype(np.uint8)
"""(8, 3), the colour of each value of the factor ink, light: every ink is brighter than every background."""


def coloured(
    digits: UInt8[np.ndarray, "m 8 8"], labels: Int64[np.ndarray, "m"], count: int, rng: np.random.Generator
) -> ImageSet:
    """Return coloured images of some digits, each with its factors; the labels say which digit it is.

        image = background + mask (ink - background),   mask in [0, 1] the digit, shifted, of one mean width of strokes

    The factors are independent and uniform over their values, apart from the digit, which is as frequent as among the
    digits given. They are whole numbers from 0:
        background, ink: rows of BACKGROUNDS and INKS
        digit: 0 to 9, the label
        right, down: of SHIFTS, where the middle of the digit lies from that of the image
        thickness: of THICKNESSES, the area of the strokes by half the length of their outline

    digits: 0 to 16, the pixels of scikit-learn's digits.
    labels: 0 to 9, what they show.
    count: at least 1, how many images to make.
    rng: draws the factors and the digit of each image.
    """
    masks = _masks(digits / 16)
    shown = rng.integers(len(digits), size=count)
    values = {"background": HUES, "ink": HUES, "right": SHIFTS, "down": SHIFTS, "thickness": THICKNESSES}
    drawn = {name: rng.integers(len(these), size=count) for name, these in values.items()} | {"digit": labels[shown]}
    pixels = np.empty((count, 3, SIZE, SIZE), np.uint8)
    for start in range(0, count, CHUNK):
        rows = slice(start, start + CHUNK)
        part = {name: of_all[rows] for name, of_all in drawn.items()}
        mask = _shifted(masks[part["thickness"], shown[rows]], SHIFTS[part["down"]], SHIFTS[part["right"]])
        pixels[rows] = _painted(mask, BACKGROUNDS[part["background"]], INKS[part["ink"]])
    factors = {name: torch.from_numpy(drawn[name].astype(np.int64)) for name in FACTORS}
    return ImageSet(torch.from_numpy(pixels), factors["digit"], 256, factors)


def _masks(digits: Float64[np.ndarray, "m 8 8"]) -> UInt8[np.ndarray, "t m h w"]:
    """Return each digit, 255 in its strokes, in the middle of an image, at each thickness.

    A digit is a threshold of the enlarged pixels; the one at which its strokes have the thickness is interpolated. All
    is in float64 up to the end, so that machines agree on what they round.
    """
    middle = np.full((len(digits), 2), 3.5)
    middle += (_middle(_enlarged(digits, middle)) - (SIZE - 1) / 2) / SCALE
    field = _enlarged(digits, middle)
    slope = np.maximum(np.hypot(*np.gradient(field, axis=(1, 2))), FLAT)

    def masks_at(levels: np.ndarray) -> np.ndarray:
        return np.clip((field - levels[:, None, None]) / slope + 0.5, 0, 1)  # edges of one pixel

    widths = np.stack([_width(masks_at(np.full(len(digits), level))) for level in LEVELS])
    margin = int(SHIFTS.max())
    found = np.zeros((len(THICKNESSES), *field.shape), np.uint8)
    inside = (slice(None), slice(margin, -margin), slice(margin, -margin))  # a shift must not cut anything off
    for i, thickness in enumerate(THICKNESSES):
        # strokes are thinner at higher levels, and `interp` wants what rises
        levels = np.array([np.interp(thickness, width[::-1], LEVELS[::-1]) for width in widths.T])
        found[i][inside] = np.rint(255 * masks_at(levels)[inside])
    return found


def _enlarged(digits: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Return digits (m, 8, 8) by cubic interpolation, as a share of the ink around, (m, SIZE, SIZE).

    middle: (m, 2), the row and the column of a digit's pixels that come into the middle of the image.
    """
    at = (np.arange(SIZE) - (SIZE - 1) / 2) / SCALE
    rows, columns = (_cubic(at[:, None] + middle[:, axis, None, None] - np.arange(8)) for axis in (0, 1))
    padded = np.pad(digits, ((0, 0), (1, 1), (1, 1)))
    around = np.max([padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)], axis=0)
    enlarged, most = (rows @ of @ columns.transpose(0, 2, 1) for of in (digits, np.maximum(around, FAINT)))
    return enlarged / np.maximum(most, FAINT)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Return the weights of cubic convolution (Keys 1981, a = -1/2) at distances x, in pixels."""
    x = np.abs(x)
    return np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, ((2.5 - 0.5 * x) * x - 4) * x + 2, 0))


def _middle(field: np.ndarray) -> np.ndarray:
    """Return the row and the column of the middle of the ink's bounding box, (m, 2)."""
    sides = [field.max(axis=axis) > INK for axis in (2, 1)]
    ends = [(np.argmax(side, 1), SIZE - 1 - np.argmax(np.flip(side, 1), 1)) for side in sides]
    return np.stack([(first + last) / 2 for first, last in ends], axis=1)


def _width(masks: np.ndarray) -> np.ndarray:
    """Return the mean width of the strokes of masks (m, h, w), in pixels: their area by half their outline."""
    down, right = np.diff(masks, axis=1)[:, :, :-1], np.diff(masks, axis=2)[:, :-1]
    return 2 * masks.sum((1, 2)) / np.hypot(down, right).sum((1, 2))


def _shifted(masks: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return each mask (m, h, w) moved by so many pixels; their margins are empty, so that no ink comes in."""
    rows = (np.arange(SIZE) - down[:, None]) % SIZE
    columns = (np.arange(SIZE) - right[:, None]) % SIZE
    return masks[np.arange(len(masks))[:, None, None], rows[:, :, None], columns[:, None, :]]


def _painted(mask: np.ndarray, ground: np.ndarray, ink: np.ndarray) -> np.ndarray:
    """Return images (m, 3, h, w) in whole numbers: ground (m, 3) where a mask (m, h, w) is 0, ink where it is 255."""
    share = mask[:, None].astype(np.uint16)
    below, above = (colour[:, :, None, None].astype(np.uint16) for colour in (ground, ink))
    return (((255 - share) * below + share * above + 127) // 255).astype(np.uint8)
