"""How many seeds each trial of a plan has, so that all slots have work to the end. No torch, no Ray here.

No number of any run depends on it.
"""

from collections.abc import Iterable, Mapping
from heapq import heapreplace
from typing import NamedTuple

from grids import Cell

# What a trial costs whatever its S, in seeds: measured 0.4 to 1.9 for 12 cells of the default study (S = 1 to 24).
SHARED = 1
# Multiplications that a slot could do while the one process that starts trials starts one: 11 ms at 8·10⁹ a second.
STARTING = 9e7
ERROR = 0.5  # by which the last trial may be longer than is reckoned: measured lengths are 0.7 to 1.5 times those here
ENOUGH = 10  # trials a slot, from which on their sizes hardly matter to when the last one ends
FINER = 1.02  # between the lengths of trials that are tried


class Amount(NamedTuple):
    """What is to be done of a cell."""

    runs: int
    block: int  # the most seeds of a trial
    work: float  # of a run, in multiplications


def length(work: float, seeds: int) -> float:
    """Of a trial, in multiplications: what its steps cost without company is not divided."""
    return work * (seeds + SHARED)


def block_sizes(cells: Mapping[Cell, Amount], slots: int) -> dict[Cell, int]:
    """S of the trials of each cell: its block, or fewer where the last trial then ends sooner on so many slots.

    All trials are cut at one length, in equal parts of a cell; the length is that with which they end soonest, of those
    from the longest trial's down to single seeds. On one slot, and where each has many trials, blocks stay whole.
    """
    if not cells:
        return {}
    best = sizes = _cut(cells, float("inf"))
    soonest, most = float("inf"), max(_lengths(cells, sizes))
    while slots > 1 and sum(-(-each.runs // sizes[cell]) for cell, each in cells.items()) <= ENOUGH * slots:
        lengths = _lengths(cells, sizes)
        if sum(lengths) / slots >= soonest or len(lengths) * STARTING >= soonest:
            break  # and more so with still shorter ones
        if (end := ends(lengths, slots) + ERROR * max(lengths)) < soonest:
            best, soonest = sizes, end
        if max(sizes.values()) == 1:
            break
        most /= FINER
        sizes = _cut(cells, most)
    return best


def _cut(cells: Mapping[Cell, Amount], most: float) -> dict[Cell, int]:
    """S of equal parts of each cell, none longer than `most` but for single seeds."""
    return {cell: _part(each, most) for cell, each in cells.items()}


def _part(amount: Amount, most: float) -> int:
    seeds = max(1, int(min(amount.runs, amount.block, most / amount.work - SHARED)))
    return -(-amount.runs // -(-amount.runs // seeds))


def _lengths(cells: Mapping[Cell, Amount], sizes: Mapping[Cell, int]) -> list[float]:
    return [
        length(each.work, min(sizes[cell], each.runs - first))
        for cell, each in cells.items()
        for first in range(0, each.runs, sizes[cell])
    ]


def ends(lengths: Iterable[float], slots: int, starting: float = STARTING) -> float:
    """When the last trial ends: the longest first, each on the slot that is free first, one started at a time."""
    free, begun = [0.0] * slots, 0.0
    for each in sorted(lengths, reverse=True):
        begun = max(begun, free[0]) + starting
        heapreplace(free, begun + each)
    return max(free)
