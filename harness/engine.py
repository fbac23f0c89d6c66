"""How a trial is computed: how many seeds together, as calls or as a graph, and the words by which its rows say so.

No torch here: what is measured on a device (`pilot`) comes in as numbers.
"""

import ctypes
import os
from collections.abc import Mapping
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import NamedTuple

from grids import Cell, identity
from harness.datasets import Data, data_home
from harness.initialisation import ACTIVATIONS, parse
from harness.seen import seen

# MKL gives a product the same bits wherever in memory its matrices begin; else a seed's bits would depend on its place
# in the stack (measured: 1,101 of 14,820 products differed, none with this; no difference in speed). It is read at the
# first product of a process.
os.environ["MKL_CBWR"] = "AUTO,STRICT"
# Compiled graphs are kept for later trials and sweeps, and are compiled on the trial's own core.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(data_home() / "compiled"))
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

EAGER, COMPILED = "eager", "compiled"  # how steps are computed: as calls of torch, or as one graph
EVALUATION_BATCH = 1000  # examples that are evaluated at once
BLOCKS = {"cpu": (8, 16, 24), "cuda": (8, 32, 128, 512)}  # S that a pilot measures, by device type
UNMEASURED = 32  # S where too little is to be done to measure it
WORTH_MEASURING = 4e10  # multiplications of a shape, from which on S is measured: some seconds against one of a pilot
MOST_NUMBERS = 20_000_000  # parameters over all these seeds: 80 MB, held about five times
MEMORY_SHARE = 0.5  # of the free memory, for all trials that run at once
# Measured on one core of an AVX512 x86 with torch 2.13: a graph takes 5 to 12 s to compile and 0.2 to 0.7 s to load from
# disk (a worker's first 24 and 4 s), and saves a third to more than half of what is not matrix products. It is worth it
# from PAYS times its cost on.
COMPILE_S, LOAD_S = 10.0, 0.7
SAVED = 0.45
PAYS = 1.5
# A graph's steps are so short that they wait for memory: of MLPs of 8 × 64 at batch 32, S = 16 took 0.14 ms a seed and
# S = 24 0.15 (medians of 4 in turns), where eager steps take about the same time at either.
MOST_COMPILED = 16
# Kernels that compute the last numbers of a tensor another way than those before: unless each seed's part is a multiple
# of LANES, a seed's bits depend on its place among the others.
UNEVEN = ("sigmoid", "elu", "silu", "selu", "softplus")
LANES = 32


class How(NamedTuple):
    """How the runs of a cell are computed: with at most `block` seeds together, eager or compiled."""

    block: int = UNMEASURED
    mode: str = EAGER


class Pilot(NamedTuple):
    """What was measured of one shape on one device."""

    seconds: Mapping[int, float]  # of an eager step, for each seed, by S
    product_s: float  # of a step's matrix products alone, for each seed
    most_seeds: int  # that the memory holds
    bytes_a_seed: int = 1


def keep_memory() -> bool:
    """Have the C library keep what a step frees for the next step. False where it cannot be told so.

    glibc gives large blocks back to the system, which clears their pages anew at each step (measured: CNNs of width 32
    take 1.2 to 1.4 times as long with its defaults).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    trim_threshold, mmap_threshold = -1, -3  # as malloc.h of glibc numbers them
    return bool(mallopt(mmap_threshold, 2**30) and mallopt(trim_threshold, 2**31 - 1))


def batch_sizes(batch: int, data: Data) -> tuple[int, ...]:
    """The numbers of examples that layers see at once in a training: of steps, and of evaluations."""
    sizes = {batch}
    for part in (data.x_train, data.x_val, data.x_test):
        sizes |= {min(EVALUATION_BATCH, len(part)), len(part) % EVALUATION_BATCH}
    return tuple(sorted(sizes - {0}))


def bits_need_one_seed(cell: Cell, stackable: bool, batches: tuple[int, ...]) -> bool:
    """Whether the bits of a seed's run would depend on the seeds it is trained with, on a CPU.

    stackable: what `harness.stackable` says of the architecture. batches: numbers of examples that layers see at once.
    """
    if not stackable:
        return True
    if cell.width == 1 or 1 in batches:  # products with a vector are computed another way
        return True
    name, _ = parse(cell.activation)
    return (name in UNEVEN or name not in ACTIVATIONS) and any(cell.width * size % LANES for size in batches)


def shape(cell: Cell, data: Data) -> tuple:
    """What the speed of a step depends on, and therefore the best S: one pilot serves all cells that share it."""
    maps = parse(cell.activation)[0] == "maxout"
    drops = "drop" in cell.order.split("-")  # masks of each seed's own take several times as long as the rest
    moving = cell.shift > 0, cell.flip
    sums = cell.after_sum, cell.branch_end  # of the eight layers or so of a residual block they add or take two
    return cell.architecture, data.shape, data.classes, cell.depth, cell.width, cell.batch, maps, drops, *moving, *sums


def graph(cell: Cell, data: Data, seeds: int) -> tuple:
    """What a compiled step depends on: cells that share it share a graph. Learning rate, labels and tensors are inputs."""
    free = ("dataset", "lr", "schedule", "epochs", "dropout", "init", "init_gain", "train_size", "label_noise")
    return *cell.without(*free), data.shape, data.classes, len(seen(data, cell).x_train), seeds


def choose(pilot: Pilot) -> int:
    """S with the shortest step for each seed; of those within 5 % of it the largest, which makes fewer trials.

    What the memory holds where that is less.
    """
    if not pilot.seconds:
        return max(1, pilot.most_seeds)
    best = min(pilot.seconds.values())
    almost = max(seeds for seeds, seconds in pilot.seconds.items() if seconds <= best * 1.05)
    return max(1, min(pilot.most_seeds, almost))


def seeds_in(room_bytes: float | None, bytes_a_seed: int | None) -> float:
    """Seeds that a trial may have in a memory; infinite where either is unknown."""
    known = room_bytes is not None and room_bytes < inf and bytes_a_seed
    return room_bytes * MEMORY_SHARE // bytes_a_seed if known else inf


def can_compile(cell: Cell, convolves: bool, device_type: str) -> bool:
    """Whether a step may be one graph: the masks of 'drop' come from generators that a graph cannot hold.

    Steps that shift or mirror their examples are eager, too: graphs of them were not measured. On a CPU a graph of
    convolutions gains nothing (measured: 0.8 to 1.05 times as fast).
    """
    as_calls = "drop" in cell.order.split("-") or cell.shift or cell.flip
    return not as_calls and not (convolves and device_type == "cpu")


def pays(seed_steps: int, pilot: Pilot, block: int, uncached: int, trials: int) -> bool:
    """Whether graphs save more, over all the steps of all the seeds that use them, than they cost.

    uncached: graphs that are not on this machine's disk. Each of the trials loads its graph.
    """
    saved = seed_steps * (pilot.seconds[block] - pilot.product_s) * SAVED
    return saved > PAYS * (COMPILE_S * uncached + LOAD_S * trials)


def marker(cell: Cell, data: Data, seeds: int, code: str) -> Path:
    """The file that says that this machine has compiled this graph, and will find it on its disk."""
    what = {"graph": graph(cell, data, seeds), "code": code, "torch": version("torch")}
    return Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]) / "graphs" / identity(what)


def compile_options(device_type: str) -> dict[str, str]:
    """Of torch.compile. On a GPU whole steps are replayed as CUDA graphs."""
    return {"mode": "reduce-overhead"} if device_type == "cuda" else {}


def describe(device_type: str, capability: str, torch_version: str, mode: str, seeds: int | None) -> str:
    """The `engine` of a row; `seeds` where bits depend on it."""
    words = [device_type, capability, f"torch {torch_version}", mode]
    return ", ".join([*words, f"S={seeds}"] if seeds else words)


def recall(engine: str | None) -> tuple[str, str]:
    """Device type and mode of a row's `engine`; no type of device where it tells none."""
    words = (engine or "").split(", ")
    return words[0], COMPILED if COMPILED in words else EAGER
