"""How many trials run at once, on what, and what is told where none can."""

from math import inf

import pytest

from grids import Cell, Resources
from harness.engine import MEMORY_SHARE
from harness.placement import GpuMemory, Node, accelerators, part_of_gpu, room_bytes, sharing, slots, unmet


def cell(order="weight-bn-act", depth=1):
    return Cell(dataset="digits", architecture="mlp", order=order, activation="relu", depth=depth)


@pytest.mark.parametrize(
    ("nodes", "asked", "expected"),
    [
        ([Node(2, 0)], Resources(), 2),
        ([Node(0.5, 0)] * 4, Resources(cpus=0.5), 4),
        ([Node(0.5, 0)] * 4, Resources(), 0),
        ([Node(0.3, 0)], Resources(cpus=0.1), 3),
        ([Node(8, 1), Node(8, 0)], Resources(gpus=0.25), 4),
        ([Node(8, 2)], Resources(gpus=0.4), 4),  # two on each, never one on parts of two
        ([Node(8, 3)], Resources(gpus=2), 1),
        ([Node(1, 4)], Resources(gpus=1), 1),
    ],
)
def test_slots_are_what_every_node_holds_of_what_is_asked(nodes, asked, expected):
    assert slots(nodes, asked) == expected


def test_what_no_node_can_meet_is_told_with_the_sizes():
    assert unmet([Node(4, 0), Node(2, 1)], Resources(gpus=0.5)) is None
    told = unmet([Node(4, 0), Node(2, 1), Node(2, 1)], Resources(cpus=3, gpus=1))
    assert told == "a trial asks for 3 CPU and 1 GPU, the nodes have 4 CPU; 2 CPU and 1 GPU"


def test_the_arms_of_a_pair_have_one_kind_of_accelerator_and_each_kind_a_share_by_its_slots():
    arms = ("weight-bn-act", "weight-act-bn", "weight-act")
    work = {cell(order, depth): 1.0 for depth in range(1, 13) for order in arms}
    nodes = [Node(8, 1, "A100"), Node(8, 3, "T4"), Node(8, 0)]
    chosen = accelerators(work, ("order",), nodes, Resources(gpus=1), {})
    by_depth = {depth: {chosen[cell(order, depth)] for order in arms} for depth in range(1, 13)}
    assert all(len(kinds) == 1 for kinds in by_depth.values())
    assert sum(kinds == {"T4"} for kinds in by_depth.values()) == 9


def test_the_kind_of_a_finished_run_is_kept_for_all_that_are_compared_with_it():
    nodes = [Node(8, 8, "A100"), Node(8, 1, "T4")]
    done = {cell("weight-act-bn", 1): "NVIDIA T4 (T4)", cell(depth=2): "NVIDIA H100 (H100)", cell(depth=3): None}
    work = {cell(depth=depth): 1.0 for depth in (1, 2, 3)}
    chosen = accelerators(work, ("order",), nodes, Resources(gpus=1), done)
    assert list(map(chosen.get, work)) == ["T4", "A100", "A100"]


def test_there_is_nothing_to_choose_without_gpus():
    nodes = [Node(8, 1, "A100"), Node(8, 1, "T4")]
    assert accelerators({cell(): 1.0}, ("order",), nodes, Resources(), {}) == {}


@pytest.mark.parametrize(
    ("nodes", "asked", "expected"),
    [
        ([Node(2, 0), Node(16, 0)], Resources(), 16),
        ([Node(2, 0), Node(16, 0)], Resources(cpus=0.5), 32),
        ([Node(16, 4)], Resources(gpus=0.25), 4),
        ([Node(16, 4)], Resources(gpus=0.3), 3),
        ([Node(16, 4)], Resources(gpus=2), 1),
    ],
)
def test_trials_share_the_memory_of_a_node_or_of_a_gpu(nodes, asked, expected):
    assert sharing(nodes, asked) == expected


def test_a_trial_has_the_memory_of_the_smallest_node():
    nodes = [Node(8, 0, "", 64e9), Node(2, 0, "", 4e9), Node(0, 0, "", 1e9)]
    assert room_bytes(nodes, Resources(), []) == 2e9
    assert room_bytes(nodes, Resources(cpus=4), []) == 32e9


def test_a_trial_has_its_part_of_the_smallest_gpu_less_what_a_process_takes():
    gpus = [GpuMemory(80_000, 500), GpuMemory(16_000, 400)]
    assert room_bytes([Node(8, 4)], Resources(gpus=0.25), gpus) == 3600
    assert room_bytes([Node(8, 4)], Resources(gpus=2), gpus) == 15_600
    assert room_bytes([Node(8, 4)], Resources(gpus=1), []) == inf  # torch cannot use it, or cannot tell


@pytest.mark.parametrize(("need", "expected"), [(None, 1.0), (9000, 1.0), (3500, 0.5), (2200, 1 / 3), (10, 0.25)])
def test_as_many_trials_share_a_gpu_as_find_room_in_the_part_that_may_be_used(need, expected):
    assert MEMORY_SHARE * 16_000 == 8000
    assert part_of_gpu(need, [GpuMemory(80_000, 400), GpuMemory(16_000, 400)]) == expected
