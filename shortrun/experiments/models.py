"""The models of an experiment on several learners: trained and measured by `compare`, loaded and named."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shortrun.compare import Budget, compare
from shortrun.compare.budget import first_updates_a_second
from shortrun.compare.comparison import kept_of
from shortrun.compare.contest import RECORD, run_of
from shortrun.compare.labels import labels
from shortrun.config import Config
from shortrun.evaluation.tables import markdown, spread
from shortrun.experiments.arguments import Comparison, circumstances
from shortrun.files import write_json, write_text
from shortrun.learners import Learner
from shortrun.metrics.figure import from_json
from shortrun.progress import advice, duration
from shortrun.training import load
from shortrun.training.processes import choose_device
from shortrun.training.setup import read_dataset

Record = Mapping[str, Any]


class Models:
    """The models of all learners and seeds, trained.

    names: of the learners, in the order of their configurations.
    records: what `compare` measured of each, seed by seed.
    """

    def __init__(self, names: Sequence[str], folder: Path) -> None:
        self.names, self.folder = tuple(names), folder
        self.records: dict[str, list[Record]] = kept_of(folder, self.names, RECORD)
        self.label = labels(self.names)

    def load(self, name: str, seed: int = 0) -> Learner:
        """Return a learner, ready to use.

        name: of one of the learners.
        seed: of the model, one of those that were trained.
        """
        return load(run_of(self.folder, name, seed).path)

    def values(self, name: str, figure: str) -> list[float]:
        """Return a figure of all seeds of a learner; of those where it was left out, nothing.

        name: of one of the learners.
        figure: by the name that `assess` gives it.
        """
        found = [from_json(record).get(figure) for record in self.records[name]]
        return [each.value for each in found if each is not None and each.value is not None]

    def write(self, figures: Mapping[str, str], out: Path, name: str) -> str:
        """Write NAME.md and NAME.json into a folder, a row for each learner, and return the table in Markdown.

        figures: the words of each column by the name that `assess` gives the figure.
        out: the folder.
        name: of the experiment.
        """
        rows = [self.cells(each, tuple(figures)) for each in self.names]
        table = "\n".join(markdown(["learner", "seeds", *figures.values()], rows)) + "\n"
        write_text(out / f"{name}.md", table)
        write_json(out / f"{name}.json", {"records": self.records, **circumstances()}, indent=1)
        return table

    def cells(self, name: str, figures: Sequence[str]) -> list[str]:
        """Return the cells of a learner's row: its name, the number of seeds, and mean ± standard deviation of each."""
        seeds = len(self.records[name])
        return [self.label[name], str(seeds), *(spread(self.values(name, figure)) for figure in figures)]


def trained(arguments: Comparison, configs: Mapping[str, Config], out: Path) -> Models:
    """Train and measure the models of an experiment, or go on where a kill has left them.

    arguments: of the experiment.
    configs: of the learners, by name.
    out: the folder of the experiment; the models lie in out/models unless the arguments say otherwise.
    """
    folder = arguments.models or out / "models"
    budget = Budget.parse(arguments.budget or f"{next(iter(configs.values())).training.epochs}epochs")
    if line := cost(configs, folder, budget, arguments.seeds, arguments.device):
        print(line, flush=True)
    compare(
        configs,
        folder,
        budget=budget,
        seeds=arguments.seeds,
        samples=arguments.samples,
        likelihood_images=0,
        points=0,
        device=arguments.device,
    )
    return Models(tuple(configs), folder)


def cost(configs: Mapping[str, Config], folder: Path, budget: Budget, seeds: int, device: str | None) -> str:
    """Return a line that says how long the trainings that are left will take here; nothing where none is left.

    Where the budget is in epochs, the first updates of each learner are taken and thrown away to see how long they
    take.

    configs: of the learners, by name.
    folder: of the comparison that the models belong to.
    budget: of each training.
    seeds: models of each.
    device: cpu or cuda; the best there is where not given.
    """
    left = {name: sum(not run_of(folder, name, seed).result.is_file() for seed in range(seeds)) for name in configs}
    if not any(left.values()):
        return ""
    place = choose_device(device)
    if budget.unit == "s":
        each = dict.fromkeys(configs, budget.amount)
        told = f"{budget} of each training"
    else:
        dataset, each = read_dataset(next(iter(configs.values()))), {}
        for name in (name for name, count in left.items() if count):
            updates = budget.updates(0.0, len(dataset.train) // configs[name].training.batch_size)
            each[name] = updates / first_updates_a_second(configs[name], dataset, device)
        told = "at the rate of the first updates, each: "
        told += ", ".join(f"{label} {duration(each[name])}" for name, label in labels(tuple(each)).items())
    seconds = sum(each[name] * count for name, count in left.items() if count)
    line = f"{sum(left.values())} trainings take about {duration(seconds)} here, on {place.type} ({told})"
    return line + advice(seconds, place.type)
