"""Inpainting against two rivals that a user has: biharmonic (scikit-image) and the conditional mean of a Gaussian.

    pip install -e '.[benchmarks]'
    python benchmarks/inpainting.py RUN [RUN ...] [--images 500] [--seeds 0 1 2]

Each RUN is a trained run on one data set (train it with several --seed for a spread over models). Half of the pixels at
random, and a centred box of half of the side, are hidden from test images; the table gives the mean squared error on
the hidden pixels, in [0, 1], for the same images and masks. Ours: the short run with the K and the noise of the run,
one completion and the mean of 16. Gaussian: full covariance, fitted to all training images, with the ridge that is best
on 200 of them held out from the fit. Both rivals are cut to [0, 1].
"""

import argparse
import datetime
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from shortrun.config import load_config
from shortrun.figures import captioned_rows, write_png
from shortrun.tasks import inpaint, masks
from shortrun.training import load
from shortrun.training.loop import read_dataset
from shortrun.training.tracking import machine

RIDGES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
COMPLETIONS = 16


def conditional_mean(mean: Tensor, covariance: Tensor, x: Tensor, mask: Tensor) -> Tensor:
    """Return x with its hidden pixels at E[hidden | observed] = m_h + C_ho C_oo^-1 (x_o - m_o), cut to [0, 1].

    x, mask: (n, d), 1 = observed; mean: (d,), covariance: (d, d), of pixels in [0, 1].
    """
    filled = x.clone()
    for row in range(len(x)):
        seen, hidden = mask[row] > 0.5, mask[row] <= 0.5
        weights = torch.linalg.solve(covariance[seen][:, seen], x[row, seen] - mean[seen])
        filled[row, hidden] = mean[hidden] + covariance[hidden][:, seen] @ weights
    return filled.clamp(0, 1)


def fit_ridge(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, float]:
    """Fit mean and covariance; choose the ridge added to the covariance on 200 images that the choice does not fit."""
    held, rest = x[:200], x[200:]
    mean, covariance = rest.mean(0), torch.cov(rest.T)
    eye = torch.eye(x.shape[1], dtype=x.dtype)
    errors = {
        ridge: hidden_error(conditional_mean(mean, covariance + ridge * eye, held, mask[:200]), held, mask[:200])
        for ridge in RIDGES
    }
    ridge = min(errors, key=lambda value: errors[value])
    return x.mean(0), torch.cov(x.T) + ridge * eye, ridge


def biharmonic(x: Tensor, mask: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Return x, (n, d) in [0, 1], with hidden pixels by scikit-image's biharmonic inpainting."""
    from skimage.restoration import inpaint_biharmonic

    filled = []
    for image, seen in zip(tqdm(x, desc="biharmonic", disable=None), mask, strict=True):
        pixels = image.reshape(shape).permute(1, 2, 0).numpy()
        hidden = (seen.reshape(shape)[0] <= 0.5).numpy()
        made = inpaint_biharmonic(pixels, hidden, channel_axis=2)
        filled.append(torch.from_numpy(np.asarray(made)).permute(2, 0, 1).flatten())
    return torch.stack(filled).to(x.dtype).clamp(0, 1)


def hidden_error(made: Tensor, x: Tensor, mask: Tensor) -> float:
    """Return the mean squared error on the hidden pixels."""
    hidden = mask <= 0.5
    return float(((made - x)[hidden] ** 2).mean())


def spread(values: list[float]) -> str:
    """Say a mean, and the standard deviation where there are several values."""
    return f"{np.mean(values):.4f}" + (f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=500, help="test images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the chains' noise")
    parser.add_argument("--steps", type=int, help="K, in place of the run's")
    parser.add_argument("--out", type=Path, default=Path("runs/inpainting"), help="folder of table and pictures")
    arguments = parser.parse_args()

    dataset = read_dataset(load_config(str(arguments.runs[0] / "config.toml")))
    x = dataset.test.images(slice(0, arguments.images))
    n, (c, h, w) = len(x), dataset.test.shape
    flat = ((x + 1) / 2).flatten(1).double()
    train = ((dataset.train.images() + 1) / 2).flatten(1).double()
    kinds = {
        "half of the pixels at random": masks.random_pixels(n, h, w, torch.Generator().manual_seed(0), 0.5),
        f"centre box {h // 2}x{w // 2}": masks.centre_box(n, h, w),
    }
    rows = []
    for kind, mask in kinds.items():
        seen = mask.expand(n, c, h, w).flatten(1)
        mean, covariance, ridge = fit_ridge(train, seen)
        gaussian = conditional_mean(mean, covariance, flat, seen)
        smooth = biharmonic(flat, seen, (c, h, w))
        single, average, pictures = [], [], None
        for run in arguments.runs:
            learner = load(run)
            for seed in arguments.seeds:
                rng = torch.Generator().manual_seed(seed)
                made = inpaint(learner, x, mask, rng, completions=COMPLETIONS, steps=arguments.steps)
                single.append(hidden_error(((made.completions[0] + 1) / 2).flatten(1).double(), flat, seen))
                average.append(hidden_error(((made.mean + 1) / 2).flatten(1).double(), flat, seen))
                pictures = pictures or made
        rows.append((kind, spread(single), spread(average), f"{hidden_error(gaussian, flat, seen):.4f}"))
        rows[-1] += (f"{hidden_error(smooth, flat, seen):.4f}", f"{ridge:g}")
        assert pictures is not None
        shown = slice(0, 12)
        strips = [("test image", x[shown]), ("given", torch.where(mask > 0.5, x, torch.zeros_like(x))[shown])]
        strips += [("ours, one", pictures.completions[0][shown]), ("ours, mean of 16", pictures.mean[shown])]
        strips += [("Gaussian", (2 * gaussian - 1).reshape(x.shape).float()[shown])]
        strips += [("biharmonic", (2 * smooth - 1).reshape(x.shape).float()[shown])]
        write_png(captioned_rows(strips), arguments.out / f"{kind.split()[0]}.png")
    lines = [
        "| hidden | ours, one completion | ours, mean of 16 | Gaussian | biharmonic |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {kind} | {one} | {many} | {rival} (ridge {ridge}) | {rough} |"
        for kind, one, many, rival, rough, ridge in rows
    ]
    table = "\n".join(lines) + "\n"
    conditions = {
        "data": dataset.name,
        "test_images": n,
        "runs": [str(run) for run in arguments.runs],
        "seeds": arguments.seeds,
        "steps": arguments.steps or "the run's",
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
