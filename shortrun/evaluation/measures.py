"""All that an assessment can measure: one line for each file of measures."""

from shortrun.evaluation import density, latents, reconstructions, samples

MEASURES = (
    *reconstructions.MEASURES,
    *latents.MEASURES,
    *samples.MEASURES,
    *density.MEASURES,
)
"""In the order in which figures are printed; sections and columns of tables follow from it."""

PARTS = tuple(dict.fromkeys(measure.part for measure in MEASURES))
"""The words by which a user asks for some of them."""
QUANTITIES = {quantity.name: quantity for measure in MEASURES for quantity in measure.quantities}
"""By name."""
