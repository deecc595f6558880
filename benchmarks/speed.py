"""How fast the chain is: a plain loop, ours, ours compiled, and what the machine's matrix products allow.

    python -m benchmarks.speed [--threads 2] [--recipes digits mnist svhn svhn5 celeba64] [--batches 16 100]

The plain loop is Langevin dynamics as most people would write it: float32, weights that require gradients, PyTorch's
own `nn.GELU` and `nn.AdaptiveAvgPool2d` in the decoder, a process as it starts. Ours is `ShortRun.infer` as an update
calls it: bfloat16 where the machine has instructions for it, frozen weights, freed memory kept, its start and the check
at its end included. On a GPU its steps are recorded in a CUDA graph, anew for each chain, and that is part of its time.
Each way is a process of its own. They take turns, so that what else the machine does hits all of them alike. With one
thread on a CPU the time is that of the processor, which other programs hardly lengthen; with more it is that of the
clock, and the cores have to be free. A time is the least of all turns, a ratio one of such times; the median column is
the median over the turns of the ratio within a turn.

The ceiling is the fastest product of two square matrices in the same turns. "Of it" is the share of the bfloat16 one
that ours reaches, by the multiplications that PyTorch counts in a step. "Ceiling / plain" is the ratio that a chain
would have which is nothing but products at that speed.

The second table has an update of the weights in place of a chain: page faults and seconds in a process as it starts,
and with freed memory kept. The last lines say how the memory of a chain depends on K.
"""

import argparse
import datetime
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from shortrun.config import Config, load_config
from shortrun.inference.captured import CapturedStep
from shortrun.inference.compiled import CompiledStep
from shortrun.learners import ShortRun
from shortrun.model.blocks import Gelu, Pool
from shortrun.training.compiling import keep_compiled_graphs
from shortrun.training.machine import keep_freed_memory, machine
from shortrun.training.precision import autocast
from shortrun.training.processes import Processes
from shortrun.training.step import State, update

SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "svhn": (3, 32, 32), "svhn5": (3, 32, 32), "celeba64": (3, 64, 64)}
CHAINS = ["recipe", "batch", "plain, ms a step", "ours", "compiled", "plain / ours", "median", "plain / compiled"]
CHAINS += ["GFLOP a step", "of it", "ceiling / plain"]
UPDATES = ["recipe", "batch", "faults an update", "with memory kept", "seconds", "with memory kept"]
SIZES = {"cpu": 1024, "cuda": 8192}
"""Side of the matrices whose products are the ceiling."""
TURN_SECONDS = 0.5
"""A turn's chain of ours is as long as takes this, between LEAST_STEPS and the recipe's steps."""
LEAST_STEPS = 5


class StockPool(nn.Module):
    """Average pooling to 4x4 by PyTorch's own module."""

    def forward(self, h: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(h, 4).flatten(2)


def use_stock_modules(module: nn.Module) -> None:
    """Replace our blocks that stand in for PyTorch's by PyTorch's: the same function of the same weights."""
    for name, child in module.named_children():
        if isinstance(child, Gelu):
            setattr(module, name, nn.GELU())
        elif isinstance(child, Pool):
            setattr(module, name, StockPool())
        else:
            use_stock_modules(child)


def settings(recipe: str, small: bool) -> Config:
    """Return a recipe's generator with the paper's chain, from N(0, I); small: with few channels and latents."""
    config = load_config(recipe)
    model = replace(config.model, prior="normal")
    if small:
        model = replace(model, width=16, latents=tuple(4 for _ in model.latents))
    steps = 25 if config.inference.start == "regression" else config.inference.steps
    return replace(config, model=model, inference=replace(config.inference, start="prior", steps=steps))


def plain_chain(learner: ShortRun, x: Tensor, steps: int) -> None:
    """Run Langevin dynamics as most people would write it."""
    generator, step_size = learner.generator, 0.05
    z = torch.randn(len(x), generator.dim, device=x.device)
    for _ in range(steps):
        z.requires_grad_(True)
        grad = torch.autograd.grad(generator.log_joint(x, z).sum(), z)[0]
        z = z.detach() + 0.5 * step_size**2 * grad + step_size * torch.randn_like(z)


def our_chain(learner: ShortRun, x: Tensor, steps: int) -> None:
    """Run a chain as an update does."""
    with autocast("auto", x.device):
        learner.infer(x, torch.Generator(x.device).manual_seed(0), steps=steps)


def updating(learner: ShortRun, config: Config, device: str) -> Callable[[ShortRun, Tensor, int], None]:
    """Return a function that takes one update, as training does."""
    here = Processes(0, 1, torch.device(device))
    state = State.start(learner, config.training, here)

    def one(learner: ShortRun, x: Tensor, steps: int) -> None:
        rng = torch.Generator(x.device).manual_seed(0)
        update(state, x, torch.arange(len(x)), rng, config.training, here)

    return one


def work(way: str, device: str, threads: int, small: bool) -> None:
    """Serve one way: read a job from a line, run it, write seconds and page faults a step."""
    torch.set_num_threads(threads)
    if way in ("ours", "compiled", "update kept"):
        keep_freed_memory()
    keep_compiled_graphs()
    ready: dict[tuple[str, int], tuple[Callable[[ShortRun, Tensor, int], None], ShortRun, Tensor]] = {}
    for line in sys.stdin:
        job = json.loads(line)
        key = (job["recipe"], job["batch"])
        if key not in ready:
            ready.clear()
            config = settings(job["recipe"], small)
            learner = ShortRun.build(SHAPES[job["recipe"]], config.model, config.inference).to(device)
            x = 2 * torch.rand(job["batch"], *SHAPES[job["recipe"]], device=device) - 1
            run = plain_chain if way == "plain" else our_chain
            if way == "plain":
                use_stock_modules(learner)
            if way == "compiled":
                learner.step = CompiledStep((len(x), learner.dim))
            if way != "plain" and device == "cuda":
                learner.step = CapturedStep(learner.step)
            if way.startswith("update"):
                run = updating(learner, config, device)
            ready[key] = run, learner, x
        run, learner, x = ready[key]
        print(json.dumps(timed(lambda: run(learner, x, job["steps"]), device)), flush=True)  # noqa: B023


def timed(run: Callable[[], None], device: str) -> dict[str, float]:
    """Return the seconds, the page faults and the megabytes of memory at most, so far, of a function."""
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    faults, started = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, clock()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    used = resource.getrusage(resource.RUSAGE_SELF)
    megabytes = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else used.ru_maxrss / 2**10
    seconds = clock() - started
    return {"seconds": seconds, "faults": used.ru_minflt - faults, "megabytes": megabytes}


@dataclass
class Worker:
    """A process that serves one way."""

    way: str
    process: subprocess.Popen[str]

    @classmethod
    def start(cls, way: str, device: str, arguments: argparse.Namespace) -> "Worker":
        """Return one whose way is not begun yet."""
        words = [sys.executable, "-m", "benchmarks.speed", "--way", way, "--device", device]
        words += ["--threads", str(arguments.threads), *(["--small"] if arguments.small else [])]
        return cls(way, subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))

    def do(self, recipe: str, batch: int, steps: int) -> dict[str, float]:
        """Return what a chain of so many steps, or an update, took."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"recipe": recipe, "batch": batch, "steps": steps}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self) -> None:
        """End the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def product_rate(dtype: torch.dtype, device: str) -> float:
    """Return the operations a second of a product of matrices, in 10^9."""
    size = SIZES[device]
    one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    def multiply() -> None:
        torch.mm(one, other)

    return 2 * size**3 / min(timed(multiply, device)["seconds"] for _ in range(4)) / 1e9


def operations(recipe: str, batch: int, small: bool) -> float:
    """Return the operations of the products of one step, in 10^9: multiplications and additions."""
    config = settings(recipe, small)
    learner = ShortRun.build(SHAPES[recipe], config.model, config.inference)
    with FlopCounterMode(display=False) as counted:
        plain_chain(learner, torch.zeros(batch, *SHAPES[recipe]), 1)
    return counted.get_total_flops() / 1e9


def compare_chains(recipe: str, batch: int, workers: list[Worker], device: str, arguments: argparse.Namespace) -> str:
    """Return the line of a recipe and batch size in the first table."""
    most = settings(recipe, arguments.small).inference.steps
    for worker in workers:
        worker.do(recipe, batch, 1)  # whatever is set up on first use, compiling too
    once = workers[1].do(recipe, batch, LEAST_STEPS)["seconds"] / LEAST_STEPS
    steps = min(most, max(LEAST_STEPS, int(TURN_SECONDS / once)))
    turns, rates = [], {torch.float32: 0.0, torch.bfloat16: 0.0}
    for _ in range(arguments.turns):
        turns.append([worker.do(recipe, batch, steps)["seconds"] / steps for worker in workers])
        rates = {dtype: max(rate, product_rate(dtype, device)) for dtype, rate in rates.items()}
    plain, ours, *rest = map(min, zip(*turns, strict=True))
    compiled = rest[0] if rest else float("nan")
    median, count = statistics.median(turn[0] / turn[1] for turn in turns), operations(recipe, batch, arguments.small)
    ceiling = max(rates.values())
    print(f"products: {rates[torch.float32]:.0f} float32, {rates[torch.bfloat16]:.0f} bfloat16", file=sys.stderr)
    cells = [recipe, batch, *(f"{1000 * seconds:.3g}" for seconds in (plain, ours, compiled))]
    cells += [f"{plain / ours:.2f}", f"{median:.2f}", f"{plain / compiled:.2f}", f"{count:.3g}"]
    cells += [f"{count / ours / ceiling:.0%}", f"{plain * ceiling / count:.2f}"]
    return row(cells)


def compare_updates(recipe: str, batch: int, workers: list[Worker], turns: int) -> str:
    """Return the line of a recipe and batch size in the second table."""
    for worker in workers:
        worker.do(recipe, batch, 1)
    taken = [[worker.do(recipe, batch, 1) for worker in workers] for _ in range(turns)]
    faults = [f"{min(turn[i]['faults'] for turn in taken):,.0f}" for i in range(2)]
    return row([recipe, batch, *faults, *(f"{min(turn[i]['seconds'] for turn in taken):.3g}" for i in range(2))])


def compare_memory(device: str, arguments: argparse.Namespace) -> str:
    """Return what K = 100 takes of memory against K = 10, in words."""
    worker = Worker.start("ours", device, arguments)
    few, many = (worker.do(arguments.recipes[-1], 16, steps)["megabytes"] for steps in (10, 100))
    worker.end()
    return f"memory at K = 100: {many:.0f} MB, at K = 10: {few:.0f} MB, {many / few - 1:+.1%} ({arguments.recipes[-1]})"


def row(cells: list[Any]) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def show(head: list[str], lines: Callable[[str, int], str], arguments: argparse.Namespace) -> None:
    """Print a table, a line when it is known."""
    print(f"\n{row(head)}\n{row(['---'] * len(head))}", flush=True)
    for recipe in arguments.recipes:
        for batch in arguments.batches:
            print(lines(recipe, batch), flush=True)


def measure(device: str, arguments: argparse.Namespace) -> None:
    """Print the tables of a device."""
    ways = ["plain", "ours", *([] if arguments.eager else ["compiled"])]
    workers = [Worker.start(way, device, arguments) for way in ways]
    show(CHAINS, lambda recipe, batch: compare_chains(recipe, batch, workers, device, arguments), arguments)
    for worker in workers:
        worker.end()
    workers = [Worker.start(way, device, arguments) for way in ("update", "update kept")]
    few = argparse.Namespace(recipes=arguments.recipes, batches=arguments.batches[:1])
    show(UPDATES, lambda recipe, batch: compare_updates(recipe, batch, workers, min(arguments.turns, 3)), few)
    for worker in workers:
        worker.end()
    print(f"\n{compare_memory(device, arguments)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of each process")
    parser.add_argument("--recipes", nargs="+", choices=[*SHAPES], default=[*SHAPES])
    parser.add_argument("--batches", nargs="+", type=int, default=[16, 100])
    parser.add_argument("--devices", nargs="+", choices=["cpu", "cuda"], default=["cpu", "cuda"])
    parser.add_argument("--turns", type=int, default=7, help="how often each way is timed")
    parser.add_argument("--eager", action="store_true", help="leave out what is compiled")
    parser.add_argument("--small", action="store_true", help="few channels and latents, to try the benchmark")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cpu", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        work(arguments.way, arguments.device, arguments.threads, arguments.small)
        return
    torch.set_num_threads(arguments.threads)
    print(json.dumps({"command": sys.argv[1:], "machine": machine(), "date": datetime.date.today().isoformat()}))
    for device in arguments.devices:
        if device == "cuda" and not torch.cuda.is_available():
            print("\nno CUDA device is here: its table is left out")
        else:
            measure(device, arguments)


if __name__ == "__main__":
    main()
