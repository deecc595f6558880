"""Inpainting against two rivals that a user has: biharmonic (scikit-image) and the conditional mean of a Gaussian.

    pip install -e '.[benchmarks]'
    python benchmarks/inpainting.py RUN [RUN ...] [--images 200] [--steps 50 400]

Each RUN is a trained run on one data set (train it with several --seed for a spread over models). Half of the pixels at
random, and a centred box of half of the side, are hidden from test images; the table gives the mean squared error on
the hidden pixels, in [0, 1], for the same images and masks. Ours: chains of K steps with noise, one completion and the
mean of 16; ± is the standard deviation over runs. Gaussian: full covariance, fitted to all training images, with the
ridge that is best on 200 of them held out from the fit. Both rivals are cut to [0, 1]. The last column is the
difference of our mean of 16 from the Gaussian, with its standard error over images: below 0 ours is better.
"""

import argparse
import datetime
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from shortrun.config import load_config
from shortrun.experiments.rivals import HELD_OUT, RIDGES, Gaussian, biharmonic
from shortrun.figures.images import captioned_rows, write_png
from shortrun.pixels import to_unit
from shortrun.tasks import inpaint, masks
from shortrun.training import load
from shortrun.training.machine import machine
from shortrun.training.setup import read_dataset

COMPLETIONS = 16


def conditional_mean(pixels: Gaussian, x: Tensor, mask: Tensor) -> Tensor:
    """Return x with its hidden pixels at E[hidden | observed], cut to [0, 1].

    x, mask: (n, d), pixels in [0, 1], 1 = observed; each image has a mask of its own.
    """
    filled = x.clone()
    for row, seen in enumerate(mask > 0.5):
        filled[row, ~seen] = pixels.conditional(x[row : row + 1], seen)[0][0].clamp(0, 1)
    return filled


def fit_ridge(x: Tensor, mask: Tensor) -> Gaussian:
    """Fit a Gaussian; choose the ridge added to its variances on 200 images that the choice does not fit."""
    count = min(HELD_OUT, len(mask))
    held, rest, hidden = x[:count], Gaussian.of(x[count:]), mask[:count]

    def error(ridge: float) -> float:
        return hidden_error(conditional_mean(rest.with_ridge(ridge), held, hidden), held, hidden)

    return Gaussian.of(x).with_ridge(min(RIDGES, key=error))


def smooth_continuation(x: Tensor, mask: Tensor) -> Tensor:
    """Return images (n, c, h, w) in [-1, 1], each filled in under its own mask (n, 1, h, w)."""
    return torch.cat([biharmonic(x[row : row + 1], mask[row : row + 1]) for row in range(len(x))])


def hidden_errors(made: Tensor, x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean squared error on the hidden pixels of each image, (n,)."""
    hidden = (mask <= 0.5).double()
    return ((made - x) ** 2 * hidden).sum(1) / hidden.sum(1)


def hidden_error(made: Tensor, x: Tensor, mask: Tensor) -> float:
    """Return the mean squared error on the hidden pixels."""
    return float(hidden_errors(made, x, mask).mean())


def spread(values: list[float]) -> str:
    """Say a mean, and the standard deviation where there are several values."""
    return f"{np.mean(values):.4f}" + (f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=200, help="test images")
    parser.add_argument("--seed", type=int, default=0, help="of the chains' noise")
    parser.add_argument("--steps", type=int, nargs="+", default=[50, 400], help="values of K")
    parser.add_argument("--out", type=Path, default=Path("runs/inpainting"), help="folder of table and pictures")
    arguments = parser.parse_args()

    dataset = read_dataset(load_config(str(arguments.runs[0] / "config.toml")))
    x = dataset.test.images(slice(0, arguments.images))
    n, (c, h, w) = len(x), dataset.test.shape
    flat, train = (to_unit(images).flatten(1).double() for images in (x, dataset.train.images()))
    kinds = {
        "half of the pixels at random": masks.random_pixels(n, h, w, torch.Generator().manual_seed(0), 0.5),
        f"centre box {h // 2}x{w // 2}": masks.centre_box(n, h, w),
    }
    lines = [
        "| hidden | K | ours, one completion | ours, mean of 16 | Gaussian | biharmonic | mean of 16 - Gaussian |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    learners = [load(run) for run in arguments.runs]
    for kind, mask in kinds.items():
        seen = mask.expand(n, c, h, w).flatten(1)
        pixels = fit_ridge(train, seen)
        gaussian = conditional_mean(pixels, flat, seen)
        smooth = to_unit(smooth_continuation(x, mask)).flatten(1).to(flat)
        of_gaussian, of_smooth = (hidden_error(made, flat, seen) for made in (gaussian, smooth))
        rivals = f"{of_gaussian:.4f} (ridge {pixels.ridge:g}) | {of_smooth:.4f}"
        for steps in arguments.steps:
            single, average, differences = [], [], []
            for learner in learners:
                rng = torch.Generator().manual_seed(arguments.seed)
                made = inpaint(learner, x, mask, rng, completions=COMPLETIONS, steps=steps, batch_size=800)
                one, many = (to_unit(part).flatten(1).double() for part in (made.completions[0], made.mean))
                single.append(hidden_error(one, flat, seen))
                average.append(hidden_error(many, flat, seen))
                differences.append(hidden_errors(many, flat, seen) - hidden_errors(gaussian, flat, seen))
            paired = torch.stack(differences).mean(0)
            gain = f"{float(paired.mean()):+.4f} ± {float(paired.std()) / n**0.5:.4f}"
            lines.append(f"| {kind} | {steps} | {spread(single)} | {spread(average)} | {rivals} | {gain} |")
            print(lines[-1], flush=True)
            first = slice(0, 12)
            strips = [("test image", x[first]), ("given", torch.where(mask > 0.5, x, torch.zeros_like(x))[first])]
            strips += [("ours, one", made.completions[0][first]), ("ours, mean of 16", made.mean[first])]
            strips += [("Gaussian", (2 * gaussian - 1).reshape(x.shape).float()[first])]
            strips += [("biharmonic", (2 * smooth - 1).reshape(x.shape).float()[first])]
            write_png(captioned_rows(strips), arguments.out / f"{kind.split()[0]}_{steps}_steps.png")
    table = "\n".join(lines) + "\n"
    conditions = {
        "data": dataset.name,
        "test_images": n,
        "runs": [str(run) for run in arguments.runs],
        "seed": arguments.seed,
        "pixels": "[0, 1]",
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "table.md").write_text(table)
    (arguments.out / "conditions.json").write_text(json.dumps(conditions, indent=2) + "\n")
    print(table, json.dumps(conditions))


if __name__ == "__main__":
    main()
