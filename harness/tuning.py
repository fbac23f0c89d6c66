"""How the cells of a plan are computed: as the store recalls it, else as measured and reckoned. No torch here.

A choice is made once for each architecture, shape and type of device; it is written into the rows (`seed_block`, `engine`),
and later sweeps read it back, so that a repaired study equals an undisturbed one.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from math import prod

from grids import Cell
from harness import convolves, products
from harness.datasets import Data
from harness.engine import (
    BLOCKS,
    COMPILED,
    EAGER,
    MOST_COMPILED,
    MOST_NUMBERS,
    UNMEASURED,
    WORTH_MEASURING,
    How,
    Pilot,
    can_compile,
    choose,
    graph,
    marker,
    pays,
    recall,
    seeds_in,
    shape,
)
from harness.packing import Amount, block_sizes
from harness.plan import Plan, code_version, seeds_in_engine, work
from harness.seen import seen


def to_measure(plan: Plan, data: Mapping[str, Data], device_type: str = "cpu") -> dict[tuple, tuple[Cell, list[int]]]:
    """By shape, a cell to measure and the S to try: of shapes with enough to do that the store recalls nothing of.

    Of the cells of a shape, one with the most layers in a block is measured: what is not products is a graph's gain.
    """
    recalled = _recalled(plan, data, device_type)
    amount, longest = Counter(), {}
    for cell, count in Counter(run.cell for run in plan.missing).items():
        examples = data[cell.dataset]
        key = shape(cell, examples)
        if key not in recalled and not _one_seed(cell, examples, device_type):
            amount[key] += count * work(cell, examples)
            longest[key] = max(longest.get(key, cell), cell, key=lambda each: each.order.count("-"))
    return {
        key: (longest[key], list(BLOCKS[device_type]))
        for key, multiplications in amount.items()
        if multiplications >= WORTH_MEASURING
    }


def choose_how(
    plan: Plan,
    data: Mapping[str, Data],
    pilots: Mapping[tuple, Pilot],
    slots: int,
    mode: str | None = None,
    device_type: str = "cpu",
    room_bytes: float | None = None,
) -> dict[Cell, How]:
    """How each missing cell is computed. pilots: by shape. mode: of new cells, in place of any other choice.

    room_bytes: memory that a trial has on the smallest node.
    """
    count = Counter(run.cell for run in plan.missing)
    recalled, modes = _recalled(plan, data, device_type), _modes(plan, data, device_type)
    needs = bytes_a_seed(plan, data, pilots, device_type)
    block = {}
    for cell in count:
        most = _block(cell, data[cell.dataset], recalled, pilots, device_type)
        block[cell] = max(1, int(min(most, seeds_in(room_bytes, needs.get(cell)))))
    steps, trials, uncached = Counter(), Counter(), defaultdict(set)  # by shape; uncached: graphs not on the disk
    sizes = block_sizes(
        {
            cell: Amount(seeds, _in_a_graph(block[cell], device_type), work(cell, data[cell.dataset]))
            for cell, seeds in count.items()
        },
        slots,
    )
    for cell, seeds in count.items():
        examples = data[cell.dataset]
        key = shape(cell, examples)
        if key in pilots and can_compile(cell, convolves(cell.architecture), device_type):
            size = sizes[cell]
            steps[key] += seeds * cell.epochs * (len(seen(examples, cell).x_train) // cell.batch)
            trials[key] += -(-seeds // size)
            if not marker(cell, examples, size, code_version(cell.architecture, cell.activation)).exists():
                uncached[key].add(graph(cell, examples, size))

    def mode_of(cell: Cell) -> str:
        if _made_here(cell, plan, device_type):
            return recall(plan.made[cell].engine)[1]
        if not can_compile(cell, convolves(cell.architecture), device_type):
            return EAGER
        key = shape(cell, data[cell.dataset])
        if known := mode or modes.get(key):
            return known
        pilot = pilots.get(key)
        if pilot is None or block[cell] not in pilot.seconds:
            return EAGER
        return COMPILED if pays(steps[key], pilot, block[cell], len(uncached[key]), trials[key]) else EAGER

    hows = {cell: How(block[cell], mode_of(cell)) for cell in count}
    compiled = {
        cell: How(_in_a_graph(how.block, device_type), COMPILED) for cell, how in hows.items() if how.mode == COMPILED
    }
    return hows | compiled


def _in_a_graph(block: int, device_type: str) -> int:
    """S of a compiled trial where an eager one has `block`."""
    return min(block, MOST_COMPILED) if device_type == "cpu" else block


def bytes_a_seed(
    plan: Plan, data: Mapping[str, Data], pilots: Mapping[tuple, Pilot], device_type: str
) -> dict[Cell, int]:
    """Memory that a seed of each missing cell takes: as rows of its shape in the store tell it, else as a pilot measured."""
    known = Counter()
    for cell, made in plan.made.items():
        if _made_here(cell, plan, device_type):
            key = shape(cell, data[cell.dataset])
            known[key] = max(known[key], made.memory_bytes or 0)
    needs = {}
    for cell in {run.cell for run in plan.missing}:
        key = shape(cell, data[cell.dataset])
        if need := known[key] or (key in pilots and pilots[key].bytes_a_seed):
            needs[cell] = need
    return needs


def largest(
    hows: Mapping[Cell, How], plan: Plan, data: Mapping[str, Data], pilots: Mapping[tuple, Pilot], device_type: str
) -> float | None:
    """Bytes of the trial that takes the most memory; None where a cell's are unknown."""
    needs = bytes_a_seed(plan, data, pilots, device_type)
    return max(needs[cell] * how.block for cell, how in hows.items()) if needs.keys() >= hows.keys() else None


def _block(cell: Cell, data: Data, recalled: Mapping, pilots: Mapping, device_type: str) -> int:
    """The most seeds that a trial of `cell` has."""
    key = shape(cell, data)
    if _one_seed(cell, data, device_type):
        return 1
    if key in recalled:
        return recalled[key]
    if key in pilots:
        return choose(pilots[key])
    numbers = cell.width * (prod(data.shape) + cell.depth * products(cell.architecture) * cell.width)
    return max(1, min(UNMEASURED, int(MOST_NUMBERS // numbers)))


def _recalled(plan: Plan, data: Mapping[str, Data], device_type: str) -> dict[tuple, int]:
    """By shape, the S that was chosen when finished runs of this plan were made on this type of device.

    Not from cells that must have one seed, by their activation, whose shape others share.
    """
    return {
        shape(cell, data[cell.dataset]): made.seed_block
        for cell, made in plan.made.items()
        if made.seed_block
        and _made_here(cell, plan, device_type)
        and not _one_seed(cell, data[cell.dataset], device_type)
    }


def _modes(plan: Plan, data: Mapping[str, Data], device_type: str) -> dict[tuple, str]:
    """By shape, the mode of finished runs that could have had either: a cell that was lost altogether looks new."""
    return {
        shape(cell, data[cell.dataset]): recall(made.engine)[1]
        for cell, made in plan.made.items()
        if _made_here(cell, plan, device_type) and can_compile(cell, convolves(cell.architecture), device_type)
    }


def _made_here(cell: Cell, plan: Plan, device_type: str) -> bool:
    """Whether finished runs of a cell were made on this type of device."""
    return cell in plan.made and recall(plan.made[cell].engine)[0] == device_type


def _one_seed(cell: Cell, data: Data, device_type: str) -> bool:
    return seeds_in_engine(cell, data, device_type, seeds=0) == 1
