"""Figure 3 of the paper: images with missing pixels, filled in, beside what a user could do without this package.

Source: Nijkamp et al., "Learning Multi-layer Latent Variable Model via Variational Optimization of Short Run MCMC for
Approximate Inference", ECCV 2020, arXiv 1912.01909.
"""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from shortrun.config import Config
from shortrun.errors import check_at_least
from shortrun.evaluation.tables import markdown, spread
from shortrun.experiments.arguments import Comparison, check_whole, circumstances
from shortrun.experiments.models import Models, trained
from shortrun.experiments.rivals import biharmonic, fitted_gaussian
from shortrun.figures.images import captioned_rows, shade_missing, to_rgb, write_png
from shortrun.files import read_json, write_json, write_text
from shortrun.learners import Learner, ShortRun
from shortrun.model import Gaussian, TopDown
from shortrun.model.likelihood import Images
from shortrun.pixels import to_unit
from shortrun.streams import Use, stream
from shortrun.tasks import inpaint
from shortrun.tasks.masks import brush, centre_box, half, random_pixels, stripes
from shortrun.training.setup import read_dataset

SHOWN = 10
"""Test images in the picture."""
STEPS = 100
"""Of the chains on the decoder of a learner that has none of its own."""
PERCENT = (50, 90)
"""Intervals whose share of true pixels is counted."""
Mask = Float[Tensor, "1 1 h w"]


class Filled(NamedTuple):
    """Completions of images, and what a method says of each missing pixel."""

    one: Images
    """(n, c, h, w) in [-1, 1], one completion of each."""
    mean: Images
    """The mean of all completions."""
    below: Float[Tensor, "n c h w"] | None
    """The probability that a pixel is below its true value; None of a method that says none."""


class Case(NamedTuple):
    """Images to be filled in."""

    x: Images
    """(n, c, h, w) in [-1, 1], whole."""
    mask: Mask
    """1 = observed, the same for all images."""
    train: Images
    """Whole train images, for what is fitted to them."""
    completions: int
    """Of each image."""


Method = Callable[[Case], Filled]


@dataclass(frozen=True)
class Arguments(Comparison):
    """Fill in missing pixels of five kinds, beside methods without a learned model."""

    reduced: ClassVar[tuple[str, ...]] = (*Comparison.reduced, "--images", "40")

    learners: tuple[str, ...] = ("short_run", "short_run,as-published", "vae")
    images: int = 200
    """Test images that are filled in."""
    completions: int = 16
    """Of each image."""

    def compete(self, configs: Mapping[str, Config], out: Path) -> str:
        """Run the experiment and return its table."""
        check_at_least(1, images=self.images)
        check_at_least(2, completions=self.completions)
        check_whole(configs, "the Gaussian of pixels")
        config = next(iter(configs.values()))
        dataset = read_dataset(config)
        x = dataset.test.images(slice(0, min(self.images, len(dataset.test))))
        train = dataset.train.images(slice(0, min(20_000, len(dataset.train))))
        models = trained(self, configs, out)
        step_size = config.inference.first_step_size(len(config.model.latents))[0]
        cases = {name: Case(x, mask, train, self.completions) for name, mask in masks(*x.shape[2:]).items()}
        return write(models, step_size, cases, out)


def masks(height: int, width: int) -> dict[str, Mask]:
    """Return one mask of each kind by name, drawn with seed 0."""
    size, rng = (1, height, width), torch.Generator().manual_seed(0)
    return {
        "half of the pixels at random": random_pixels(*size, rng, 0.5),
        "box in the centre": centre_box(*size),
        "right half": half(*size, keep="left"),
        "stripes": stripes(*size),
        "brush strokes": brush(*size, rng, 0.3),
    }


def methods(models: Models, step_size: float, seed: int) -> dict[str, Method]:
    """Return the ways of filling in that one model of each learner gives, by name; see `unlearned` for the others."""
    found: dict[str, Method] = {}
    for name in models.names:
        learner = models.load(name, seed)
        found[models.label[name]] = lambda case, learner=learner: by_learner(learner, case)
        generator = getattr(learner, "generator", None)
        if not learner.has_chain and isinstance(generator, TopDown):
            chain = ShortRun(generator, STEPS, step_size, description=learner.description)
            found[f"{models.label[name]}, Langevin on its decoder"] = lambda case, chain=chain: by_learner(chain, case)
    return found


def unlearned() -> dict[str, Method]:
    """Return the ways of filling in without a learned model, by name: those whose packages are installed."""
    found: dict[str, Method] = {"conditional Gaussian": by_gaussian}
    if importlib.util.find_spec("skimage") is not None:
        found["biharmonic"] = by_biharmonic
    return found


def by_learner(learner: Learner, case: Case) -> Filled:
    """Fill in by a learned model; with a Gaussian likelihood its pixel noise belongs to what it says of a pixel."""
    found = inpaint(learner, case.x, case.mask, stream(0, Use.PICTURE), case.completions)
    below = None
    likelihood = getattr(getattr(learner, "generator", None), "likelihood", None)
    if isinstance(likelihood, Gaussian):
        deviations = (case.x - found.completions) / likelihood.sigma.detach().cpu()
        below = torch.special.ndtr(deviations).mean(0)
    return Filled(found.completions[0], found.mean, below)


def by_gaussian(case: Case) -> Filled:
    """Fill in by a Gaussian of all pixels, fitted to train images: its mean, given what is observed."""
    seen = (case.mask > 0.5).expand(1, *case.x.shape[1:]).flatten()
    x, train = (to_unit(images).flatten(1).double() for images in (case.x, case.train))
    mean, variance = fitted_gaussian(train, seen).conditional(x, seen)
    below = torch.full_like(x, 0.5)
    below[:, ~seen] = torch.special.ndtr((x[:, ~seen] - mean) / variance.sqrt())
    filled = x.clone()
    filled[:, ~seen] = mean.clamp(0, 1)
    image = (2 * filled - 1).reshape(case.x.shape).to(case.x)
    return Filled(image, image, below.reshape(case.x.shape).to(case.x))


def by_biharmonic(case: Case) -> Filled:
    """Fill in by a smooth continuation of what is observed."""
    image = biharmonic(case.x, case.mask)
    return Filled(image, image, None)


def figures(filled: Filled, case: Case) -> dict[str, float | None]:
    """Return errors on missing pixels, in [0, 1], and the share of them inside the central intervals."""
    missing = (case.mask <= 0.5).expand_as(case.x)

    def error(made: Images) -> float:
        return float((to_unit(made) - to_unit(case.x))[missing].square().mean())

    return {
        "one": error(filled.one),
        "mean": error(filled.mean),
        **{f"inside_{part}": None if filled.below is None else inside(filled.below[missing], part) for part in PERCENT},
    }


def inside(below: Float[Tensor, "m"], percent: int) -> float:
    """Return the share of probabilities inside the central interval: percent / 100 where they are calibrated.

    below: (m,), of each true value the probability of what is below it.
    percent: 0 to 100.

    >>> round(inside(torch.linspace(0, 1, 1001), 50), 2)
    0.5
    """
    tail = (1 - percent / 100) / 2
    within: Bool[Tensor, "m"] = (below >= tail) & (below <= 1 - tail)
    return float(within.float().mean())


def measured(models: Models, step_size: float, cases: Mapping[str, Case], out: Path) -> list[dict[str, Any]]:
    """Return the figures of all methods, masks and seeds; those that are kept from before are not measured again."""
    of_seeds = {f"seed_{seed}": seed for seed in range(len(models.records[models.names[0]]))}
    found = []
    for stage in ("unlearned", *of_seeds):
        path, case = out / "records" / f"{stage}.json", next(iter(cases.values()))
        counts = {"images": len(case.x), "completions": case.completions, "learners": list(models.names)}
        if not (path.is_file() and (kept := read_json(path))["counts"] == counts):
            ways = unlearned() if stage == "unlearned" else methods(models, step_size, of_seeds[stage])
            kept = {"counts": counts, "found": []}
            for kind, case in cases.items():
                for name, method in ways.items():
                    print(f"{stage.replace('_', ' ')}: {kind}, {name}", flush=True)
                    kept["found"].append({"mask": kind, "method": name, **figures(method(case), case)})
            write_json(path, kept, indent=1)
        found += kept["found"]
    return found


def write(models: Models, step_size: float, cases: Mapping[str, Case], out: Path) -> str:
    """Write inpainting.png, .md and .json into a folder, and return the table in Markdown.

    models: trained.
    step_size: of chains on the decoder of a learner that has none.
    cases: by the name of their mask.
    out: the folder.
    """
    found = measured(models, step_size, cases, out)
    head = ["missing", "method", "MSE, one completion", "MSE, mean of all", *(f"inside {part}%" for part in PERCENT)]
    rows = []
    pairs = dict.fromkeys((mask, each["method"]) for mask in cases for each in found)
    for mask, name in pairs:
        runs = [each for each in found if (each["mask"], each["method"]) == (mask, name)]
        keys = ("one", "mean", *(f"inside_{part}" for part in PERCENT))
        rows.append([mask, name, *(spread([run[key] for run in runs if run[key] is not None]) for key in keys)])
    table = "\n".join(markdown(head, rows)) + "\n"
    write_text(out / "inpainting.md", table)
    write_json(out / "inpainting.json", {"found": found, "step_size": step_size, **circumstances()}, indent=1)
    write_png(captioned_rows(pictured(models, step_size, cases)), out / "inpainting.png")
    return table


def pictured(models: Models, step_size: float, cases: Mapping[str, Case]) -> list[tuple[str, Images]]:
    """Return the rows of the picture: for each mask what is given, and one completion by each method."""
    first = next(iter(cases.values())).x[:SHOWN]
    rows, ways = [("test images", to_rgb(first))], {**methods(models, step_size, 0), **unlearned()}
    for kind, case in cases.items():
        few = case._replace(x=first, completions=1)
        rows.append((kind, shade_missing(few.x, few.mask)))
        rows += [(name, to_rgb(method(few).one)) for name, method in ways.items()]
    return rows
