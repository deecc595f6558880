"""shortrun diagnose: is the inference good?"""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shortrun.commands.inputs import (
    ImageArguments,
    how_many,
    random_numbers,
    read_own,
    read_short_run,
    read_split,
)
from shortrun.commands.outputs import choose_folder, write_numbers
from shortrun.commands.parsing import parse
from shortrun.errors import InputError, check_at_least
from shortrun.progress import announced

if TYPE_CHECKING:
    import torch

    from shortrun.learners import ChainLearner

COMMAND = "shortrun diagnose"
DEFAULT, LEAST = 64, 8
PICTURE, NUMBERS = "diagnosis.png", "diagnosis.json"


@dataclass(frozen=True)
class Diagnose(ImageArguments):
    """Say whether the inference is good: are the steps right, is K enough, do the draws cover the posterior?

    Without --n: the first 64 test images, at least 8; time goes with n times K. Measures acceptance, energy and error
    along the chain and up to 10 K steps; the distance to long Metropolis-adjusted runs; R-hat and effective sample
    sizes of these (with shortrun[diagnose]); the inferred latents against the prior, active and dead ones; and
    calibration on images simulated from the model. Ends with a verdict and the change to make. Writes diagnosis.png and
    diagnosis.json. With --steps, --step-size and --step-decay other chains are tried on the same model.
    """

    step_size: tuple[float, ...] | None = None
    """s_0, one number or one for each layer, top down; the run's own where not given."""
    step_decay: float | None = None
    """r in s_k = s_0 r^(k/(K-1)); the run's own where not given."""
    batch_size: int = 512
    """Chains at a time; fewer take less memory."""


ARGUMENTS = (Diagnose,)


def main(words: list[str]) -> int:
    """Parse, measure, write, say what was found."""
    arguments = parse(Diagnose, words, COMMAND)
    check_at_least(LEAST, n=arguments.n)
    learner = read_short_run(arguments)
    set_step_size(learner, arguments)
    folder = choose_folder(arguments, COMMAND, "diagnose", [PICTURE, NUMBERS])
    x, more, name = read_images(learner, arguments)

    from shortrun.diagnosis import conclusion, diagnose, draw_diagnosis, summary, verdict
    from shortrun.diagnosis.measure import plain

    found = diagnose(
        learner,
        x,
        random_numbers(arguments.seed),
        more=more,
        steps=arguments.steps,
        noise=arguments.noise,
        batch_size=arguments.batch_size,
        split=name,
        seed=arguments.seed,
        shown=announced,
    )
    findings = verdict(found)
    numbers = {"findings": [dataclasses.asdict(each) for each in findings], **dataclasses.asdict(found)}
    write_numbers(folder, COMMAND, arguments, {PICTURE: draw_diagnosis(found)}, plain(numbers), NUMBERS)
    print("\n".join(["", *summary(found), "", *conclusion(findings)]))
    return 0


def set_step_size(learner: "ChainLearner", arguments: Diagnose) -> None:
    """Give the learner the step sizes of the command line, where there are any."""
    if arguments.step_size is None and arguments.step_decay is None:
        return

    from shortrun.inference import StepSize

    own = learner.step_size
    values = own.values if arguments.step_size is None else arguments.step_size
    decay = own.decay if arguments.step_decay is None else arguments.step_decay
    learner.step_size = StepSize(values, own.latents, decay).to(learner.device)


def read_images(learner: "ChainLearner", arguments: Diagnose) -> tuple["torch.Tensor", "torch.Tensor", str]:
    """Return the images to measure on, those of the aggregate, which are more, and what they are called."""
    from shortrun.diagnosis.measure import AGGREGATE

    if arguments.images is not None:
        there = read_own(learner, arguments)
        if len(there) < LEAST:
            raise InputError("images", problem=f"there are {len(there)}", instead=f"give at least {LEAST} images")
        count = how_many(arguments.n, len(there), DEFAULT, "image")
        return there[:count], there[: AGGREGATE * count], "own"
    images, name = read_split(learner, arguments.run, "test")
    if len(images) < LEAST:
        raise InputError(
            "images", problem=f"the run has {len(images)} {name} images", instead=f"give at least {LEAST} of your own"
        )
    count = how_many(arguments.n, len(images), DEFAULT, f"{name} image")
    more = images.take(min(len(images), AGGREGATE * count)).images()
    return more[:count], more, name
