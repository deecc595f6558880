"""What a run is and what it reached, in words, from its folder alone."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import exp, prod
from pathlib import Path
from typing import Any

from safetensors import safe_open

from shortrun.config import Config, LearnerConfig, read_recipe
from shortrun.data.image_set import RANGES
from shortrun.errors import damaged, undamaged
from shortrun.evaluation.tables import rows
from shortrun.files import read_json
from shortrun.learners import learner_class
from shortrun.learners.weights import RETRAIN
from shortrun.mapping import from_mapping
from shortrun.metrics.figure import from_json
from shortrun.training.origin import kept_classes
from shortrun.training.run_folder import RunFolder, no_run

SHOWN = 20
"""Names of classes that are listed."""

WORDS = {
    "mse": ("reconstruction error", "mse in files"),
    "second_moment": ("latents' variance", "1 in N(0, I); second_moment in files"),
    "prior_fit": ("latents' fit", "1 as in the prior; prior_fit in files"),
    "failed_test_chains": ("failed chains", "failed_test_chains in files"),
}
"""What a stranger calls figures, and what to add: the names that files keep."""


def info(run_path: str | Path) -> str:
    """Return what a run is and what it reached, in words.

    The words are of data, the names of its classes, model, inference, training, its state, test figures with their
    conditions, and pictures.
    Reads no weights and runs nothing.

    run_path: the folder of a run, finished or not, or one that `save_pretrained` wrote.

    Raises InputError where it is neither, or where a file in it is damaged.

    >>> import tempfile
    >>> from shortrun import ModelConfig, Vae
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Vae.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8)).save_pretrained(folder)
    ...     words = info(folder).splitlines()
    >>> words[1].split()
    ['learner', 'vae']
    """
    run = found_run(run_path)
    lines = [(name, said) for name, words in described(run) if (said := words())] + reached(run)
    lines += [("" if i else "pictures", str(path)) for i, path in enumerate(run.last_pictures)]
    width = max(len(name) for name, _ in lines)
    return "\n".join([str(run.path), *(f"  {name:<{width}}  {words}" for name, words in lines)])


def found_run(run_path: str | Path) -> RunFolder:
    """Return the run that is to be described; raise InputError where neither a run nor a saved model is.

    run_path: its folder, or pretrained:NAME.
    """
    run = RunFolder(Path(run_path))
    if not run.config.is_file() and not (run.path / run.description.name).is_file():
        raise no_run(run.path)
    return run


def described(run: RunFolder) -> list[tuple[str, Callable[[], str]]]:
    """Return rows of a name and words: data, classes, learner, images, model, inference and training.

    The words are functions, since each may meet a damaged file and raise InputError, where others can still be said.

    run: finished or not.

    Raises InputError where the settings of the run are damaged.
    """
    config = read_recipe(str(run.config)) if run.config.is_file() else None
    learner = _learner(run.description)
    lines: list[tuple[str, Callable[[], str]]] = []
    settings = config or learner
    assert settings is not None  # one of the two files is there
    if config is not None:
        lines.append(("data", lambda: _data(config)))
        if run.origin.is_file():
            lines.append(("classes", lambda: _listed(kept_classes(run))))
    lines.append(("learner", lambda: settings.learner))
    if learner is not None:
        lines.append(("images", lambda: _images(learner)))
    lines.append(("model", lambda: _model(learner or settings, run.weights)))
    lines.append(("inference", lambda: _inference(settings, run.weights)))
    if config is not None:
        lines.append(("training", lambda: _training(config)))
    return lines


def _learner(path: Path) -> LearnerConfig | None:
    return from_mapping(LearnerConfig, read_json(path), "config.json") if path.is_file() else None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Give a file of tensors to read from, none of which is loaded unasked."""
    with undamaged(path, RETRAIN), safe_open(path, framework="np") as file:
        yield file


def _data(config: Config) -> str:
    data = config.data
    parts = [data.source, f"in {data.dir}" if data.dir else ""]
    parts += [f"without {' '.join(map(str, data.leave_out))}" if data.leave_out else ""]
    if data.missing:
        parts.append(f"{data.missing:.0%} of the training images' pixels hidden")
    parts += [f"masks of the training images in {data.masks}" if data.masks else ""]
    parts += [f"resized to {data.image_size}" if data.image_size else "", "black and white" if data.binarize else ""]
    return ", ".join(part for part in parts if part)


def _listed(classes: list[str]) -> str:
    """Say how many classes there are, and the names of the first ones, which are numbered from 0; of none, nothing."""
    if not classes:
        return ""
    more = f" and {len(classes) - SHOWN} more" if len(classes) > SHOWN else ""
    return f"{len(classes)}: {', '.join(classes[:SHOWN])}{more}"


def _images(learner: LearnerConfig) -> str:
    size = "x".join(map(str, learner.image_shape))
    return f"{size} (channels x height x width), {_pixels(learner)}"


def _pixels(learner: LearnerConfig) -> str:
    if learner.levels:
        return f"{learner.levels} levels"
    return "floats" if learner.pixel_range is None else f"floats, {RANGES[learner.pixel_range]} in their files"


def _model(described: Config | LearnerConfig, weights: Path) -> str:
    words = learner_class(described.learner).describe_model(described)
    return f"{words}; {_weights(weights, described):,} weights" if weights.is_file() else words


def _weights(path: Path, described: Config | LearnerConfig) -> int:
    """Count what is learned, from the header of the file; step sizes and a fixed sigma are not."""
    fixed = learner_class(described.learner).fixed(described)
    with _opened(path) as file:
        return sum(prod(file.get_slice(name).get_shape()) for name in file.keys() if not name.startswith(fixed))  # noqa: SIM118


def _inference(described: Config | LearnerConfig, weights: Path) -> str:
    """Say how latents are inferred; a tuned step size is where training has brought it so far."""
    found = _step_size(weights) if described.inference.tuned else None
    return learner_class(described.learner).describe_settings(described, found)


def _step_size(weights: Path) -> tuple[tuple[float, ...], float] | None:
    """Return the step sizes and the decay that lie with the weights, or None where there are no weights yet."""
    if not weights.is_file():
        return None
    with _opened(weights) as file:
        values, decay = (file.get_tensor(f"step_size.{name}") for name in ("log_values", "log_decay"))
    return tuple(float(exp(value)) for value in values), float(exp(decay))


def _training(config: Config) -> str:
    training = config.training
    length = f"{training.epochs} epochs" if training.updates is None else f"{training.updates} updates"
    return f"{length}, batches of {training.batch_size}, learning rate {training.learning_rate:g}, seed {training.seed}"


def reached(run: RunFolder) -> list[tuple[str, str]]:
    """Return rows of a name and words: how far a run is, its test figures with their conditions, and warnings.

    run: finished or not; a saved model has nothing to say here.
    """
    if not run.config.is_file():
        return []
    if not run.result.is_file():
        return [("state", f"{_position(run.state)}; go on with: shortrun train --resume {run.path}")]
    result = read_json(run.result)
    if not isinstance(result, dict):
        raise damaged(run.result, "it is not a table")
    with undamaged(run.result):
        trained, done = result.get("training", {}), "finished"
        if {"seconds", "updates"} <= set(trained):
            done += f", {trained['updates']} updates in {trained['seconds']:.0f} s"
        lines = [("state", done), *(_in_words(*row) for row in rows(from_json(result)))]
        if (left_out := result.get("latent_density_left_out")) is not None:
            lines.append(("latent density", f"left out: {left_out}"))
        return [*lines, ("warning", str(result["warning"]))] if "warning" in result else lines


def _in_words(name: str, value: str) -> tuple[str, str]:
    words, more = WORDS.get(name, (name, ""))
    return words, f"{value}; {more}" if more else value


def _position(path: Path) -> str:
    if not path.is_file():
        return "not finished, no checkpoint yet"
    with _opened(path) as file:
        position = json.loads(file.metadata()["position"])
        step, total = position["step"], position.get("total")
    return f"not finished, checkpoint at step {step}" + (f" of {total}" if total else "")
