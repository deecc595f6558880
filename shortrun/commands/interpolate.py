"""shortrun interpolate: walk from one image to another through the latents."""

from dataclasses import dataclass

from shortrun.commands.inputs import TASKS, ImageArguments, random_numbers, read_given, read_model
from shortrun.commands.outputs import choose_folder, warn_of_failed, write_outputs
from shortrun.commands.parsing import parse
from shortrun.errors import InputError, check_at_least, renaming

COMMAND = "shortrun interpolate"
SHOWN = 12


@dataclass(frozen=True)
class Interpolate(ImageArguments):
    """Walk from the first image to the second, from the third to the fourth, and so on, through the latents.

    Without --n: the first 16 test images (8 walks), or all of your own. Writes interpolation.png (the first 12 walks,
    the images themselves at both sides) and interpolation.npz: images, uint8 (walks, columns, h, w, c); z, float32
    (walks, columns, d).
    """

    columns: int = 10
    """Images of a walk, both ends among them."""


ARGUMENTS = (Interpolate,)


def main(words: list[str]) -> int:
    """Parse, walk, write."""
    arguments = parse(Interpolate, words, COMMAND)
    check_at_least(2, columns=arguments.columns)
    if arguments.n is not None and arguments.n % 2:
        raise InputError("n", arguments.n, "write an even number, the images are walked between in pairs")
    learner = read_model(arguments)
    names = ["interpolation.png", "interpolation.npz"]
    folder = choose_folder(arguments, COMMAND, "interpolation", names)
    given = read_given(learner, arguments, default=16)
    if len(given.x) < 2:
        raise InputError("images", problem="a walk needs two images, there is one", instead="give at least two")

    import torch

    from shortrun.figures.images import captioned_rows, titled, to_bytes
    from shortrun.tasks import interpolate

    even = len(given.x) // 2 * 2  # the last of an odd number has no partner
    starts, ends = given.x[0:even:2], given.x[1:even:2]
    rng = random_numbers(arguments.seed)
    with renaming(TASKS):
        walks = interpolate(
            learner, starts, ends, rng, arguments.columns, arguments.steps, arguments.noise, arguments.batch_size
        )
    blank = torch.ones_like(starts[:1])
    rows = [
        (
            f"{given.name} {2 * i + 1} to {2 * i + 2}",
            torch.cat([starts[i : i + 1], blank, walk, blank, ends[i : i + 1]]),
        )
        for i, walk in enumerate(walks.images[:SHOWN])
    ]
    picture = titled(captioned_rows(rows), "outside: the images; inside: from one's reconstruction to the other's")
    images = to_bytes(walks.images.flatten(0, 1))
    arrays = {
        "images": images.reshape(len(starts), arguments.columns, *images.shape[1:]),
        "z": walks.z.numpy(),
        "failed": walks.failed.numpy(),
    }
    write_outputs(folder, COMMAND, arguments, {names[0]: picture}, arrays, names[1])
    if even < len(given.x):
        print(f"{given.name} {len(given.x)} has no partner and was left out")
    warn_of_failed(walks.failed)
    return 0
