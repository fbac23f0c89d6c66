"""How many trials run at once, on what, and what is told where none can."""

import pytest

from grids import Cell, Resources
from harness.placement import Node, accelerators, slots, unmet


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
    chosen = accelerators(work, ("order",), nodes, Resources(gpus=1))
    by_depth = {depth: {chosen[cell(order, depth)] for order in arms} for depth in range(1, 13)}
    assert all(len(kinds) == 1 for kinds in by_depth.values())
    assert sum(kinds == {"T4"} for kinds in by_depth.values()) == 9


def test_there_is_nothing_to_choose_without_gpus_or_with_one_kind():
    nodes = [Node(8, 1, "A100"), Node(8, 1, "A100")]
    assert accelerators({cell(): 1.0}, ("order",), nodes, Resources(gpus=1)) == {}
    assert accelerators({cell(): 1.0}, ("order",), [*nodes, Node(8, 1, "T4")], Resources()) == {}
