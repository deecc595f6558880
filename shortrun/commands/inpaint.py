"""shortrun inpaint: fill in missing pixels, several times over, with a map of uncertainty."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from shortrun.commands.damaged import damage_of, fill_photos
from shortrun.commands.inputs import TASKS, Flag, ImageArguments, random_numbers, read_given, read_model
from shortrun.commands.outputs import choose_folder, warn_of_failed, write_outputs
from shortrun.commands.parsing import parse
from shortrun.errors import InputError, check_at_least, did_you_mean, renaming

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from shortrun.tasks import Inpainting

COMMAND = "shortrun inpaint"
MASKS: dict[str, tuple[str, ...]] = {
    "random": ("missing",),
    "box": ("size",),
    "stripes": ("size",),
    "half": ("keep",),
    "brush": ("missing", "size"),
}
"""The masks by name, and the arguments that each takes."""
COLUMNS, SINGLE = 12, 4


@dataclass(frozen=True)
class Inpaint(ImageArguments):
    """Fill in missing pixels, several times over, with a map of uncertainty.

    Without --n: the first 8 test images, or all of your own. Writes inpainting.png (the first 12 images; missing
    pixels are a checker) and inpainting.npz: completions, uint8 (m, n, h, w, c), observed pixels as given; mean,
    float32 (n, h, w, c) in [0, 1]; uncertainty, float32 (n, h, w), the standard deviation over completions of pixels
    in [0, 1]; mask, bool (n, h, w), true where observed; failed, bool (m, n), chains that stayed non-finite.

    Damaged photos of your own, of any size: --images FOLDER with a folder of masks, --mask alpha or --mask-colour.
    Writes filled/NAME.png, each photo at its own size with observed pixels as given; uncertainty/NAME.png; and
    photos.png, the first 8.
    """

    mask: str = "random"
    """random, box (in the centre), stripes, half, brush, or the path of an image: white observed, black missing. For
    photos: a folder of such images, named like the photos; one image for all; or alpha, what is transparent."""
    mask_colour: str | None = None
    """The colour of what is damaged in photos, '#ff00ff' for example, in place of --mask."""
    arrays: Flag = False
    """Of photos, also write completions.npz: all completions, at the model's size."""
    missing: float | None = None
    """Share of the pixels that random (0.5 where not given) and brush (0.3) leave out."""
    size: int | None = None
    """Pixels: side of the box, height of the stripes, thickness of the brush."""
    keep: Literal["left", "right", "top", "bottom"] | None = None
    """The half that is kept, left where not given."""
    completions: int = 16
    """How often each image is filled in."""


ARGUMENTS = (Inpaint,)


def main(words: list[str]) -> int:
    """Parse, fill in, write, print the errors."""
    arguments = parse(Inpaint, words, COMMAND)
    check_at_least(1, completions=arguments.completions)
    check_options(arguments)
    learner = read_model(arguments)
    if damage := damage_of(arguments, arguments.mask, arguments.mask_colour, learner):
        return fill_photos(arguments, learner, damage, arguments.completions, arguments.arrays, COMMAND)
    if arguments.arrays:
        raise InputError("arrays", problem="inpainting.npz has all completions already", instead="drop it")
    names = ["inpainting.png", "inpainting.npz"]
    folder = choose_folder(arguments, COMMAND, "inpainting", names)
    given = read_given(learner, arguments, default=8)
    rng = random_numbers(arguments.seed)
    mask = make_mask(arguments, tuple(given.x.shape), rng)

    from shortrun.figures.images import to_bytes
    from shortrun.pixels import to_unit
    from shortrun.tasks import inpaint

    with renaming(TASKS):
        filled = inpaint(
            learner, given.x, mask, rng, arguments.completions, arguments.steps, arguments.noise, arguments.batch_size
        )
    pixels = to_bytes(filled.completions.flatten(0, 1))
    arrays = {
        "completions": pixels.reshape(arguments.completions, len(given.x), *pixels.shape[1:]),
        "mean": to_unit(filled.mean).permute(0, 2, 3, 1).numpy(),
        "uncertainty": filled.uncertainty[:, 0].numpy(),
        "mask": (mask[:, 0] > 0.5).numpy(),
        "failed": filled.failed.numpy(),
    }
    picture = draw(given.x, mask, filled, given.name)
    write_outputs(folder, COMMAND, arguments, {names[0]: picture}, arrays, names[1])
    single, mean = errors(given.x, mask, filled)
    # what own images have under a mask may be the damage itself
    truth = "" if arguments.images is None else " against what the images have there, which may be damage"
    said = learner.describe_inference(arguments.steps, arguments.noise, masked=True)
    print(
        f"MSE on the missing pixels, {1 - float(mask.mean()):.1%} of all{truth}: {single:.5f} single completions, "
        f"{mean:.5f} mean of {arguments.completions} (pixels in [0, 1], {len(given.x)} {given.name}s, "
        f"mask {arguments.mask}, {said}, seed {arguments.seed})"
    )
    warn_of_failed(filled.failed)
    return 0


def check_options(arguments: Inpaint) -> None:
    """Raise InputError for a mask that is not there, and for an argument that the mask chosen does not take."""
    own = arguments.mask not in (*MASKS, "alpha")
    if arguments.mask_colour is not None and arguments.mask != "random":
        raise InputError("mask_colour", problem="is in place of --mask", instead="write one of the two")
    if own and not Path(arguments.mask).exists() and Path(arguments.mask).suffix == "":
        hint = f"{did_you_mean(arguments.mask, MASKS)} (or the path of an image: white observed, black missing)"
        raise InputError("mask", repr(arguments.mask), hint)
    chosen = f"--mask {arguments.mask}" if arguments.mask_colour is None else "--mask-colour"
    taken = MASKS.get(arguments.mask, ()) if arguments.mask_colour is None else ()
    given = {"missing": arguments.missing, "size": arguments.size, "keep": arguments.keep}
    for name, value in given.items():
        if value is not None and name not in taken:
            takers = " or ".join(mask for mask, names in MASKS.items() if name in names)
            raise InputError(name, f"{value!r}, which {chosen} does not take", f"it is for {takers}")


def make_mask(arguments: Inpaint, shape: tuple[int, ...], rng: "torch.Generator") -> "torch.Tensor":
    """Return the mask (n, 1, h, w) that the arguments ask for, 1 = observed."""
    from shortrun.data import read_mask
    from shortrun.tasks import masks

    n, _, h, w = shape
    size = arguments.size
    match arguments.mask:
        case "random":
            missing = 0.5 if arguments.missing is None else arguments.missing
            return masks.random_pixels(n, h, w, rng, missing)
        case "box":
            return masks.centre_box(n, h, w, size)
        case "stripes":
            return masks.stripes(n, h, w, size)
        case "half":
            return masks.half(n, h, w, arguments.keep or "left")
        case "brush":
            missing = 0.3 if arguments.missing is None else arguments.missing
            return masks.brush(n, h, w, rng, missing, size)
    with renaming({"path": "mask"}):
        mask = read_mask(Path(arguments.mask), (h, w)).repeat(n, 1, 1, 1)
    if bool((mask > 0.5).all()):
        raise InputError(
            "mask", problem=f"no pixel is missing in {arguments.mask}", instead="paint those to fill in black"
        )
    return mask


def errors(x: "torch.Tensor", mask: "torch.Tensor", filled: "Inpainting") -> tuple[float, float]:
    """Return the MSE on the missing pixels, in [0, 1], of single completions and of their mean."""
    from shortrun.pixels import squared_error

    missing = (mask < 0.5).expand_as(x)
    single, mean = squared_error(filled.completions, x)[:, missing], squared_error(filled.mean, x)[missing]
    return float(single.mean()), float(mean.mean())


def draw(x: "torch.Tensor", mask: "torch.Tensor", filled: "Inpainting", name: str) -> "Image.Image":
    """Draw a column for each image: itself, what was given, completions, their mean and deviation."""
    from shortrun.figures.images import captioned_rows, heat, shade_missing, to_rgb

    shown = slice(0, COLUMNS)
    top = float(filled.uncertainty[shown].max())
    singles = filled.completions[:SINGLE, shown]
    rows = [
        (name, to_rgb(x[shown])),
        ("given (checker: missing)", shade_missing(x[shown], mask[shown])),
        *((f"completion {i + 1}", to_rgb(one)) for i, one in enumerate(singles)),
        (f"mean of {len(filled.completions)}", to_rgb(filled.mean[shown])),
        (f"deviation, black 0, white {top:.2f}", heat(filled.uncertainty[shown], top)),
    ]
    return captioned_rows(rows)
