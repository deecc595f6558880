"""shortrun reconstruct: infer the latents of images and decode them."""

from dataclasses import dataclass

from shortrun.commands.inputs import TASKS, ImageArguments, random_numbers, read_given, read_model
from shortrun.commands.outputs import choose_folder, warn_of_failed, write_outputs
from shortrun.commands.parsing import parse
from shortrun.errors import renaming

COMMAND = "shortrun reconstruct"
COLUMNS, SHOWN = 12, 48


@dataclass(frozen=True)
class Reconstruct(ImageArguments):
    """Infer the latents of images by one short run each and decode them.

    Without --n: the first 48 test images, or all of your own. Writes reconstructions.png (the first 48) and
    reconstructions.npz: images, uint8 (n, h, w, c); z, float32 (n, d); mse, float32 (n,), pixels in [0, 1].
    """


ARGUMENTS = (Reconstruct,)


def main(words: list[str]) -> int:
    """Parse, reconstruct, write, print the error."""
    arguments = parse(Reconstruct, words, COMMAND)
    learner = read_model(arguments)
    names = ["reconstructions.png", "reconstructions.npz"]
    folder = choose_folder(arguments, COMMAND, "reconstructions", names)
    given = read_given(learner, arguments, default=48)

    from shortrun.figures.images import captioned_rows, to_bytes
    from shortrun.tasks import reconstruct

    rng = random_numbers(arguments.seed)
    with renaming(TASKS):
        made = reconstruct(learner, given.x, rng, arguments.steps, arguments.noise, arguments.batch_size)
    pairs = zip(given.x[:SHOWN].split(COLUMNS), made.images[:SHOWN].split(COLUMNS), strict=True)
    rows = [row for one, other in pairs for row in ((given.name, one), ("reconstruction", other))]
    arrays = {
        "images": to_bytes(made.images),
        "z": made.z.numpy(),
        "mse": made.mse.numpy(),
        "failed": made.failed.numpy(),
    }
    write_outputs(folder, COMMAND, arguments, {names[0]: captioned_rows(rows)}, arrays, names[1])
    print(
        f"MSE {float(made.mse.mean()):.5f} (pixels in [0, 1], {len(given.x)} {given.name}s, "
        f"{learner.describe_inference(arguments.steps, arguments.noise)}, seed {arguments.seed})"
    )
    warn_of_failed(made.failed)
    return 0
