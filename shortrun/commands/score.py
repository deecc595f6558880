"""shortrun score: say how unlike the images of training each image is."""

import os
from dataclasses import dataclass
from typing import Literal

from shortrun.commands.inputs import TASKS, ImageArguments, random_numbers, read_given, read_model
from shortrun.commands.outputs import choose_folder, warn_of_failed, write_outputs
from shortrun.commands.parsing import parse
from shortrun.errors import check_at_least, renaming

COMMAND = "shortrun score"
SHOWN = 12


@dataclass(frozen=True)
class Score(ImageArguments):
    """Score images: the larger a score, the more unlike the images of training an image is.

    Without --n: all of them. Writes scores.csv, a row for each image: its file or its place from 0, each score, whether
    a chain failed; scores.npz, the same as arrays: joint, error, prior, bound, float64 (n,), as asked for; failed, bool
    (n,); labels, int64 (n,), where the data have any; and scores.png, the images with the smallest and the largest
    score.
    """

    by: tuple[Literal["joint", "error", "prior", "bound"], ...] = ()
    """joint, -log p(x, z) in nats at the latents that are inferred; error, the mean squared one of the reconstruction;
    prior, -log p(z) in nats; bound, minus a lower bound of log p(x), which takes far longer. All but the last where not
    given."""
    chains: int = 4
    """Of each image, or draws from an encoder, that scores are averaged over."""
    importance_samples: int = 100
    """Importance weights of the bound, for each image."""


ARGUMENTS = (Score,)


def main(words: list[str]) -> int:
    """Parse, score, write, print the mean of each score."""
    arguments = parse(Score, words, COMMAND)
    check_at_least(1, chains=arguments.chains, importance_samples=arguments.importance_samples)
    learner = read_model(arguments)
    names = ["scores.png", "scores.npz", "scores.csv"]
    folder = choose_folder(arguments, COMMAND, "scores", names)
    given = read_given(learner, arguments)

    from shortrun.evaluation.anomaly import anomaly_scores, describe_chains
    from shortrun.evaluation.tables import number, write_csv
    from shortrun.figures.images import captioned_rows

    with renaming(TASKS):
        found = anomaly_scores(
            learner,
            given.x,
            random_numbers(arguments.seed),
            arguments.by or None,
            chains=arguments.chains,
            steps=arguments.steps,
            noise=arguments.noise,
            importance_samples=arguments.importance_samples,
            batch_size=arguments.batch_size,
        )
    arrays = {name: each.numpy() for name, each in found.scores.items()} | {"failed": found.failed.numpy()}
    if given.labels is not None:
        arrays["labels"] = given.labels.numpy()
    first, scores = next(iter(found.scores.items()))
    order = scores.argsort()
    ends = (("smallest", order), ("largest", order.flip(0)))
    rows = [(f"{end} {first}", given.x[rows[:SHOWN]]) for end, rows in ends]
    write_outputs(folder, COMMAND, arguments, {names[0]: captioned_rows(rows)}, arrays, names[1])
    columns = zip(*(array.tolist() for array in arrays.values()), strict=True)
    write_csv(
        ["image", *arrays],
        [[name, *row] for name, row in zip(files(arguments, len(scores)), columns, strict=True)],
        folder / names[2],
    )
    print(f"wrote {folder / names[2]}")
    means = ", ".join(f"{name} {number(float(each.mean()))}" for name, each in found.scores.items())
    how = describe_chains(learner, arguments.chains, arguments.steps, arguments.noise)
    print(f"means of {len(scores)} {given.name}s: {means} (larger is stranger; {how}, seed {arguments.seed})")
    warn_of_failed(found.failed)
    return 0


def files(arguments: ImageArguments, count: int) -> list[str]:
    """Return the name of each image: its file below --images where that is a folder or a picture, else its place."""
    from shortrun.data.folders import list_images
    from shortrun.data.pictures import is_image_file

    path = arguments.images
    if path is not None and os.path.isdir(path := path.expanduser()):
        return [file.relative_to(path).as_posix() for file in list_images(path)[:count]]
    if path is not None and is_image_file(path):
        return [path.name]
    return [str(place) for place in range(count)]
