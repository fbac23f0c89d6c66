"""What is planned, stage by stage: tuning seeds of all candidates, then fresh seeds of those that they choose."""

import itertools
import json
import math
import statistics
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import AFTER, BEFORE, CLASSES, fill, read_grid, run

import harness
from grids import TUNING_FROM, Grid, GridError, Run
from harness.datasets import Examples, prepare
from harness.plan import code_version, make_plan
from harness.study import look, tell
from reports import page
from reports.comparisons import compare
from reports.outcomes import gather
from reports.rate_curves import name, rate_curves, sentences
from reports.rates import select
from results import METRICS, Made, Store
from results.overview import overview
from results.protocol import COMPARED, TUNING, Outcome, expected, known, planned, planned_in, rungs
from results.validation import incomplete

TUNED, FRESH = 5, 3
TEXT = """# Which?
[axes]
dataset      = ["digits"]
architecture = ["mlp"]
order        = ["weight-bn-act", "weight-act-bn"]
activation   = {activations}
depth        = [2]
[nuisance]
{nuisance}
[recipe]
epochs = {epochs}
[seeds]
tuning  = 5
{halving}
count   = {count}
[analysis]
arms = {{ before = "weight-bn-act", after = "weight-act-bn" }}
contrasts = ["after - before"]
primary = {{ metric = "{metric}", contrast = "after - before" }}
"""
RATES = (0.01, 0.03, 0.1, 0.3, 1.0)


def searching(folder, nuisance=f"lr = {list(RATES)}", activations=("relu", "tanh"), halving=0, epochs=10, **how):
    how = {"count": FRESH, "metric": "test_accuracy", "before": "", **how}
    halving = f"halving = {halving}" if halving else ""
    text = TEXT.format(nuisance=nuisance, activations=list(activations), halving=halving, epochs=epochs, **how)
    folder.mkdir(exist_ok=True)
    path = folder / "study.toml"
    path.write_text(how["before"] + text)
    return Grid.read(path, {**harness.choices(), "metric": METRICS})


X, Y = np.zeros((200, 1, 8, 8)), np.arange(200) % 2
DATA = {"digits": prepare("digits", Examples(X, Y, X[:10], Y[:10], classes=2))}


class Nature:
    """What each run would give: a validation value, `diverged`, or `failed`; the same whenever it is asked.

    diverged, failed: how often. better: what is added to a cell's values. fails: runs that do in any case.
    """

    def __init__(self, seed=0, diverged=0.1, failed=0.1, better=lambda cell: 0.0, fails=lambda cell, seed: False):
        self.seed, self.diverged, self.failed, self.better, self.fails = seed, diverged, failed, better, fails

    def __call__(self, cell, seed):
        if self.fails(cell, seed):
            return "failed"
        rng = np.random.default_rng([self.seed, int(Run(cell, seed).run_id, 16)])
        fate = rng.random()
        if fate < self.failed:
            return "failed"
        if fate < self.failed + self.diverged:
            return "diverged"
        return round(0.5 + self.better(cell) + rng.normal(0, 0.05), 3)

    def row(self, cell, seed, metric="val_accuracy"):
        value = self(cell, seed)
        epochs_run = {"epochs_run": cell.epochs}
        return run(cell, seed, value) if isinstance(value, str) else run(cell, seed, **{metric: value}, **epochs_run)


def swept(grid, store, nature, metric="val_accuracy"):
    """Fill a store as a sweep does, stage by stage. Gives the runs of each round."""
    rounds = []
    while missing := make_plan(grid, *store.fates(), DATA, known=known(grid, store)).missing:
        fill(store, [nature.row(*each, metric) for each in missing], trial=lambda _: f"round-{len(rounds)}")
        rounds.append(missing)
    return rounds


def mean_of(values):
    """By accuracy; None without a finished run."""
    scored = [1 / CLASSES if value == "diverged" else value for value in values if value != "failed"]
    return statistics.fmean(scored) if scored else None


def simulated(grid, nature):
    """Literally, one arm of one cell after the other: by rung, the candidates on it; and the chosen cells.

    Of a grid that searches lr alone, by accuracy.
    """
    halving, tunes = grid.seeds.halving, range(TUNING_FROM, TUNING_FROM + TUNED)
    climbed, chosen = [], []
    for _, cells in itertools.groupby(
        sorted(grid.cells(), key=lambda c: (c.activation, c.order)), lambda c: (c.activation, c.order)
    ):
        alive = sorted(cells, key=lambda cell: cell.lr)
        sizes = [len(alive)]
        while halving and sizes[-1] > halving:
            sizes.append(math.ceil(sizes[-1] / halving))
        for later in reversed(range(len(sizes))):
            short = [c.model_copy(update={"epochs": math.ceil(c.epochs / max(halving, 1) ** later)}) for c in alive]
            climbed += [(len(sizes) - 1 - later, cell) for cell in short]
            means = {c: mean_of([nature(s, seed) for seed in tunes]) for c, s in zip(alive, short, strict=True)}
            if None in means.values():
                alive = []
                break
            ranked = sorted(alive, key=lambda c: -round(means[c], 12))
            alive = sorted(ranked[: math.ceil(len(alive) / halving)], key=lambda c: c.lr) if later else ranked[:1]
        chosen += alive
    return climbed, chosen


# What is planned


@pytest.mark.parametrize("seed", range(3))
def test_the_fresh_runs_are_those_at_the_values_that_a_literal_recomputation_chooses(tmp_path, seed):
    grid, nature = searching(tmp_path), Nature(seed)
    tuning, compared = swept(grid, Store(tmp_path / "store"), nature)
    assert set(tuning) == {run for run in grid.runs() if run.seed >= TUNING_FROM}
    _, chosen = simulated(grid, nature)
    assert len({cell.lr for cell in chosen}) > 1
    assert set(compared) == {Run(cell, seed) for cell in chosen for seed in range(FRESH)}


@pytest.mark.parametrize(("halving", "rates"), [(2, RATES), (3, RATES), (2, (0.001, 0.003, *RATES, 3.0, 10.0))])
@pytest.mark.parametrize("failed", [0.1, 0.45])
def test_halving_is_what_a_simulation_of_it_is(tmp_path, halving, rates, failed):
    grid = searching(tmp_path, f"lr = {list(rates)}", halving=halving, epochs=20)
    nature = Nature(4, failed=failed, better=lambda cell: 0.02 * math.log(cell.lr * cell.epochs))
    store = Store(tmp_path / "store")
    *tuning, compared = swept(grid, store, nature)
    climbed, chosen = simulated(grid, nature)
    assert len(tuning) == max(rung for rung, _ in climbed) + 1 >= 2
    for number, runs in enumerate(tuning):
        cells = [cell for rung, cell in climbed if rung == number]
        assert Counter(runs) == Counter(Run(c, seed) for c in cells for seed in range(TUNING_FROM, TUNING_FROM + TUNED))
    assert set(compared) == {Run(cell, seed) for cell in chosen for seed in range(FRESH)}
    reported = select(gather(grid, store)).chosen
    reported = reported[reported["reason"] == ""]
    assert set(zip(reported["activation"], reported["order"], reported["lr"], strict=True)) == {
        (cell.activation, cell.order, cell.lr) for cell in chosen
    }


def test_the_stages_are_as_large_as_is_expected_where_nothing_fails(tmp_path):
    grid = searching(tmp_path, halving=2)
    rounds = swept(grid, Store(tmp_path / "store"), Nature(failed=0))
    assert [len(stage) for stage in expected(grid)] == list(map(len, rounds)) == [100, 60, 40, 12]
    assert [stage.cells[0].epochs for stage in expected(grid)] == [3, 5, 10, 10]


def test_cells_with_fewer_candidates_climb_fewer_rungs_which_are_the_last_ones(tmp_path):
    grid = searching(tmp_path, halving=2, before="exclude = [{activation = 'tanh', lr = [0.01, 0.03, 1.0]}]\n")
    sizes = [Counter((cell.activation, cell.epochs) for cell in stage.cells) for stage in expected(grid)[:-1]]
    assert sizes == [{("relu", 3): 10}, {("relu", 5): 6}, {("relu", 10): 4, ("tanh", 10): 4}]


def test_a_short_cell_that_the_grid_has_too_is_planned_once(tmp_path):
    text = (
        searching(tmp_path, halving=2, epochs=8)
        .text.replace("epochs = 8", "")
        .replace("depth  ", "epochs = [4, 8]\ndepth  ")
    )
    path = tmp_path / "study.toml"
    path.write_text(text.replace(str(list(RATES)), str(list(RATES[:4]))))
    grid = Grid.read(path, {**harness.choices(), "metric": METRICS})
    store = Store(tmp_path / "store")
    rounds = swept(grid, store, Nature())
    every = [run.run_id for runs in rounds for run in runs]
    assert sorted(planned_in(grid, store, *store.fates()).run_ids) == sorted(set(every)) == sorted(every)
    assert {run.cell.epochs for run in rounds[0]} == {2, 4}
    assert {run.cell.epochs for run in rounds[1]} == {8}  # those with 4 have run
    assert {run.cell.epochs for run in rounds[2]} == {4, 8}


@settings(max_examples=25)
@given(st.data(), st.integers(0, 10**6), st.sampled_from([0, 2, 3]))
def test_sweeps_that_are_cut_off_anywhere_train_what_one_that_is_not_does_and_nothing_twice(
    tmp_path_factory, data, seed, halving
):
    grid = searching(tmp_path_factory.mktemp("grids"), activations=("relu",), halving=halving)
    nature = Nature(seed, failed=0.3)
    pieces, whole = (
        _train(grid, nature, draw) for draw in (lambda n: data.draw(st.integers(1 + n // 4, n)), lambda n: n)
    )
    assert pieces == whole
    assert len({run.run_id for run in whole}) == len(whole)


def _train(grid, nature, draw):
    """Train a few of what is planned, plan again, and so on. Gives all that was trained."""
    finished, failed, outcomes, trained = {}, set(), {}, set()
    while missing := make_plan(grid, finished, failed, DATA, known=outcomes).missing:
        for each in missing[: draw(len(missing))]:
            assert each not in trained
            trained.add(each)
            value = nature(*each)
            if value == "failed":
                failed.add(each.run_id)
                continue
            finished[each.run_id] = Made(code_version("mlp"), DATA["digits"].checksum, "cpu", 1)
            diverged = value == "diverged"
            outcomes[each.run_id] = Outcome(math.nan if diverged else value, diverged, CLASSES)
    return trained


def test_a_grid_that_searches_nothing_has_all_its_runs_in_one_stage(tmp_path):
    grid = plain(tmp_path)
    [stage] = planned(grid, {}, lambda *_: True).stages
    assert (stage.kind, set(stage.cells), stage.seeds) == (COMPARED, set(grid.cells()), tuple(range(FRESH)))


def plain(folder):
    text = searching(folder).text.replace(str(list(RATES)), "[0.1]").replace("tuning  = 5\n", "")
    (folder / "plain.toml").write_text(text)
    return Grid.read(folder / "plain.toml", {**harness.choices(), "metric": METRICS})


@pytest.mark.parametrize("metric", ["test_loss", "test_calibration_error", "best_test_accuracy"])
def test_a_sweep_and_a_report_choose_alike_by_every_kind_of_metric(tmp_path, metric):
    grid = searching(tmp_path, metric=metric)
    store = Store(tmp_path / "store")
    _, compared = swept(grid, store, Nature(1), metric.replace("test", "val"))
    chosen = select(gather(grid, store)).chosen
    assert set(zip(chosen["activation"], chosen["order"], chosen["lr"], strict=True)) == {
        (run.cell.activation, run.cell.order, run.cell.lr) for run in compared
    }
    assert chosen["lr"].nunique() > 1


@pytest.mark.parametrize(
    ("field", "values", "shown", "edges"),
    [
        ("init_gain", [0.5, 1.0, 2.0], ("0.5", "2"), (True, True)),
        ("weight_decay", [0.0, 0.001], ("0", "0.001"), (False, True)),
        ("batch", [32, 8, 16], ("8", "16"), (True, False)),
        ("bn_momentum", [1.0, 0.1], ("1", "0.1"), (False, True)),
        ("affine", [True, False], ("true", "false"), (False, False)),
        ("schedule", ["constant", "cosine"], ("constant", "cosine"), (False, False)),
    ],
)
def test_any_field_may_be_searched_and_reported(tmp_path, field, values, shown, edges):
    """edges: whether the choices of after and before are the smallest or largest of `values`, but not of all there are."""
    grid = searching(tmp_path, f"{field} = {json.dumps(values)}", ("relu",))
    best = {AFTER: values[0] if field != "batch" else 8, BEFORE: values[-1]}
    nature = Nature(failed=0, diverged=0, better=lambda cell: 0.4 * (getattr(cell, field) == best[cell.order]))
    store = Store(tmp_path / "store")
    _, compared = swept(grid, store, nature)
    assert {run.cell.order: getattr(run.cell, field) for run in compared} == best
    selected = select(gather(grid, store))
    number = field not in ("affine", "schedule")
    assert selected.chosen.set_index("order")["at_edge"].to_dict() == dict(zip((AFTER, BEFORE), edges, strict=True))
    row = compare(selected.results, ["test_accuracy"]).iloc[0]
    assert row["n"] == FRESH
    assert row["notes"].startswith(f"{field} {' / '.join(shown)}; ")
    assert (f"{field} at edge" in row["notes"]) == any(edges)
    assert (rate_curves(selected, []) is not None) == number
    page.build(grid, store, tmp_path / "report")
    text = (tmp_path / "report" / "index.html").read_text()
    assert f"{field} {' / '.join(shown)}" in text
    assert f"{name(field)} {shown[0]}" in text


# What failed


def lost(cell, seed):
    return seed >= TUNING_FROM and cell.activation == "tanh" and cell.order == AFTER


def lost_at_one_value(cell, seed):
    return lost(cell, seed) and cell.lr == 0.1


@pytest.mark.parametrize("lost", [lost, lost_at_one_value])
def test_an_arm_without_a_tuning_run_of_some_value_has_no_fresh_ones_and_every_command_says_so(tmp_path, told, lost):
    grid, store = searching(tmp_path), Store(tmp_path / "store")
    _, compared = swept(grid, store, Nature(failed=0, fails=lost))
    assert {(run.cell.activation, run.cell.order) for run in compared} == {
        ("relu", BEFORE), ("relu", AFTER), ("tanh", BEFORE)
    }  # fmt: skip
    path, place = tmp_path / "study.toml", str(store.path)
    line = "nothing chooses lr, since no tuning run of some value finished, of: weight-act-bn/tanh"
    for words, code in (
        (("sweep", path, "--store", place), 1),
        (("plan", path, "--store", place), 0),
        (("status", place, path), 0),
        (("validate", place, path), 1),
    ):
        given, out, errors = told(*words)
        assert (given, errors) == (code, ""), out + errors
        assert out.count(line) == 1
    reported = select(gather(grid, store))
    assert set(reported.known.loc[reported.known["status"] == "missing", "seed"]) == set()


def test_tuning_runs_that_are_done_without_a_number_choose_nothing_which_is_no_success(tmp_path, told):
    grid, store = searching(tmp_path, activations=("relu",)), Store(tmp_path / "store")
    fill(store, [run(*each, val_accuracy=math.nan) for each in grid.runs() if each.seed >= TUNING_FROM])
    code, out, _ = told("sweep", tmp_path / "study.toml", "--store", store.path)
    assert "nothing to do\n" in out
    assert "no tuning run of some value finished, of: weight-bn-act, weight-act-bn" in out
    assert code == 1


def test_nothing_is_chosen_where_the_tuning_runs_of_a_candidate_failed_until_they_are_run_again(tmp_path):
    grid, store = searching(tmp_path, activations=("relu",)), Store(tmp_path / "store")
    sound = {"failed": 0, "diverged": 0, "better": lambda cell: 0.3 * (cell.lr == 0.1)}
    swept(grid, store, Nature(**sound, fails=lambda cell, seed: cell.lr == 0.1))
    nature = Nature(**sound)
    assert compared_runs(grid, store) == []
    again = make_plan(grid, *store.fates(), DATA, retry=True, known=known(grid, store))
    assert {run.cell.lr for run in again.missing} == {0.1}
    assert again.later == 2 * FRESH
    tried = {run.run_id for run in again.missing}
    assert make_plan(grid, *store.fates(), DATA, retry=True, known=known(grid, store), tried=tried).missing == ()
    fill(store, [nature.row(*each) for each in again.missing], trial=lambda r: f"ee{r['cell'].cell_id}")
    more = make_plan(grid, *store.fates(), DATA, known=known(grid, store)).missing
    assert {(run.cell.lr, run.seed) for run in more} == {(0.1, seed) for seed in range(FRESH)}
    fill(store, [nature.row(*each) for each in more], trial=lambda r: f"ff{r['cell'].cell_id}")
    assert incomplete(store, grid) == []


def compared_runs(grid, store):
    stage = planned_in(grid, store, *store.fates()).stages[-1]
    assert stage.kind == COMPARED
    return [Run(cell, seed) for cell in stage.cells for seed in stage.seeds]


def test_runs_of_another_version_are_run_again_before_anything_is_chosen_and_only_once(tmp_path):
    grid, store = searching(tmp_path), Store(tmp_path / "store")
    swept(grid, store, Nature(failed=0))
    plan = make_plan(grid, *store.fates(), DATA, fresh=True, known=known(grid, store))
    assert {run.seed >= TUNING_FROM for run in plan.missing} == {True}
    assert plan.later == len(expected(grid)[-1])
    tried = {run.run_id for run in plan.missing}
    then = make_plan(grid, *store.fates(), DATA, fresh=True, known=known(grid, store), tried=tried)
    assert then.missing == tuple(compared_runs(grid, store))


# What else a store may hold


def test_runs_of_candidates_that_were_dropped_decide_nothing(tmp_path):
    grid, store = searching(tmp_path, halving=2), Store(tmp_path / "store")
    nature = Nature(2, failed=0)
    swept(grid, store, nature)
    before, reported = compared_runs(grid, store), compare(gather(grid, store))
    dropped = set(grid.cells()) - set(planned_in(grid, store, *store.fates()).stages[-2].cells)
    assert dropped
    wonderful = [run(cell, seed, val_accuracy=0.99) for cell in dropped for seed in grid.seeds.tunes]
    fill(store, wonderful, trial=lambda r: f"dd{r['cell'].cell_id}")
    assert compared_runs(grid, store) == before
    assert compare(gather(grid, store)).equals(reported)
    assert incomplete(store, grid) == []


def test_a_store_in_which_every_candidate_has_fresh_seeds_is_complete_and_reported_as_before(tmp_path):
    grid, nature = searching(tmp_path), Nature(5, failed=0)
    full = fill(Store(tmp_path / "full"), [nature.row(*each) for each in grid.runs()])
    store = Store(tmp_path / "store")
    swept(grid, store, nature)
    assert incomplete(full, grid) == incomplete(store, grid) == []
    assert make_plan(grid, *full.fates(), DATA, known=known(grid, full)).missing == ()
    assert compare(gather(grid, full)).equals(compare(gather(grid, store)))
    of_full, of_store = select(gather(grid, full)), select(gather(grid, store))
    assert len(of_full.known) == sum(1 for _ in grid.runs())
    assert of_full.known["planned"].sum() == len(of_store.known) == sum(map(len, expected(grid)))
    assert of_store.known["planned"].all()
    assert of_full.tried.equals(of_store.tried)


# What is told


def test_a_plan_says_what_chooses_and_how_much_may_follow_and_then_what_was_chosen(tmp_path, capsys):
    grid, store = searching(tmp_path, activations=("relu",)), Store(tmp_path / "store")
    tell(look(grid, store, DATA), [], 1)
    out = capsys.readouterr().out
    assert (
        "10 cells × 5 tuning seeds, which choose lr, then up to 2 × 3 seeds at the chosen values = up to 56 runs" in out
    )
    assert "finished 0, failed 0, to do 50\n  then up to 6 more, which these decide\n" in out
    nature = Nature(failed=0, diverged=0, better=lambda cell: 0.3 * (cell.lr == {BEFORE: 0.3, AFTER: 0.03}[cell.order]))
    fill(store, [nature.row(*run) for run in look(grid, store, DATA).plan.missing])
    tell(look(grid, store, DATA), [], 1)
    out = capsys.readouterr().out
    assert "chosen: weight-bn-act lr 0.3; weight-act-bn lr 0.03\n  finished 50, failed 0, to do 6\n" in out


def test_a_plan_and_status_and_a_report_write_a_chosen_value_alike(tmp_path, told):
    searched = "lr = [0.1, 1000000.0]\naffine = [true, false]\nmomentum = [0.9, 0.0]"
    grid, store = searching(tmp_path, searched, activations=("relu",)), Store(tmp_path / "store")
    swept(grid, store, Nature(failed=0, diverged=0, better=lambda cell: (cell.lr > 1) - cell.affine - cell.momentum))
    _, planned, _ = told("plan", tmp_path / "study.toml", "--store", store.path)
    assert "chosen: weight-bn-act lr 1e+06, affine false, momentum 0; weight-act-bn lr 1e+06, affine" in planned
    lines = [" ".join(line.split()) for line in told("status", store.path, tmp_path / "study.toml")[1].splitlines()]
    assert "lr 1e+06 46 0 0 0" in lines
    assert "affine true 40 0 0 0" in lines
    said = sentences(select(gather(grid, store)))
    assert "selected learning rate, affine and momentum (" in said[0]
    assert "Tried: learning rate 0.1, 1e+06; affine true, false; momentum 0.9, 0, by all arms." in said[0]


def test_a_plan_that_halves_says_how_many_cells_each_rung_has(tmp_path, capsys):
    tell(look(searching(tmp_path, halving=2), Store(tmp_path / "store"), DATA), [], 1)
    out = capsys.readouterr().out
    assert "3 rungs of 20, 12, 8 cells × 5 tuning seeds, which choose lr, then up to 4 × 3 seeds" in out
    assert "to do 100\n  then up to 112 more, which these decide" in out


def test_of_many_choices_only_the_first_are_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("harness.study.MOST_LINES", 2)
    grid = searching(tmp_path, "lr = [0.1, 0.2]", ("relu", "tanh", "elu", "silu"))
    swept(grid, store := Store(tmp_path / "store"), Nature(failed=0))
    tell(look(grid, store, DATA), [], 1)
    assert "and for 2 more cells, which the report has" in capsys.readouterr().out


def test_status_and_validate_tell_what_is_planned_and_what_may_follow(tmp_path, told):
    grid, store = searching(tmp_path), Store(tmp_path / "store")
    path, place = tmp_path / "study.toml", str(store.path)
    nature = Nature(failed=0, diverged=0)
    every = look(grid, store, DATA).plan.missing
    fill(store, [nature.row(*run) for run in every[:-1]])
    found = overview(grid, store)
    assert found.total == {"done": 99, "diverged": 0, "failed": 0, "missing": 1}
    assert found.later == 12
    assert not any(field == "seeds" for field, _ in found.by_value)
    assert incomplete(store, grid) == [
        "study: 1 of 100 planned runs are missing", "study: up to 12 more runs follow, which are not planned yet"
    ]  # fmt: skip
    assert "100 planned runs, then up to 12 more\n" in told("status", place, path)[1]
    fill(store, [nature.row(*every[-1])], trial=lambda _: "ff")
    found = overview(grid, store)
    assert found.by_value["seeds", TUNING] == {"done": 100, "diverged": 0, "failed": 0, "missing": 0}
    assert found.by_value["seeds", COMPARED] == {"done": 0, "diverged": 0, "failed": 0, "missing": 12}
    assert sum(found.by_value["activation", "tanh"].values()) == 56
    assert incomplete(store, grid) == ["study: 12 of 112 planned runs are missing"]


def test_a_report_says_how_candidates_were_halved_and_whom_that_favours(tmp_path):
    grid, store = searching(tmp_path, halving=2), Store(tmp_path / "store")
    swept(grid, store, Nature(6))
    selected = select(gather(grid, store))
    said = " ".join(sentences(selected))
    assert (
        "the best 1/2 of them going on: 5 with 3 epochs, 3 with 5 epochs, 2 with 10 epochs; the choice is among the last. "
        "This favours arms that start fast"
    ) in said
    assert "Of 200 tuning runs on all rungs " in said
    steps = selected.rungs.groupby("epochs")
    assert steps.size().to_dict() == {3: 20, 5: 12}
    assert steps["goes_on"].sum().to_dict() == {3: 12, 5: 8}
    assert len(selected.tried) == 8
    row = selected.rungs.iloc[0]
    [cell] = [c for c in grid.cells() if (c.order, c.activation, c.lr) == (row["order"], row["activation"], row["lr"])]
    values = [Nature(6)(cell.model_copy(update={"epochs": 3}), seed) for seed in grid.seeds.tunes]
    assert row["mean"] == pytest.approx(mean_of(values))


@pytest.mark.parametrize(
    ("left_out", "steps", "fewer"),
    [
        ([0.01], "up to 6 with 3 epochs, 3 with 5 epochs, 2 with 10 epochs", False),
        ([0.01, 0.03], "6 with 3 epochs, up to 4 with 5 epochs, 2 with 10 epochs", True),
        ([0.01, 0.03, 0.1, 0.3], "6 with 3 epochs, 3 with 5 epochs, 2 with 10 epochs", True),
    ],
)
def test_cells_with_fewer_candidates_are_told_apart_where_that_changes_their_rungs(tmp_path, left_out, steps, fewer):
    exclude = f"exclude = [{{activation = 'tanh', lr = {left_out}}}]\n"
    grid = searching(tmp_path, f"lr = {[*RATES, 3.0]}", halving=2, before=exclude)
    swept(grid, store := Store(tmp_path / "store"), Nature(6))
    said = " ".join(sentences(select(gather(grid, store))))
    assert f"going on: {steps};" in said
    assert ("Cells with fewer candidates climb fewer rungs, the last ones." in said) == fewer


def test_tuning_runs_that_cells_with_other_epochs_share_are_counted_once_as_status_does(tmp_path):
    text = (
        searching(tmp_path, halving=2).text.replace("epochs = 10", "").replace("depth  ", "epochs = [5, 10]\ndepth  ")
    )
    (tmp_path / "study.toml").write_text(text)
    grid, store = (
        Grid.read(tmp_path / "study.toml", {**harness.choices(), "metric": METRICS}),
        Store(tmp_path / "store"),
    )
    swept(grid, store, Nature(3))
    fates = overview(grid, store).by_value["seeds", TUNING]
    said = (
        f"Of {sum(fates.values())} tuning runs on all rungs {fates['failed']} are missing; {fates['diverged']} diverged, "
        "and count as the worst outcome."
    )
    assert said in sentences(select(gather(grid, store)))


def test_of_arms_that_are_on_their_way_it_is_said_that_some_rung_lacks_runs(tmp_path):
    grid, store = searching(tmp_path, halving=2, activations=("relu",)), Store(tmp_path / "store")
    tuning = swept(grid, Store(tmp_path / "whole"), nature := Nature(failed=0, diverged=0))[:-1]
    lacking = tuning[-1][0].cell
    fill(store, [nature.row(*each) for runs in tuning for each in runs if each.cell != lacking])
    said = sentences(select(gather(grid, store)))
    assert "going on: 5 with 3 epochs, 3 with 5 epochs, 2 with 10 epochs;" in said[2]
    assert said[3:] == [
        "Of 100 tuning runs on all rungs 5 are missing; 0 diverged, and count as the worst outcome.",
        "Without a finished tuning run of some value on some rung, so that nothing is chosen or compared: 1 of 2.",
    ]


def test_a_value_is_at_the_edge_of_all_that_were_tuned_not_of_those_that_are_left(tmp_path):
    grid, store = searching(tmp_path, halving=2, activations=("relu",)), Store(tmp_path / "store")
    best = {BEFORE: 0.1, AFTER: 1.0}
    swept(grid, store, Nature(failed=0, diverged=0, better=lambda c: -0.2 * abs(math.log(c.lr / best[c.order]))))
    chosen = select(gather(grid, store)).chosen.set_index("order")
    assert chosen["lr"].to_dict() == best
    assert chosen["at_edge"].to_dict() == {BEFORE: False, AFTER: True}


def test_a_value_that_diverges_only_when_trained_for_longer_did_not_at_every_one(tmp_path):
    class Late(Nature):
        def __call__(self, cell, seed):
            return "diverged" if cell.order == AFTER or cell.epochs == 10 else 0.5 + cell.lr / 10

    grid, store = searching(tmp_path, halving=2, activations=("relu",)), Store(tmp_path / "store")
    swept(grid, store, Late())
    selected = select(gather(grid, store))
    assert selected.chosen["uncertain"].all()
    [marked] = [arms for note, arms in selected.results.remarks if note == "lr diverged at every value"]
    assert {order for _, order in marked} == {AFTER}


# Grids


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"halving": 1}, r"\[seeds\] halving = 1: must be 0, for none, or at least 2"),
        ({"halving": -2}, r"\[seeds\] halving = -2: should be greater than or equal to 0"),
        ({"halving": 5}, r"\[seeds\] halving = 5: must be less than 5, the number of candidates"),
        (
            {"halving": 2, "epochs": 1},
            r"halving = 2: 5 candidates need 3 rungs of different length, and 1 epochs leave .* 1, 1, 1",
        ),
        ({"halving": 2, "epochs": 2}, r"and 2 epochs leave rungs of 1, 1, 2"),
    ],
)
def test_halving_that_cannot_be_done_is_an_error(tmp_path, how, words):
    with pytest.raises(GridError, match=f"study.toml: .*{words}"):
        searching(tmp_path, **how)


def test_halving_without_a_search_is_an_error(tmp_path):
    text = plain(tmp_path).text.replace("[seeds]", "[seeds]\nhalving = 2")
    (tmp_path / "plain.toml").write_text(text)
    with pytest.raises(GridError, match=r"\[seeds\] halving = 2: must be left out, since nothing under \[nuisance\]"):
        Grid.read(tmp_path / "plain.toml", {**harness.choices(), "metric": METRICS})


def test_halving_is_part_of_the_analysis_and_its_absence_changes_no_hash(tmp_path):
    hashes = [searching(tmp_path, halving=halving).analysis_hash for halving in (0, 2, 3)]
    assert len(set(hashes)) == 3
    assert hashes[0] == "3360565704451b96"  # as before there was halving


def test_arms_have_equally_many_candidates_on_every_rung(tmp_path):
    grid, store = searching(tmp_path, halving=2), Store(tmp_path / "store")
    swept(grid, store, Nature(failed=0))
    for rung, size in zip(rungs(grid, known(grid, store)), (5, 3, 2), strict=True):
        assert (rung.climbing.sum(0) == size).all()


# Adaptive seeds


def adaptive(folder, axes=""):
    """2 orders × 2 activations, looks after 2, 4 and 8 seeds."""
    return read_grid(folder, ("relu", "tanh"), seeds="2\nmax = 8\nstop = 'decided'", axes=axes)


def stages_after(grid, ended, looks, chosen=lambda cell: True):
    """(look, cells, seeds) of each stage that is planned where so many looks have ended, and how many runs may follow.

    looks: that each (activation, order) wants.
    """
    size, asked = (0, *grid.seeds.looks)[ended], []

    def wanted():
        asked.append(ended)
        without = ("order", *grid.searched)
        return {
            (cell.without(*without), cell.order): looks[cell.activation, cell.order]
            for cell in grid.cells()
            if (cell.activation, cell.order) in looks
        }

    there = {Run(cell, s).run_id for cell in grid.cells() for s in (*grid.seeds.tunes, *range(size))}
    better = {
        Run(cell, s).run_id: Outcome(0.5 + chosen(cell), False, 10) for cell in grid.cells() for s in grid.seeds.tunes
    }
    found = planned(grid, better, lambda _, run_id: run_id not in there, wanted)
    assert len(asked) == min(ended, 1)  # not before a look has all its runs
    told = [(stage.look, {(c.activation, c.order) for c in stage.cells}, stage.seeds) for stage in found.stages]
    return told, found.later


EVERY = {(activation, order) for activation in ("relu", "tanh") for order in (BEFORE, AFTER)}
TANH = {("tanh", BEFORE), ("tanh", AFTER)}


def test_looks_come_one_after_the_other_and_only_arms_that_want_them_go_on(tmp_path):
    grid = adaptive(tmp_path)
    assert stages_after(grid, 0, {}) == ([(1, EVERY, (0, 1))], 4 * 6)
    assert stages_after(grid, 1, {}) == ([(1, EVERY, (0, 1))], 0)
    second = [(1, EVERY, (0, 1)), (2, TANH, (2, 3))]
    assert stages_after(grid, 1, dict.fromkeys(TANH, 2)) == (second, 2 * 4)
    assert stages_after(grid, 2, dict.fromkeys(TANH, 2)) == (second, 0)
    third = [*second, (3, {("tanh", AFTER)}, (4, 5, 6, 7))]
    assert stages_after(grid, 2, {("tanh", BEFORE): 2, ("tanh", AFTER): 3}) == (third, 0)
    assert stages_after(grid, 3, {("tanh", BEFORE): 2, ("tanh", AFTER): 3}) == (third, 0)
    assert [len(stage) for stage in expected(grid)] == [8, 8, 16]


def test_looks_follow_the_choice_of_what_is_searched(tmp_path):
    grid = adaptive(tmp_path, axes="[nuisance]\nlr = [0.01, 0.1]")
    told, later = stages_after(grid, 1, dict.fromkeys(TANH, 2), chosen=lambda cell: cell.lr == 0.01)
    assert [(look, cells, len(seeds)) for look, cells, seeds in told] == [(0, EVERY, 5), (1, EVERY, 2), (2, TANH, 2)]
    assert later == 2 * 4
    assert [len(stage) for stage in expected(grid)] == [40, 8, 8, 16]


def test_adaptive_seeds_are_not_planned_without_what_decides(tmp_path):
    with pytest.raises(AssertionError, match="adaptive seeds need what decides"):
        planned(adaptive(tmp_path), {}, lambda *_: True)


def test_a_plan_says_what_goes_on(tmp_path, capsys):
    grid, store = adaptive(tmp_path), Store(tmp_path / "store")
    cells = {(cell.without("order"), cell.order): 2 for cell in grid.cells() if cell.activation == "tanh"}
    first = [run(cell, seed) for cell in grid.cells() for seed in range(2)]
    tell(look(grid, fill(store, first), DATA, wanted=lambda *_: cells), [], 1)
    out = capsys.readouterr().out
    assert "4 cells × 2 to 8 seeds = up to 32 runs; looks at 2, 4, 8 seeds" in out
    assert "look 2: 2 of 4 cells are in undecided comparisons and get seeds 2 to 3" in out
    assert "then up to 8 more, which these decide" in out
    found = overview(grid, store, lambda *_: cells)
    assert found.by_value["seeds", "look 1"]["done"] == 8
    assert found.by_value["seeds", "look 2"]["missing"] == 4
    assert incomplete(store, grid, lambda *_: cells)[0] == f"{grid.name}: 4 of 12 planned runs are missing"
    assert incomplete(store, grid, lambda *_: {}) == []
