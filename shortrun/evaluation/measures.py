"""All that an assessment can measure: one word for each file of measures."""

import importlib

from shortrun.evaluation.quantity import Measure

FILES = ("reconstructions", "latents", "samples", "density", "rate")
"""Files of this room that have `MEASURES`, in the order in which figures are printed; sections and columns follow."""
MEASURES: tuple[Measure, ...] = tuple(
    measure for name in FILES for measure in importlib.import_module(f"shortrun.evaluation.{name}").MEASURES
)

PARTS = tuple(dict.fromkeys(measure.part for measure in MEASURES))
"""The words by which a user asks for some of them."""
QUANTITIES = {quantity.name: quantity for measure in MEASURES for quantity in measure.quantities}
"""By name."""
