"""How far chains get in K steps from the prior and from the regression, on test images and on images unlike them.

    python benchmarks/starts.py RUN [RUN ...] [--images 500] [--steps 1 2 4 8 25 100] [--other SOURCE --data-dir DIR]

Each RUN is a trained run whose chains start from the regression (train it with several --seed for a spread over
models). The same model infers the same images from either start, with the same step size. The tables give, for each
number of gradient evaluations K, the mean squared error in [0, 1] of a posterior sample, on the hidden pixels where
some are hidden, else on all of them, and the mean of log p(x, z) in nats over the observed pixels. Images unlike the
training images are uniform noise, the test images with black and white exchanged, and those of another data set of the
same shape (--other). ± is the standard deviation over runs.
"""

import argparse
import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from shortrun.config import load_config
from shortrun.data import load_dataset
from shortrun.learners import ChainLearner
from shortrun.pixels import difference
from shortrun.tasks import masks
from shortrun.training import load
from shortrun.training.machine import machine
from shortrun.training.setup import read_dataset

BATCH = 250


class Case(NamedTuple):
    """Images, and which of their pixels are observed."""

    name: str
    x: Tensor
    mask: Tensor | None


def cases(x: Tensor, other: Tensor | None) -> Iterator[Case]:
    """Give the kinds of images that are inferred."""
    n, _, h, w = x.shape
    rng = torch.Generator().manual_seed(0)
    yield Case("test images", x, None)
    yield Case("lower half hidden", x, masks.half(n, h, w, keep="top"))
    yield Case("half of the pixels hidden", x, masks.random_pixels(1, h, w, rng, 0.5))
    yield Case("nine tenths of the pixels hidden", x, masks.random_pixels(1, h, w, rng, 0.9))
    if other is not None:
        yield Case("another data set", other[:n], None)
    yield Case("black and white exchanged", -x, None)
    yield Case("uniform noise", 2 * torch.rand(x.shape, generator=rng) - 1, None)


@torch.no_grad()
def measured(learner: ChainLearner, case: Case, steps: int, seed: int) -> tuple[float, float]:
    """Return the error of a posterior sample and the mean of log p(x, z), over all images of a case."""
    rng, errors, heights = torch.Generator().manual_seed(seed), [], []
    for rows in torch.arange(len(case.x)).split(BATCH):
        x = case.x[rows]
        mask = case.mask if case.mask is None or len(case.mask) == 1 else case.mask[rows]
        z = learner.infer(x, rng, mask=mask, steps=steps).z
        squared = difference(learner.decode(z), x) ** 2
        looked_at = torch.ones_like(x) if mask is None else (mask <= 0.5).expand_as(x).to(x)
        errors.append((squared * looked_at).sum((1, 2, 3)) / looked_at.sum((1, 2, 3)))
        heights.append(learner.generator.log_joint(x, z, mask))
    return float(torch.cat(errors).mean()), float(torch.cat(heights).mean())


def from_start(learner: ChainLearner, start: str, case: Case, steps: int, seed: int) -> tuple[float, float]:
    """Return what `measured` does for chains of a learner that start from the prior or from its regression."""
    regression = learner.regression
    learner.regression = regression if start == "regression" else None
    try:
        return measured(learner, case, steps, seed)
    finally:
        learner.regression = regression


def spread(values: list[float], digits: int) -> str:
    """Say a mean, and the standard deviation where there are several values."""
    return f"{np.mean(values):.{digits}f}" + (f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=500, help="test images")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8, 25, 100], help="values of K")
    parser.add_argument("--seed", type=int, default=0, help="of the chains' noise")
    parser.add_argument("--other", help="a data set of the same shape, as data.source names it")
    parser.add_argument("--data-dir", type=Path, help="its folder")
    arguments = parser.parse_args()

    learners: list[ChainLearner] = []
    for run in arguments.runs:
        learner = load(run)
        if not isinstance(learner, ChainLearner) or learner.regression is None:
            parser.error(f"{run}: its chains start from no regression; train with --inference.start regression")
        learners.append(learner)
    dataset = read_dataset(load_config(str(arguments.runs[0] / "config.toml")))
    x = dataset.test.images(slice(0, arguments.images))
    other = None
    if arguments.other:
        other = load_dataset(arguments.other, data_dir=arguments.data_dir).test.images(slice(0, len(x)))
    heads = [f"K = {steps}" for steps in arguments.steps]
    tables = {name: [f"| {name} | start | {' | '.join(heads)} |"] for name in ("error", "log p(x, z), nats")}
    for lines in tables.values():
        lines.append("| --- " * (2 + len(heads)) + "|")
    for case in cases(x, other):
        for start in ("prior", "regression"):
            found = np.array(
                [[from_start(one, start, case, k, arguments.seed) for one in learners] for k in arguments.steps]
            )
            for (lines, digits), values in zip(zip(tables.values(), (4, 0), strict=True), found.T, strict=True):
                cells = [spread(list(each), digits) for each in values.T]
                lines.append(f"| {case.name} | {start} | {' | '.join(cells)} |")
    conditions = {
        "data": dataset.name,
        "other": arguments.other,
        "test_images": len(x),
        "runs": [str(run) for run in arguments.runs],
        "seed": arguments.seed,
        "pixels": "[0, 1]",
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
    }
    print("\n\n".join("\n".join(lines) for lines in tables.values()))
    print(json.dumps(conditions))


if __name__ == "__main__":
    main()
