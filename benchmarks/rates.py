"""How many images a second whole updates of the weights take, and what a long run costs at that rate.

    python -m benchmarks.rates svhn5 celeba64 [--batches 16 100] [--device cuda] [--threads 2] [--images 202599]

The generator is the recipe's, the chain the paper's, from N(0, I). Training runs as it always does, on random images,
until its rate is known: the fastest of four windows of 1.5 seconds of a run thrown away. On a GPU each line is measured
twice, with the steps of chains recorded in a CUDA graph and without. The last column is what so many images, the
recipe's epochs of them, would take in hours at the rate.
"""

import argparse
import datetime
import json
import sys
from dataclasses import replace

import torch

from benchmarks.speed import SHAPES, row, settings
from shortrun.compare.budget import updates_a_second
from shortrun.config import Config
from shortrun.data import Dataset, ImageSet
from shortrun.training.machine import machine

HEAD = ["recipe", "batch", "K", "device", "CUDA graph", "ms an update", "images a second", "GB at most", "hours"]
CELEBA = 202_599 - 19_962
"""Images of CelebA that are not for the test."""


def random_images(shape: tuple[int, int, int], count: int) -> ImageSet:
    """Return so many images of noise."""
    rng = torch.Generator().manual_seed(0)
    return ImageSet(torch.randint(256, (count, *shape), generator=rng, dtype=torch.uint8), levels=256)


def rate_line(config: Config, recipe: str, dataset: Dataset, arguments: argparse.Namespace) -> str:
    """Return the line of one measurement."""
    graph = config.training.cuda_graphs
    on_gpu, batch = arguments.device.startswith("cuda"), config.training.batch_size
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    rate = updates_a_second(config, dataset, arguments.device)
    memory = f"{torch.cuda.max_memory_allocated() / 1e9:.2f}" if on_gpu else ""
    hours = config.training.epochs * (arguments.images // batch) / rate / 3600
    cells = [recipe, batch, config.inference.steps, arguments.device, {"auto": "yes", "never": "no"}[graph]]
    return row([*cells, f"{1000 / rate:.3g}", f"{rate * batch:,.0f}", memory, f"{hours:,.2f}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", choices=[*SHAPES])
    parser.add_argument("--batches", nargs="+", type=int, default=[16, 100])
    parser.add_argument("--steps", type=int, help="of the chain; the recipe's where not given")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--images", type=int, default=CELEBA, help="of an epoch, for the hours")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(json.dumps({"command": sys.argv[1:], "machine": machine(), "date": datetime.date.today().isoformat()}))
    print(f"{row(HEAD)}\n{row(['---'] * len(HEAD))}", flush=True)
    for recipe in arguments.recipes:
        config = settings(recipe, small=False)
        dataset = Dataset("noise", random_images(SHAPES[recipe], 2048), random_images(SHAPES[recipe], 64))
        inference = replace(config.inference, steps=arguments.steps or config.inference.steps)
        for batch in arguments.batches:
            for graph in ("auto", "never") if arguments.device.startswith("cuda") else ("never",):
                training = replace(config.training, batch_size=batch, cuda_graphs=graph, threads=arguments.threads)
                run = replace(config, inference=inference, training=training)
                print(rate_line(run, recipe, dataset, arguments), flush=True)


if __name__ == "__main__":
    main()
