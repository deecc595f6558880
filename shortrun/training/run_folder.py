"""A run folder: what is where in it, how one is made, and how a learner is loaded from it."""

import datetime
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tomli_w
from torch import nn

from shortrun.config import Config, read_recipe
from shortrun.errors import InputError, did_you_mean
from shortrun.files import write_text
from shortrun.learners import Learner
from shortrun.mapping import to_mapping
from shortrun.training.record import read_record

LOCK = (".lock", ".holder")
"""The file that whoever works on a run holds, and who that is."""


PRETRAINED, PREFIX = Path(__file__).parent.parent / "pretrained", "pretrained:"
"""Where the models lie that the package brings along, and how a user names one: pretrained:digits."""


def located(path: Path) -> Path:
    """Return the folder of a run, also where it is named as one that the package brings along.

    path: of the folder, or pretrained:NAME.

    Raises InputError for a name that there is not.

    >>> located(Path("runs/first")).as_posix(), located(Path("pretrained:digits")).name
    ('runs/first', 'digits')
    """
    if not str(path).startswith(PREFIX):
        return path
    name, names = str(path).removeprefix(PREFIX), [each.name for each in PRETRAINED.iterdir() if each.is_dir()]
    if name not in names:
        raise InputError("run", repr(str(path)), did_you_mean(name, names))
    return PRETRAINED / name


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run.

    path: its folder, or pretrained:NAME for one that the package brings along.

    >>> RunFolder(Path("runs/first")).config.as_posix()
    'runs/first/config.toml'
    """

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", located(self.path))

    @property
    def config(self) -> Path:
        """The resolved configuration: `shortrun train RUN/config.toml` repeats the run."""
        return self.path / "config.toml"

    @property
    def checkpoint(self) -> Path:
        """The model (config.json, model.safetensors) and the state of training (training.safetensors)."""
        return self.path / "checkpoint"

    @property
    def model(self) -> Path:
        """Where the model lies: in the checkpoint, or in the folder itself where `save_pretrained` wrote it."""
        return self.checkpoint if self.checkpoint.is_dir() else self.path

    @property
    def description(self) -> Path:
        """What the learner is rebuilt from."""
        return self.model / "config.json"

    @property
    def origin(self) -> Path:
        """What the run learns from: the settings it began with and a digest of its images."""
        return self.path / "origin.json"

    @property
    def weights(self) -> Path:
        """The weights of the model."""
        return self.model / "model.safetensors"

    @property
    def state(self) -> Path:
        """The state of training."""
        return self.checkpoint / "training.safetensors"

    @property
    def figures(self) -> Path:
        """The pictures."""
        return self.path / "figures"

    @property
    def last_pictures(self) -> list[Path]:
        """The pictures at the end of the run that are there, or else the last one on the way."""
        named = [self.figures / name for name in ("samples.png", "samples_fitted.png", "reconstructions.png")]
        return [path for path in named if path.is_file()] or sorted(self.figures.glob("epoch_*.png"))[-1:]

    @property
    def metrics(self) -> Path:
        """What training said of itself on its way, a line a record."""
        return self.path / "metrics.jsonl"

    @property
    def diagnosis(self) -> Path:
        """Where `shortrun diagnose` writes, if it is not told otherwise."""
        return self.path / "diagnose"

    @property
    def result(self) -> Path:
        """The test figures, each with its conditions; its presence says that the run is finished."""
        return self.path / "result.json"


def create_run(config: Config, name: str, out: Path | None) -> RunFolder:
    """Return a new run folder with the resolved configuration in it.

    config: of the run.
    name: of the images, for the name of a dated folder.
    out: where it is made; None for a dated folder under runs/.

    Raises InputError where `out` holds something already, or cannot be written.
    """
    if out is None:
        out = _dated(name)
    if os.path.isfile(out) or (os.path.isdir(out) and _holds_something(out)):
        raise InputError(
            "out", problem=f"{out} is not empty", instead="write a new folder, or resume the run that it holds"
        )
    try:
        write_text(out / "config.toml", tomli_w.dumps(to_mapping(config)))
    except OSError as error:
        raise InputError(
            "out", problem=f"{out} cannot be written ({error.strerror})", instead="write another folder"
        ) from None
    return RunFolder(out)


def _holds_something(out: Path) -> bool:
    """Say whether a folder holds more than what a kill leaves of a run that was just beginning."""
    left = (".config.partial.toml", *LOCK)

    def is_left(path: Path) -> bool:
        return path.name in left or (path.is_dir() and not any(path.iterdir()))

    return any(path.is_symlink() or not is_left(path) for path in out.iterdir())


def _dated(name: str) -> Path:
    """Make and return a new folder under runs/ that nobody else has made, also where two begin in one second."""
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H%M%S")
    out, number = Path("runs") / f"{stamp}_{name}", 1
    while True:
        try:
            out.mkdir(parents=True)
            return out
        except FileExistsError:
            number += 1
            out = out.with_name(f"{stamp}_{name}_{number}")
        except OSError as error:
            raise InputError(
                "out", problem=f"{out} cannot be made ({error.strerror})", instead="write another folder"
            ) from None


def open_run(path: Path) -> tuple[RunFolder, Config]:
    """Return an existing run and its configuration.

    path: its folder.

    Raises InputError where there is no run, and where a link in it would lead what is written out of the folder.
    """
    run = RunFolder(Path(path))
    if not os.path.isfile(run.config):
        raise no_run(path)
    for name in ("checkpoint", "figures", "tensorboard", "metrics.jsonl", *LOCK):
        if (run.path / name).is_symlink():
            raise InputError(str(run.path / name), problem="a link", instead="put what it leads to in its place")
    return run, read_recipe(str(run.config))


def no_run(path: Path) -> InputError:
    """Return the error of what is given for a run and is none."""
    problem = "not a run (no config.toml in it)" if os.path.isdir(path) else "not a folder"
    return InputError(str(path), problem=problem, instead="write the folder of a run that `shortrun train` made")


def load(path: str | Path, decoder: nn.Module | None = None, learner: type[Learner] | None = None) -> Learner:
    """Return a trained learner, ready to use.

    path: the folder of a run, or one that `save_pretrained` wrote; or pretrained:digits, which is brought along.
    decoder: the user's own module, where the run was trained with one.
    learner: its class, where that is the user's own and cannot be imported by the name that the run has.

    Raises InputError where nothing is there, or something else.

    >>> import tempfile
    >>> from shortrun import ModelConfig, Vae
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Vae.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8)).save_pretrained(folder)
    ...     load(folder).latents
    (2, 3)
    """
    run = RunFolder(Path(path))
    if not os.path.isdir(run.path):
        raise no_run(run.path)
    found = (learner or Learner).from_pretrained(run.model, decoder=decoder)
    if run.config.is_file():
        found.record = partial(read_record, run.config, run.result, run.origin)
    return found
