"""shortrun sample: draw new images."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from shortrun.commands.inputs import ModelArguments, random_numbers, read_model
from shortrun.commands.outputs import choose_folder, write_outputs
from shortrun.commands.parsing import parse
from shortrun.config import ModelConfig
from shortrun.errors import InputError, check_at_least

if TYPE_CHECKING:
    from shortrun.learners import Learner

COMMAND = "shortrun sample"
SHOWN = 144


@dataclass(frozen=True)
class Sample(ModelArguments):
    """Draw new images from a learned model: z from the prior, or from a density fitted to inferred latents, decoded.

    Writes samples.png (the first 144) and samples.npz: images, uint8 (n, h, w, c).
    """

    n: int = 64
    """How many images."""
    source: Annotated[Literal["prior", "fitted"] | None, tyro.conf.arg(name="from")] = None
    """prior: the model's own; fitted: the mixture of normals that was fitted to the latents of training images. Where
    not given, the prior, or fitted for a model that has no prior."""


ARGUMENTS = (Sample,)


def main(words: list[str]) -> int:
    """Parse, draw, say from what, write."""
    arguments = parse(Sample, words, COMMAND)
    check_at_least(1, n=arguments.n)
    learner = read_model(arguments)
    source = chosen_source(learner, arguments)
    names = ["samples.png", "samples.npz"]
    folder = choose_folder(arguments, COMMAND, "samples", names)

    from shortrun.figures.images import grid, to_bytes
    from shortrun.tasks import sample

    images = sample(learner, arguments.n, random_numbers(arguments.seed), arguments.batch_size, source)
    print(describe(learner, source))
    columns = 12 if arguments.n > 64 else min(8, arguments.n)
    picture = grid(images[:SHOWN], columns)
    write_outputs(folder, COMMAND, arguments, {names[0]: picture}, {"images": to_bytes(images)}, names[1])
    return 0


def chosen_source(learner: "Learner", arguments: Sample) -> Literal["prior", "fitted"]:
    """Return what is drawn from; raise InputError where the model has no such thing."""
    run, there, source = arguments.run, learner.sources, arguments.source
    if not there:
        raise InputError(
            "run",
            problem=f"{run} has neither a prior nor a fitted density",
            instead="train it with training.fit_images of at least 10",
        )
    if source is not None and source not in there:
        lacks = {"prior": "prior", "fitted": "fitted density"}[source]
        raise InputError("source", repr(source), f"{run} has no {lacks}: write {there[0]}")
    return source or there[0]


def describe(learner: "Learner", source: Literal["prior", "fitted"]) -> str:
    """Say what the latents were drawn from."""
    if source == "prior" or learner.latent_density is None:
        from shortrun.learners.declared import prior_class

        model = ModelConfig() if learner.description is None else learner.description.model
        return f"latents from the prior, {prior_class(model).describe(model)}"
    record = learner.latent_density.record
    normals = "1 normal" if record.components == 1 else f"a mixture of {record.components} normals"
    covariance = {"full": "full", "diag": "diagonal"}[record.covariance]
    words = (
        f"latents from the fitted density, {normals} with {covariance} covariance, fitted to the latents of "
        f"{record.images} training images"
    )
    if record.gain is None:
        return words
    gain = f"{abs(record.gain):.1f} nats {'better' if record.better_than_prior else 'worse'} than the prior"
    return f"{words}; on {record.held_out_images} held out, {gain}"
