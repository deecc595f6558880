"""Figure 1 of the paper: draws of models learned in several ways, side by side, and how good they are.

Source: Nijkamp et al., "Learning Multi-layer Latent Variable Model via Variational Optimization of Short Run MCMC for
Approximate Inference", ECCV 2020, arXiv 1912.01909.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shortrun.config import Config
from shortrun.experiments.arguments import Comparison
from shortrun.experiments.models import Models, trained
from shortrun.figures.images import grid, side_by_side, titled, write_png
from shortrun.streams import Use, stream

SIDE = 8
"""Rows and columns of draws of each learner."""
FIGURES = {
    "fid_prior": "FID, prior",
    "precision_prior": "precision",
    "recall_prior": "recall",
    "coverage_prior": "coverage",
    "fid_fitted": "FID, fitted density",
}
"""The columns of the table."""


@dataclass(frozen=True)
class Arguments(Comparison):
    """Draw new images from models learned in several ways and measure how near they are to test images."""

    learners: tuple[str, ...] = ("ladder_vae", "short_run,as-published", "short_run", "glow")

    def compete(self, configs: Mapping[str, Config], out: Path) -> str:
        """Run the experiment and return its table."""
        return write(trained(self, configs, out), out)


def write(models: Models, out: Path) -> str:
    """Write synthesis.png, synthesis.md and synthesis.json into a folder, and return the table in Markdown."""
    panels = []
    for name in models.names:
        learner = models.load(name)
        source = learner.sources[0]
        draws = learner.sample(SIDE * SIDE, stream(0, Use.PICTURE), source)
        panels.append(titled(grid(draws, columns=SIDE), f"{models.label[name]}: {source}"))
    write_png(side_by_side(panels), out / "synthesis.png")
    return models.write(FIGURES, out, "synthesis")
