"""How good a model is on its way, against the time that it has learned."""

from collections.abc import Iterable

import torch
from torch import nn

from shortrun.compare.contest import Turn
from shortrun.data import Dataset
from shortrun.files import read_json, write_json
from shortrun.learners import with_generator
from shortrun.metrics import frechet_distance, mse
from shortrun.streams import Use, stream
from shortrun.training.watching import Moment, Watch

IMAGES, SAMPLES = 1000, 2000
"""Test images and draws from the prior of a point."""
FILE = "curve.json"


def points_of(total: int, points: int) -> set[int]:
    """Return the updates after which the points are measured, doubling up to the last."""
    return {max(1, round(total / 2**k)) for k in range(points)}


def noting(turn: Turn, dataset: Dataset, features: nn.Module | None, chosen: Iterable[int]) -> Watch:
    """Return a watch that notes the quality of the average weights after chosen updates in curve.json."""
    path = turn.run.path / FILE
    curve = {one["step"]: one for one in read_json(path)} if path.is_file() else {}

    def watch(moment: Moment) -> None:
        if moment.step not in chosen:
            return
        average = moment.average
        average.eval()
        rng = stream(turn.seed, Use.CURVE)
        x = dataset.test.images(slice(0, min(IMAGES, len(dataset.test))))
        # a draw of each, so that a chain's end is not set against an encoder's mean; a flow has no posterior
        noise = {"noise": True} if with_generator(average) else {}
        rebuilt = [average.reconstruct(part.to(average.device), rng, **noise).cpu() for part in x.split(500)]
        point = {"step": moment.step, "seconds": moment.seconds, "mse": float(mse(x, torch.cat(rebuilt)).mean())}
        if features is not None and average.has_prior:  # what is fitted to latents is fitted at the end alone
            drawn = torch.cat([average.sample(500, rng).cpu() for _ in range(SAMPLES // 500)])
            point["fid_prior"] = frechet_distance(features, x, drawn)
        curve[moment.step] = point
        write_json(path, [curve[step] for step in sorted(curve)])

    return watch
