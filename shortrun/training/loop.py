"""The one training loop."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import nn

from shortrun.config import Config, absolute
from shortrun.data import NAMES, Dataset
from shortrun.data.image_set import taken_for
from shortrun.errors import InputError, Interrupted, in_one_line
from shortrun.interruption import finishing
from shortrun.learners import ChainLearner, Learner, checked_for_learner, learner_class
from shortrun.modes import own_modes
from shortrun.registry import LEARNERS, name_of
from shortrun.streams import Use, stream
from shortrun.training.checkpoint import Checkpoints, check_state, load_state
from shortrun.training.compiling import choose_step, keep_compiled_graphs
from shortrun.training.divergence import Streak
from shortrun.training.lock import locked
from shortrun.training.machine import keep_freed_memory
from shortrun.training.order import Order
from shortrun.training.origin import check_origin, check_settings, write_origin
from shortrun.training.photos import read_settings
from shortrun.training.position import Window
from shortrun.training.processes import Processes, lost_process, processes
from shortrun.training.report import draw_progress, write_report
from shortrun.training.run_folder import RunFolder, create_run, open_run
from shortrun.training.schedules import current_settings, follow_schedules
from shortrun.training.setup import build_learner, read_dataset
from shortrun.training.step import State, update
from shortrun.training.tracking import Metrics, Progress
from shortrun.training.tuning_schedule import tune_step_size, tuning_steps
from shortrun.training.watching import Clock, Moment, Watch


def train(
    config: Config | str,
    out: str | Path | None = None,
    *,
    device: str | None = None,
    dataset: Dataset | None = None,
    decoder: nn.Module | None = None,
    learner: type[Learner] | None = None,
    watch: Watch | None = None,
) -> Path:
    """Return the run folder of a model that is learned here.

    config: a configuration, a recipe's name or path, or a folder of images, for which settings are chosen.
    out: the run folder; a dated one under runs/ where not given.
    device: cpu or cuda; the best there is where not given.
    dataset: images in place of those that the configuration names.
    decoder: the user's own module in place of the one that is named, called with the layers (z_L, ..., z_1).
    learner: the user's own class in place of the one that is named.
    watch: called after every update with a `Moment`, by the first process; it must leave the learners as they are, and
        its time is not counted.

    What is given of dataset, decoder and learner has to be given again to `resume`; decoder, and a learner's class that
    cannot be imported, to `load`.

    Raises InputError for what cannot be used. At Ctrl-C, SIGTERM and SIGUSR1 it finishes its step, writes a checkpoint
    and raises Interrupted, a KeyboardInterrupt that says how to go on. Raises LostProcess where another of several
    processes has ended, or does not answer.

    >>> import tempfile
    >>> from shortrun import InferenceConfig, ModelConfig, TrainingConfig, load, load_dataset
    >>> config = Config(
    ...     model=ModelConfig(latents=(2, 3), width=8),
    ...     inference=InferenceConfig(steps=2),
    ...     training=TrainingConfig(updates=3, batch_size=20, fit_images=0),
    ... )
    >>> digits = load_dataset("digits", train_limit=60, test_limit=20)
    >>> with tempfile.TemporaryDirectory() as folder:  # doctest: +ELLIPSIS
    ...     run = train(config, Path(folder) / "run", device="cpu", dataset=digits)
    ...     type(load(run)).__name__
    epoch 1  step 3/3 ...
    'ShortRun'
    """
    name = None if learner is None else name_of(LEARNERS, learner)
    if isinstance(config, str):
        config = read_settings(config, name)
    elif name is not None:
        config = replace(config, learner=name)
    settings = absolute(checked_for_learner(config, learner), NAMES)

    def new_run(images: str) -> RunFolder:
        return create_run(settings, images, Path(out) if out else None)

    return learn(settings, new_run, device, dataset, decoder, learner, watch)


def resume(
    path: str | Path,
    *,
    device: str | None = None,
    dataset: Dataset | None = None,
    decoder: nn.Module | None = None,
    learner: type[Learner] | None = None,
    watch: Watch | None = None,
) -> Path:
    """Return the folder of an interrupted run, which goes on where its last checkpoint stands, mid-epoch too.

    The finished run equals the unbroken one bit for bit on the same machine. A finished run is left as it is.

    path: the run folder.
    device: cpu or cuda; the best there is where not given.
    dataset: images, where `train` was given some.
    decoder: the user's own module, where `train` was given one.
    learner: the user's own class, where `train` was given one.
    watch: called after every update, as by `train`.

    Raises InputError where there is no run, and as `train` does.

    >>> import tempfile
    >>> from shortrun import InferenceConfig, ModelConfig, TrainingConfig, load_dataset
    >>> def stop(moment):
    ...     raise KeyboardInterrupt
    >>> training = TrainingConfig(updates=3, batch_size=20, fit_images=0)
    >>> config = Config(model=ModelConfig(latents=(2,), width=8), inference=InferenceConfig(steps=2), training=training)
    >>> digits = load_dataset("digits", train_limit=60, test_limit=20)
    >>> with tempfile.TemporaryDirectory() as folder:  # doctest: +ELLIPSIS
    ...     run = Path(folder) / "run"
    ...     try:
    ...         _ = train(config, run, device="cpu", dataset=digits, watch=stop)
    ...     except KeyboardInterrupt:
    ...         resume(run, device="cpu", dataset=digits) == run
    epoch 1  step 3/3 ...
    True
    """
    run, config = open_run(Path(path))
    if run.result.is_file():
        return run.path
    return learn(checked_for_learner(config, learner), lambda images: run, device, dataset, decoder, learner, watch)


def learn(
    config: Config,
    folder: Callable[[str], RunFolder],
    device: str | None,
    dataset: Dataset | None,
    decoder: nn.Module | None,
    kind: type[Learner] | None,
    watch: Watch | None,
) -> Path:
    """Take a run from where it stands to its end, and return its path; folder: the run's, by the name of the images."""
    with processes(device) as here, own_modes():
        # the data are read first: a data set that is not there must not leave a folder behind
        if dataset is None:
            dataset = read_dataset(config)
            if here.first and config.data.pixel_range is None and dataset.train.pixel_range == "unit":
                print(taken_for(dataset.name, "unit", "", "--data.pixel-range"), file=sys.stderr)
        learner = build_learner(config, kind or learner_class(config.learner), dataset, decoder, here)
        with finishing() as stop:  # a folder that is made is a run that goes on
            run = RunFolder(here.agree(folder(dataset.name).path if here.first else None))
        lock = locked(run) if here.first else nullcontext()
        with resumable(run), lock, kept_threads(config.training.threads), files_of(run):
            stop.check()
            keep_freed_memory()
            keep_compiled_graphs()
            state = State.start(learner, config.training, here)
            if run.state.is_file():  # what is refused is refused before anything is written into the folder
                check_settings(run, config)
                check_origin(run, dataset)
                check_state(run.state, state)
            elif here.first:
                write_origin(run, config, dataset)
            learner.start_training(len(dataset.train), config.training.seed, run.path)
            if run.state.is_file():
                load_state(run.state, state)
            here.wait()  # the first process writes that file next
            take_steps(state, dataset, config, run, here, watch)
            if here.first:
                write_report(state.averaged, dataset, config, run, state.position)
            here.wait()
        return run.path


@contextmanager
def resumable(run: RunFolder) -> Iterator[None]:
    """Say how a run goes on that is stopped outside of its steps, or that another process has left."""
    words = f"go on with: shortrun train --resume {run.path}"
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; {words}") from None
    except RuntimeError as error:
        if lost := lost_process(error, f"the last checkpoint is kept; {words}"):
            raise lost from None
        raise


@contextmanager
def files_of(run: RunFolder) -> Iterator[None]:
    """Turn what a file system says of a full disk, a missing folder or a lack of rights into one line."""
    try:
        yield
    except (InputError, BrokenPipeError):  # the pipe is that of the output, no file of the run
        raise
    except OSError as error:
        raise InputError(
            str(error.filename or run.path),
            problem=error.strerror or in_one_line(error),
            instead=f"mend that, then go on with: shortrun train --resume {run.path}",
        ) from error


@contextmanager
def kept_threads(count: int | None) -> Iterator[None]:
    """Take so many CPU threads while the block runs, and give back those that the process had."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def take_steps(
    state: State, dataset: Dataset, config: Config, run: RunFolder, here: Processes, watch: Watch | None
) -> None:
    """Take all updates that are left, and do after each what is due."""
    settings, learner, position = config.training, state.learner, state.position
    order = Order(len(dataset.train), settings.batch_size, settings.seed)
    total = position.total = settings.updates or settings.epochs * order.steps_an_epoch
    tunings = tuning_steps(config, learner.dim, total) if config.inference.tuned else frozenset()
    metrics = Metrics(run.path, position) if here.first else None
    clock = Clock(position)
    if learner.has_chain:
        x = dataset.train.images(order.rows(position.step, here)).to(here.device)
        choose_step(cast(ChainLearner, learner), x, settings, position, here)
    picture = order.next_picture(position.step, settings.picture_epochs)
    progress = Progress(
        position, settings.batch_size, learner.progress, shown=here.first, picture=picture, device=here.device.type
    )
    streak = Streak(run, position, learner)
    checkpoints = Checkpoints(run, state, clock, metrics, settings.checkpoint_seconds)
    if position.step == 0:
        checkpoints.save()  # a run that is killed early can be resumed too
    with finishing() as stop, torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        while position.step < total:
            follow_schedules(learner, state.optimizer, config, position.step / total)
            if position.step in tunings:
                # a learner of another kind was refused: the configuration was checked_for_learner
                tune_step_size(cast(ChainLearner, learner), dataset.train, config, position, here)
            rows = order.rows(position.step, here)
            rng = stream(settings.seed, Use.CHAIN, position.step, device=here.device)
            x, mask = dataset.train.images(rows).to(here.device), dataset.train.observed(rows)
            mask = None if mask is None else mask.to(here.device)
            statistics = update(state, x, rows, rng, settings, here, mask)

            stopping, means = position.tally(statistics, here, stop.asked)
            streak.follow(position, means, settings.batch_size)
            epoch, epoch_done = order.epoch(position.step), order.ends_epoch(position.step)
            line_due = position.step % settings.log_steps == 0
            progress.advance(position, epoch)
            if metrics is not None and (line_due or position.step == total):
                metrics.write(position, epoch, current_settings(learner, state.optimizer))
            if line_due:
                position.window = Window()
            if metrics is not None and epoch_done and epoch % settings.picture_epochs == 0:
                draw_progress(state.averaged, dataset.test, run, epoch, settings.seed, metrics)
            if watch is not None and here.first:
                with clock.stopped():
                    done = epoch if epoch_done else None
                    watch(Moment(position.step, done, learner, state.averaged, position.seconds, means))
            if stopping:
                if streak.sound:
                    checkpoints.save()
                here.wait()  # torchrun ends all when one ends, and the first still writes
                raise Interrupted(
                    f"stopped after step {position.step} of {total}; go on with: shortrun train --resume {run.path}"
                )
            if streak.sound:  # what is kept is the last state that was
                checkpoints.save_if_due()
        progress.close()
        streak.end(position, state.averaged, dataset, settings.seed, here.first)
        checkpoints.save()
        if metrics is not None:
            metrics.close()
    stop.check()
