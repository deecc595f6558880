"""What the tabs of the page do: words of a visitor in, words and pictures out. Knows nothing of the page itself."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from shortrun.errors import InputError
from shortrun.figures.images import grid, heat, shade_missing, to_bytes
from shortrun.learners import Learner
from shortrun.learners.learner import Source
from shortrun.pages.strokes import read_strokes
from shortrun.pages.uploads import read_upload
from shortrun.tasks import encode, interpolate, sample, traverse, watch_inpainting
from shortrun.tasks.batches import decode
from shortrun.tasks.photos import Filled, paste, seen_through, watch_filling, windows

STAGES = 12
"""Pictures, about, that a visitor sees of a chain on its way."""
TOP = 0.25
"""Standard deviation, pixels in [0, 1], that a map of uncertainty shows white: the same at every step."""
DEVIATION = f"uncertainty: deviation, black 0, white {TOP}"
COLUMNS = 8
"""Images side by side."""
MOST_STEPS, MOST_COMPLETIONS, MOST_COLUMNS, MOST_SAMPLES = 1000, 32, 40, 144
"""What one visitor may ask for at once, while others wait."""
MOST_SEED = 2**32 - 1
Written = Any
"""What a visitor chose or wrote: whatever a request brings, until `whole` has looked at it."""


class View(NamedTuple):
    """What a visitor is shown."""

    words: str
    pictures: list[tuple[str, Image.Image]]
    """Each with its caption."""


@dataclass(frozen=True)
class Play:
    """A model and the images to play with; it keeps nothing of a visitor.

    learner: ready to use.
    x: (n, c, h, w) in [-1, 1], images to choose from.
    name: what one of them is called.
    noise: False for plain gradient ascent, None for what the learner does.
    batch_size: at least 1, chains at a time.
    """

    learner: Learner
    x: Float[Tensor, "n c h w"]
    name: str = "test image"
    noise: bool | None = None
    batch_size: int = 100

    def canvas(self, number: Written, upload: str | None = None) -> Image.Image:
        """Return the picture that is painted over, at its own size.

        number: of an image, from 1.
        upload: path of the visitor's own picture in its place; None or empty for none.
        """
        if not upload:
            return to_picture(self._chosen("image", number))
        return to_picture(self._photo(upload).float() / 127.5 - 1)

    def inpaint(
        self,
        number: Written,
        upload: str | None,
        painted: str | None,
        steps: Written,
        completions: Written,
        seed: Written,
    ) -> Iterator[View]:
        """Yield a picture with what is painted over filled in, along the chains.

        number: of an image, from 1.
        upload: path of the visitor's own picture in its place; None or empty for none.
        painted: as `read_strokes` takes it; None where nothing is.
        steps: K.
        completions: of the picture.
        seed: of all random numbers.
        """
        k = whole("steps", steps, 1, MOST_STEPS)
        m = whole("completions", completions, 1, MOST_COMPLETIONS)
        rng, every = random_numbers(seed), max(1, k // STAGES)
        asked = k if self.learner.has_chain else None
        fill = self._fill_photo if upload else self._fill_image
        picture = self._photo(upload) if upload else self._chosen("image", number)
        yield from fill(picture, painted or "", rng, every, m, asked)

    def _fill_image(
        self, x: Tensor, painted: str, rng: torch.Generator, every: int, completions: int, steps: int | None
    ) -> Iterator[View]:
        """Fill in an image of the model's size."""
        mask = (~read_strokes(painted, (x.shape[1], x.shape[2])))[None, None].float()
        given = to_picture(shade_missing(x[None], mask)[0])
        stages = watch_inpainting(
            self.learner, x[None], mask, rng, every, completions, steps, self.noise, self.batch_size
        )
        for step, last, filled in stages:
            view = _of_stage(step, last, int(filled.failed.sum()))
            single = grid(filled.completions[:, 0], min(COLUMNS, completions))
            yield view._replace(
                pictures=[
                    ("given: the checker is missing", given),
                    (f"filled in: mean of {completions}", to_picture(filled.mean[0])),
                    (DEVIATION, to_picture(heat(filled.uncertainty, TOP)[0])),
                    ("completions", single),
                ]
            )

    def _fill_photo(
        self, photo: Tensor, painted: str, rng: torch.Generator, every: int, completions: int, steps: int | None
    ) -> Iterator[View]:
        """Fill in a picture of any size through square windows at the model's size."""
        observed = ~read_strokes(painted, (photo.shape[1], photo.shape[2]))
        if not observed.any():
            raise InputError("picture", problem="all of it is painted over", instead="leave some of it")
        parts, size = windows(*observed.shape), self.x.shape[2:]
        seen = [seen_through(photo, observed, part, (size[0], size[1])) for part in parts]
        given = to_picture(shade_missing(photo[None].float() / 127.5 - 1, observed[None, None].float())[0])
        stages = watch_filling(self.learner, seen, rng, every, completions, steps, self.noise, self.batch_size)
        for step, last, filled in stages:
            made = paste(photo, observed, parts, filled)
            yield _of_stage(step, last, int(filled.failed.sum()))._replace(
                pictures=[
                    ("given: the checker is missing", given),
                    (f"filled in: mean of {completions}", to_picture(made.pixels.float() / 127.5 - 1)),
                    (DEVIATION, to_picture(heat(made.deviation[None, None], TOP)[0])),
                    ("completions, at the model's size", _windows(filled)),
                ]
            )

    def turn(self, number: Written, layer: Written, columns: Written, seed: Written) -> View:
        """Return an image with one layer of latents drawn anew several times, the others held.

        number: of an image, from 1.
        layer: 1, the lowest, to L, the top.
        columns: variations.
        seed: of all random numbers.
        """
        n, rng = whole("variations", columns, 1, MOST_COLUMNS), random_numbers(seed)
        x = self._chosen("image", number)[None]
        chosen = whole("layer", layer, 1, len(self.learner.latents))
        found = encode(self.learner, x, rng, noise=self.noise, batch_size=self.batch_size)
        varied = traverse(self.learner, found.z, chosen, rng, n, batch_size=self.batch_size)
        home = "its prior" if self.learner.has_prior else "the fitted density"
        words = f"Layer {chosen} of {len(self.learner.latents)} is drawn anew from {home}, the others are held."
        pictures = [
            (f"{self.name} {number:g}", to_picture(x[0])),
            ("rebuilt", to_picture(decode(self.learner, found.z)[0])),
            (f"layer {chosen} drawn anew", grid(varied.images[0], min(COLUMNS, n))),
        ]
        return View(_with_failed(words, int(found.failed.sum())), pictures)

    def walk(self, first: Written, last: Written, columns: Written, seed: Written) -> View:
        """Return a walk from one image to another through the latents.

        first: number of the image where it starts.
        last: number of the image where it ends.
        columns: images of the walk, both ends among them.
        seed: of all random numbers.
        """
        n, rng = whole("images", columns, 2, MOST_COLUMNS), random_numbers(seed)
        start, end = self._chosen("from", first)[None], self._chosen("to", last)[None]
        found = interpolate(self.learner, start, end, rng, n, noise=self.noise, batch_size=self.batch_size)
        pictures = [
            (f"from: {self.name} {first:g}", to_picture(start[0])),
            ("from one's reconstruction to the other's, row by row", grid(found.images[0], min(COLUMNS, n))),
            (f"to: {self.name} {last:g}", to_picture(end[0])),
        ]
        words = "The latents go from one image's to the other's along a great circle."
        return View(_with_failed(words, int(found.failed.sum())), pictures)

    def samples(self, count: Written, source: Written, seed: Written) -> View:
        """Return new images.

        count: how many.
        source: prior, or fitted for the density fitted to the latents of training images; None for the model's own.
        seed: of all random numbers.
        """
        n, rng = whole("images", count, 1, MOST_SAMPLES), random_numbers(seed)
        if source not in (None, *get_args(Source)):
            raise InputError("from", repr(source), "write prior or fitted")
        images = sample(self.learner, n, rng, self.batch_size, cast("Source | None", source))
        columns = 12 if n > COLUMNS**2 else min(COLUMNS, n)
        return View("", [(f"{n} images, none left out", grid(images, columns))])

    def _chosen(self, argument: str, number: Written) -> Float[Tensor, "c h w"]:
        return self.x[whole(argument, number, 1, len(self.x)) - 1]

    def _photo(self, upload: str) -> Tensor:
        return read_upload(Path(upload), grey=self.x.shape[1] == 1)


def whole(argument: str, value: Written, least: int, most: int) -> int:
    """Return what a visitor wrote as a whole number; InputError where it is none, or out of range.

    argument: what it is called.
    value: whatever a request brought.
    least: that it may be.
    most: that it may be.
    """
    wanted = f"write a whole number from {least} to {most}"
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InputError(argument, problem="is no number", instead=wanted)
    if not least <= value <= most or value != int(value):
        raise InputError(argument, value, wanted)
    return int(value)


def random_numbers(seed: Written) -> torch.Generator:
    """Return the generator of a seed that a visitor wrote.

    seed: 0 to 2^32 - 1.
    """
    return torch.Generator().manual_seed(whole("seed", seed, 0, MOST_SEED))


def to_picture(x: Float[Tensor, "c h w"]) -> Image.Image:
    """Return an image at its own size, pixel by pixel.

    x: (c, h, w) in [-1, 1].
    """
    pixels = to_bytes(x[None])[0]
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _windows(filled: Filled) -> Image.Image:
    """Return the completions of windows, those of a window in rows of their own."""
    images = filled.completions.transpose(0, 1).flatten(0, 1)
    return grid(images, min(COLUMNS, len(filled.completions)))


def _of_stage(step: int, last: int, failed: int) -> View:
    return View(_with_failed("Done." if (step, last) == (1, 1) else f"Step {step} of {last}.", failed), [])


def _with_failed(words: str, failed: int) -> str:
    """Return words, and how many chains stayed non-finite, if any did."""
    return f"{words} {failed} chains stayed non-finite; a draw from the prior stands in for each." if failed else words
