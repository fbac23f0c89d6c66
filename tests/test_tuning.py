"""How cells are computed: what is measured first, what the store recalls, and what a graph must bring."""

from dataclasses import replace

import pytest

from grids import Cell, Run
from harness.engine import (
    BLOCKS,
    COMPILED,
    EAGER,
    MEMORY_SHARE,
    UNMEASURED,
    WORTH_MEASURING,
    How,
    Pilot,
    describe,
    marker,
    shape,
)
from harness.plan import Plan, code_version, work
from harness.tuning import choose_how, largest, to_measure
from results import Made

SEEDS = 8
SLOW, NOTHING = 0.012, 1e-5  # seconds of a seed's step


def make(**fields):
    defaults = {"dataset": "x", "architecture": "mlp", "order": "weight-act", "activation": "relu", "depth": 2}
    return Cell(**{**defaults, "width": 32, "batch": 10, "epochs": 20, "lr": 0.05, **fields})


@pytest.fixture
def data(blobs, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    return {"x": blobs((1, 8, 8))}


def planned(*cells, seeds=SEEDS, made=()):
    """A plan of runs of these cells. made: (cell, block, mode) of what is finished, or with a device type."""
    of_cell = {
        cell: Made("c", "d", describe(*(where or ["cpu"]), "AVX512", "2.13.0", mode, None), block)
        for cell, block, mode, *where in made
    }
    return Plan(tuple(Run(cell, seed) for cell in cells for seed in range(seeds)), 0, 0, {}, of_cell)


def pilots(data, seconds, *cells, blocks=(8, 16)):
    """The same times for each S but that a larger one is faster, so that the largest is chosen."""
    return {shape(cell, data["x"]): Pilot({s: seconds / (1 + s / 99) for s in blocks}, 0.0, 99) for cell in cells}


# What is measured


def enough(cell, data):
    """Seeds of a cell that are worth a pilot."""
    return int(-(-WORTH_MEASURING // work(cell, data["x"])))


def test_little_work_is_not_measured(data):
    cell = make(width=512, depth=8)
    seeds = enough(cell, data)
    assert to_measure(planned(cell, seeds=seeds - 1), data) == {}
    assert to_measure(planned(cell, seeds=seeds), data) == {shape(cell, data["x"]): (cell, list(BLOCKS["cpu"]))}


def test_cells_of_one_shape_are_measured_once_and_their_work_is_added(data):
    cells = [make(width=512, depth=8, lr=lr, activation=name) for lr in (0.1, 0.2) for name in ("relu", "tanh")]
    seeds = -(-enough(cells[0], data) // 4)
    assert list(to_measure(planned(*cells, seeds=seeds), data).values()) == [(cells[0], list(BLOCKS["cpu"]))]


def test_a_convolution_is_measured_only_on_a_gpu(data):
    cell = make(architecture="cnn", width=64, depth=8)
    plan = planned(cell, seeds=enough(cell, data))
    assert to_measure(plan, data) == {}
    assert [blocks for _, blocks in to_measure(plan, data, "cuda").values()] == [list(BLOCKS["cuda"])]


def test_a_shape_that_the_store_recalls_is_not_measured(data):
    old, new, other = (make(width=512, depth=depth, lr=lr) for depth, lr in ((8, 0.05), (8, 0.1), (4, 0.1)))
    plan = planned(new, other, seeds=enough(other, data), made=[(old, 16, EAGER)])
    assert to_measure(plan, data) == {shape(other, data["x"]): (other, list(BLOCKS["cpu"]))}


# S


def test_s_is_the_pilots_or_recalled_or_a_default(data):
    cell, deeper = make(), make(depth=3)
    plan = planned(cell, deeper)
    assert choose_how(plan, data, {}, slots=1) == {cell: How(UNMEASURED, EAGER), deeper: How(UNMEASURED, EAGER)}
    measured = pilots(data, NOTHING, cell)
    assert choose_how(plan, data, measured, slots=1) == {cell: How(16, EAGER), deeper: How(UNMEASURED, EAGER)}
    plan = planned(cell, deeper, made=[(make(lr=0.1), 8, EAGER)])  # another cell of the shape
    assert choose_how(plan, data, measured, slots=1)[cell] == How(8, EAGER)


def test_a_large_network_has_fewer_seeds_where_nothing_is_measured(data):
    numbers = 2000 * (64 + 2 * 2000)  # parameters of the blocks and of the stem, which sees 8×8 pixels
    assert choose_how(planned(make(width=2000)), data, {}, 1)[make(width=2000)].block == 20_000_000 // numbers
    assert choose_how(planned(make(width=9000)), data, {}, 1)[make(width=9000)].block == 1
    residual = make(architecture="resmlp", width=2000)  # two matrices a block
    assert choose_how(planned(residual), data, {}, 1)[residual].block == 20_000_000 // (2000 * (64 + 4 * 2000))


def test_where_bits_depend_on_other_seeds_there_are_none_whatever_was_measured(data):
    cells = [make(architecture="cnn"), make(activation="sigmoid", width=33, batch=7)]
    for cell in cells:
        assert choose_how(planned(cell), data, pilots(data, SLOW, cell), slots=1)[cell].block == 1


def test_one_seed_by_necessity_is_no_choice_for_other_activations(data):
    alone, free = (make(activation=name, width=33, batch=7) for name in ("sigmoid", "relu"))
    plan = planned(free, made=[(free, 16, EAGER), (alone, 1, EAGER)])
    assert choose_how(plan, data, {}, slots=1)[free].block == 16


def test_what_another_type_of_device_did_is_not_recalled(data):
    cell = make(architecture="cnn")
    plan = planned(cell, make(), made=[(cell, 128, COMPILED, "cuda"), (make(), 128, COMPILED, "cuda")])
    assert choose_how(plan, data, {}, slots=1) == {cell: How(1, EAGER), make(): How(UNMEASURED, EAGER)}
    assert choose_how(plan, data, {}, slots=1, device_type="cuda")[cell] == How(128, COMPILED)


# Eager or compiled


@pytest.mark.parametrize(("mode", "seconds"), [(COMPILED, NOTHING), (EAGER, 100.0)])
@pytest.mark.parametrize("asked", [None, EAGER, COMPILED])
def test_a_cell_of_the_store_stays_as_it_is(mode, seconds, asked, data):
    plan = planned(make(), made=[(make(), 8, mode)])
    assert choose_how(plan, data, pilots(data, seconds, make()), 1, asked) == {make(): How(8, mode)}


@pytest.mark.parametrize(("mode", "seconds"), [(COMPILED, NOTHING), (EAGER, 100.0)])
def test_a_cell_that_was_lost_altogether_is_computed_as_the_others_of_its_shape(mode, seconds, data):
    lost, left, dropped = make(), make(order="weight-bn-act"), make(order="weight-act-drop")
    plan = planned(lost, seeds=10**4, made=[(left, 8, mode), (dropped, 8, EAGER)])
    assert to_measure(plan, data) == {}
    assert choose_how(plan, data, pilots(data, seconds, lost), slots=1) == {lost: How(8, mode)}


def test_the_mode_that_is_asked_for_is_that_of_new_cells(data):
    old, new = make(), make(lr=0.1)
    plan = planned(old, new, made=[(old, 8, EAGER)])
    hows = choose_how(plan, data, {}, slots=1, mode=COMPILED)
    assert hows == {old: How(8, EAGER), new: How(8, COMPILED)}
    costly = pilots(data, 100.0, new)
    assert choose_how(planned(new), data, costly, 1)[new].mode == COMPILED
    assert choose_how(planned(new), data, costly, 1, EAGER)[new].mode == EAGER


def test_what_cannot_be_compiled_is_eager_even_where_it_is_asked_for(data):
    cells = [make(architecture="cnn"), make(order="weight-act-drop")]
    hows = choose_how(planned(*cells), data, pilots(data, 100.0, *cells), 1, COMPILED)
    assert {how.mode for how in hows.values()} == {EAGER}


def test_a_graph_pays_by_the_steps_of_all_the_cells_that_share_it(data):
    rates = [make(lr=lr) for lr in (0.1, 0.2, 0.3)]
    measured = pilots(data, SLOW, *rates)
    assert choose_how(planned(rates[0]), data, measured, slots=1)[rates[0]].mode == EAGER
    assert {how.mode for how in choose_how(planned(*rates), data, measured, slots=1).values()} == {COMPILED}
    others = [make(order=order) for order in ("weight-act", "weight-bn-act", "weight-act-bn")]  # a graph each
    assert {how.mode for how in choose_how(planned(*others), data, measured, slots=1).values()} == {EAGER}


def test_a_graph_pays_by_the_steps_over_what_the_cells_see(data):
    rates = [make(lr=0.01 * n, train_size=0) for n in range(1, 9)]
    halves = [cell.model_copy(update={"train_size": len(data["x"].x_train) // 8}) for cell in rates]
    assert {how.mode for how in choose_how(planned(*rates), data, pilots(data, SLOW, *rates), 1).values()} == {COMPILED}
    assert {how.mode for how in choose_how(planned(*halves), data, pilots(data, SLOW, *halves), 1).values()} == {EAGER}


def test_a_graph_on_disk_pays_sooner(data):
    cell, measured = make(), pilots(data, SLOW, make())
    assert choose_how(planned(cell), data, measured, slots=1)[cell].mode == EAGER
    compiled = marker(cell, data["x"], SEEDS, code_version("mlp"))
    compiled.parent.mkdir()
    compiled.touch()
    assert choose_how(planned(cell), data, measured, slots=1)[cell].mode == COMPILED


# Memory


def made_with(cell, memory_bytes, block=16):
    """A plan of more runs of a cell whose finished runs took so much memory."""
    plan = planned(cell, made=[(cell, block, EAGER)])
    return replace(plan, made={cell: plan.made[cell]._replace(memory_bytes=memory_bytes)})


def test_the_memory_that_runs_of_a_shape_took_bounds_the_seeds_of_later_trials(data):
    plan = made_with(cell := make(), 1000)
    room = 5000 / MEMORY_SHARE
    assert choose_how(plan, data, {}, slots=1, room_bytes=room)[cell].block == 5
    assert choose_how(plan, data, {}, slots=1, room_bytes=100 * room)[cell].block == 16
    assert choose_how(plan, data, {}, slots=1)[cell].block == 16
    assert choose_how(made_with(cell, None), data, {}, slots=1, room_bytes=1)[cell].block == 16


def test_what_a_pilot_measured_bounds_them_where_the_store_tells_nothing(data):
    cell = make()
    measured = {shape(cell, data["x"]): Pilot({8: SLOW, 16: SLOW}, 0.0, 99, bytes_a_seed=1000)}
    assert choose_how(planned(cell), data, measured, slots=1, room_bytes=3000 / MEMORY_SHARE)[cell].block == 3


def test_the_largest_trial_is_known_where_the_memory_of_every_cell_is(data):
    plan = made_with(cell := make(), 1000)
    hows = {cell: How(16, EAGER)}
    assert largest(hows, plan, data, {}, "cpu") == 16_000
    assert largest(hows, made_with(cell, None), data, {}, "cpu") is None
    assert largest(hows, plan, data, {}, "cuda") is None  # it was not made on one
