"""Values on the command line in place of a grid's own, and parts of a grid."""

import re
from pathlib import Path

import pytest
from simulated import fill, run

import harness
import normorder
from grids import Grid, GridError
from harness.study import later_runs, look
from normorder_words import DEFAULT_GRID, Asked, asked
from reports import audit
from reports.looks import wanted
from reports.outcomes import gather
from results import METRICS, Store

CHOICES = {**harness.choices(), "metric": METRICS}
TEXT = """# Which?
exclude = [{ activation = "tanh", depth = [4, 8] }, { depth = 8, batch = 64 }]
[axes]
dataset      = ["digits"]
architecture = ["mlp"]
order        = ["weight-act", "weight-bn-act", "weight-act-bn"]
activation   = ["relu", "tanh"]
depth        = [2, 4, 8]
batch        = [64, 100]
[nuisance]
lr = [0.1, 0.01]
[recipe]
epochs = 4
width  = 32
[seeds]
count  = 6
tuning = 5
[probes]
epochs = [0, 2, 4]
[analysis]
arms      = { none = "weight-act", before = "weight-bn-act", after = "weight-act-bn" }
contrasts = ["after - before", "before - none"]
primary   = { metric = "test_loss", contrast = "after - before" }
margin    = { test_loss = 0.05 }
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "study.toml").write_text(TEXT)
    return tmp_path / "study.toml"


def read(path, *changes):
    return Grid.read(path, CHOICES, changes=changes)


# Changes


def test_values_replace_those_of_an_axis_and_what_the_file_excludes_of_others_is_left_out(path):
    grid = read(path, "depth=4,16")
    assert grid.axes["depth"] == (4, 16)
    assert grid.exclude == ({"activation": ("tanh",), "depth": (4,)},)
    assert read(path, "depth=16").exclude == ()
    assert {cell.depth for cell in read(path, "depth=16").cells()} == {16}


def test_a_field_of_the_recipe_stays_one_with_one_value_and_is_an_axis_with_several(path):
    assert read(path, "epochs=2").recipe["epochs"] == 2
    several = read(path, "width=16,32")
    assert several.axes["width"] == (16, 32)
    assert "width" not in several.recipe
    assert read(path, "affine=false").recipe["affine"] is False


def test_what_is_searched_may_be_fixed_and_the_other_way_round(path):
    assert read(path, "lr=0.1").searched == ()
    assert read(path, "lr=0.1").seeds.tuning == 0
    assert read(path, "lr=0.1,0.3,1").nuisance["lr"] == (0.1, 0.3, 1.0)


def test_probes_beyond_the_last_epoch_are_at_the_last(path):
    assert read(path, "epochs=3").probes.epochs == (0, 2, 3)
    assert read(path, "epochs=1").probes.epochs == (0, 1)


def test_arms_and_contrasts_are_those_of_the_orders_that_are_left(path):
    fewer = read(path, "order=weight-act,weight-bn-act").analysis
    assert fewer.contrasts == ("before - none",)
    assert (fewer.primary.metric, fewer.primary.contrast) == ("test_loss", "before - none")
    other = read(path, "order=weight-bn-act,weight-ln-act").analysis
    assert other.arms == {"before": "weight-bn-act", "weight-ln-act": "weight-ln-act"}
    assert other.primary.contrast == other.contrasts[0] == "weight-ln-act - before"
    assert other.primary.metric == "test_loss"


def test_the_primary_contrast_stays_where_both_of_its_arms_do(path):
    path.write_text(TEXT.replace('contrasts = ["after - before", "before - none"]\n', ""))
    analysis = read(path, "order=weight-act-bn,weight-bn-act").analysis
    assert analysis.primary.contrast == "after - before"


def test_an_order_that_is_added_is_compared_with_all(path):
    analysis = read(path, "order=weight-act,weight-bn-act,weight-ln-act").analysis
    assert analysis.contrasts == ("before - none", "weight-ln-act - none", "weight-ln-act - before")
    assert analysis.primary.contrast == "before - none"


def test_orders_may_be_changed_where_they_have_no_arms(path):
    head, analysis = TEXT.split("[analysis]")
    analysis = re.sub(r"arms .*\n", "", analysis).replace("after", "weight-act-bn").replace("before", "weight-bn-act")
    path.write_text(f"{head}[analysis]{analysis.replace('none', 'weight-act')}")
    analysis = read(path, "order=weight-act,weight-bn-act").analysis
    assert analysis.primary.contrast == analysis.contrasts[0] == "weight-bn-act - weight-act"


def test_a_changed_grid_is_another_analysis_of_the_same_runs(path):
    grid, changed = read(path), read(path, "depth=2", "activation=relu")
    assert changed.analysis_hash != grid.analysis_hash
    assert set(changed.cells()) < set(grid.cells())
    assert changed.changes == ("depth=2", "activation=relu")


def test_the_report_says_what_was_changed(path):
    grid = read(path, "lr=0.1", "depth=2", "batch=64", "activation=relu")
    store = fill(Store(path.parent / "store"), [run(cell, seed) for cell in grid.cells() for seed in range(6)])
    results = gather(grid, store)
    said = audit.warnings(results.runs, results, store.replicates())
    assert said[0].startswith("Of what the grid declares these values were replaced: lr=0.1, depth=2, batch=64, ")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("depth=x", "depth=x: depth is a whole number"),
        ("depth=8.5", "depth=8.5: depth is a whole number"),
        ("depth=", "depth=: depth is a whole number"),
        ("depth=2,,4", "depth=2,,4: depth is a whole number"),
        ("lr=fast", "lr=fast: lr is a number"),
        ("affine=1", "affine=1: affine is true or false"),
        ("depht=8", "did you mean depth?"),
        ("activation=rleu", r"\[axes\] activation = 'rleu'.*; did you mean relu\? there are"),
        ("order=bn-act", "each exactly once"),
        ("depth=2,2", r"depth = 2: is listed twice"),
        ("depth=2 depth=4", "depth is given more than once; several values are joined, as in 2,4"),
        ("depth=0", "greater than or equal to 1"),
    ],
)
def test_a_wrong_change_names_the_field_and_what_it_is(path, change, why):
    with pytest.raises(GridError, match=why):
        read(path, *change.split(" "))


# Words of a command


def test_words_are_a_grid_and_changes_in_any_sequence():
    assert asked([], None) == Asked(DEFAULT_GRID)
    assert asked(["depth=8", "a/b.toml", "seeds=40"], None) == Asked(Path("a/b.toml"), 40, ("depth=8",))
    assert asked(["x=y.toml"], 3) == Asked(Path("x=y.toml"), 3)
    assert asked(["depth=8"], 3).words == ["grids/default.toml", "depth=8", "--seeds", "3"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("seeds=many",), "seeds=many: seeds is a whole number"),
        (("seeds=4", "--seeds", "5"), "the number of seeds is given more than once: seeds=4"),
        (("a.toml", "b.toml"), "one grid at a time, and values as FIELD=VALUE: a.toml b.toml"),
    ],
)
def test_odd_words_are_one_line(told, words, why):
    assert told("plan", *words) == (2, "", f"normorder: {why}\n")


def test_every_command_that_takes_a_grid_takes_changes(path, told, monkeypatch):
    monkeypatch.chdir(path.parent)
    changes = ["lr=0.1", "depth=2", "batch=64", "activation=relu", "seeds=5"]
    grid = normorder.read_grid(asked([str(path), *changes], None))
    assert (len(list(grid.cells())), grid.seeds.count) == (3, 5)
    fill(Store("store"), [run(cell, seed) for cell in grid.cells() for seed in range(5)])
    for words in (
        ("plan", path, *changes, "--store", "store"),
        ("sweep", path, *changes, "--store", "store"),
        ("status", "store", path, *changes),
        ("report", path, *changes, "--store", "store"),
        ("export", "--format", "csv", path, *changes, "--store", "store"),
    ):
        code, out, errors = told(*words)
        assert (code, errors) == (0, ""), out
    assert "planned runs are" not in told("validate", "store", path, *changes)[1]


# Parts


def look_at(path, *select, data, store, changes=()):
    grid = read(path, *changes)
    return look(grid, store, data, part=grid.selection(path, CHOICES, select))


@pytest.fixture
def data():
    return {"digits": harness.datasets.load("digits")}


def test_only_cells_with_the_selected_values_are_run_and_the_analysis_stays_whole(path, data):
    store, changes = Store(path.parent / "store"), ("lr=0.1",)
    study = look_at(path, "depth=2,4", "activation=relu", data=data, store=store, changes=changes)
    assert {(run.cell.depth, run.cell.activation) for run in study.plan.missing} == {(2, "relu"), (4, "relu")}
    assert study.grid.analysis_hash == read(path, *changes).analysis_hash
    fill(store, [run(*each) for each in study.plan.missing])
    assert study.again().plan.missing == ()
    assert study.again().plan.failed == 0
    rest = look_at(path, data=data, store=store, changes=changes).plan
    assert len(rest.missing) + rest.finished == sum(1 for _ in study.grid.runs())


def test_a_part_of_a_search_is_tuned_and_then_compared(path, data):
    store = Store(path.parent / "store")
    study = look_at(path, "depth=2", "activation=relu", data=data, store=store)
    assert len(study.plan.missing) == 3 * 2 * 2 * 5  # orders, batches, rates, tuning seeds
    later, looks = later_runs(study)
    assert study.plan.later == len(later) == 3 * 2 * 6
    assert looks == []
    fill(store, [run(*each, val_loss=each.cell.lr) for each in study.plan.missing])
    plan = study.again().plan
    assert {run.cell.lr for run in plan.missing} == {0.01}
    assert len(plan.missing) == 3 * 2 * 6
    assert (plan.unchosen, plan.later) == ((), 0)


def test_a_selection_may_be_repeated(path, data):
    selections, store = ("depth=2", "depth=4", "activation=relu"), Store(path.parent / "s")
    study = look_at(path, *selections, data=data, store=store, changes=["lr=0.1"])
    assert {run.cell.depth for run in study.plan.missing} == {2, 4}


def test_a_part_of_a_grid_with_adaptive_seeds_is_its_first_look(path, data):
    text = TEXT.replace("count  = 6\ntuning = 5", 'count = 5\nmax = 20\nstop = "decided"').replace(
        "[0.1, 0.01]", "[0.1]"
    )
    path.write_text(text)
    grid = read(path)
    study = look(grid, Store(path.parent / "s"), data, wanted=wanted, part=grid.selection(path, CHOICES, ["depth=2"]))
    assert {run.seed for run in study.plan.missing} == set(range(5))
    assert (study.plan.later, later_runs(study)) == (0, ([], []))


def test_a_plan_says_which_part_it_is(path, told):
    code, out, _ = told("plan", path, "lr=0.1", "--select", "depth=2", "--store", path.parent / "s", "--rehearse", "0")
    assert code == 0
    assert "  only depth 2: 12 of 21 cells" in out
    assert "to do 72 in" in out


@pytest.mark.parametrize(
    ("select", "why"),
    [
        (["depth=3"], "depth=3: the grid has depth 2, 4, 8"),
        (["lr=0.1"], "lr=0.1: cannot be selected, since its values are what is chosen among"),
        (["momentum=0.9"], "momentum=0.9: the grid has no momentum: it has "),
        (["depht=2"], "did you mean depth?"),
        (["depth=8", "--select", "activation=tanh"], "depth=8 activation=tanh: selects no cell"),
    ],
)
def test_a_part_that_is_none_says_why(path, told, select, why):
    code, _, errors = told("plan", path, "--select", *select)
    assert code == 2
    assert why in errors
