"""shortrun sample: draw new images."""

from dataclasses import dataclass

import tyro

from shortrun.commands.inputs import ModelArguments, check_at_least, random_numbers, read_model
from shortrun.commands.outputs import choose_folder, write_outputs

COMMAND = "shortrun sample"
SHOWN = 144


@dataclass(frozen=True)
class Sample(ModelArguments):
    """Draw new images from a learned model: z from the prior, decoded.

    Writes samples.png (the first 144) and samples.npz: images, uint8 (n, h, w, c).
    """

    n: int = 64
    """How many images."""


def main(words: list[str]) -> int:
    """Parse, draw, write."""
    arguments = tyro.cli(Sample, args=words, prog=COMMAND)
    check_at_least("--n", arguments.n, 1)
    learner = read_model(arguments)
    names = ["samples.png", "samples.npz"]
    folder = choose_folder(arguments, COMMAND, "samples", names)

    from shortrun.figures import grid, to_bytes
    from shortrun.tasks import sample

    images = sample(learner, arguments.n, random_numbers(arguments.seed), arguments.batch_size)
    columns = 12 if arguments.n > 64 else min(8, arguments.n)
    picture = grid(images[:SHOWN], columns)
    write_outputs(folder, COMMAND, arguments, {names[0]: picture}, {"images": to_bytes(images)}, names[1])
    return 0
