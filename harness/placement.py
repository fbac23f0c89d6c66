"""Where trials may run: how many at once, and on which kind of accelerator. No Ray here."""

import math
from collections.abc import Collection, Iterable, Mapping
from math import inf
from typing import NamedTuple

from grids import Cell, Resources
from harness.engine import MEMORY_SHARE

MOST_ON_A_GPU = 4  # trials, whatever its memory; a guess, since nothing was measured on a GPU


class Node(NamedTuple):
    """What a node of a cluster offers."""

    cpus: float
    gpus: float
    accelerator: str = ""  # its kind, as Ray names it; empty where it has none or does not say
    memory_bytes: float = inf


class GpuMemory(NamedTuple):
    """Of a GPU, in bytes."""

    total: int
    fixed: int  # that a process takes of it before it trains anything


def slots(nodes: Iterable[Node], asked: Resources) -> int:
    """How many trials run at once. A trial that asks for a part of a GPU has it on one, one for several has them whole."""
    return sum(_slots(node, asked) for node in nodes)


def _slots(node: Node, asked: Resources) -> int:
    by_cpu = math.floor(node.cpus / asked.cpus + 1e-9)
    if not asked.gpus:
        return by_cpu
    if asked.gpus < 1:
        return min(by_cpu, math.floor(node.gpus) * math.floor(1 / asked.gpus + 1e-9))
    return min(by_cpu, math.floor(node.gpus / asked.gpus + 1e-9))


def sharing(nodes: Iterable[Node], asked: Resources) -> int:
    """The most trials that share one memory: a GPU's, else a node's."""
    if asked.gpus:
        return max(1, math.floor(1 / asked.gpus + 1e-9))
    return max(_slots(node, asked) for node in nodes)


def room_bytes(nodes: Iterable[Node], asked: Resources, gpus: Collection[GpuMemory]) -> float:
    """Memory of a trial where it has the least. gpus: one of each kind; none where trials have no GPU that counts."""
    if asked.gpus:
        return min((gpu.total * min(1.0, asked.gpus) - gpu.fixed for gpu in gpus), default=inf)
    return min(node.memory_bytes / count for node in nodes if (count := _slots(node, asked)))


def part_of_gpu(need_bytes: float | None, gpus: Collection[GpuMemory]) -> float:
    """GPUs for each trial: a part, 1 / n, where n trials find room on the smallest one; a whole one where that is unknown.

    need_bytes: of the largest trial.
    """
    if not need_bytes:
        return 1.0
    most = min(MEMORY_SHARE * gpu.total // (need_bytes + gpu.fixed) for gpu in gpus)
    return 1.0 / max(1, min(MOST_ON_A_GPU, int(most)))


def unmet(nodes: Iterable[Node], asked: Resources) -> str | None:
    """Why no node can ever run a trial, in a line; None where one can."""
    nodes = list(nodes)
    if slots(nodes, asked):
        return None
    offers = sorted({(node.cpus, node.gpus) for node in nodes}, reverse=True)
    have = "; ".join(_size(*offer) for offer in offers[:5]) or "nothing"
    return f"a trial asks for {_size(asked.cpus, asked.gpus)}, the nodes have {have}"


def _size(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPU" + (f" and {gpus:g} GPU" if gpus else "")


def accelerators(
    work: Mapping[Cell, float],
    varied: Iterable[str],
    nodes: Iterable[Node],
    asked: Resources,
    devices: Mapping[Cell, str | None],
) -> dict[Cell, str]:
    """The kind of accelerator for each cell: the same for all that differ only in `varied`, so for the arms of a pair.

    work: of each cell, in any unit. Every kind gets a share of it that goes by its slots. devices: of finished runs, as
    their rows tell them; the same kind is kept. Empty without GPUs.
    """
    room: dict[str, int] = {}
    for node in nodes:
        if count := _slots(node, asked):
            room[node.accelerator] = room.get(node.accelerator, 0) + count
    if not asked.gpus:
        return {}
    together: dict[tuple, list[Cell]] = {}
    for cell in work:
        together.setdefault(cell.without(*varied), []).append(cell)
    before = {
        cell.without(*varied): kind
        for cell, device in devices.items()
        for kind in room
        if kind and (device or "").endswith(f"({kind})")
    }
    load = dict.fromkeys(sorted(room), 0.0)
    chosen = {}
    for cells in sorted(together.values(), key=lambda cells: -sum(work[cell] for cell in cells)):
        amount = sum(work[cell] for cell in cells)
        kind = before.get(cells[0].without(*varied)) or min(load, key=lambda kind: (load[kind] + amount) / room[kind])
        load[kind] += amount
        chosen |= dict.fromkeys(cells, kind)
    return chosen
