"""Turn a finished run into a model that the package brings along: weights in bfloat16, figures measured again.

    shortrun train digits --out RUN && python -m benchmarks.pretrained RUN digits

Only the decoder's weights are rounded. What is kept in closed form, the prior and the regression, stays as it is: sums
that are rounded may lose their positive eigenvalues.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from shortrun.files import read_json, write_json, write_text
from shortrun.learners.weights import read_weights, write_weights
from shortrun.metrics.figure import to_json
from shortrun.training import load
from shortrun.training.report import test_figures
from shortrun.training.run_folder import PRETRAINED, RunFolder, open_run
from shortrun.training.setup import read_dataset

ROUNDED = "generator.decoder."
CARD = """---
library_name: shortrun
tags: [generative-model, latent-variable-model]
---
# {name}

{words}

| figure of {images} test images | value |
| --- | --- |
| reconstruction error (MSE of a posterior sample, pixels in [0, 1]) | {mse:.5f} |
| latents' variance (1 in N(0, I)) | {moment:.3f} |

Made by `shortrun train {name} --out RUN && python -m benchmarks.pretrained RUN {name}`, {date}, seed {seed}. The
decoder's weights are bfloat16. `config.toml` has all settings, `result.json` all conditions.

    import shortrun
    learner = shortrun.load("pretrained:{name}")
"""
WORDS = {
    "digits": "Handwritten digits of 8x8 pixels. The images are scikit-learn's copy of Alpaydin and Kaynak's, UCI, "
    "CC BY 4.0."
}


@dataclass(frozen=True)
class Arguments:
    """Bring a finished run along with the package."""

    run: tyro.conf.Positional[Path]
    """Its folder."""
    name: tyro.conf.Positional[str]
    """The name that users will write after pretrained:."""


def main() -> None:
    """Copy, round, measure again."""
    arguments = tyro.cli(Arguments)
    run, config = open_run(arguments.run)
    out = PRETRAINED / arguments.name
    shutil.rmtree(out, ignore_errors=True)
    (out / "checkpoint").mkdir(parents=True)
    for name in ("config.toml", "origin.json", "checkpoint/config.json", "checkpoint/latent_density.safetensors"):
        shutil.copy(run.path / name, out / name)
    weights = read_weights(run.weights)
    small = {name: each.bfloat16() if name.startswith(ROUNDED) else each for name, each in weights.items()}
    write_weights(small, out / "checkpoint" / "model.safetensors")
    with torch.no_grad():
        figures = to_json(test_figures(load(out), read_dataset(config), config))
    result = {**read_json(run.result), **figures, "weights": "the decoder's in bfloat16"}
    write_json(RunFolder(out).result, result)
    card = CARD.format(
        name=arguments.name,
        words=WORDS.get(arguments.name, ""),
        images=figures["mse"]["images"],
        mse=figures["mse"]["value"],
        moment=figures["second_moment"]["value"],
        date=result["date"],
        seed=config.training.seed,
    )
    write_text(out / "README.md", card)
    before = read_json(run.result)["mse"]["value"]
    print(f"wrote {out}: error {figures['mse']['value']:.6f}, before rounding {before:.6f}")


if __name__ == "__main__":
    main()
