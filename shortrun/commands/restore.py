"""shortrun restore: remove noise or blur from images, or enlarge them, with a map of uncertainty."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shortrun.commands.inputs import (
    TASKS,
    Flag,
    Given,
    ImageArguments,
    how_many,
    random_numbers,
    read_given,
    read_model,
    read_own,
    read_split,
)
from shortrun.commands.outputs import choose_folder, warn_of_failed, write_outputs
from shortrun.commands.parsing import parse
from shortrun.errors import InputError, check_at_least, renaming

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from shortrun.experiments.classical import Degradation
    from shortrun.learners import Learner
    from shortrun.tasks import Restoration

COMMAND = "shortrun restore"
COLUMNS, SINGLE = 12, 2
NAMES = {**TASKS, "learner": "run", "width": "blur", "factor": "downsample", "y": "images"}


@dataclass(frozen=True)
class Restore(ImageArguments):
    """Remove noise or blur from images, or enlarge them: draws from the posterior, with a map of uncertainty.

    Your own images are taken to be blurred, then made smaller, as --blur and --downsample say, and to have noise. With
    --degrade whole images, the run's first 8 test images or your own, are made so here, and errors are measured, beside
    those of methods without a model. Writes restoration.png (the first 12 images) and restoration.npz: draws, uint8 (m,
    n, h, w, c); mean, float32 (n, h, w, c) in [0, 1]; uncertainty, float32 (n, h, w), the standard deviation of pixels
    in [0, 1], averaged over channels; given, float32 (n, rows, columns, c) in [0, 1]; failed, bool (m, n), chains that
    stayed non-finite.
    """

    blur: float | None = None
    """Width of a Gaussian blur: its standard deviation in pixels of the restored image."""
    downsample: int | None = None
    """How many pixels of a side became one, by means of squares: the restored image is larger by so much."""
    sigma: float = 0.05
    """Standard deviation of the noise in the images, of pixels in [0, 1]."""
    degrade: Flag = False
    """Degrade whole images first, and measure how well they are restored."""
    draws: int = 16
    """How often each image is restored."""


ARGUMENTS = (Restore,)


def main(words: list[str]) -> int:
    """Parse, restore, write, print what is known of the errors."""
    arguments = parse(Restore, words, COMMAND)
    check_at_least(1, draws=arguments.draws)
    if arguments.images is None and not arguments.degrade:
        raise InputError(
            "images", problem="are missing", instead="add --images PATH, or --degrade for test images of the run"
        )
    learner = read_model(arguments)

    from shortrun.experiments.classical import Degradation
    from shortrun.experiments.restoration import HELD
    from shortrun.figures.images import to_bytes
    from shortrun.pixels import to_unit
    from shortrun.tasks import restore
    from shortrun.tasks.restore import checked_learner, image_shape

    with renaming(NAMES):
        shape = image_shape(checked_learner(learner))
        made_by = Degradation(arguments.blur, arguments.downsample or 1, 2 * arguments.sigma)
        if arguments.downsample is not None:
            check_at_least(1, downsample=arguments.downsample)
        small = made_by.shape(shape)
    names = ["restoration.png", "restoration.npz"]
    folder = choose_folder(arguments, COMMAND, "restoration", names)
    rng = random_numbers(arguments.seed)
    given, y = read(learner, arguments, made_by, small, rng)
    with renaming(NAMES):
        restored = restore(
            learner,
            y,
            made_by.operator,
            made_by.sigma,
            rng,
            arguments.draws,
            arguments.steps,
            arguments.noise,
            arguments.batch_size,
        )
    pixels = to_bytes(restored.draws.flatten(0, 1))
    arrays = {
        "draws": pixels.reshape(arguments.draws, len(y), *pixels.shape[1:]),
        "mean": to_unit(restored.mean).permute(0, 2, 3, 1).numpy(),
        "uncertainty": restored.deviation.mean(1).numpy(),
        "given": to_unit(y).permute(0, 2, 3, 1).numpy(),
        "failed": restored.failed.numpy(),
    }
    truth = given.x if arguments.degrade else None
    picture = draw(truth, y, restored, given.name)
    write_outputs(folder, COMMAND, arguments, {names[0]: picture}, arrays, names[1])
    steps = "the learner's" if arguments.steps is None else str(arguments.steps)
    said = f"{len(y)} {given.name}s, {made_by.words}, {arguments.draws} draws, {steps} steps, seed {arguments.seed}"
    if truth is None:
        print(f"mean uncertainty {float(restored.deviation.mean()):.5f} (pixels in [0, 1], {said})")
    else:
        # the methods' weights are chosen on train images, which are not known beside images of the user's own
        train = None if arguments.images else read_split(learner, arguments.run, "train")[0].images(slice(0, HELD))
        print(table(truth, y, restored, made_by, train), end="")
        print(f"(pixels in [0, 1], {said})")
    warn_of_failed(restored.failed)
    return 0


def read(
    learner: "Learner", arguments: Restore, made_by: "Degradation", shape: tuple[int, int, int], rng: "torch.Generator"
) -> tuple[Given, "torch.Tensor"]:
    """Return images, and what is to be restored: made of them where the arguments say so, else the images."""
    if arguments.degrade:
        given = read_given(learner, arguments, default=8)
        return given, made_by.applied(given.x, rng)
    x = read_own(learner, arguments, shape)
    x = x[: how_many(arguments.n, len(x), None, "image")]
    return Given(x, None, "image"), x


def table(
    x: "torch.Tensor",
    y: "torch.Tensor",
    restored: "Restoration",
    made_by: "Degradation",
    train: "torch.Tensor | None",
) -> str:
    """Return the errors of a draw, of the mean and of methods without a model, as a table."""
    from shortrun.evaluation.tables import markdown, number
    from shortrun.experiments.classical import enlarged, scores, unlearned
    from shortrun.experiments.inpainting import PERCENT, inside
    from shortrun.experiments.restoration import below

    made = {"one draw": restored.draws[0], f"mean of {len(restored.draws)}": restored.mean}
    made["as given" if made_by.factor == 1 else "bicubic"] = enlarged(y, x.shape[2:])
    if train is not None:
        made |= {name: method(y) for name, method in unlearned(made_by, train).items()}
    columns = {name: scores(images, x) for name, images in made.items()}
    heads = next(iter(columns.values()))
    lines = markdown(["", *heads], [[name, *map(number, values.values())] for name, values in columns.items()])
    chances = below(restored, x).flatten()
    shares = ", ".join(f"{inside(chances, part):.1%} of them inside their {part}% interval" for part in PERCENT)
    return "\n".join([*lines, "", f"true pixels: {shares}"]) + "\n"


def draw(x: "torch.Tensor | None", y: "torch.Tensor", restored: "Restoration", name: str) -> "Image.Image":
    """Draw a column for each image: itself where it is known, what was given, draws, their mean and deviation."""
    from shortrun.figures.images import captioned_rows, heat, to_rgb

    shown = slice(0, COLUMNS)
    deviation = restored.deviation[shown].mean(1, keepdim=True)
    top = float(deviation.max())
    factor = restored.mean.shape[2] // y.shape[2]
    given = y[shown].repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    rows = [
        *([] if x is None else [(name, to_rgb(x[shown]))]),
        ("given", to_rgb(given.clamp(-1, 1))),
        *((f"draw {i + 1}", to_rgb(one)) for i, one in enumerate(restored.draws[:SINGLE, shown])),
        (f"mean of {len(restored.draws)}", to_rgb(restored.mean[shown])),
        (f"deviation, black 0, white {top:.2f}", heat(deviation, top)),
    ]
    return captioned_rows(rows)
