"""Figure 2 of the paper: test images, and what models learned in several ways make of them.

Source: Nijkamp et al., "Learning Multi-layer Latent Variable Model via Variational Optimization of Short Run MCMC for
Approximate Inference", ECCV 2020, arXiv 1912.01909.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shortrun.config import Config
from shortrun.experiments.arguments import Comparison
from shortrun.experiments.models import Models, trained
from shortrun.figures.images import captioned_rows, write_png
from shortrun.learners import learner_class
from shortrun.model.likelihood import Images
from shortrun.streams import Use, stream
from shortrun.training.setup import read_dataset

SHOWN = 16
"""Test images in the picture."""
FIGURES = {
    "mse_draw": "MSE of a posterior sample",
    "mse_point": "MSE of a point estimate",
    "psnr": "PSNR",
    "ssim": "SSIM",
}
"""The columns of the table."""


@dataclass(frozen=True)
class Arguments(Comparison):
    """Rebuild test images with models learned in several ways, persistent chains among them."""

    learners: tuple[str, ...] = (
        "ladder_vae",
        "short_run,as-published",
        "short_run",
        "persistent,inference.start=prior",
    )

    def compete(self, configs: Mapping[str, Config], out: Path) -> str:
        """Run the experiment and return its table."""
        configs = {name: with_equal_steps(config) for name, config in configs.items()}
        x = read_dataset(next(iter(configs.values()))).test
        return write(trained(self, configs, out), x.images(slice(0, min(SHOWN, len(x)))), out)


def with_equal_steps(config: Config) -> Config:
    """Return a configuration whose chains take as many steps for a test image as at each visit of a training image.

    A persistent chain of a training image goes on from visit to visit. A test image has no such chain: at equal K the
    comparison is of what a learner has at hand for an image that it has never seen.

    config: of any learner; only persistent chains are changed.
    """
    kind = learner_class(config.learner)
    if not kind.has_chain or kind.short_runs or config.persistent.fresh_steps is not None:
        return config
    steps = config.inference.test_steps or config.inference.steps
    return dataclasses.replace(config, persistent=dataclasses.replace(config.persistent, fresh_steps=steps))


def write(models: Models, x: Images, out: Path) -> str:
    """Write reconstruction.png, .md and .json into a folder, and return the table in Markdown.

    models: trained.
    x: (n, c, h, w) in [-1, 1], the test images of the picture.
    out: the folder.
    """
    rebuilt = [(models.label[name], models.load(name).reconstruct(x, stream(0, Use.PICTURE))) for name in models.names]
    write_png(captioned_rows([("test images", x), *rebuilt]), out / "reconstruction.png")
    return models.write(FIGURES, out, "reconstruction")
