"""Plans: a set difference of runs, grouped into trials that hold every missing run exactly once."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness
from grids import Cell, Grid, Run
from harness.datasets import Examples, prepare
from harness.engine import COMPILED, UNMEASURED, How
from harness.plan import PlanError, Trial, code_version, group, make_plan
from results import METRICS, Made

CHOICES = {**harness.choices(), "metric": METRICS}
TEXT = """# Which?
[axes]
dataset      = ["digits"]
architecture = ["mlp"]
order        = ["weight-act", "weight-bn-act"]
activation   = ["relu", "sigmoid"]
depth        = [2, 4]

[recipe]
epochs = 3
batch  = 7

[seeds]
count = 5
"""


def tiny(name, *shape, examples=100):
    x, y = np.zeros((examples, *shape)), np.arange(examples) % 2
    return prepare(name, Examples(x, y, x[:10], y[:10], classes=2))


DATA = {"digits": tiny("digits", 1, 8, 8)}
VERSION = Made(code_version("mlp"), DATA["digits"].checksum, "cpu", 32)


def read(folder, text=TEXT):
    path = Path(folder) / "study.toml"
    path.write_text(text, encoding="utf-8")
    return Grid.read(path, CHOICES)


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return read(tmp_path_factory.mktemp("grids"))


def cell(**changes):
    fields = {"dataset": "digits", "architecture": "mlp", "order": "weight-act", "activation": "relu", "depth": 2}
    return Cell(**{**fields, **changes})


def seeds_of(cell, count):
    return [Run(cell, seed) for seed in range(count)]


def finished(runs, version=VERSION):
    return {run.run_id: version for run in runs}


def grouped(missing, slots=1, block=UNMEASURED, data=DATA, **modes):
    """Trials of at most `block` seeds of each cell."""
    return group(missing, data, slots, {run.cell: How(block, **modes) for run in missing})


def runs_in(trials):
    return Counter(run for trial in trials for run in trial.runs)


def test_without_a_store_every_run_is_missing(grid):
    plan = make_plan(grid, {}, (), DATA)
    assert plan.missing == tuple(grid.runs())
    assert (plan.finished, plan.failed, plan.outdated) == (0, 0, {})


def test_a_finished_grid_has_nothing_missing(grid):
    plan = make_plan(grid, finished(grid.runs()), (), DATA)
    assert (plan.missing, plan.finished) == ((), 40)


@given(st.data(), st.integers(1, 70))
def test_a_plan_holds_every_missing_run_in_exactly_one_trial(grid, data, slots):
    every = list(grid.runs())
    done = data.draw(st.sets(st.sampled_from(every)))
    plan = make_plan(grid, finished(done), (), DATA)
    assert plan.finished == len(done)
    assert runs_in(grouped(plan.missing, slots)) == Counter(set(every) - done)


@given(st.integers(1, 24), st.integers(1, 70), st.integers(0, 600))
def test_seeds_are_spread_over_the_slots_in_trials_of_almost_equal_size(each, slots, more):
    sizes = [len(trial.seeds) for trial in grouped(seeds_of(cell(epochs=10**5), each * slots), slots, each + more)]
    assert len(sizes) >= slots  # none is idle
    assert max(sizes) <= each
    assert max(sizes) - min(sizes[:-1], default=max(sizes)) == 0  # only the last may be smaller


def test_seeds_of_all_cells_count_when_slots_are_filled():
    runs = [*seeds_of(cell(), 8), *seeds_of(cell(depth=3), 8)]
    assert [len(trial.seeds) for trial in grouped(runs, slots=2)] == [8, 8]


def test_each_cell_has_a_block_and_a_mode_of_its_own():
    runs = [*seeds_of(cell(depth=3), 4), *seeds_of(cell(), 4)]
    hows = {cell(depth=3): How(4, COMPILED), cell(): How(2)}
    trials = group(runs, DATA, 1, hows)
    assert [(len(trial.seeds), trial.block, trial.mode) for trial in trials] == [
        (4, 4, "compiled"), (2, 2, "eager"), (2, 2, "eager")
    ]  # fmt: skip


def test_a_trial_remembers_the_block_that_was_chosen_not_the_seeds_it_has():
    assert {trial.block for trial in grouped(seeds_of(cell(), 3), block=8)} == {8}


def test_trials_that_share_a_graph_follow_one_another():
    runs = [Run(cell(lr=lr, activation=f), 0) for lr in (0.1, 0.2, 0.3) for f in ("relu", "tanh")]
    activations = [trial.cell.activation for trial in grouped(runs, mode=COMPILED)]
    assert activations in (["relu"] * 3 + ["tanh"] * 3, ["tanh"] * 3 + ["relu"] * 3)


def test_trials_keep_their_order(grid):
    plans = [grouped(make_plan(grid, {}, (), DATA).missing, slots=3) for _ in range(2)]
    assert plans[0] == plans[1]


@pytest.mark.parametrize(
    ("small", "large"),
    [
        ({"depth": 2}, {"depth": 8}),
        ({"width": 16}, {"width": 64}),
        ({"epochs": 2}, {"epochs": 20}),
        ({"architecture": "mlp"}, {"architecture": "cnn"}),
        ({"architecture": "mlp"}, {"architecture": "resmlp"}),
        ({"architecture": "cnn"}, {"architecture": "resnet"}),
        ({"architecture": "deep_cnn"}, {"architecture": "cnn"}),
        ({"architecture": "cnn", "width": 4}, {"architecture": "inception", "width": 4}),
        ({"dataset": "digits"}, {"dataset": "fashion_mnist"}),
    ],
)
def test_the_trial_with_more_work_comes_first(small, large):
    data = {**DATA, "fashion_mnist": tiny("fashion_mnist", 1, 8, 8, examples=1000)}
    runs = [Run(cell(**small), 0), Run(cell(**large), 0)]
    for missing in (runs, runs[::-1]):
        assert [trial.cell for trial in grouped(missing, data=data)] == [runs[1].cell, runs[0].cell]


def test_more_seeds_are_more_work():
    trials = grouped([*seeds_of(cell(depth=3), 1), *seeds_of(cell(), 5)])
    assert [len(trial.seeds) for trial in trials] == [5, 1]


def test_a_value_added_to_an_axis_plans_only_its_cells(grid, tmp_path):
    wider = read(tmp_path, TEXT.replace("[2, 4]", "[2, 3, 4]"))
    missing = make_plan(wider, finished(grid.runs()), (), DATA).missing
    assert {run.cell.depth for run in missing} == {3}
    assert len(missing) == 2 * 2 * 5


def test_seeds_added_to_a_grid_plan_only_themselves(grid, tmp_path):
    more = read(tmp_path, TEXT.replace("count = 5", "count = 7"))
    missing = make_plan(more, finished(grid.runs()), (), DATA).missing
    assert Counter(run.seed for run in missing) == {5: 8, 6: 8}


def test_a_value_taken_from_an_axis_plans_nothing(grid, tmp_path):
    fewer = read(tmp_path, TEXT.replace("[2, 4]", "[4]"))
    plan = make_plan(fewer, finished(grid.runs()), (), DATA)
    assert (plan.missing, plan.finished) == ((), 20)


@pytest.mark.parametrize(
    ("version", "what"),
    [
        (VERSION._replace(code="older"), "mlp.py or the training code"),
        (VERSION._replace(data="older"), "the data set digits"),
    ],
)
def test_runs_by_another_version_are_told_and_only_a_fresh_plan_repeats_them(grid, version, what):
    every = list(grid.runs())
    done = {**finished(every), **finished(every[:3], version)}
    plan = make_plan(grid, done, (), DATA)
    assert (plan.missing, plan.finished, plan.outdated) == ((), 40, {what: 3})
    fresh = make_plan(grid, done, (), DATA, fresh=True)
    assert (fresh.missing, fresh.finished, fresh.outdated) == (tuple(every[:3]), 37, {what: 3})


def test_failed_runs_are_planned_only_to_be_retried(grid):
    every = list(grid.runs())
    failed = {run.run_id for run in every[:4]}
    plan = make_plan(grid, finished(every[10:]), failed, DATA)
    assert (plan.missing, plan.failed) == (tuple(every[4:10]), 4)
    again = make_plan(grid, finished(every[10:]), failed, DATA, retry=True)
    assert (again.missing, again.failed) == (tuple(every[:10]), 0)


def test_a_batch_as_large_as_the_training_part_can_be_planned(tmp_path):
    grid = read(tmp_path, TEXT.replace("batch  = 7", "batch  = 90"))
    assert len(make_plan(grid, {}, (), DATA).missing) == 40


def test_a_batch_larger_than_the_training_part_is_an_error(tmp_path):
    grid = read(tmp_path, TEXT.replace("batch  = 7", "batch  = 91"))
    with pytest.raises(PlanError, match=r"batch = 91: larger than the training part of digits \(90 examples\)"):
        make_plan(grid, {}, (), DATA)


def test_a_trial_has_one_id_for_what_was_computed_and_how():
    trial = Trial(cell(), (0, 1))
    ids = [trial.trial_id(*how) for how in (("cpu", "c", "d"), ("gpu", "c", "d"), ("cpu", "e", "d"), ("cpu", "c", "e"))]
    ids += [Trial(cell(), (0, 2)).trial_id("cpu", "c", "d"), Trial(cell(depth=3), (0, 1)).trial_id("cpu", "c", "d")]
    assert len(set(ids)) == 6
    assert Trial(cell(depth=2.0), (0, 1)).trial_id("cpu", "c", "d") == ids[0]
    assert Trial(cell(), (0, 1), probes=(0, 3)).trial_id("cpu", "c", "d") == ids[0]


def test_architectures_have_code_of_their_own():
    assert len({code_version(name) for name in harness.names("architectures")}) == len(harness.names("architectures"))


def test_of_finished_runs_neither_a_run_nor_a_cell_is_made(grid, monkeypatch):
    monkeypatch.setattr("harness.plan.Run", None)
    assert make_plan(grid, finished(grid.runs()), (), DATA).finished == 40


def test_a_run_by_another_engine_is_finished(grid):
    done = finished(grid.runs(), VERSION._replace(engine="gpu"))
    assert make_plan(grid, done, (), DATA, fresh=True).missing == ()
