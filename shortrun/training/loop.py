"""The one training loop."""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from shortrun.config import Config, DataConfig, LearnerConfig, absolute, read_recipe
from shortrun.data import NAMES, Dataset, load_dataset
from shortrun.errors import InputError, Interrupted, renaming
from shortrun.learners import ChainLearner, Learner, checked, learner_class
from shortrun.learners.pretrained import write_model
from shortrun.streams import Use, stream
from shortrun.training.checkpoint import Position, load_state, save_state
from shortrun.training.interruption import stop_signals
from shortrun.training.processes import Processes, processes
from shortrun.training.report import draw_progress, write_report
from shortrun.training.run_folder import RunFolder, create_run, open_run
from shortrun.training.schedules import current_settings, follow_schedules
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
    watch: Watch | None = None,
) -> Path:
    """Learn a model and return its run folder.

    config: a configuration, or a recipe's name or path. out: the run folder, else a dated one under runs/. device: cpu
    or cuda, else the best there is. dataset: images in place of those that the configuration names; decoder: the
    user's own module in place of the built-in blocks, called with the layers (z_L, ..., z_1); both have to be given
    again to `resume`. watch: called after every update, by the first process; it must leave the learners as they are,
    and its time is not counted. Raises InputError for what cannot be used, Interrupted after Ctrl-C.
    """
    config = absolute(checked(read_recipe(config) if isinstance(config, str) else config), NAMES)
    with processes(device) as here:
        # the data are read first: a data set that is not there must not leave a folder behind
        dataset = dataset or read_dataset(config)
        learner = build_learner(config, dataset, decoder, here)
        run = create_run(config, dataset.name, Path(out) if out else None).path if here.first else None
        return run_to_end(learner, dataset, config, RunFolder(here.agree(run)), here, watch)


def resume(
    path: str | Path,
    *,
    device: str | None = None,
    dataset: Dataset | None = None,
    decoder: nn.Module | None = None,
    watch: Watch | None = None,
) -> Path:
    """Go on with an interrupted run where its last checkpoint stands, mid-epoch too, and return its folder.

    The finished run equals the unbroken one bit for bit on the same machine. A finished run is left as it is.
    """
    run, config = open_run(Path(path))
    if run.result.is_file():
        return run.path
    with processes(device) as here:
        dataset = dataset or read_dataset(config)
        return run_to_end(build_learner(config, dataset, decoder, here), dataset, config, run, here, watch)


def read_dataset(config: Config) -> Dataset:
    """Read the images that a configuration names."""
    data = config.data
    settings = {item.name: f"data.{item.name}" for item in dataclasses.fields(DataConfig)}
    with renaming({**settings, "data_dir": "data.dir", "n": "data.held_out"}):
        dataset = load_dataset(
            data.source,
            data_dir=data.dir,
            image_size=data.image_size,
            crop=data.crop,
            train_limit=data.train_limit,
            test_limit=data.test_limit,
            test_fraction=data.test_fraction,
            binarize=data.binarize,
        )
        return dataset if data.held_out is None else dataset.hold_out(data.held_out)


def build_learner(config: Config, dataset: Dataset, decoder: nn.Module | None, here: Processes) -> Learner:
    """Build the learner for a data set; raise InputError where the two, or the processes, do not fit."""
    images, batch_size = dataset.train, config.training.batch_size
    if config.model.likelihood == "bernoulli" and images.levels != 2:
        raise InputError(
            "model.likelihood",
            problem=f"bernoulli is for black and white pixels, {dataset.name} has grey ones",
            instead="set data.binarize, or choose gaussian",
        )
    if len(images) < batch_size:
        raise InputError(
            "training.batch_size", f"{batch_size} for {len(images)} training images", f"write at most {len(images)}"
        )
    if batch_size % here.count:
        raise InputError(
            "training.batch_size", f"{batch_size} for {here.count} processes", f"write a multiple of {here.count}"
        )
    seed = config.training.seed
    description = LearnerConfig(
        images.shape,
        images.levels,
        decoder is not None,
        config.model,
        config.inference,
        config.learner,
        config.encoder,
        config.persistent,
        config.glow,
    )
    return learner_class(config.learner).from_description(description, decoder, seed)


def run_to_end(
    learner: Learner,
    dataset: Dataset,
    config: Config,
    run: RunFolder,
    here: Processes,
    watch: Watch | None = None,
) -> Path:
    """Train from where the run stands to its end, write its pictures and test figures, and return its path."""
    settings = config.training
    if settings.threads:
        torch.set_num_threads(settings.threads)
    learner.to(here.device)
    average = AveragedModel(learner, multi_avg_fn=moving_average(settings.ema_decay))
    modules = {"weights": learner, "average": average}
    optimizer = torch.optim.Adam(learner.parameters(), settings.learning_rate, fused=True)
    learner.start_training(len(dataset.train), settings.seed, run.path)
    resumed = run.state.is_file()
    position = load_state(run.state, learner, modules, optimizer) if resumed else Position()
    here.wait()
    wrapped = here.wrap(learner)

    share = settings.batch_size // here.count
    steps_an_epoch = len(dataset.train) // settings.batch_size
    total = position.total = settings.updates or settings.epochs * steps_an_epoch
    tunings = tuning_steps(config, learner.dim, total) if config.inference.tuned else frozenset()
    metrics = Metrics(run.path, position) if here.first else None
    progress = Progress(total, position.step, settings.batch_size, shown=here.first)
    saved = time.monotonic()
    clock = Clock(position)

    def save() -> None:
        clock.stop()
        if metrics is not None:
            position.metrics_bytes = metrics.length()
            write_model(average.module.state_dict(), learner.description, run.checkpoint)
            save_state(run.state, learner, modules, optimizer, position)

    if not resumed:
        save()  # a run that is killed early can be resumed too
    with stop_signals() as stop, torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        while position.step < total:
            epoch, batch = divmod(position.step, steps_an_epoch)
            first = batch * settings.batch_size + here.rank * share
            rows = epoch_order(len(dataset.train), settings.seed, epoch)[first : first + share]
            x = dataset.train.images(rows).to(here.device)
            follow_schedules(learner, optimizer, config, position.step / total)
            rng = stream(settings.seed, Use.CHAIN, position.step, device=here.device)
            with torch.autocast(
                here.device.type, torch.bfloat16, enabled=half_precision(settings.precision, here.device)
            ):
                if position.step in tunings:
                    tune_step_size(cast(ChainLearner, learner), dataset.train, config, position, here)
                loss, statistics = wrapped(x, rng, (here.rank, here.count), rows)
            optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(learner.parameters(), settings.clip_norm)
            if torch.isfinite(norm):
                optimizer.step()
                average.update_parameters(learner)
            else:
                position.skipped += 1
            position.step += 1

            stopping = tally(position, here, {"loss": loss, "grad_norm": norm, **statistics}, stop.is_set())
            epoch_done = position.step % steps_an_epoch == 0
            progress.advance(position, epoch + 1)
            if metrics is not None and (position.step % settings.log_steps == 0 or position.step == total):
                metrics.write(position, epoch + 1, current_settings(learner, optimizer))
            if position.step % settings.log_steps == 0:
                position.window.clear()
            if metrics is not None and epoch_done and (epoch + 1) % settings.picture_epochs == 0:
                draw_progress(average.module, dataset.test, run, epoch + 1, settings.seed, metrics)  # pyright: ignore[reportArgumentType]
            if here.first and watch is not None:
                clock.stop()
                done = epoch + 1 if epoch_done else None
                watch(Moment(position.step, done, learner, average.module, position.seconds))  # pyright: ignore[reportArgumentType]
                clock.start()
            if stopping:
                save()
                raise Interrupted(
                    f"stopped after step {position.step} of {total}; go on with: shortrun train --resume {run.path}"
                )
            if time.monotonic() - saved > settings.checkpoint_seconds:
                save()
                saved = time.monotonic()
    progress.close()
    save()
    if metrics is not None:
        metrics.close()
        write_report(average.module, dataset, config, run, position)  # pyright: ignore[reportArgumentType]
    here.wait()
    return run.path


@functools.lru_cache(maxsize=1)
def epoch_order(images: int, seed: int, epoch: int) -> Tensor:
    """Return the order of the images in an epoch; it follows from the seed and the epoch alone."""
    return torch.randperm(images, generator=stream(seed, Use.ORDER, epoch))


def half_precision(precision: str, device: torch.device) -> bool:
    """Return whether matrix products are to be in bfloat16: auto says yes where the machine has instructions for it."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # torch has no public question for this; where the private one is gone, float32 is the safe answer
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(supported and supported())


def moving_average(decay: float) -> Any:
    """Return the update average <- average + (1 - d) (weights - average), d rising to `decay` from 0.1.

    Early weights are forgotten fast: d = min(decay, (1 + t) / (10 + t)) after t updates.
    """

    def update(average: list[Tensor], weights: list[Tensor], updates: Tensor | int) -> None:
        t = int(updates)
        share = 1 - min(decay, (1 + t) / (10 + t))
        for old, new in zip(average, weights, strict=True):
            old.lerp_(new, share)

    return update


def tally(position: Position, here: Processes, statistics: dict[str, Tensor], stop: bool) -> bool:
    """Add a step's statistics, averaged over the processes, to the position; return whether any of them is to stop."""
    mine = torch.tensor([*(value.item() for value in statistics.values()), float(stop)], device=here.device)
    *shared, asked = here.mean(mine).tolist()
    means = dict(zip(statistics, shared, strict=True))
    for name, value in means.items():
        position.window[name] = position.window.get(name, 0.0) + value
    position.window["steps"] = position.window.get("steps", 0.0) + 1
    # only chains can fail
    position.retried += round(means.get("retried", 0.0) * here.count)
    position.failed += round(means.get("failed", 0.0) * here.count)
    return asked > 0
