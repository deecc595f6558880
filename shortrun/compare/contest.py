"""Train a model for each configuration and seed and measure what is finished; what is finished is kept."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from shortrun.config import Config
from shortrun.data import Dataset
from shortrun.files import read_json, write_json
from shortrun.training import resume, train
from shortrun.training.run_folder import RunFolder
from shortrun.training.watching import Watch

RECORD = "evaluation.json"
"""The file beside a run that keeps what was measured of it."""


class Turn(NamedTuple):
    """One model of a contest."""

    name: str
    seed: int
    config: Config
    """With the seed in it."""
    run: RunFolder
    said: str = ""
    """What is printed when its training begins; nothing where empty."""

    @property
    def record(self) -> Path:
        """Where what was measured of it is kept."""
        return self.run.path / RECORD


def run_of(out: Path, name: str, seed: int) -> RunFolder:
    """Return the folder of one model of a contest: out/NAME/seed_N."""
    return RunFolder(out / name / f"seed_{seed}")


def turns(configs: Mapping[str, Config], out: Path, seeds: int) -> Iterator[Turn]:
    """Give all models of each configuration, seed by seed.

    Whether steps are compiled is not left to a measurement: seconds are turned into updates at the rate without.
    """
    for seed in range(seeds):
        for name, config in configs.items():
            compiled = "never" if config.training.compile == "auto" else config.training.compile
            training = dataclasses.replace(config.training, seed=seed, compile=compiled)
            yield Turn(name, seed, dataclasses.replace(config, training=training), run_of(out, name, seed))


def hold(
    models: Iterable[Turn],
    dataset: Dataset,
    measure: Callable[[Turn], Any],
    write: Callable[[dict[str, list[Any]]], object],
    *,
    watch: Callable[[Turn], Watch | None] = lambda turn: None,
    device: str | None = None,
) -> dict[str, list[Any]]:
    """Train each model, or go on where a kill has left it, measure it, and return the records by name and seed.

    measure: called with a model whose training is finished; `recorded` makes one that keeps what it finds.
    write: called after every model with the records so far, to write tables.
    watch: returns what is called after every update of a model; None for nothing.
    """
    records: dict[str, list[Any]] = {}
    for turn in models:
        if turn.said and not turn.record.is_file():
            print(turn.said, flush=True)
        learn(turn, dataset, watch(turn), device)
        records.setdefault(turn.name, []).append(measure(turn))
        write(records)
    return records


def learn(turn: Turn, dataset: Dataset, watch: Watch | None, device: str | None) -> None:
    """Train, or go on where a kill has left it; a finished run stays as it is."""
    if turn.run.config.is_file():
        resume(turn.run.path, device=device, dataset=dataset, watch=watch)
    else:
        train(turn.config, turn.run.path, device=device, dataset=dataset, watch=watch)


def recorded(measure: Callable[[Turn], Any]) -> Callable[[Turn], Any]:
    """Return the measure that keeps what it finds in `Turn.record`, and finds there what was measured before."""

    def kept(turn: Turn) -> Any:
        if not turn.record.is_file():
            write_json(turn.record, measure(turn))
        return read_json(turn.record)

    return kept
