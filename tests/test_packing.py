"""How seeds are divided among trials: equal parts, no larger than their block, and an end no later than without cutting."""

from heapq import heappop, heappush

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grids import Cell
from harness.packing import ENOUGH, ERROR, SHARED, STARTING, Amount, block_sizes, ends, length


def cell(number=0):
    return Cell(dataset="x", architecture="mlp", order="weight-act", activation="relu", depth=1 + number)


LONG = 1e3 * STARTING  # of a run, so that starting trials takes no time beside them
amounts = st.builds(Amount, st.integers(1, 60), st.integers(1, 40), st.floats(1e-3, 10).map(lambda x: x * LONG))
plans = st.lists(amounts, min_size=1, max_size=12).map(lambda each: {cell(i): a for i, a in enumerate(each)})


def parts(amount, size):
    return [min(size, amount.runs - first) for first in range(0, amount.runs, size)]


def lengths(cells, sizes):
    return [length(each.work, seeds) for of, each in cells.items() for seeds in parts(each, sizes[of])]


@given(plans, st.integers(1, 300))
def test_the_trials_of_a_cell_are_almost_equal_and_no_larger_than_its_block(cells, slots):
    for of, size in block_sizes(cells, slots).items():
        each = parts(cells[of], size)
        assert sum(each) == cells[of].runs
        assert max(each) <= cells[of].block
        assert size - each[-1] < len(each)  # the last lacks less than one seed of each other


def reckoned(cells, sizes, slots):
    each = lengths(cells, sizes)
    return ends(each, slots) + ERROR * max(each)


@given(plans, st.integers(1, 300))
def test_no_sweep_ends_later_than_with_whole_blocks_or_with_single_seeds(cells, slots):
    end = reckoned(cells, block_sizes(cells, slots), slots)
    whole = {of: -(-each.runs // -(-each.runs // each.block)) for of, each in cells.items()}
    for sizes in (whole, dict.fromkeys(cells, 1)):
        if slots > 1 and len(lengths(cells, sizes)) <= ENOUGH * slots:
            assert end <= reckoned(cells, sizes, slots)


@pytest.mark.parametrize(("slots", "trials"), [(2, 4), (4, 4), (7, 7), (10, 10), (20, 20), (99, 20)])
def test_seeds_of_one_cell_are_spread_over_all_slots(slots, trials):
    cells = {cell(): Amount(20, 32, LONG)}
    assert -(-20 // block_sizes(cells, slots)[cell()]) == trials


def test_it_is_work_that_is_divided_not_runs():
    cells = {cell(0): Amount(40, 40, LONG), cell(1): Amount(40, 40, 7 * LONG)}
    sizes = block_sizes(cells, slots=8)
    assert sizes[cell(0)] >= 4 * sizes[cell(1)]


def test_on_one_slot_and_where_each_has_many_trials_blocks_stay_whole():
    assert block_sizes({cell(): Amount(64, 16, LONG)}, slots=1) == {cell(): 16}
    many = {cell(i): Amount(20, 20, LONG) for i in range(2 * ENOUGH + 1)}
    assert set(block_sizes(many, slots=2).values()) == {20}


def test_trials_so_short_that_starting_them_is_the_limit_are_not_cut():
    cells = {cell(i): Amount(20, 20, STARTING / 1000) for i in range(4)}
    assert set(block_sizes(cells, slots=1000).values()) == {20}


def test_nothing_to_do_has_no_sizes():
    assert block_sizes({}, 4) == {}


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=60), st.integers(1, 20), st.floats(0, 10))
def test_ends_are_those_of_an_ordinary_queue(each, slots, starting):
    free, driver = [], 0.0
    for _ in range(slots):
        heappush(free, 0.0)
    for taken in sorted(each, reverse=True):
        driver = max(driver, heappop(free)) + starting
        heappush(free, driver + taken)
    assert ends(each, slots, starting) == pytest.approx(max(free))
    assert ends(each, slots, 0.0) >= max(max(each), sum(each) / slots) * (1 - 1e-9)


def test_a_trial_costs_what_its_seeds_and_a_step_without_any_cost():
    assert length(2.0, 1) == 2.0 * (1 + SHARED)
    assert length(2.0, 20) / 20 < length(2.0, 1)
