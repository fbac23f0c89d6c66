"""A pilot: what it times, what it takes for the memory of a seed, and that it measures only what fits."""

import pytest

from grids import Cell
from harness.engine import EVALUATION_BATCH, MEMORY_SHARE, choose
from harness.memory import Probe
from harness.pilot import COPIES, bytes_a_seed, measure


def make(**fields):
    defaults = {"dataset": "x", "architecture": "mlp", "order": "weight-act", "activation": "relu", "depth": 3}
    return Cell(**{**defaults, "width": 32, "batch": 20, "lr": 0.05, **fields})


@pytest.mark.parametrize("fields", [{}, {"order": "weight-bn-act-drop", "optimiser": "adam"}, {"architecture": "cnn"}])
def test_every_s_that_fits_has_a_time_for_each_seed(fields, blobs):
    pilot = measure(make(width=8, **fields), blobs((1, 8, 8)), (1, 2))
    assert pilot.seconds.keys() == {1, 2}
    assert all(0 < seconds < 1 for seconds in pilot.seconds.values())
    assert pilot.most_seeds > 2
    assert choose(pilot) in (1, 2)


def test_matrix_products_are_a_part_of_a_step(blobs):
    pilot = measure(make(), blobs((1, 8, 8)), (2, 8))
    assert 0 < pilot.product_s < min(pilot.seconds.values())


def test_a_few_examples_are_enough_to_measure(blobs):
    assert measure(make(batch=9), blobs(train=10), (2,)).seconds[2] > 0  # an epoch of one step


def a_device(free, peak=0):
    """A probe of a device with so many bytes free, of which a training takes `peak`."""
    return Probe(lambda _: int(free), lambda _: int(free), lambda _: 0, lambda _: None, lambda _: int(peak))


@pytest.mark.parametrize(("trials", "measured"), [(1, [1, 2, 4]), (2, [1, 2]), (4, [1]), (8, [])])
def test_only_what_the_memory_holds_beside_other_trials_is_measured(trials, measured, blobs):
    cell, data = make(width=8), blobs()
    free = (4.1 / MEMORY_SHARE) * bytes_a_seed(cell, data)
    pilot = measure(cell, data, (1, 2, 4), trials=trials, probe=a_device(free))
    assert list(pilot.seconds) == measured
    assert pilot.most_seeds == 4 // trials
    assert pilot.bytes_a_seed == bytes_a_seed(cell, data)
    assert choose(pilot) in (measured or [1])


def test_what_a_training_took_counts_where_it_is_more_than_was_reckoned(blobs):
    cell, data = make(width=8), blobs()
    need = bytes_a_seed(cell, data)
    pilot = measure(cell, data, (2, 8), probe=a_device(free=9 * need / MEMORY_SHARE, peak=4 * need))
    assert list(pilot.seconds) == [2]
    assert (pilot.bytes_a_seed, pilot.most_seeds) == (2 * need, 4)


def test_the_bytes_of_a_seed_are_those_counted_by_hand(blobs):
    data, width, batch, depth, classes, pixels = blobs((1, 8, 8)), 32, 20, 3, 3, 64
    weights = [pixels * width, *[width * width] * depth, width * classes]
    parameters = sum(weights) + (1 + depth) * width + classes
    # A gradient needs what comes into each product; what a relu gives is what comes into the next one.
    step = batch * (pixels + (1 + depth) * width)
    evaluation = 4 * step * EVALUATION_BATCH // batch // depth
    assert bytes_a_seed(make(), data) == 4 * COPIES * parameters + 4 * step + evaluation


@pytest.mark.parametrize(
    "larger", [{"width": 33}, {"depth": 6}, {"batch": 21}, {"order": "weight-bn-act"}, {"activation": "maxout"}]
)
def test_a_larger_network_or_batch_takes_more_bytes(larger, blobs):
    data = blobs((1, 8, 8))
    assert bytes_a_seed(make(), data) < bytes_a_seed(make(**larger), data)
