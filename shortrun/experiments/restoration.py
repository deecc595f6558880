"""Inverse problems: denoising, deblurring and super-resolution, beside what a user could do without this package."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from shortrun.config import Config
from shortrun.errors import check_at_least
from shortrun.evaluation.tables import markdown, spread
from shortrun.experiments.arguments import Comparison, check_whole, circumstances
from shortrun.experiments.classical import Degradation, Given, LinearEstimate, Restorer, enlarged, scores, unlearned
from shortrun.experiments.inpainting import PERCENT, inside
from shortrun.experiments.models import Models, trained
from shortrun.figures.images import captioned_rows, to_bytes, to_rgb, write_png
from shortrun.files import read_json, replacing, write_json, write_text
from shortrun.learners import Learner
from shortrun.model.likelihood import Images
from shortrun.model.linear_map import LinearMap
from shortrun.streams import Use, stream
from shortrun.tasks import Restoration, restore
from shortrun.training.setup import read_dataset

SHOWN = 6
"""Test images in the picture."""
HELD = 20
"""Train images that the weights of methods without a model are chosen on."""
TASKS = {
    "noise 0.1": Degradation(None, 1, 0.2),
    "blur 1.5, noise 0.02": Degradation(1.5, 1, 0.04),
    "a half of the size, noise 0.02": Degradation(None, 2, 0.04),
    "a quarter of the size, noise 0.02": Degradation(None, 4, 0.04),
}
"""What is restored; noise in pixels of [0, 1] in the name."""
COLUMNS = {
    "psnr_one": "PSNR, one draw",
    "psnr": "PSNR, mean",
    "ssim": "SSIM, mean",
    "inside_50": "inside 50%",
    "inside_90": "inside 90%",
}


class Restored(NamedTuple):
    """Restored images, and what a method says of each pixel."""

    one: Images
    """(n, c, h, w) in [-1, 1], one draw of each; the mean of a method that draws none."""
    mean: Images
    below: Float[Tensor, "n c h w"] | None
    """The probability that a pixel is below its true value; None of a method that says none."""


class Case(NamedTuple):
    """Images to be restored."""

    x: Images
    """(n, c, h, w) in [-1, 1], the true ones."""
    y: Given
    """What is left of them."""
    made_by: Degradation
    draws: int
    """Of each image."""


Method = Callable[[Case], Restored]


@dataclass(frozen=True)
class Arguments(Comparison):
    """Restore noisy, blurred and small images, beside methods without a learned model."""

    reduced: ClassVar[tuple[str, ...]] = (*Comparison.reduced, "--images", "40")

    learners: tuple[str, ...] = ("short_run", "vae")
    images: int = 200
    """Test images that are restored."""
    draws: int = 16
    """Of each image."""

    def compete(self, configs: Mapping[str, Config], out: Path) -> str:
        """Run the experiment and return its table."""
        check_at_least(1, images=self.images)
        check_at_least(2, draws=self.draws)
        check_whole(configs, "the linear estimate")
        dataset = read_dataset(next(iter(configs.values())))
        x = dataset.test.images(slice(0, min(self.images, len(dataset.test))))
        train = dataset.train.images(slice(0, min(10_000, len(dataset.train))))
        models, sides = trained(self, configs, out), x.shape[2:]
        cases = {
            name: Case(x, made_by.applied(x, torch.Generator().manual_seed(0)), made_by, self.draws)
            for name, made_by in TASKS.items()
            if not any(side % made_by.factor for side in sides)
        }
        return write(models, cases, train, out)


def below(restored: Restoration, x: Images) -> Float[Tensor, "n c h w"]:
    """Return the probability that each pixel is below its true value, under the mixture of what draws leave open.

    restored: draws from the posterior.
    x: (n, c, h, w) in [-1, 1], the true images.
    """
    return torch.special.ndtr((x - restored.draws) / (2 * restored.open).clamp(min=1e-6)).mean(0)


def by_learner(learner: Learner, case: Case) -> Restored:
    """Restore by a learned model."""
    made_by, rng = case.made_by, stream(0, Use.PICTURE)
    found = restore(learner, case.y, made_by.operator, made_by.sigma, rng, case.draws)
    return Restored(found.draws[0], found.mean, below(found, case.x))


def by_linear_estimate(estimate: LinearEstimate, case: Case) -> Restored:
    """Restore by the best linear estimate."""
    _, c, h, w = case.x.shape
    linear = LinearMap(case.made_by.operator, (c, h, w))
    a = torch.block_diag(*[linear.matrix] * linear.groups)
    mean, deviation = estimate(case.y.flatten(1), a, case.made_by.sigma)
    return Restored(mean, mean, torch.special.ndtr((case.x - mean) / deviation.clamp(min=1e-6)))


def without_models(train: Images) -> Callable[[Case], dict[str, Method]]:
    """Return what gives the methods without a learned model for a case, by name.

    train: whole images, which they are fitted to.
    """
    estimates: list[LinearEstimate] = []

    def linear(case: Case) -> Restored:
        if not estimates:
            estimates.append(LinearEstimate(train))
        return by_linear_estimate(estimates[0], case)

    def plain(method: Restorer) -> Method:
        return lambda case: Restored(made := method(case.y), made, None)

    def methods(case: Case) -> dict[str, Method]:
        made_by, size = case.made_by, case.x.shape[2:]
        found = {"as given" if made_by.factor == 1 else "bicubic": plain(lambda y: enlarged(y, size))}
        found |= {name: plain(method) for name, method in unlearned(made_by, train[:HELD]).items()}
        return {**found, "linear estimate": linear}

    return methods


def with_model(models: Models, name: str, seed: int) -> Callable[[Case], dict[str, Method]]:
    """Return what gives the method of a model, by its name.

    models: trained.
    name: of the learner.
    seed: of the model.
    """
    learner = models.load(name, seed)
    label = models.label[name] if learner.has_chain else f"{models.label[name]}, Langevin on its decoder"
    return lambda case: {label: partial(by_learner, learner)}


def figures(restored: Restored, case: Case) -> dict[str, float | None]:
    """Return how near restored images are to the true ones, and the share of pixels inside the central intervals."""
    one, mean, chances = scores(restored.one, case.x), scores(restored.mean, case.x), restored.below
    shares = {f"inside_{part}": None if chances is None else inside(chances.flatten(), part) for part in PERCENT}
    return {"mse": mean["MSE"], "psnr_one": one["PSNR"], "psnr": mean["PSNR"], "ssim": mean.get("SSIM"), **shares}


class Stage(NamedTuple):
    """What some methods reached on all tasks."""

    found: list[dict[str, Any]]
    """The task, the method and its figures."""
    images: list[np.ndarray]
    """Beside each, the means that it restored of the first images, bytes (n, h, w, c)."""


def measured(
    stage: str, methods: Callable[[], Callable[[Case], dict[str, Method]]], cases: Mapping[str, Case], out: Path
) -> Stage:
    """Return what methods reach on all tasks; what is kept from before is not measured again.

    stage: a name for the methods.
    methods: gives what gives the methods for a case, by name.
    cases: by the name of their task.
    out: the folder of the experiment.
    """
    path, case = out / "records" / f"{stage}.json", next(iter(cases.values()))
    pictures, counts = path.with_suffix(".npy"), {"images": len(case.x), "draws": case.draws, "tasks": list(cases)}
    if path.is_file() and (kept := read_json(path))["counts"] == counts:
        return Stage(kept["found"], list(np.load(pictures)))
    ways, found, images = methods(), [], []
    for task, case in cases.items():
        for name, method in ways(case).items():
            print(f"{stage}: {task}, {name}", flush=True)
            restored = method(case)
            found.append({"task": task, "method": name, **figures(restored, case)})
            images.append(to_bytes(restored.mean[:SHOWN]))
    with replacing(pictures) as temporary, temporary.open("wb") as file:
        np.save(file, np.stack(images))
    write_json(path, {"counts": counts, "found": found}, indent=1)
    return Stage(found, images)


def write(models: Models, cases: Mapping[str, Case], train: Images, out: Path) -> str:
    """Write restoration.png, .md and .json into a folder, and return the table in Markdown.

    models: trained.
    cases: by the name of their task.
    train: whole images, for what is fitted to them.
    out: the folder.
    """
    stages = [measured("unlearned", partial(without_models, train), cases, out)]
    for name in models.names:
        for seed in range(len(models.records[name])):
            stages.append(measured(f"{name}_seed_{seed}", partial(with_model, models, name, seed), cases, out))
    found = [each for stage in stages for each in stage.found]
    rows = []
    pairs = dict.fromkeys((task, each["method"]) for task in cases for each in found if each["task"] == task)
    for task, name in pairs:
        runs = [each for each in found if (each["task"], each["method"]) == (task, name)]
        rows.append([task, name, *(spread([run[key] for run in runs if run[key] is not None]) for key in COLUMNS)])
    table = "\n".join(markdown(["task", "method", *COLUMNS.values()], rows)) + "\n"
    write_text(out / "restoration.md", table)
    write_json(out / "restoration.json", {"found": found, **circumstances()}, indent=1)
    write_png(captioned_rows(pictured(cases, stages)), out / "restoration.png")
    return table


def pictured(cases: Mapping[str, Case], stages: list[Stage]) -> list[tuple[str, Tensor]]:
    """Return the rows of the picture: for each task what is given, and the mean by each method, of models the first.

    cases: by the name of their task.
    stages: what was measured of them.
    """
    first = next(iter(cases.values())).x[:SHOWN]
    rows = [("test images", to_rgb(first))]
    for task, case in cases.items():
        factor, made = case.made_by.factor, {}
        for stage in stages:
            for each, images in zip(stage.found, stage.images, strict=True):
                if each["task"] == task:
                    made.setdefault(each["method"], torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1)
        given = case.y[:SHOWN].clamp(-1, 1).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        rows.append((task, to_rgb(given)))
        rows += [(name, to_rgb(images)) for name, images in made.items() if name != "as given"]
    return rows
