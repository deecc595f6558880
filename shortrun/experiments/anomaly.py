"""Images of a class that was left out of training, found among test images of the others by how strange they are.

The protocol is that of the code of Kumar et al. 2019 (data/mnist_anomaly.py), after Zenati et al. 2018: all images of
one class are the anomalies, a fifth of the others the normal test images, and the model learns from the rest. A source
with a split of its own keeps it here; of the anomalies so many are drawn that their share is the protocol's, since the
area under precision-recall depends on it. Published figures are means over the last ten epochs; here it is the mean of
several seeds after the last one.

Sources: Zenati, Foo, Lecouat, Manek and Chandrasekhar, "Efficient GAN-Based Anomaly Detection", 2018, arXiv 1802.06222;
Kumar, Ozair, Goyal, Courville and Bengio, "Maximum Entropy Generators for Energy-Based Models", 2019, arXiv 1901.08508,
and its code for MNIST; Pang, Han, Nijkamp, Zhu and Wu, "Learning Latent Space Energy-Based Prior Model", NeurIPS 2020,
arXiv 2006.08205; Yu, Zhu, Xie, Ma, Gao, Zhu and Wu, "Learning Energy-Based Prior Model with Diffusion-Amortized MCMC",
NeurIPS 2023, arXiv 2310.03218.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from shortrun.compare import Budget
from shortrun.compare.comparison import check_built, check_same_data, measured_rates, remember, with_budget
from shortrun.compare.contest import Turn, hold, recorded, run_of
from shortrun.compare.labels import labels
from shortrun.config import Config
from shortrun.data import Dataset
from shortrun.errors import InputError, check_at_least, renaming
from shortrun.evaluation.anomaly import SCORES, anomaly_scores, available
from shortrun.evaluation.tables import markdown, spread
from shortrun.experiments.arguments import Several, circumstances
from shortrun.figures.charts import page
from shortrun.figures.images import captioned_rows, to_rgb, write_png
from shortrun.files import read_json, replacing, write_json, write_text
from shortrun.metrics.detection import average_precision, least_average_precision, roc_auc
from shortrun.model.likelihood import Images
from shortrun.streams import Use, stream
from shortrun.training import load
from shortrun.training.processes import choose_device
from shortrun.training.setup import read_dataset

SHOWN = 12
"""Test images in a row of the picture."""
TEST_SHARE = 0.2
"""Of the normal images, those that the protocol tests on."""
FILE = "anomaly.npz"
"""The file beside a run that keeps the score of each image."""
PUBLISHED = {
    "VAE (as Pang et al. 2020 quote it)": {"1": 0.063, "4": 0.337, "5": 0.325, "7": 0.148, "9": 0.104},
    "LEBM (Pang et al. 2020)": {"1": 0.336, "4": 0.630, "5": 0.619, "7": 0.463, "9": 0.413},
    "DAMC (Yu et al. 2023)": {"1": 0.684, "4": 0.911, "5": 0.939, "7": 0.801},
}
"""Areas under precision-recall on MNIST, by log joint, of other architectures, by what was left out."""
AREAS = {"average_precision": "area under precision-recall", "roc_auc": "area under ROC"}
Records = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]
"""What was measured of each model, by the class that was left out and the learner, seed by seed."""


@dataclass(frozen=True)
class Arguments(Several):
    """Leave a class out of training, and find its images by how strange they are to the model."""

    recipe: ClassVar[str] = "digits"
    reduced: ClassVar[tuple[str, ...]] = (
        *("--budget", "10s", "--seeds", "1", "--images", "300"),
        *("--bound-images", "100", "--training.fit-images", "1000"),
    )

    learners: tuple[str, ...] = ("short_run", "vae", "ladder_vae", "rae")
    classes: tuple[int | str, ...] = (1, 4, 5, 7, 9)
    """Each is left out once, by name or label."""
    images: int = 2000
    """Test images that are scored, normal ones and anomalies together, or as many as there are."""
    chains: int = 4
    """Of each image, or draws from an encoder, that scores are averaged over."""
    bound_images: int = 500
    """Of the images, those whose log p(x) is bounded by importance weights, which takes long; 0 for none."""

    def compete(self, configs: Mapping[str, Config], out: Path) -> str:
        """Run the experiment and return its tables."""
        check_at_least(1, seeds=self.seeds, chains=self.chains)
        check_at_least(2, images=self.images)
        check_at_least(0, bound_images=self.bound_images)
        check_same_data(configs)
        config = next(iter(configs.values()))
        if config.data.leave_out:
            raise InputError("data.leave_out", problem="the experiment leaves classes out itself", instead="drop it")
        if not self.classes:
            raise InputError("classes", problem="names none", instead="write 1 4 5 7 9, for example")
        whole = read_dataset(config)
        with renaming(dict.fromkeys(("name", "names", "dataset"), "classes")):
            cases = {str(name): case_of(whole, name, self.images) for name in self.classes}
        return write(measured(self, configs, cases, out), whole, cases, tuple(configs), out)


class Case(NamedTuple):
    """One class left out."""

    label: int | str
    """The class, as the user named it."""
    dataset: Dataset
    """The images to learn from, without the class."""
    x: Images
    """(n, c, h, w) in [-1, 1], the images that are scored, in an order that says nothing."""
    anomalous: Bool[Tensor, "n"]
    """True for those of the class."""


def case_of(whole: Dataset, name: int | str, images: int) -> Case:
    """Return a data set without a class, and the images to score: test images of the others and some of the class.

    whole: with labels.
    name: of the class, or its label.
    images: at least 2, how many to score at most.

    Raises InputError for a class that there is not, and where there are too few images for both kinds.
    """
    dataset = whole.leave_out(name)
    sets, label = (whole.train, whole.test), whole.label_of(name)
    strange = torch.cat([part.images(part.labels == label) for part in sets if part.labels is not None])
    others = sum(map(len, sets)) - len(strange)
    share = len(strange) / (len(strange) + TEST_SHARE * others)
    count = min(images, round(len(dataset.test) / (1 - share)), round(len(strange) / share))
    positives = max(1, round(count * share))
    if count - positives < 1:
        raise InputError("images", images, "write more, so that some are normal and some are not")
    rng = stream(0, Use.ANOMALY)
    normal = dataset.test.images(torch.randperm(len(dataset.test), generator=rng)[: count - positives])
    x = torch.cat([normal, strange[torch.randperm(len(strange), generator=rng)[:positives]]])
    order = torch.randperm(len(x), generator=rng)
    return Case(name, dataset, x[order], order >= len(normal))


def measured(arguments: Arguments, configs: Mapping[str, Config], cases: Mapping[str, Case], out: Path) -> Records:
    """Train and score all models, or go on where a kill has left them."""
    budget = Budget.parse(arguments.budget or f"{next(iter(configs.values())).training.epochs}epochs")
    measures = {name: getattr(arguments, name) for name in ("images", "chains", "bound_images")}
    place, rates, records = choose_device(arguments.device), dict.fromkeys(configs, 0.0), {}
    without = {name: {each: _without(config, case) for each, config in configs.items()} for name, case in cases.items()}
    folders = {name: out / "models" / f"without_{name}" for name in cases}
    for name, case in cases.items():  # before anything is trained
        check_built(without[name], case.dataset, place)
        remember(folders[name], without[name], budget, measures)
    for name, case in cases.items():
        if budget.unit == "s" and not any(rates.values()):  # once: the classes then have equal updates
            rates = measured_rates(without[name], out / "models", case.dataset, arguments.device)

        def measure(turn: Turn, case: Case = case) -> dict[str, Any]:
            return scored(turn, case, arguments, place)

        entrants = with_budget(without[name], folders[name], arguments.seeds, budget, rates, len(case.dataset.train))
        said = (turn._replace(said=f"without {name}, {turn.said}") for turn in entrants)
        records[name] = hold(said, case.dataset, recorded(measure), lambda found: None, device=arguments.device)
    return records


def _without(config: Config, case: Case) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, leave_out=(case.label,)))


def scored(turn: Turn, case: Case, arguments: Arguments, place: torch.device) -> dict[str, Any]:
    """Return the areas of each score of a finished model, and keep the scores themselves beside it.

    turn: the model.
    case: what it has not seen, and the images.
    arguments: of the experiment.
    place: the device.
    """
    learner, rng = load(turn.run.path).to(place).eval(), stream(turn.seed, Use.ANOMALY)
    there, few = available(learner), case.x[: arguments.bound_images]
    cheap = [name for name in there if name != "bound"]
    scores = anomaly_scores(learner, case.x, rng, cheap, chains=arguments.chains).scores if cheap else {}
    if "bound" in there and 0 < int(case.anomalous[: len(few)].sum()) < len(few):
        scores |= anomaly_scores(learner, few, rng, ["bound"]).scores
    with replacing(turn.run.path / FILE) as temporary, temporary.open("wb") as file:
        arrays = {name: each.numpy() for name, each in scores.items()}
        np.savez_compressed(file, anomalous=case.anomalous.numpy(), **arrays)  # pyright: ignore[reportArgumentType]
    areas = {
        name: {
            "average_precision": average_precision(each, case.anomalous[: len(each)]),
            "roc_auc": roc_auc(each, case.anomalous[: len(each)]),
            "images": len(each),
        }
        for name, each in scores.items()
    }
    return {"scores": areas, "training": read_json(turn.run.result)["training"]}


def write(records: Records, whole: Dataset, cases: Mapping[str, Case], learners: Sequence[str], out: Path) -> str:
    """Write anomaly.png, anomaly_images.png, .md and .json into a folder, and return the tables in Markdown.

    records: of all models.
    whole: the data set with all its classes.
    cases: by the class that was left out.
    learners: their names, in order.
    out: the folder.
    """
    tables = [f"**{words}**\n\n{table(records, whole, cases, learners, area)}" for area, words in AREAS.items()]
    words = "\n".join(tables)
    write_text(out / "anomaly.md", words)
    counts = {name: {"images": len(case.x), "anomalies": int(case.anomalous.sum())} for name, case in cases.items()}
    found = {"data": whole.name, "scores": SCORES, "counts": counts, "records": records, "published": PUBLISHED}
    write_json(out / "anomaly.json", {**found, **circumstances()}, indent=1)
    write_png(histograms(cases, learners, out), out / "anomaly.png")
    write_png(captioned_rows(mistaken(cases, learners[0], out)), out / "anomaly_images.png")
    return words


def table(records: Records, whole: Dataset, cases: Mapping[str, Case], learners: Sequence[str], area: str) -> str:
    """Return a table in Markdown, a column for each class left out and a row for each learner and score.

    records, whole, cases, learners: see `write`.
    area: one of `AREAS`.
    """
    label, rows = labels(learners), []
    for learner in learners:
        for score in SCORES:
            each = {
                name: [run["scores"][score][area] for run in records[name][learner] if score in run["scores"]]
                for name in cases
            }
            if any(each.values()):
                every = [value for values in each.values() for value in values]
                rows.append([label[learner], score, *map(spread, each.values()), f"{mean(every):.4g}"])
    precise = area == "average_precision"
    sizes = [(int(case.anomalous.sum()), int((~case.anomalous).sum())) for case in cases.values()]
    chance = [m / (m + n) if precise else 0.5 for m, n in sizes]
    rows.append(["by chance", "", *(f"{each:.4g}" for each in chance), f"{mean(chance):.4g}"])
    if precise:
        worst = [least_average_precision(m, n) for m, n in sizes]
        rows.append(["anomalies last", "", *(f"{each:.4g}" for each in worst), f"{mean(worst):.4g}"])
    if precise and whole.name == "mnist":
        rows += [
            [f"published: {name}", "", *(str(of.get(each, "-")) for each in cases), ""]
            for name, of in PUBLISHED.items()
        ]
    return "\n".join(markdown(["learner", "score", *(f"without {name}" for name in cases), "mean"], rows)) + "\n"


def kept_scores(out: Path, name: str, learner: str) -> dict[str, Any]:
    """Return the scores of the model of seed 0, by name, and which images are `anomalous`."""
    with np.load(run_of(out / "models" / f"without_{name}", learner, 0).path / FILE) as file:
        return {key: file[key] for key in file.files}


def first_score(kept: Mapping[str, Any]) -> str:
    """Return the name of the score that is drawn: the first that a learner has."""
    return next(score for score in SCORES if score in kept)


def histograms(cases: Mapping[str, Case], learners: Sequence[str], out: Path) -> Image.Image:
    """Draw the scores of normal images and of anomalies, a row for each class left out, a column for each learner."""
    label = labels(learners)
    with page(len(cases), len(learners), panel=(3.0, 1.9)) as sheet:
        panels = iter(sheet.panels)
        for name in cases:
            for learner in learners:
                panel, kept = next(panels), kept_scores(out, name, learner)
                score = first_score(kept)
                values = kept[score]
                strange, finite = kept["anomalous"][: len(values)], np.isfinite(values)
                low, high = np.percentile(values[finite], [0.5, 99.5])
                edges = np.linspace(low, high if high > low else low + 1, 40)
                for which, words in ((~strange, "normal"), (strange, f"{name}, left out")):
                    shown = np.clip(values[which & finite], edges[0], edges[-1])
                    panel.hist(shown, edges, density=True, alpha=0.6, label=words)
                panel.set(title=f"{label[learner]}: {score}", yticks=[])
                panel.legend(fontsize=7)
        return sheet.picture()


def mistaken(cases: Mapping[str, Case], learner: str, out: Path) -> list[tuple[str, Images]]:
    """Return rows of images: for each class left out its least strange ones, and the strangest of the others."""
    rows = []
    for name, case in cases.items():
        kept = kept_scores(out, name, learner)
        values = torch.from_numpy(kept[first_score(kept)])
        x, order = to_rgb(case.x[: len(values)]), values.argsort()
        strange = case.anomalous[order]
        rows.append((f"{name}, left out: least strange", x[order[strange][:SHOWN]]))
        rows.append(("others: strangest", x[order[~strange].flip(0)[:SHOWN]]))
    return rows
