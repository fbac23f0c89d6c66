"""How a trial is computed: how many seeds together, and the words by which its rows say so. No torch here."""

import os

from grids import Cell
from harness.datasets import Data
from harness.initialisation import parse

# MKL gives a product the same bits wherever in memory its matrices begin; else a seed's bits would depend on its place
# in the stack (measured: 1,101 of 14,820 products differed, none with this; no difference in speed). It is read at the
# first product of a process.
os.environ["MKL_CBWR"] = "AUTO,STRICT"

EAGER, COMPILED = "eager", "compiled"  # how steps are computed: as calls of torch, or as one graph
EVALUATION_BATCH = 1000  # examples that are evaluated at once
MOST_SEEDS = 32
MOST_NUMBERS = 20_000_000  # parameters of a stacked model, over all its seeds: 80 MB, held about five times
# Kernels that compute the last numbers of a tensor another way than those before: unless each seed's part is a multiple
# of LANES, a seed's bits depend on its place among the others.
UNEVEN = ("sigmoid", "elu", "silu", "selu", "softplus")
LANES = 32


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
    return parse(cell.activation)[0] in UNEVEN and any(cell.width * size % LANES for size in batches)


def block_size(cell: Cell, stackable: bool, inputs: int, batches: tuple[int, ...], missing: int, slots: int) -> int:
    """S, the seeds that one trial of `cell` trains together: fewer when that keeps more slots busy.

    One where bits depend on S: grouped convolutions are slower than a loop on a CPU anyway (0.4 to 0.85 times).
    """
    if bits_need_one_seed(cell, stackable, batches):
        return 1
    numbers = cell.width * (inputs + cell.depth * cell.width)
    return max(1, min(MOST_SEEDS, MOST_NUMBERS // numbers, -(-missing // slots)))


def compile_options(device_type: str) -> dict[str, str]:
    """Of torch.compile. On a GPU whole steps are replayed as CUDA graphs."""
    return {"mode": "reduce-overhead"} if device_type == "cuda" else {}


def describe(device_type: str, capability: str, torch_version: str, seeds: int | None) -> str:
    """The `engine` of a row; `seeds` where bits depend on it."""
    words = [device_type, capability, f"torch {torch_version}", MODE]
    return ", ".join([*words, f"S={seeds}"] if seeds else words)
