"""The registry of measures: what is declared with a measure is all that texts and tables need to know of it."""

import importlib
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from shortrun.compare import Budget
from shortrun.compare.table import write_table
from shortrun.config import ModelConfig
from shortrun.data import Dataset, ImageSet
from shortrun.evaluation import Figure, assess
from shortrun.evaluation.assessment import Assessment
from shortrun.evaluation.measures import MEASURES, QUANTITIES
from shortrun.evaluation.quantity import LATENTS, RECONSTRUCTIONS, Measure, Quantity
from shortrun.evaluation.reconstructions import reconstructed
from shortrun.evaluation.tables import sections
from shortrun.learners import ShortRun
from shortrun.metrics.figure import to_json

SPARSITY = Quantity("sparsity", LATENTS, "sparse latents", unit="shares")
WORST = Quantity("worst_mse", RECONSTRUCTIONS, "MSE of the worst")
SPEED = Quantity("speed", "speed", "images a second")


def new_figures(assessment: Assessment) -> Iterable[Figure]:
    """Measure something of its own, on what other measures have inferred already."""
    found = assessment.once(reconstructed)
    there = {"images": len(found.codes)}
    yield SPARSITY.figure(float((found.codes.abs() < 0.1).double().mean()), there)
    yield WORST.figure(float(found.errors["mse"].max()), there)
    yield SPEED.figure(12, there)


NEW = Measure("novelty", (SPARSITY, WORST, SPEED), new_figures)


@pytest.fixture
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a line in measures.py does."""
    module = importlib.import_module("shortrun.evaluation.assess")
    monkeypatch.setattr(module, "MEASURES", (*MEASURES, NEW))
    monkeypatch.setattr(module, "PARTS", ("reconstruction", "novelty"))
    monkeypatch.setattr(
        "shortrun.compare.table.QUANTITIES", QUANTITIES | {quantity.name: quantity for quantity in NEW.quantities}
    )


@pytest.mark.usefixtures("_registered")
def test_a_new_measure_has_its_place_in_texts_and_tables(tmp_path: Path) -> None:
    learner = ShortRun.build((1, 4, 4), ModelConfig(latents=(1, 4), width=8), levels=17).eval()
    pixels = torch.randint(0, 17, (9, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    data = Dataset("noise", ImageSet(pixels, None, 17), ImageSet(pixels, None, 17))
    found = assess(learner, data, parts=["reconstruction", "novelty"])
    assert found["sparsity"].conditions["images"] == 9
    assert found["worst_mse"].value is not None
    assert found["mse"].value is not None
    assert found["worst_mse"].value > found["mse"].value
    lines = sections(found)
    titles = [line.split(":")[0] for line in lines if not line.startswith(" ")]
    assert titles == ["reconstructions", "latents", "speed", "all"]
    assert lines.index(next(line for line in lines if line.startswith("  worst_mse"))) < lines.index("latents")
    assert any(line.startswith("  sparsity") and line.endswith("  (unit shares)") for line in lines)
    words = write_table({"a": [{**to_json(found.values()), "training": {}}]}, tmp_path, Budget(1.0, "epochs"))
    heads = [line for line in words.splitlines() if "| seeds |" in line]
    assert heads[0].startswith("| rebuilding, likelihood, 1epochs | seeds | MSE of a draw")
    assert heads[0].endswith(" | second moment | MSE of the worst |")
    # the column of a known group is in the table of that group, a new group has a table of its own
    assert heads[1:] == [
        "| cost, latents, 1epochs | seeds | sparse latents |",
        "| speed, 1epochs | seeds | images a second |",
    ]


def test_names_are_of_one_quantity_each() -> None:
    assert len(QUANTITIES) == sum(len(measure.quantities) for measure in MEASURES)


def test_what_measures_share_is_found_once() -> None:
    learner = ShortRun.build((1, 4, 4), ModelConfig(latents=(1, 4), width=8), levels=17).eval()
    images = ImageSet(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), None, 17)
    counts = {"samples": 2, "likelihood_images": 0, "temperatures": 1, "importance_samples": 1, "test_images": 3}
    assessment = Assessment(
        learner, Dataset("black", images, images), 0, None, None, **counts, gap_images=0, rate_images=0, batch_size=2
    )
    assert assessment.once(reconstructed) is assessment.once(reconstructed)
