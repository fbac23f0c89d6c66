"""Learning rates chosen for each arm: by tuning seeds only, compared on fresh ones, with what makes a choice doubtful."""

import itertools
import math
import re
import statistics
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from simulated import AFTER, BEFORE, CLASSES, MARGINS, NONE, exactly, fill, read_grid, run

import harness
from grids import FIELDS, TUNING_FROM, Cell, Grid
from reports import export, figures, page, sections
from reports import statistics as st
from reports.comparisons import at_equal_rates, compare
from reports.measures import measure
from reports.outcomes import Paired, Results, gather
from reports.rate_curves import how, rate_curves, sentences
from reports.rates import DRAWS, RESAMPLING_SEED, SURE, bounds, frequencies, select, validation
from results import METRICS, Store

pytestmark = pytest.mark.filterwarnings("error")

TUNING, FRESH = 5, 20
RATES = (0.01, 0.1)
# Means by order and rate: at a shared rate of 0.1 before is better, at each arm's best rate after is.
CROSSED = {(BEFORE, 0.1): 0.80, (BEFORE, 0.01): 0.60, (AFTER, 0.1): 0.70, (AFTER, 0.01): 0.90}


def searching(folder, rates=RATES, tuning=TUNING, count=FRESH, analysis=MARGINS, **options):
    """A grid that chooses among learning rates."""
    folder.mkdir(exist_ok=True)
    searched = f"{analysis}\n[nuisance]\nlr = {list(rates)}"
    return read_grid(folder, seeds=f"{count}\ntuning = {tuning}", margins=searched, **options)


def planted(grid, means, sd=0.01, metrics=("test_accuracy", "val_accuracy")):
    """Runs whose metrics are the mean of their order and rate, with noise of their own; all equal where sd is 0."""
    rng = np.random.default_rng(0)
    return [
        run(each.cell, each.seed, **{m: means[each.cell.order, each.cell.lr] + rng.normal(0, sd) for m in metrics})
        for each in grid.runs()
    ]


def changed(runs, where, **metrics):
    return [{**r, **metrics} if where(r) else r for r in runs]


def with_status(runs, where, status):
    return [run(r["cell"], r["seed"], status) if where(r) else r for r in runs]


def key(r):
    return r["cell"].order, r["cell"].lr, r["seed"]


def is_tuning(r):
    return r["seed"] >= TUNING_FROM


def results_of(folder, grid, runs):
    return gather(grid, fill(Store(folder / f"store-{len(list(folder.iterdir()))}"), runs))


def select_planted(folder, means, sd=0.01, change=lambda runs: runs, **options):
    grid = searching(folder, sorted({rate for _, rate in means}), **options)
    return select(results_of(folder, grid, change(planted(grid, means, sd))))


def chosen_rates(selected):
    """By order, of a grid with one cell without order and rate."""
    return dict(zip(selected.chosen["order"], selected.chosen["lr"], strict=True))


# What is compared


def test_the_sign_at_a_shared_rate_is_turned_by_giving_each_arm_its_own(tmp_path):
    grid = searching(tmp_path)
    results = results_of(tmp_path, grid, planted(grid, CROSSED))
    row = compare(results, ["test_accuracy"]).iloc[0]
    shared = at_equal_rates(results, ["test_accuracy"]).set_index("lr").loc[0.1]
    assert (shared["verdict"], row["verdict"]) == ("different", "different")
    assert shared["difference"] == pytest.approx(-0.1, abs=0.02)
    assert row["difference"] == pytest.approx(0.1, abs=0.02)
    assert (row["lr_a"], row["lr_b"], row["n"]) == (0.01, 0.1, FRESH)


def test_only_fresh_seeds_at_the_chosen_rates_are_compared(tmp_path):
    grid = searching(tmp_path)
    runs = planted(grid, CROSSED)
    row = compare(results_of(tmp_path, grid, runs), ["test_accuracy"]).iloc[0]
    by_run = {key(r): r["test_accuracy"] for r in runs}
    differences = [by_run[AFTER, 0.01, seed] - by_run[BEFORE, 0.1, seed] for seed in range(FRESH)]
    assert row["difference"] == pytest.approx(statistics.fmean(differences))
    assert row["sd"] == pytest.approx(statistics.stdev(differences))


def test_absurd_test_values_of_tuning_seeds_change_nothing(tmp_path):
    grid = searching(tmp_path)
    runs = planted(grid, CROSSED)
    expected = compare(results_of(tmp_path, grid, runs))
    absurd = changed(runs, is_tuning, test_accuracy=1e6, test_loss=-1e6)
    pd.testing.assert_frame_equal(compare(results_of(tmp_path, grid, absurd)), expected)
    runs = changed(runs, lambda r: not is_tuning(r), test_accuracy=0.123)
    assert compare(results_of(tmp_path, grid, runs))["difference"][0] == 0  # the test values that do count


def test_absurd_validation_values_of_tuning_seeds_change_what_is_chosen_and_no_compared_value(tmp_path):
    grid = searching(tmp_path)
    runs = planted(grid, CROSSED)
    turned = changed(
        runs, lambda r: is_tuning(r) and r["cell"].order == AFTER and r["cell"].lr == 0.1, val_accuracy=1e6
    )
    row = compare(results_of(tmp_path, grid, turned), ["test_accuracy"]).iloc[0]
    shared = at_equal_rates(results_of(tmp_path, grid, runs), ["test_accuracy"]).set_index("lr").loc[0.1]
    assert (row["lr_a"], row["lr_b"]) == (0.1, 0.1)
    for column in ("mean_a", "mean_b", "difference", "sd", "p", "low", "high"):
        assert row[column] == pytest.approx(shared[column], rel=1e-10)


def test_validation_values_of_fresh_seeds_choose_nothing(tmp_path):
    def absurd(runs):
        return changed(runs, lambda r: not is_tuning(r) and r["cell"].lr == 0.1, val_accuracy=1e6)

    assert chosen_rates(select_planted(tmp_path, CROSSED, change=absurd)) == {BEFORE: 0.1, AFTER: 0.01}


def test_a_rate_that_was_chosen_does_not_tell_comparisons_apart(tmp_path):
    grid = searching(tmp_path)
    same = {key: 0.5 + key[1] for key in CROSSED}
    frame = compare(results_of(tmp_path, grid, planted(grid, same)), ["test_accuracy"])
    assert frame[["lr_a", "lr_b"]].to_numpy().tolist() == [[0.1, 0.1]]
    assert frame["lr"].isna().all()


def test_with_a_fixed_rate_both_arms_have_it(tmp_path):
    grid = read_grid(tmp_path, seeds=6)
    results = results_of(tmp_path, grid, [run(each.cell, each.seed) for each in grid.runs()])
    frame = compare(results)
    assert (frame["lr"].tolist(), frame["lr_a"].tolist(), frame["lr_b"].tolist()) == ([0.1] * 2, [0.1] * 2, [0.1] * 2)
    assert select(results).results is results
    pd.testing.assert_frame_equal(at_equal_rates(results), frame)


def accidents(grid, seed):
    """Runs of many fates, whose best rates differ between cells and arms."""
    rng, runs = np.random.default_rng(seed), []
    means = {(cell.order, cell.activation, cell.lr): rng.uniform(0.5, 0.8) for cell in grid.cells()}
    for each in grid.runs():
        mean = means[each.cell.order, each.cell.activation, each.cell.lr]
        fate = rng.choice(["done", "missing", "failed", "diverged"], p=[0.85, 0.05, 0.05, 0.05])
        if fate == "done":
            runs.append(run(each.cell, each.seed, **{m: abs(mean + rng.normal(0, 0.05)) for m in METRICS}))
        elif fate != "missing":
            runs.append(run(each.cell, each.seed, fate))
    return runs


@pytest.mark.parametrize("seed", range(2))
def test_the_comparison_is_that_of_a_grid_in_which_each_arm_had_its_rate_from_the_start(tmp_path, seed):
    activations, contrasts = ("relu", "tanh", "elu"), ("after - before", "before - none")
    grid = searching(tmp_path, (0.3, 0.03, 0.003), activations=activations, contrasts=contrasts)
    runs = accidents(grid, seed)
    selected = select(results_of(tmp_path, grid, runs))
    rates = {(row.activation, row.order): row.lr for row in selected.chosen.itertuples()}
    assert len(set(rates.values())) > 1
    plain = read_grid(tmp_path, activations, seeds=FRESH, contrasts=contrasts)
    moved = [
        {**r, "cell": r["cell"].model_copy(update={"lr": 0.1})}
        for r in runs
        if not is_tuning(r) and r["cell"].lr == rates[r["cell"].activation, r["cell"].order]
    ]
    metrics = ("test_accuracy", "test_loss", "test_calibration_error", "reestimated_val_loss")
    ours, theirs = (compare(results, metrics) for results in (selected.results, results_of(tmp_path, plain, moved)))
    added = ["lr", "lr_a", "lr_b", "notes"]
    pd.testing.assert_frame_equal(ours.drop(columns=added), theirs.drop(columns=added))
    notes = [[note for note in notes.split("; ") if not note.startswith("lr ")] for notes in ours["notes"]]
    assert ["; ".join(each) for each in notes] == theirs["notes"].tolist()


def test_choosing_twice_is_choosing_once(tmp_path):
    grid = searching(tmp_path)
    results = results_of(tmp_path, grid, planted(grid, CROSSED))
    once = select(results).results
    assert select(once).results is once
    pd.testing.assert_frame_equal(compare(once), compare(results))


def test_equal_rates_are_compared_on_the_fresh_seeds_in_families_of_all_rates(tmp_path):
    grid = searching(tmp_path, analysis="")
    results = results_of(tmp_path, grid, planted(grid, CROSSED))
    frame = at_equal_rates(results, ["test_accuracy"])
    assert frame["lr"].tolist() == frame["lr_a"].tolist() == frame["lr_b"].tolist() == list(RATES)
    assert frame["n"].tolist() == [FRESH] * 2
    assert frame["p_holm"].max() == pytest.approx(max(frame["p"].max(), 2 * frame["p"].min()))
    assert not frame["notes"].str.contains("lr ").any()


def test_figures_and_tables_take_the_results_of_chosen_rates_as_they_are(tmp_path):
    grid = searching(tmp_path, activations=("relu", "tanh"))
    results = select(results_of(tmp_path, grid, planted(grid, CROSSED))).results
    runs = results.runs.assign(arm=results.runs["order"].map({AFTER: "after", BEFORE: "before"}))
    assert len(runs) == 2 * 2 * FRESH
    assert runs["seed"].max() < TUNING_FROM
    assert [field for field in FIELDS if runs[field].nunique() > 1] == ["order", "activation"]
    assert set(zip(runs["order"], runs["selected_lr"], strict=True)) == {(AFTER, 0.01), (BEFORE, 0.1)}
    drawn = figures.by_arm(runs, "test_accuracy", ["activation"], ["before", "after"])
    assert [tick.get_text() for tick in drawn.axes[0].get_xticklabels()] == ["relu", "tanh"]


def test_extra_seeds_of_a_chosen_rate_are_unplanned_and_those_of_another_are_not(tmp_path):
    grid = searching(tmp_path)
    more = grid.model_copy(update={"seeds": grid.seeds.model_copy(update={"count": FRESH + 1})})
    runs = [r for r in planted(more, CROSSED) if r["seed"] != FRESH or r["cell"].lr == 0.1]
    assert "unplanned seeds" in compare(results_of(tmp_path, grid, runs), ["test_accuracy"])["notes"][0]  # of before
    runs = [r for r in runs if r["seed"] != FRESH or r["cell"].order == AFTER]
    assert "unplanned seeds" not in compare(results_of(tmp_path, grid, runs), ["test_accuracy"])["notes"][0]


# How rates are chosen


@pytest.mark.parametrize(
    ("metric", "by"),
    [
        ("test_accuracy", "val_accuracy"),
        ("test_loss", "val_loss"),
        ("test_calibration_error", "val_calibration_error"),
        ("best_test_accuracy", "best_val_accuracy"),
        ("reestimated_test_loss", "reestimated_val_loss"),
        ("val_loss", "val_loss"),
        ("mean_val_accuracy", "mean_val_accuracy"),
        ("generalisation_gap", "val_accuracy"),
    ],
)
def test_rates_are_chosen_by_the_primary_metric_on_the_validation_part(metric, by):
    assert validation(metric) == measure(by)


def test_of_losses_the_smaller_is_chosen(tmp_path):
    primary = "primary = { metric = 'test_loss', contrast = 'after - before' }"
    grid = searching(tmp_path, analysis=primary)
    runs = planted(grid, CROSSED, metrics=("val_loss",))
    assert chosen_rates(select(results_of(tmp_path, grid, runs))) == {BEFORE: 0.01, AFTER: 0.1}


@pytest.mark.parametrize("rates", [(0.3, 0.03, 0.1), (0.1, 0.03, 0.3)])
def test_of_equal_rates_the_smaller_is_chosen_in_whatever_order_the_grid_has_them(tmp_path, rates):
    values = [0.7, 0.1, 0.6, 0.3, 0.2]  # other orders of which have a sum larger by its last bits
    orders = [(*some, values[4]) for some in itertools.permutations(values[:4])][::2]
    grid = searching(tmp_path, rates, depths=range(1, 13), count=1)
    runs = []
    for each in grid.runs():
        by_rate = {0.03: [0.0] * TUNING, 0.1: values, 0.3: orders[each.cell.depth - 1]}
        value = by_rate[each.cell.lr][each.seed - TUNING_FROM] if each.seed >= TUNING_FROM else 0.5
        runs.append(run(each.cell, each.seed, val_accuracy=value))
    assert set(select(results_of(tmp_path, grid, runs)).chosen["lr"]) == {0.1}


def test_a_rate_whose_seeds_diverge_now_and_then_is_charged_for_it(tmp_path):
    def change(runs):
        return with_status(runs, lambda r: key(r) == (BEFORE, 0.1, TUNING_FROM + 2), "diverged")

    selected = select_planted(tmp_path, {**CROSSED, (BEFORE, 0.01): 0.7}, sd=0.0, change=change)
    assert chosen_rates(selected)[BEFORE] == 0.01  # 0.70, the other (4 × 0.80 + 1 / classes) / 5 = 0.66
    row = selected.tried.query("order == @BEFORE and lr == 0.1").iloc[0]
    assert (row["n"], row["missing"], row["diverged"]) == (5, 0, 1)
    assert row["mean"] == pytest.approx((4 * 0.8 + 1 / CLASSES) / 5)


def test_a_diverged_loss_is_the_worst_of_all_rates_and_arms_of_the_cell(tmp_path):
    grid = searching(tmp_path, analysis="primary = { metric = 'test_loss', contrast = 'after - before' }")
    runs = planted(grid, dict.fromkeys(CROSSED, 0.3), sd=0, metrics=("val_loss",))
    runs = changed(runs, lambda r: key(r) == (AFTER, 0.01, TUNING_FROM + 1), val_loss=9.0)
    runs = with_status(runs, lambda r: key(r) == (BEFORE, 0.1, TUNING_FROM + 1), "diverged")
    tried = select(results_of(tmp_path, grid, runs)).tried.set_index(["order", "lr"])
    assert tried.loc[(BEFORE, 0.1), "mean"] == pytest.approx((4 * 0.3 + 9.0) / 5)


def test_where_every_rate_diverges_the_smallest_is_chosen_which_is_noted(tmp_path):
    def lost(r):
        return is_tuning(r) and r["cell"].order == AFTER

    selected = select_planted(tmp_path, CROSSED, change=lambda runs: with_status(runs, lost, "diverged"))
    assert chosen_rates(selected) == {BEFORE: 0.1, AFTER: 0.01}
    frame = compare(selected.results, ["test_accuracy"])
    assert frame["n"].tolist() == [FRESH]
    assert {"lr uncertain", "lr diverged at every value"} <= set(frame["notes"][0].split("; "))
    assert selected.chosen.set_index("order")["uncertain"].to_dict() == {BEFORE: False, AFTER: True}


@pytest.mark.parametrize("at", [(AFTER, 0.01), (AFTER, 0.1)])
def test_a_single_tuning_run_that_did_not_diverge_is_a_value_at_which_not_all_did(tmp_path, at):
    def lost(r):
        return is_tuning(r) and r["cell"].order == AFTER and key(r) != (*at, TUNING_FROM + 1)

    selected = select_planted(tmp_path, CROSSED, change=lambda runs: with_status(runs, lost, "diverged"))
    assert "diverged at every value" not in compare(selected.results, ["test_accuracy"])["notes"][0]


@pytest.mark.parametrize(("worse", "noted"), [(0.0, True), (0.001, False)])
def test_a_choice_among_equals_is_uncertain_though_every_resample_takes_the_first(tmp_path, worse, noted):
    means = {(order, rate): 0.8 for order in (BEFORE, AFTER) for rate in (0.01, 0.1)}
    selected = select_planted(tmp_path, {**means, (BEFORE, 0.1): 0.8 - worse, (AFTER, 0.1): 0.7}, sd=0)
    chosen = selected.chosen.set_index("order")
    assert chosen["frequency"].tolist() == [1, 1]
    assert chosen["uncertain"].to_dict() == {BEFORE: noted, AFTER: False}
    assert ("lr uncertain" in compare(selected.results, ["test_accuracy"])["notes"][0].split("; ")) == noted


def test_nothing_is_chosen_in_an_arm_that_has_no_tuning_run_of_some_rate(tmp_path):
    def change(runs):
        return [r for r in runs if not (is_tuning(r) and (r["cell"].order, r["cell"].lr) == (BEFORE, 0.1))]

    selected = select_planted(tmp_path, CROSSED, change=change)
    chosen = selected.chosen.set_index("order")
    assert chosen.loc[BEFORE, "reason"] == "no tuning run of some value finished"
    assert chosen.loc[AFTER, ["lr", "reason"]].tolist() == [0.01, ""]
    [row] = compare(selected.results, ["test_accuracy"]).to_dict("records")
    assert (row["n"], row["missing"]) == (0, FRESH)
    row = selected.tried.query("order == @BEFORE and lr == 0.1").iloc[0]
    assert (row["n"], row["missing"], row["frequency"]) == (0, TUNING, 0)
    assert math.isnan(row["mean"])


@pytest.mark.parametrize("lost", [1, 0])
def test_a_choice_by_too_few_finished_seeds_is_noted(tmp_path, lost):
    def change(runs):
        return [r for r in runs if key(r) not in [(AFTER, 0.01, TUNING_FROM + i) for i in range(lost)]]

    [notes] = compare(select_planted(tmp_path, CROSSED, change=change).results, ["test_accuracy"])["notes"]
    assert ("lr from fewer than 5 seeds" in notes) == bool(lost)


def test_a_conflict_of_a_run_that_is_compared_is_noted_and_that_of_a_rate_left_out_is_not(tmp_path):
    grid = searching(tmp_path, activations=("relu", "tanh"))
    store = fill(Store(tmp_path / "store"), planted(grid, CROSSED))
    again = {("relu", AFTER, 0.01), ("tanh", AFTER, 0.1)}  # chosen, and not
    fill(
        store,
        [
            run(each.cell, each.seed, test_accuracy=0.123)
            for each in grid.runs()
            if each.seed == 3 and (each.cell.activation, each.cell.order, each.cell.lr) in again
        ],
        trial=lambda run: "f" + run["cell"].cell_id,
    )
    frame = compare(gather(grid, store), ["test_accuracy"]).set_index("activation")
    assert "conflict" in frame["notes"]["relu"].split("; ")
    assert "conflict" not in frame["notes"]["tanh"].split("; ")


def test_what_is_told_of_a_searching_grid_is_about_its_tuning_runs_too(tmp_path):
    grid = searching(tmp_path, count=6)
    runs = with_status(planted(grid, CROSSED), lambda r: key(r) == (BEFORE, 0.01, TUNING_FROM + 2), "failed")
    runs = [r for r in runs if key(r) != (AFTER, 0.1, TUNING_FROM)]
    page.build(grid, fill(Store(tmp_path / "store"), runs), tmp_path / "report")
    text = (tmp_path / "report" / "index.html").read_text()
    assert "30 finished of 32 planned; 12 more at values that were not chosen" in text
    assert "failed: no reason recorded" in text
    assert "not run" in text
    assert "lr 0.01 / 0.1" in text
    assert not re.search(r"\bnan\b", re.sub(r"<script.*?</script>", "", text, flags=re.S), re.I)


@pytest.mark.parametrize("form", ["latex", "markdown"])
def test_tables_for_papers_say_at_which_rates_arms_are_compared(tmp_path, form):
    grid = searching(tmp_path, count=6)
    store = fill(Store(tmp_path / "store"), planted(grid, CROSSED))
    export.export(grid, store, form, tmp_path / "out")
    text = (tmp_path / "out" / export.FILES[form]).read_text()
    assert "at each arm's selected learning rate (chosen by validation accuracy over 5 tuning seeds" in text
    assert "lr 0.01 / 0.1" in text


@pytest.mark.parametrize("status", ["failed", "missing"])
def test_without_any_tuning_run_the_pairs_are_missing_and_the_family_stays_as_large(tmp_path, status):
    def lost(r):
        return is_tuning(r) and r["cell"].activation == "tanh" and r["cell"].order == AFTER

    grid = searching(tmp_path, activations=("relu", "tanh"))
    runs = planted(grid, {**CROSSED, (AFTER, 0.01): 0.805})
    runs = with_status(runs, lost, "failed") if status == "failed" else [r for r in runs if not lost(r)]
    selected = select(results_of(tmp_path, grid, runs))
    frame = compare(selected.results, ["test_accuracy"])
    assert frame["activation"].tolist() == ["relu", "tanh"]
    assert (frame["n"].tolist(), frame["missing"].tolist()) == ([FRESH, 0], [0, FRESH])
    assert frame["p_holm"][0] == pytest.approx(min(1, 2 * frame["p"][0]))
    assert math.isnan(frame["lr_a"][1])
    assert frame["lr_b"][1] == 0.1
    [reason] = selected.chosen.query("activation == 'tanh' and order == @AFTER")["reason"]
    assert reason == "no tuning run of some value finished"
    nothing = selected.results.runs.query("activation == 'tanh' and order == @AFTER")
    assert set(nothing["status"]) == {"missing"}
    assert nothing[["run_id", "test_accuracy", "selected_lr"]].isna().all(axis=None)
    assert any("nothing is chosen or compared: 1 of 4" in sentence for sentence in sentences(selected))


def test_only_the_cells_that_the_grid_has_are_chosen_for(tmp_path):
    exclude = f"exclude = [{{ order = '{NONE}', depth = 4 }}, {{ depth = 2, lr = 0.1 }}]\n"
    grid = searching(
        tmp_path, depths=(2, 4), contrasts=("after - before", "before - none"), exclude=exclude, analysis=""
    )
    means = {**CROSSED, (NONE, 0.1): 0.5, (NONE, 0.01): 0.4}
    selected = select(results_of(tmp_path, grid, planted(grid, means)))
    found = {(row.depth, row.order): (row.lr, row.at_edge) for row in selected.chosen.itertuples()}
    assert found == {
        (2, NONE): (0.01, False), (2, BEFORE): (0.01, False), (2, AFTER): (0.01, False),
        (4, BEFORE): (0.1, True), (4, AFTER): (0.01, True),
    }  # fmt: skip
    frame = compare(selected.results, ["test_accuracy"])
    assert frame[["contrast", "depth"]].to_numpy().tolist() == [
        ["after - before", 2], ["after - before", 4], ["before - none", 2],
    ]  # fmt: skip


def select_two(folder, best, rates):
    """By order the best rate and weight decay, of which 0 and 0.01 are tried."""
    text = searching(folder, rates, analysis="").text.replace("lr = [", "weight_decay = [0.01, 0.0]\nlr = [")
    (folder / "two.toml").write_text(text)
    grid = Grid.read(folder / "two.toml", {**harness.choices(), "metric": METRICS})
    values = {True: 0.9, False: 0.5}
    runs = [
        run(r.cell, r.seed, val_accuracy=values[best[r.cell.order] == (r.cell.lr, r.cell.weight_decay)])
        for r in grid.runs()
    ]
    return select(results_of(folder, grid, runs))


def test_several_fields_are_chosen_together(tmp_path):
    best = {BEFORE: (0.1, 0.01), AFTER: (0.01, 0.0)}
    selected = select_two(tmp_path, best, rates=(0.1, 0.01))
    chosen = selected.chosen.set_index("order")[["lr", "weight_decay"]]
    assert {order: tuple(chosen.loc[order]) for order in best} == best
    frame = compare(selected.results, ["test_accuracy"])
    assert frame[["lr_a", "lr_b"]].to_numpy().tolist() == [[0.01, 0.1]]
    assert frame[["lr", "weight_decay"]].isna().all(axis=None)
    notes = frame["notes"][0].split("; ")
    assert {"weight_decay at edge", "lr at edge"} <= set(notes)
    assert "selected weight decay and learning rate (" in how(selected.results.grid)
    assert rate_curves(selected, []) is not None
    titles = []
    sections.chosen_rates(selected, [], lambda figure, name, title, about: titles.append(title))
    assert titles == ["What weight decay and learning rate were chosen by"]


# How far a choice can be trusted


def random_scores():
    """With equal means, missing runs and a cell without any."""
    rng = np.random.default_rng(3)
    scores = rng.normal(0, 1, (5, 3, 2, 4)).round(1)
    scores[rng.random(scores.shape) < 0.2] = np.nan
    scores[:, 1, 0, 0] = scores[:, 0, 0, 0]
    scores[:, :, 1, 3] = np.nan
    return scores


def first_best(scores):
    """The first of the best means of scores (T, C), None where there is none: one candidate after the other."""
    best, chosen = -math.inf, None
    for c in range(scores.shape[1]):
        present = scores[np.isfinite(scores[:, c]), c]
        if len(present) and statistics.fmean(present) > best + 1e-12:
            best, chosen = statistics.fmean(present), c
    return chosen


def test_frequencies_agree_with_a_loop_over_the_draws():
    scores = random_scores()
    drawn = np.random.default_rng(RESAMPLING_SEED).integers(5, size=(DRAWS, 5))
    expected = np.zeros(scores.shape[1:])
    for o, p in np.ndindex(2, 4):
        for seeds in drawn:
            if (c := first_best(scores[seeds, :, o, p])) is not None:
                expected[c, o, p] += 1 / DRAWS
    np.testing.assert_allclose(frequencies(scores), expected, rtol=0, atol=1e-12)


def test_frequencies_agree_with_all_resamples_there_are():
    scores = np.random.default_rng(4).normal(0, 1, (5, 3, 1, 1))
    every = list(itertools.product(range(5), repeat=5))
    found = [first_best(scores[list(seeds), :, 0, 0]) for seeds in every]
    exact = np.array([found.count(c) for c in range(3)]) / len(every)
    assert ((exact > 0.05) & (exact < 0.9)).any()
    band = 4 * np.sqrt(exact * (1 - exact) / DRAWS)
    assert (np.abs(frequencies(scores)[:, 0, 0] - exact) <= band).all()


def test_frequencies_do_not_depend_on_the_blocks_in_which_cells_are_counted(monkeypatch):
    scores = random_scores()
    whole = frequencies(scores)
    monkeypatch.setattr("reports.rates.MOST_NUMBERS", 1)
    np.testing.assert_array_equal(frequencies(scores), whole)


@pytest.mark.parametrize("errors", [0.0, 0.25, 0.5, 1.0, 2.0])
def test_a_wrong_choice_that_is_not_noted_costs_little(errors):
    """errors: by how many standard errors one of two rates is truly better."""
    scores = np.random.default_rng(5).normal(0, math.sqrt(0.5), (TUNING, 2, 1, 5000))  # their difference has sd 1
    scores[:, 1] += errors / math.sqrt(TUNING)
    wrong = (scores.mean(0)[0] > scores.mean(0)[1]) & (frequencies(scores)[0] >= SURE)
    assert errors * wrong.mean() < 0.07
    if errors == 2:
        assert 0.08 < (frequencies(scores)[1] < SURE).mean() < 0.14


@pytest.mark.parametrize(("rate", "noted"), [(0.003, True), (0.01, False), (0.03, False), (0.1, True)])
def test_a_chosen_rate_at_an_edge_is_noted(tmp_path, rate, noted):
    rates = (0.01, 0.1, 0.003, 0.03)
    means = {(order, each): 0.5 for order in (BEFORE, AFTER) for each in rates}
    means |= {(AFTER, rate): 0.8, (BEFORE, 0.03): 0.8}
    selected = select_planted(tmp_path, means)
    assert dict(zip(selected.chosen["order"], selected.chosen["at_edge"], strict=True)) == {BEFORE: False, AFTER: noted}
    notes = compare(selected.results, ["test_accuracy"])["notes"][0].split("; ")
    assert ("lr at edge" in notes) == noted
    assert "lr uncertain" not in notes


def test_only_the_fields_that_are_at_an_edge_are_named_and_none_that_cannot_go_beyond(tmp_path):
    selected = select_two(tmp_path, {BEFORE: (0.1, 0.0), AFTER: (0.1, 0.01)}, rates=(0.01, 0.1, 1.0))
    assert dict(zip(selected.chosen["order"], selected.chosen["at_edge"], strict=True)) == {BEFORE: False, AFTER: True}
    notes = compare(selected.results, ["test_accuracy"])["notes"][0].split("; ")
    assert [note for note in notes if "edge" in note] == ["weight_decay at edge"]
    assert "better value may lie: 1 of 2 choices, in some field." in sentences(selected)[1]


def test_the_bounds_of_a_field_are_allowed_and_what_is_beyond_them_is_not():
    found = {name: bounds(name) for name in FIELDS}
    assert (found["weight_decay"], found["bn_momentum"], found["batch"]) == ([0], [1], [2, 1_000_000])
    assert not any(found[name] for name in ("lr", "bn_eps", "affine", "schedule"))
    for name, limit in ((name, limit) for name, limits in found.items() for limit in limits):
        allowed = [_allows(name, value) for value in (limit - 1, limit, limit + 1)]
        assert allowed[1], (name, limit)
        assert not (allowed[0] and allowed[2]), (name, limit)


def _allows(name, value):
    cell = {"dataset": "digits", "architecture": "mlp", "order": BEFORE, "activation": "relu", "depth": 2, name: value}
    try:
        return bool(Cell(**cell))
    except ValidationError:
        return False


@pytest.mark.parametrize(("errors", "noted"), [(0.5, True), (2.0, False)])
def test_a_choice_that_resampled_seeds_often_change_is_noted(tmp_path, errors, noted):
    """errors: by how many standard errors the mean of one rate exceeds the other's."""
    grid = searching(tmp_path, (0.01, 0.03, 0.1, 0.3))
    apart = exactly(TUNING, errors * 0.02 / math.sqrt(TUNING), 0.02)
    means = {0.01: 0.4, 0.03: 0.6, 0.1: 0.6, 0.3: 0.4}
    runs = []
    for each in grid.runs():
        tunes = each.seed >= TUNING_FROM and (each.cell.order, each.cell.lr) == (AFTER, 0.1)
        shift = apart[each.seed - TUNING_FROM] if tunes else 0
        shift += 0.1 if (each.cell.order, each.cell.lr) == (BEFORE, 0.03) else 0
        runs.append(run(each.cell, each.seed, val_accuracy=means[each.cell.lr] + shift))
    selected = select(results_of(tmp_path, grid, runs))
    chosen = selected.chosen.set_index("order")
    assert (chosen.loc[AFTER, "frequency"] < SURE) == noted
    assert chosen.loc[BEFORE, ["frequency", "uncertain"]].tolist() == [1, False]
    assert chosen.loc[AFTER, "lr"] == 0.1
    notes = compare(selected.results, ["test_accuracy"])["notes"][0].split("; ")
    assert ("lr uncertain" in notes) == noted
    assert "lr at edge" not in notes


def test_the_table_of_tried_rates_has_their_means_and_intervals(tmp_path):
    grid = searching(tmp_path)
    runs = planted(grid, CROSSED)
    tried = select(results_of(tmp_path, grid, runs)).tried
    assert tried[["arm", "lr", "selected"]].to_numpy().tolist() == [
        ["before", 0.01, False], ["before", 0.1, True], ["after", 0.01, True], ["after", 0.1, False],
    ]  # fmt: skip
    for row in tried.itertuples():
        values = [r["val_accuracy"] for r in runs if (r["cell"].order, r["cell"].lr) == (row.order, row.lr)][:TUNING]
        half = 2.7764451 * statistics.stdev(values) / math.sqrt(TUNING)  # R: qt(0.975, 4)
        mean = statistics.fmean(values)
        assert (row.mean, row.low, row.high) == pytest.approx((mean, mean - half, mean + half), rel=1e-7)


def test_choices_are_the_same_bytes_whatever_the_global_random_state(tmp_path):
    grid = searching(tmp_path, (0.003, 0.01, 0.03), activations=("relu", "tanh"))
    results = results_of(tmp_path, grid, accidents(grid, 5))
    found = []
    for seed in (0, 1):
        np.random.seed(seed)  # noqa: NPY002 a global state that must not matter
        selected = select(results)
        svg = figures.save(rate_curves(selected, ["activation"]), tmp_path / f"{seed}", "rates")
        found.append([selected.chosen.to_csv(), selected.tried.to_csv(), compare(results).to_csv(), svg])
    assert found[0] == found[1]


# The error of the first kind

CELLS, SEEDS, CANDIDATES = 800, 10, 12


def equal_arms(grid, tuned_on_the_compared):
    """Results of cells whose arms are equal at what is chosen: `before` at every rate, `after` at one, else far worse.

    A seed's noise is shared by all rates and arms, a run's by its validation and test values.
    """
    rng = np.random.default_rng(11)
    shape = (CELLS, 2, CANDIDATES, 2 * SEEDS)
    mean = np.full(shape[:3], 0.7)
    mean[:, 1, 1:] = 0.2
    noise = rng.normal(0, 1, shape) * np.array([0.03, 0.01])[:, None, None]
    if tuned_on_the_compared:
        noise[..., :SEEDS] = noise[..., SEEDS:]
    accuracy = (mean[..., None] + rng.normal(0, 0.05, (CELLS, 1, 1, 2 * SEEDS)) + noise).ravel()
    rates = np.array(grid.nuisance["lr"])
    runs = pd.DataFrame(dict.fromkeys(FIELDS, "x"), index=range(accuracy.size)).assign(
        run_id=range(accuracy.size), seed=np.tile(np.arange(2 * SEEDS), accuracy.size // SEEDS // 2), cell_id="x",
        lr=np.broadcast_to(rates[:, None], shape).ravel(), status="done", val_accuracy=accuracy, test_accuracy=accuracy,
        classes=CLASSES, epochs=1, train_examples=1000, val_examples=200, test_examples=500,
    )  # fmt: skip
    fields = [{**dict.fromkeys(FIELDS, "x"), "width": width, "lr": rate} for width in range(CELLS) for rate in rates]
    pairs = [tuple((name, value) for name, value in each.items() if name != "order") for each in fields]
    rows = np.arange(accuracy.size).reshape(shape)
    place = {order: rows[:, i].reshape(len(pairs), -1).T for i, order in enumerate((BEFORE, AFTER))}
    return Results(grid, runs, pairs, place, frozenset(), {}, runs[:0])


@pytest.mark.parametrize("tuned_on_the_compared", [False, True])
def test_equal_arms_differ_as_rarely_as_alpha_says_on_fresh_seeds_and_only_there(tmp_path, tuned_on_the_compared):
    grid = searching(tmp_path, [round(0.01 * i, 2) for i in range(1, CANDIDATES + 1)], tuning=SEEDS, count=SEEDS)
    results = select(equal_arms(grid, tuned_on_the_compared)).results
    _, places = results.columns("after - before")
    p = st.t_test(st.moments(Paired(results.runs, measure("test_accuracy"), places).d))
    band = 4 * math.sqrt(0.05 * 0.95 / CELLS)
    assert (abs((p <= 0.05).mean() - 0.05) > band) == tuned_on_the_compared


# What is shown


def test_the_sentences_say_how_rates_were_chosen_and_how_far_to_trust_them(tmp_path):
    def change(runs):
        runs = with_status(runs, lambda r: r["seed"] == TUNING_FROM + 1 and r["cell"].lr == 0.1, "diverged")
        return [r for r in runs if key(r) != (AFTER, 0.01, TUNING_FROM + 2)]

    said = sentences(select_planted(tmp_path, {**CROSSED, (BEFORE, 0.1): 0.99}, change=change))
    assert said[0] == (
        "Every comparison is made at each arm's selected learning rate (chosen by validation accuracy over 5 tuning seeds; "
        "compared on 20 fresh seeds). Tried: learning rate 0.01, 0.1, by all arms."
    )
    assert said[1].startswith("At an edge of what was tried, beyond which a better value may lie: 2 of 2 choices.")
    assert "in less than 80 % of 2,000 resamples of the tuning seeds or no better than another: " in said[1]
    assert said[2] == "Of 20 tuning runs 1 is missing; 2 diverged, and count as the worst outcome."
    assert len(said) == 3


def test_values_that_some_cells_lack_are_not_said_to_be_tried_everywhere(tmp_path):
    grid = searching(tmp_path, depths=(2, 4), exclude="exclude = [{ depth = 2, lr = 0.1 }]\n")
    said = sentences(select(results_of(tmp_path, grid, planted(grid, CROSSED))))
    assert "Tried: learning rate 0.01, 0.1, but for what the grid excludes, by all arms of a cell alike." in said[0]


def test_of_a_fixed_rate_nothing_is_said_or_drawn(tmp_path):
    grid = read_grid(tmp_path, seeds=5)
    selected = select(results_of(tmp_path, grid, [run(each.cell, each.seed) for each in grid.runs()]))
    assert (how(grid), sentences(selected), rate_curves(selected, [])) == ("", [], None)


@pytest.mark.parametrize("metric", ["test_accuracy", "test_loss"])
def test_the_figure_has_a_panel_a_cell_and_rings_the_chosen_rate_of_each_arm(tmp_path, metric):
    primary = f"primary = {{ metric = '{metric}', contrast = 'after - before' }}"
    grid = searching(tmp_path, (0.3, 0.003, 0.03), activations=("relu", "tanh"), analysis=primary)
    selected = select(results_of(tmp_path, grid, accidents(grid, 7)))
    figure = rate_curves(selected, ["activation"])
    assert [ax.get_title() for ax in figure.axes] == ["relu", "tanh"]
    for ax, activation in zip(figure.axes, ("relu", "tanh"), strict=True):
        assert ax.get_xscale() == "log"
        rings = {line.get_xdata()[0] for line in ax.lines if line.get_markerfacecolor() == "none"}
        assert rings == set(selected.chosen.loc[selected.chosen["activation"] == activation, "lr"])
    ET.fromstring(figures.save(figure, tmp_path / "figures", "rates"))


def test_the_figure_of_many_cells_has_only_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr("reports.rate_curves.MOST_PANELS", 3)
    grid = searching(tmp_path, depths=(1, 2, 3, 4, 5))
    selected = select(results_of(tmp_path, grid, planted(grid, CROSSED)))
    shown = [ax.get_title() for ax in rate_curves(selected, ["depth"]).axes if ax.get_visible()]
    assert shown == ["depth 1", "depth 2", "depth 3"]
