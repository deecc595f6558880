"""Learning from incomplete images: models that never saw some of the pixels, beside models that saw all of them.

Source of the rivals whose encoders see zeros and the mask: Mattei and Frellsen, "MIWAE: Deep Generative Modelling and
Imputation of Incomplete Data Sets", ICML 2019, arXiv 1812.02633; with several draws, their bound and completions by
importance weights, with one the usual bound and a draw from the encoder.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor

from shortrun.compare.contest import run_of
from shortrun.config import Config
from shortrun.data.missing import draw_masks
from shortrun.errors import InputError, check_at_least
from shortrun.evaluation.tables import markdown, spread
from shortrun.experiments.arguments import Comparison, circumstances
from shortrun.experiments.models import Models, trained
from shortrun.figures.images import captioned_rows, shade_missing, side_by_side, titled, to_rgb, write_png
from shortrun.files import read_json, write_json, write_text
from shortrun.learners import Learner, checked_for_learner, learner_class
from shortrun.metrics.figure import from_json
from shortrun.model.likelihood import Images, Mask
from shortrun.pixels import squared_error
from shortrun.streams import Use, stream
from shortrun.tasks import inpaint
from shortrun.training.setup import read_dataset

SHOWN = 10
"""Test images, and draws, of a row of the picture."""
WAYS = {"mean": "mean-filled", "mask": "masked input"}
"""What is said of a learner by what its encoder sees of incomplete images."""
HEAD = {
    "one": "MSE, one completion",
    "mean": "MSE, mean of all",
    "train": "MSE, hidden pixels of training images",
    "mse_draw": "MSE of whole test images, a draw",
    "fid_prior": "FID, prior",
    "seconds": "CPU seconds",
}
"""The words of each column that is measured."""

Row = tuple[str, Float[Tensor, "_ 3 _ _"]]
"""The words and the images of a row of the picture."""


@dataclass(frozen=True)
class Arguments(Comparison):
    """Learn from images with hidden pixels and complete test images of which as much is hidden."""

    recipe: ClassVar[str] = "digits"
    reduced: ClassVar[tuple[str, ...]] = (
        *("--budget", "40epochs", "--seeds", "1", "--samples", "2000", "--images", "100", "--completions", "8"),
        *("--training.fit-images", "1000"),
    )

    learners: tuple[str, ...] = (
        *("short_run", "vae", "vae,encoder.missing=mask"),
        "vae,encoder.missing=mask,encoder.draws=20",
    )
    missing: tuple[float, ...] = (0.3, 0.5, 0.7)
    """Shares of the pixels that are hidden; models that learned from whole images are trained beside them."""
    shape: Literal["pixels", "blocks"] = "pixels"
    """What is hidden: pixels, drawn one by one, or blocks, one rectangular hole an image."""
    images: int = 200
    """Test images that are completed."""
    completions: int = 16
    """Of each image."""

    def compete(self, configs: Mapping[str, Config], out: Path) -> str:
        """Run the experiment and return its table."""
        check_at_least(1, images=self.images)
        check_at_least(2, completions=self.completions)
        if any(config.data.incomplete for config in configs.values()):
            raise InputError("data.missing", problem="set by the experiment", instead="write --missing")
        if not self.missing or len(set(self.missing)) < len(self.missing) or 0 in self.missing:
            raise InputError("missing", " ".join(map(str, self.missing)) or "none", "write different shares above 0")
        # before the first is trained
        wanted = {rate: self.at(rate, configs) for rate in (0.0, *self.missing)}
        test = read_dataset(next(iter(configs.values()))).test
        x = test.images(slice(0, min(self.images, len(test))))
        entrants = [entrant for rate in wanted for entrant in self.learned(rate, wanted[rate], out)]
        return write(self, entrants, x, out)

    def at(self, rate: float, configs: Mapping[str, Config]) -> dict[str, Config]:
        """Return the configurations that learn at a share of hidden pixels; of whole images one of each learner."""
        if rate == 0:
            return {name: config for name, config in configs.items() if config.encoder.missing is None}
        found = {}
        for name, config in configs.items():
            shape = None if self.shape == "pixels" else self.shape
            data = dataclasses.replace(config.data, missing=rate, missing_shape=shape)
            found[name] = checked_for_learner(dataclasses.replace(config, data=data))
        return found

    def learned(self, rate: float, configs: Mapping[str, Config], out: Path) -> list["Entrant"]:
        """Train the models of a share, or go on where a kill has left them."""
        if not configs:
            return []
        print(f"{rate:.0%} of the pixels hidden while learning", flush=True)
        folder = (self.models or out / "models") / f"missing_{rate:g}"
        models = trained(dataclasses.replace(self, models=folder), configs, out)
        return [Entrant(rate, name, said(models.label[name], config, rate), models) for name, config in configs.items()]


class Entrant(NamedTuple):
    """The models of one learner at one share of hidden pixels."""

    rate: float
    """The share that was hidden while it learned; 0 for none."""
    name: str
    label: str
    models: Models

    def load(self, seed: int) -> Learner:
        """Return the model of a seed."""
        return self.models.load(self.name, seed)

    @property
    def seeds(self) -> int:
        """How many models there are."""
        return len(self.models.records[self.name])

    def values(self, figure: str) -> list[float]:
        """Return a figure that does not depend on how much of test images is hidden, of all seeds."""
        if figure == "seconds":
            return [record["training"]["cpu_seconds"] for record in self.models.records[self.name]]
        if figure != "train":
            return self.models.values(self.name, figure)
        runs = (run_of(self.models.folder, self.name, seed).result for seed in range(self.seeds))
        found = [from_json(read_json(run)).get("mse_hidden") for run in runs]
        return [each.value for each in found if each is not None and each.value is not None]


def said(label: str, config: Config, rate: float) -> str:
    """Return what a learner is called: by what its encoder sees of hidden pixels, too, where there are any."""
    kind = learner_class(config.learner)
    if not (rate and kind.has_encoder):
        return label
    words = [word for word in label.split(", ") if not word.startswith("missing ")]
    return ", ".join([words[0], WAYS[config.encoder.missing or "mean"], *words[1:]])


def masks(x: Images, rate: float, shape: Literal["pixels", "blocks"]) -> Mask:
    """Return which pixels of test images are observed, (n, 1, h, w), the same for all learners."""
    n, _, h, w = x.shape
    return draw_masks(n, h, w, rate, stream(0, Use.COMPLETION), shape).float()


def measured(arguments: Arguments, entrant: Entrant, x: Images, rate: float, out: Path) -> list[dict[str, float]]:
    """Return errors on hidden pixels of each seed; those that are kept from before are not measured again."""
    found, mask = [], masks(x, rate, arguments.shape)
    hidden = (mask <= 0.5).expand_as(x)
    counts: dict[str, Any] = {"images": len(x), "completions": arguments.completions, "shape": arguments.shape}
    for seed in range(entrant.seeds):
        path = out / "records" / f"learned_{entrant.rate:g}" / entrant.name / f"completed_{rate:g}_seed_{seed}.json"
        if not (path.is_file() and (kept := read_json(path))["counts"] == counts):
            print(f"{rate:.0%} hidden, {entrant.label} from {learned_from(entrant)}, seed {seed}", flush=True)
            made = inpaint(entrant.load(seed), x, mask, stream(seed, Use.PICTURE), arguments.completions)
            kept = {
                "counts": counts,
                "one": float(squared_error(made.completions, x)[:, hidden].mean()),
                "mean": float(squared_error(made.mean, x)[hidden].mean()),
            }
            write_json(path, kept, indent=1)
        found.append({name: kept[name] for name in ("one", "mean")})
    return found


def learned_from(entrant: Entrant) -> str:
    """Return what a model learned from, in words."""
    return f"{entrant.rate:.0%} hidden" if entrant.rate else "whole images"


def write(arguments: Arguments, entrants: list[Entrant], x: Images, out: Path) -> str:
    """Write incomplete.png, .md and .json into a folder, and return the table in Markdown.

    arguments: of the experiment.
    entrants: trained, those of whole images first.
    x: (n, c, h, w) in [-1, 1], whole test images.
    out: the folder.
    """
    rows, records = [], []
    for rate in arguments.missing:
        for entrant in entrants:
            if entrant.rate not in (0, rate):
                continue
            errors = measured(arguments, entrant, x, rate, out)
            values = {name: [each[name] for each in errors] for name in ("one", "mean")}
            values |= {name: entrant.values(name) for name in HEAD if name not in values}
            rows.append(
                [
                    f"{rate:.0%}",
                    learned_from(entrant),
                    entrant.label,
                    str(entrant.seeds),
                    *(spread(values[name]) for name in HEAD),
                ]
            )
            records.append({"hidden": rate, "learned_at": entrant.rate, "learner": entrant.name, **values})
    table = "\n".join(markdown(["hidden", "learned from", "learner", "seeds", *HEAD.values()], rows)) + "\n"
    write_text(out / "incomplete.md", table)
    options = {"images": len(x), "completions": arguments.completions, "shape": arguments.shape}
    write_json(out / "incomplete.json", {"found": records, **options, **circumstances()}, indent=1)
    completed = titled(captioned_rows(completions(arguments, entrants, x[:SHOWN])), "one completion of test images")
    draws = titled(captioned_rows(drawn(entrants)), "draws")
    write_png(side_by_side([completed, draws]), out / "incomplete.png")
    return table


def completions(arguments: Arguments, entrants: list[Entrant], x: Images) -> list[Row]:
    """Return the rows of test images, what is given of them, and one completion by each learner."""
    rows = [("test images", to_rgb(x))]
    for rate in arguments.missing:
        mask = masks(x, rate, arguments.shape)
        rows.append((f"{rate:.0%} hidden", shade_missing(x, mask)))
        for entrant in entrants:
            if entrant.rate in (0, rate):
                made = inpaint(entrant.load(0), x, mask, stream(0, Use.PICTURE), completions=1)
                rows.append((f"{entrant.label}, {learned_from(entrant)}", to_rgb(made.mean)))
    return rows


def drawn(entrants: list[Entrant]) -> list[Row]:
    """Return a row of draws of each learner, from the first source that it has."""
    rows = []
    for entrant in entrants:
        learner = entrant.load(0)
        draws = learner.sample(SHOWN, stream(0, Use.PICTURE), learner.sources[0]).cpu()
        rows.append((f"{entrant.label}, {learned_from(entrant)}", to_rgb(draws)))
    return rows
