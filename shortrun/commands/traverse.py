"""shortrun traverse: vary one layer of latents and hold the others."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shortrun.commands.inputs import TASKS, Flag, ImageArguments, random_numbers, read_given, read_model
from shortrun.commands.outputs import choose_folder, warn_of_failed, write_outputs
from shortrun.commands.parsing import parse
from shortrun.errors import InputError, check_at_least, renaming

if TYPE_CHECKING:
    import torch

    from shortrun.learners import Learner

COMMAND = "shortrun traverse"


@dataclass(frozen=True)
class Traverse(ImageArguments):
    """Show what a layer of latents holds: redraw it from its prior several times, with the other layers held.

    Starts from images, the first 2 test images where neither --n nor --images is given, or from draws (--prior).
    Writes traversal.png, a row for each layer, and traversal.npz: layer_L (the top) to layer_1 (the lowest), uint8
    (n, columns, h, w, c), each with its latents z_layer_L ..., float32 (n, columns, d).
    """

    layer: int | None = None
    """L is the top, 1 the lowest; every layer where not given."""
    coordinate: int | None = None
    """Move only this number of the layer (0 is its first), from -2.5 to 2.5, instead of redrawing the layer."""
    columns: int = 10
    """Variations."""
    prior: Flag = False
    """Start from draws of the prior instead of images."""


ARGUMENTS = (Traverse,)


def main(words: list[str]) -> int:
    """Parse, vary, write."""
    arguments = parse(Traverse, words, COMMAND)
    check_at_least(1, columns=arguments.columns)
    if arguments.coordinate is not None and arguments.layer is None:
        raise InputError("coordinate", f"{arguments.coordinate} without a layer", "add --layer")
    if arguments.prior and (arguments.images is not None or arguments.steps is not None or arguments.no_noise):
        raise InputError(
            "prior",
            problem="starts from draws",
            instead="drop --images, --steps and --no-noise, which are for images",
        )
    learner = read_model(arguments)

    from shortrun.figures.images import captioned_rows, titled, to_bytes
    from shortrun.tasks import traverse
    from shortrun.tasks.traverse import varied_range

    top = len(learner.latents)
    layers = list(range(top, 0, -1)) if arguments.layer is None else [arguments.layer]
    if arguments.layer is not None:
        varied_range(learner, arguments.layer, arguments.coordinate)  # refuses those that are not there
    names = ["traversal.png", "traversal.npz"]
    folder = choose_folder(arguments, COMMAND, "traversal", names)
    rng = random_numbers(arguments.seed)
    z, blocks = find_starts(learner, arguments, rng)
    pictures, arrays = {}, {}
    for layer in layers:
        varied = traverse(
            learner, z, layer, rng, arguments.columns, arguments.coordinate, batch_size=arguments.batch_size
        )
        images = to_bytes(varied.images.flatten(0, 1))
        arrays[f"layer_{layer}"] = images.reshape(len(z), arguments.columns, *images.shape[1:])
        arrays[f"z_layer_{layer}"] = varied.z.numpy()
        pictures[layer] = varied.images
    rows = []
    for i, start in enumerate(blocks):
        rows.append(start)
        rows += [(caption(layer, top, arguments.coordinate), pictures[layer][i]) for layer in layers]
    home = "its prior" if learner.has_prior else "the fitted density"
    how = f"redrawn from {home}" if arguments.coordinate is None else "moved from -2.5 to 2.5 in one coordinate"
    picture = titled(captioned_rows(rows), f"each row: one layer {how}, the others held")
    write_outputs(folder, COMMAND, arguments, {names[0]: picture}, arrays, names[1])
    return 0


def find_starts(
    learner: "Learner", arguments: Traverse, rng: "torch.Generator"
) -> "tuple[torch.Tensor, list[tuple[str, torch.Tensor]]]":
    """Return the latents (n, d) to start from, and a captioned row of pictures for each."""
    import torch

    from shortrun.tasks import encode
    from shortrun.tasks.batches import decode

    if arguments.prior:
        z = learner.draw_prior(arguments.n or 2, rng).cpu()
        return z, [(f"draw {i + 1}", image[None]) for i, image in enumerate(decode(learner, z, arguments.batch_size))]
    given = read_given(learner, arguments, default=2)
    with renaming(TASKS):
        found = encode(learner, given.x, rng, arguments.steps, arguments.noise, arguments.batch_size)
    warn_of_failed(found.failed)
    rebuilt = decode(learner, found.z, arguments.batch_size)
    pairs = zip(given.x, rebuilt, strict=True)
    return found.z, [(f"{given.name} {i + 1} and rebuilt", torch.stack(pair)) for i, pair in enumerate(pairs)]


def caption(layer: int, top: int, coordinate: int | None) -> str:
    """Name a row."""
    place = {top: " (top)", 1: " (lowest)"}.get(layer, "") if top > 1 else ""
    return f"layer {layer}{place}" + ("" if coordinate is None else f", coordinate {coordinate}")
