"""Figure 4 of the paper: one layer of latents varied, the others held; and, measured, what each layer holds.

Source: Nijkamp et al., "Learning Multi-layer Latent Variable Model via Variational Optimization of Short Run MCMC for
Approximate Inference", ECCV 2020, arXiv 1912.01909.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from shortrun.config import Config
from shortrun.data import Dataset, ImageSet
from shortrun.errors import check_at_least
from shortrun.evaluation import own_features
from shortrun.evaluation.tables import markdown, spread
from shortrun.experiments.arguments import Comparison, check_whole, circumstances
from shortrun.experiments.models import Models, trained
from shortrun.figures.images import grid, side_by_side, titled, write_png
from shortrun.files import read_json, write_json, write_text
from shortrun.learners import Learner
from shortrun.metrics import Features
from shortrun.metrics.probes import linear_probe, network_probe
from shortrun.model.likelihood import Images
from shortrun.pixels import to_unit
from shortrun.streams import Use, stream
from shortrun.tasks import encode, traverse
from shortrun.tasks.batches import decode
from shortrun.training.setup import read_dataset

SHOWN, COLUMNS = 6, 8
"""Test images in the picture, and variations of each."""
TRAIN = 5000
"""Train images, at most, whose latents probes are fitted to."""
SCORES = {"mig": "MIG", "dci_disentanglement": "DCI disentanglement", "dci_completeness": "DCI completeness"}
"""Columns of the table of scores, which are measured where factors are known."""
Classes = Int64[Tensor, "n"]


@dataclass(frozen=True)
class Arguments(Comparison):
    """Vary one layer of latents with the others held, and measure what each layer holds."""

    reduced: ClassVar[tuple[str, ...]] = (*Comparison.reduced, "--images", "500")

    learners: tuple[str, ...] = ("short_run", "short_run,as-published", "vlae")
    images: int = 2000
    """Test images that layers are varied of, and probes are tested on."""

    def compete(self, configs: Mapping[str, Config], out: Path) -> str:
        """Run the experiment and return its tables."""
        check_at_least(SHOWN, images=self.images)
        check_whole(configs, "each classifier of a factor")
        dataset = read_dataset(next(iter(configs.values())))
        test = dataset.test.take(min(self.images, len(dataset.test)))
        return write(trained(self, configs, out), Dataset(dataset.name, dataset.train, test), out)


def known(images: ImageSet) -> dict[str, Classes]:
    """Return what is known of images, by name: the factors they were made from, or else their labels."""
    if images.factors is not None:
        return dict(images.factors)
    return {} if images.labels is None else {"class": images.labels}


def judges(dataset: Dataset) -> dict[str, Features]:
    """Return a classifier of images for each factor that is known: it says what a varied image shows.

    dataset: the classifiers are trained on its train images.
    """
    found = {}
    for name, values in known(dataset.train).items():
        test = dataclasses.replace(dataset.test, labels=known(dataset.test)[name])
        found[name] = own_features(
            Dataset(dataset.name, dataclasses.replace(dataset.train, labels=values), test), seed=0
        )
    return found


def measured(learner: Learner, dataset: Dataset, judged: Mapping[str, Features], seed: int) -> dict[str, Any]:
    """Return what each layer of a learner holds, in the order of its latents, top down.

    linear, network: for each factor the accuracy of a probe of each layer, on test images.
    changed: for each factor the share of rebuilt test images that show another value once a layer is redrawn.
    pixels: the mean squared difference that redrawing a layer makes, pixels in [0, 1].
    colour: the same of the mean colour of an image.

    learner: ready to use.
    dataset: whose test images are rebuilt and varied.
    judged: what `judges` returns.
    seed: of the random numbers.
    """
    rng = stream(seed, Use.PROBE)
    train = dataset.train.take(min(TRAIN, len(dataset.train)))
    fitted, tested = (encode(learner, part.images(), rng, mask=part.observed()).z for part in (train, dataset.test))
    there: dict[str, Any] = {"linear": {}, "network": {}, "changed": {name: [] for name in judged}}
    truth = known(dataset.test)
    for name, values in known(train).items():
        parts = zip(fitted.split(learner.latents, 1), tested.split(learner.latents, 1), strict=True)
        given = [(one, values, other, truth[name]) for one, other in parts]
        there["linear"][name] = [linear_probe(*each) for each in given]
        there["network"][name] = [network_probe(*each, seed) for each in given]
    rebuilt = decode(learner, tested)
    there |= {"pixels": [], "colour": []}
    for layer in range(len(learner.latents), 0, -1):
        varied = traverse(learner, tested, layer, rng, columns=1).images[:, 0]
        moved = to_unit(varied) - to_unit(rebuilt)
        there["pixels"].append(float(moved.square().mean()))
        there["colour"].append(float(moved.mean((2, 3)).square().mean()))
        for name, judge in judged.items():
            there["changed"][name].append(float((says(judge, varied) != says(judge, rebuilt)).float().mean()))
    return there


@torch.no_grad()
def says(judge: Features, x: Images) -> Classes:
    """Return the class of each image, (n,)."""
    return torch.cat([judge.logits(part).argmax(1) for part in x.split(500)])


def write(models: Models, dataset: Dataset, out: Path) -> str:
    """Write hierarchy.md, .json and a picture of each learner into a folder, and return the tables in Markdown.

    models: trained.
    dataset: its test images are varied.
    out: the folder.
    """
    judged, found = judges(dataset), {}
    for name in models.names:
        for seed in range(len(models.records[name])):
            path = out / "records" / name / f"seed_{seed}.json"
            counts = {"images": len(dataset.test)}
            if not (path.is_file() and read_json(path)["counts"] == counts):
                print(f"{models.label[name]}, seed {seed}: what each layer holds", flush=True)
                learner = models.load(name, seed)
                write_json(path, {"counts": counts, **measured(learner, dataset, judged, seed)}, indent=1)
            found.setdefault(name, []).append(read_json(path))
        picture = titled(pictured(models.load(name), dataset.test), models.label[name])
        write_png(picture, out / f"hierarchy_{re.sub(r'[^A-Za-z0-9]+', '_', name)}.png")
    tables = "\n".join([layer_table(models, found, list(judged)), score_table(models)])
    write_text(out / "hierarchy.md", tables)
    write_json(
        out / "hierarchy.json",
        {
            "found": found,
            "scores": models.records,
            "accuracy_of_judges": {name: judge.accuracy for name, judge in judged.items()},
            **circumstances(),
        },
        indent=1,
    )
    return tables


def pictured(learner: Learner, test: ImageSet) -> Any:
    """Return a panel for each layer, the top one first: each row an image, rebuilt, and variations of that layer."""
    rng = stream(0, Use.PICTURE)
    z = encode(learner, test.images(slice(0, SHOWN)), rng).z
    rebuilt, panels = decode(learner, z), []
    for layer in range(len(learner.latents), 0, -1):
        varied = traverse(learner, z, layer, rng, columns=COLUMNS).images
        rows: Float[Tensor, "n columns c h w"] = torch.cat([rebuilt[:, None], varied], 1)
        panels.append(titled(grid(rows.flatten(0, 1), columns=COLUMNS + 1), f"rebuilt; layer {layer} redrawn"))
    return side_by_side(panels)


def layer_table(models: Models, found: Mapping[str, Sequence[Mapping[str, Any]]], factors: Sequence[str]) -> str:
    """Return a row for each learner and layer: accuracies of probes, and what changes once the layer is redrawn."""
    ways = {"linear": "linear probe", "network": "network probe", "changed": "changed"}
    head = ["learner", "layer", "pixels", "mean colour"]
    head += [f"{factor}, {words}" for factor in factors for words in ways.values()]
    rows = []
    for name, runs in found.items():
        layers = len(runs[0]["pixels"])
        for place in range(layers):
            cells = [spread([run[key][place] for run in runs]) for key in ("pixels", "colour")]
            cells += [spread([run[way][factor][place] for run in runs]) for factor in factors for way in ways]
            rows.append([models.label[name], str(layers - place), *cells])
    return "\n".join(markdown(head, rows)) + "\n"


def score_table(models: Models) -> str:
    """Return a row for each learner: scores of disentanglement, where factors are known, and the error."""
    figures = ("mse_draw", *SCORES)
    rows = [models.cells(name, figures) for name in models.names]
    return "\n".join(markdown(["learner", "seeds", "MSE of a posterior sample", *SCORES.values()], rows)) + "\n"
