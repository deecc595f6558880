"""What an update of the weights spends where, in per cent, for each recipe.

    python -m benchmarks.update_profile digits mnist svhn svhn5 [--batch 16] [--threads 1]
    python -m benchmarks.update_profile mnist --start regression --prior mixture --steps 4 --batch 100

PyTorch's profiler records one update, as training does it and without compiling, after two that are not recorded. Where
something is fitted to the latents of updates, it records the updates from one fit to the next, after the first fits.
The images are random numbers. The first table has the parts of an update, the second the kinds of operations in its
chain.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.speed import SHAPES, row, settings
from shortrun.config import Config
from shortrun.learners import ShortRun
from shortrun.learners import chain as chains
from shortrun.learners.latent_learner import WINDOW
from shortrun.model import casting
from shortrun.training.machine import keep_freed_memory
from shortrun.training.processes import Processes
from shortrun.training.step import State, update

PARTS = ("chain", "start", "weights cast", "loss", "fits", "backward", "clipping", "optimizer", "average", "the rest")
KINDS = {
    "convolutions": ("convolution",),
    "products of matrices": ("mm",),
    "GELU": ("gelu",),
    "casts and copies": ("copy_", "_to_copy"),
    "sums": ("aten::add", "aten::sum"),
}


def named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose time the profiler finds under a name."""

    def run(*values: Any, **options: Any) -> Any:
        with record_function(name):
            return function(*values, **options)

    return run


def ancestors(event: FunctionEvent) -> list[str]:
    """Return the names of the operations that an operation is part of."""
    names = []
    while event.cpu_parent is not None:
        event = event.cpu_parent
        names.append(event.name)
    return names


def kind_of(operation: str) -> str:
    """Return which of the kinds an operation is of."""
    return next((kind for kind, parts in KINDS.items() if any(part in operation for part in parts)), "the rest")


def profiled(arguments: argparse.Namespace, recipe: str) -> Config:
    """Return the settings of a recipe, with those of the command line in their place."""
    config = settings(recipe, small=False)
    inference = replace(config.inference, start=arguments.start, steps=arguments.steps or config.inference.steps)
    training = replace(config.training, batch_size=arguments.batch or config.training.batch_size)
    model = replace(config.model, prior=arguments.prior)
    return replace(config, inference=inference, training=training, model=model)


def recorded_updates(config: Config, recipe: str) -> list[FunctionEvent]:
    """Return the operations of one update, or of all from one fit to the next."""
    here, batch = Processes(0, 1, torch.device("cpu")), config.training.batch_size
    learner = ShortRun.build(SHAPES[recipe], config.model, config.inference)
    state = State.start(learner, config.training, here)
    state.optimizer.step = named("optimizer", state.optimizer.step)
    state.average.update_parameters = named("average", state.average.update_parameters)
    learner._joint = named("loss", learner._joint)
    learner.start = named("start", learner.start)
    learner.fit_latents = named("fits", learner.fit_latents)
    x, rows = 2 * torch.rand(batch, *SHAPES[recipe]) - 1, torch.arange(batch)

    def one() -> None:
        update(state, x, rows, torch.Generator().manual_seed(0), config.training, here)

    one()
    one()
    while not learner.settled:
        one()
    with profile(activities=[ProfilerActivity.CPU]) as found, record_function("update"):
        for _ in range(WINDOW if learner.keeps_latents else 1):
            one()
    return list(found.events() or [])


def shares(events: list[FunctionEvent]) -> tuple[list[float], list[float]]:
    """Return the share of each part in an update, and of each kind of operation in its chain."""
    times = Counter[str]()
    for event in events:
        times[event.name] += event.cpu_time_total
    parts = [times[name] / times["update"] for name in PARTS[:-1]]
    kinds: Counter[str] = Counter()
    for event in events:
        if "chain" in ancestors(event):
            kinds[kind_of(event.name)] += event.self_cpu_time_total
    inside = [kinds[kind] / times["chain"] for kind in KINDS]
    return [*parts, 1 - sum(parts)], [*inside, 1 - sum(inside)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", choices=[*SHAPES])
    parser.add_argument("--batch", type=int, help="images of an update; the recipe's where not given")
    parser.add_argument("--steps", type=int, help="of the chain; the recipe's where not given")
    parser.add_argument("--start", choices=["prior", "regression"], default="prior")
    parser.add_argument("--prior", choices=["normal", "mixture"], default="normal")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    # what an update calls, under names that the profiler keeps apart
    chains.short_run = named("chain", chains.short_run)
    torch.nn.utils.clip_grad_norm_ = named("clipping", torch.nn.utils.clip_grad_norm_)
    torch.Tensor.backward = named("backward", torch.Tensor.backward)
    casting.cast_weights = named("weights cast", casting.cast_weights)
    lines = []
    print(f"{row(['recipe', 'batch', *PARTS])}\n{row(['---'] * (2 + len(PARTS)))}")
    for recipe in arguments.recipes:
        config = profiled(arguments, recipe)
        batch = config.training.batch_size
        parts, kinds = shares(recorded_updates(config, recipe))
        print(row([recipe, batch, *(f"{share:.1%}" for share in parts)]), flush=True)
        lines.append(row([recipe, batch, *(f"{share:.1%}" for share in kinds)]))
    print("\n".join(["", row(["recipe", "batch", *KINDS, "the rest"]), row(["---"] * (3 + len(KINDS))), *lines]))


if __name__ == "__main__":
    main()
