"""What the learners of a comparison make, side by side, and how good they are after how much time."""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from shortrun.charts import COLOURS, page
from shortrun.data import ImageSet
from shortrun.figures import captioned_rows
from shortrun.learners import Learner
from shortrun.training.streams import PICTURE, stream

IMAGES = 12


def draw_images(learners: Mapping[str, Learner], test: ImageSet) -> Image.Image:
    """Draw the same test images as each learner rebuilds them, and draws of each from prior and fitted density."""
    x = test.images(slice(0, min(IMAGES, len(test))))
    rows = [("test images", x)]
    for name, learner in learners.items():
        rows.append((f"{name}: rebuilt", learner.reconstruct(x, stream("cpu", 0, PICTURE))))
    for name, learner in learners.items():
        rows.append((f"{name}: prior", learner.sample(len(x), stream("cpu", 0, PICTURE))))
        if getattr(learner, "latent_density", None) is not None:
            rows.append((f"{name}: fitted", learner.sample(len(x), stream("cpu", 0, PICTURE), "fitted")))
    return captioned_rows(rows)


def draw_curves(curves: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> Image.Image:
    """Draw error and Frechet distance against seconds of training, a thin line a seed.

    curves: for each name and seed the points, each with seconds, mse and fid_prior.
    """
    with page(1, 2, (5.5, 4.0)) as sheet:
        for panel, key, label in zip(
            sheet.panels,
            ("mse", "fid_prior"),
            ("test MSE, pixels in [0, 1]", "FID of draws from the prior, own features"),
            strict=True,
        ):
            for (name, runs), colour in zip(curves.items(), COLOURS * (1 + len(curves) // len(COLOURS)), strict=False):
                for seed, points in enumerate(runs):
                    # what rebuilds exactly has no place on a logarithmic axis
                    shown = [point for point in points if point[key] > 1e-7]
                    seconds, values = [point["seconds"] for point in shown], [point[key] for point in shown]
                    style = {"color": colour, "linewidth": 1, "markersize": 3}
                    panel.plot(seconds, values, "o-", label=name if seed == 0 and shown else None, **style)
            panel.set(xscale="log", yscale="log", xlabel="training, seconds", ylabel=label)
            panel.legend()
        return sheet.picture()
