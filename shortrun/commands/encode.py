"""shortrun encode: write the latents of images."""

from dataclasses import dataclass
from typing import Literal

from shortrun.commands.inputs import TASKS, ImageArguments, random_numbers, read_given, read_model
from shortrun.commands.outputs import choose_folder, warn_of_failed, write_outputs
from shortrun.commands.parsing import parse
from shortrun.errors import InputError, renaming

COMMAND = "shortrun encode"


@dataclass(frozen=True)
class Encode(ImageArguments):
    """Write the latents of images to a .npz file, flat and layer by layer.

    Without --n: all of them. Writes latents.npz: z, float32 (n, d), what the chain moves, standard normal under the
    prior; z_L (the top) to z_1 (the lowest), float32 (n, d_l); failed, bool (n,), true where a chain stayed
    non-finite; labels, int64 (n,), where the data have any; classes, their names by label, where a folder gives them.
    """

    split: Literal["train", "test"] | None = None
    """Which images of the run's own data: test where not given."""


ARGUMENTS = (Encode,)


def main(words: list[str]) -> int:
    """Parse, infer, write."""
    arguments = parse(Encode, words, COMMAND)
    if arguments.split is not None and arguments.images is not None:
        raise InputError("split", f"{arguments.split!r} together with --images", "write one of the two")
    learner = read_model(arguments)
    folder = choose_folder(arguments, COMMAND, "latents", ["latents.npz"])
    given = read_given(learner, arguments, split=arguments.split or "test")

    import numpy as np

    from shortrun.tasks import encode

    rng = random_numbers(arguments.seed)
    with renaming(TASKS):
        found = encode(learner, given.x, rng, arguments.steps, arguments.noise, arguments.batch_size, given.mask)
    top = len(found.layers)
    arrays = {"z": found.z.numpy(), "failed": found.failed.numpy()}
    arrays |= {f"z_{top - above}": layer.numpy() for above, layer in enumerate(found.layers)}
    if given.labels is not None:
        arrays["labels"] = given.labels.numpy()
    if given.classes:
        arrays["classes"] = np.array(given.classes)
    write_outputs(folder, COMMAND, arguments, {}, arrays, "latents.npz")
    sizes = ", ".join(
        f"{name} {'x'.join(map(str, array.shape))}"
        for name, array in arrays.items()
        if name not in ("failed", "classes")
    )
    print(f"{len(given.x)} {given.name}s: {sizes}")
    warn_of_failed(found.failed)
    return 0
