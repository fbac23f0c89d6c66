"""Is the plain loop as fast as it can be written? Time it against variants of itself, and per training step.

$ python tests/bench/variants.py
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import chain, islice
from statistics import median
from time import perf_counter, process_time
from typing import NamedTuple

import torch
from network import build
from plain import FAST, IDIOMATIC, How, Loop, Parts, parts
from torch import nn
from torch.utils.data import TensorDataset

from grids import Cell
from harness import datasets

# Eager, as normorder is: torch.compile of the model (8 x 64, batch 100) took 32 s for its first epoch, and then 49 ms a
# training epoch against 45 (medians, n = 11, a busy machine); a cell of the default study trains for less than that.
VARIANTS = {
    "fast": FAST,
    "foreach optimiser": replace(FAST, optimiser="foreach"),
    "torch's default optimiser": replace(FAST, optimiser="loop"),
    "index_select": replace(FAST, batches="select"),
    "x[index]": replace(FAST, batches="index"),
    "torch's schedule": replace(FAST, schedule="torch"),
    "scores each step": replace(FAST, scores="step"),
    "no_grad": replace(FAST, inference_mode=False),
    "gradients set to zero": replace(FAST, set_to_none=False),
    "evaluation in 100s": replace(FAST, evaluation_batch=100),
    "tutorial, DataLoader": IDIOMATIC,
}
CONVOLUTIONAL = {"contiguous": replace(FAST, channels_last=False)}
ALLOWED = 1.1  # times the fastest variant that a baseline may take


class Timing(NamedTuple):
    """Processor seconds of an epoch with its validation, by variant, a number a round; which has the smallest median.

    Of the processor, not the clock: a single thread that waits for nothing, often beside other work.
    """

    seconds: dict[str, list[float]]
    fastest: str

    def ratio(self, name: str) -> float:
        """How many times the fastest variant `name` takes: median of the ratios of the rounds, which share disturbances."""
        return median(a / b for a, b in zip(self.seconds[name], self.seconds[self.fastest], strict=True))


def fastest_plain(cell: Cell, data: Parts, rounds: int = 11, variants: dict[str, How] | None = None) -> Timing:
    """Time every variant, an epoch of each in turn; each round begins with the next one, since who follows whom matters.

    The first round warms up and is not counted.
    """
    torch.set_num_threads(1)
    if variants is None:
        two_d = cell.architecture == "cnn" and data["train"].tensors[0].ndim == 4
        variants = {**VARIANTS, **(CONVOLUTIONAL if two_d else {})}
    cell = cell.model_copy(update={"epochs": rounds + 1})
    loops = {name: Loop(cell, 0, data, how) for name, how in variants.items()}
    names = list(loops)
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for i in range(rounds + 1):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = process_time()
            loops[name].epoch()
            seconds[name].append(process_time() - start)
    seconds = {name: each[1:] for name, each in seconds.items()}
    return Timing(seconds, min(seconds, key=lambda name: median(seconds[name])))


def seconds_per_step(
    cell: Cell, data: Parts, steps: int, make: Callable[..., nn.Module] = build, warm_up: int = 10
) -> float:
    """Mean seconds of a training step, without evaluations; of the network that `make` gives."""
    torch.set_num_threads(1)
    loop = Loop(cell, 0, data, FAST, make)
    batches = chain.from_iterable(loop.batches() for _ in iter(int, 1))
    loop.pass_over(islice(batches, warm_up))
    start = perf_counter()
    loop.pass_over(islice(batches, steps))
    return (perf_counter() - start) / steps


def show(cell: Cell, data: Parts) -> str:
    """A table of the variants of one cell, and whether FAST is fast enough."""
    timing = fastest_plain(cell, data)
    lines = [f"{cell.architecture} {cell.depth} x {cell.width}, batch {cell.batch}, {cell.order}, {cell.activation}"]
    for name, s in sorted(timing.seconds.items(), key=lambda item: median(item[1])):
        times = f"{median(s) * 1e3:7.1f} ms an epoch ({min(s) * 1e3:.1f} to {max(s) * 1e3:.1f}, n = {len(s)})"
        lines.append(f"  {name:26} {times} {timing.ratio(name):5.2f}")
    slack = timing.ratio("fast")
    lines.append(f"  the baseline takes {slack:.2f} times the fastest ({timing.fastest}); {ALLOWED} is allowed")
    return "\n".join(lines)


def main() -> None:
    common = {"order": "weight-bn-act", "activation": "relu"}
    for depth in (2, 4, 8):
        cell = Cell(dataset="mnist1d", architecture="mlp", depth=depth, **common)
        print(show(cell, parts(datasets.load("mnist1d"))), flush=True)
    micro = Cell(dataset="mnist1d", architecture="mlp", depth=8, batch=32, **common)
    print(show(micro, parts(datasets.load("mnist1d"))), flush=True)
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(1000, 1, 28, 28, generator=rng), torch.arange(1000) % 10
    images = {name: TensorDataset(x[:n], y[:n]) for name, n in (("train", 1000), ("val", 100))}
    print(show(Cell(dataset="any", architecture="cnn", depth=3, width=16, **common), images), flush=True)


if __name__ == "__main__":
    main()
