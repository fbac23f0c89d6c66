"""Where trials may run: how many at once, and on which kind of accelerator. No Ray here."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from grids import Cell, Resources


class Node(NamedTuple):
    """What a node of a cluster offers."""

    cpus: float
    gpus: float
    accelerator: str = ""  # its kind, as Ray names it; empty where it has none or does not say


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
    work: Mapping[Cell, float], varied: Iterable[str], nodes: Iterable[Node], asked: Resources
) -> dict[Cell, str]:
    """The kind of accelerator for each cell: the same for all that differ only in `varied`, so for the arms of a pair.

    work: of each cell, in any unit. Every kind gets a share of it that goes by its slots. Empty where there is no choice.
    """
    room: dict[str, int] = {}
    for node in nodes:
        if count := _slots(node, asked):
            room[node.accelerator] = room.get(node.accelerator, 0) + count
    if not asked.gpus or len(room) < 2:
        return {}
    together: dict[tuple, list[Cell]] = {}
    for cell in work:
        together.setdefault(cell.without(*varied), []).append(cell)
    load = dict.fromkeys(sorted(room), 0.0)
    chosen = {}
    for cells in sorted(together.values(), key=lambda cells: -sum(work[cell] for cell in cells)):
        amount = sum(work[cell] for cell in cells)
        kind = min(load, key=lambda kind: (load[kind] + amount) / room[kind])
        load[kind] += amount
        chosen |= dict.fromkeys(cells, kind)
    return chosen
