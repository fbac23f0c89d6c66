"""Comparisons of simulated stores with planted effects: verdicts, notes, and the whole frame against the oracles."""

import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import oracles
import pandas as pd
import pytest
from simulated import (
    ACTIVATIONS,
    AFTER,
    BEFORE,
    CLASSES,
    EXAMPLES,
    MARGINS,
    exactly,
    fill,
    planted,
    read_grid,
    run,
)

from reports.comparisons import COLUMNS, compare
from reports.outcomes import ReportError, gather
from results import METRICS, Store

pytestmark = pytest.mark.filterwarnings("error")

# mean and sd of the differences in test accuracy, at margin 0.02, 20 seeds and 6 cells
PLANTED = {
    "different": (0.05, 0.01),
    "negligible": (0.005, 0.001),
    "equivalent": (0.0, 0.003),
    "inconclusive": (0.01, 0.022),
    "underpowered": (0.0, 0.1),
}


def one(tmp_path, differences, metric="test_accuracy", change=None, base=0.7, margins=MARGINS):
    """The row of the only comparison of a grid of as many seeds as there are differences. change: what to do to runs."""
    tmp_path.mkdir(exist_ok=True)
    grid = read_grid(tmp_path, seeds=len(differences), margins=margins)
    runs = planted(grid, {"relu": differences}, metric, base)
    runs = change(runs) if change else runs
    return compare(gather(grid, fill(Store(tmp_path / "store"), runs)), [metric]).iloc[0]


def with_status(status, order, seeds):
    """A change: runs of these seeds of the order (None: of every one) have this status and no metrics."""

    def change(runs):
        chosen = [r["seed"] in seeds and r["cell"].order == (order or r["cell"].order) for r in runs]
        return [run(r["cell"], r["seed"], status) if hit else r for r, hit in zip(runs, chosen, strict=True)]

    return change


def assert_agrees(frame, grid, runs, metrics, examples=None):
    """Every column of the frame is what the oracles say."""
    expected = [
        row
        for metric, contrast in itertools.product(metrics, grid.analysis.contrasts)
        for row in oracles.family(grid, runs, metric, contrast, examples)
    ]
    assert len(frame) == len(expected)
    for column in COLUMNS:
        theirs = [row[column] for row in expected]
        if isinstance(theirs[0], str):
            assert frame[column].tolist() == theirs, column
        else:
            kind = {"atol": 1e-4} if column == "power" else {"atol": 1e-7} if "improvement" in column else {}
            tolerance = {"rtol": 1e-7, "atol": 1e-13, **kind}
            np.testing.assert_allclose(frame[column].to_numpy(float), theirs, err_msg=column, **tolerance)


# Verdicts


@pytest.fixture
def all_verdicts(tmp_path):
    grid = read_grid(tmp_path, ACTIVATIONS)
    effects = [*PLANTED.values(), PLANTED["different"]]
    differences = {a: exactly(20, *effect) for a, effect in zip(ACTIVATIONS, effects, strict=True)}
    return grid, planted(grid, differences)


def test_verdicts_are_the_planted_ones(all_verdicts, tmp_path):
    grid, runs = all_verdicts
    frame = compare(gather(grid, fill(Store(tmp_path / "store"), runs)), ["test_accuracy"])
    assert frame["activation"].tolist() == list(ACTIVATIONS)
    assert frame["verdict"].tolist() == [*PLANTED, "different"]
    effects = [*PLANTED.values(), PLANTED["different"]]
    assert frame[["difference", "sd"]].to_numpy() == pytest.approx(np.array(effects), abs=1e-12)


def test_a_difference_is_the_first_arm_minus_the_second(tmp_path):
    row = one(tmp_path, exactly(20, 0.05, 0.01))
    assert row["contrast"] == "after - before"
    assert row["difference"] == pytest.approx(0.05)
    assert row["mean_a"] - row["mean_b"] == pytest.approx(0.05)


def test_a_smaller_loss_is_an_improvement(tmp_path):
    row = one(tmp_path, -np.abs(exactly(20, 0.1, 0.02)), "test_loss")
    assert row["probability_of_improvement"] == 1


def test_few_seeds_are_underpowered_however_equal(tmp_path):
    assert one(tmp_path, exactly(4, 0.0, 0.0001))["verdict"] == "underpowered"


def test_five_seeds_suffice_for_a_verdict(tmp_path):
    assert one(tmp_path, exactly(5, 0.0, 0.0001))["verdict"] == "equivalent"


def test_equal_arms_are_equivalent_only_within_the_resolution_of_the_test_set(tmp_path):
    row = one(tmp_path, np.zeros(20))
    assert row["sd"] == pytest.approx(1 / EXAMPLES / math.sqrt(6))
    assert (row["p"], row["verdict"]) == (1, "equivalent")


def test_equal_losses_have_an_sd_above_zero(tmp_path):
    assert one(tmp_path, np.zeros(20), "test_loss")["sd"] == pytest.approx(1e-6 / math.sqrt(6))


def test_seeds_needed_tell_what_an_underpowered_comparison_lacks(tmp_path):
    row = one(tmp_path / "few", exactly(6, 0.0, 0.03))
    assert row["verdict"] == "underpowered"
    assert row["seeds_needed"] == oracles.seeds_needed(6, 0.03, 0.02, 0.05, 1)
    more = one(tmp_path / "enough", exactly(int(row["seeds_needed"]), 0.0, 0.03))
    assert more["verdict"] == "equivalent"


def test_without_a_margin_nothing_is_equivalent_or_underpowered(all_verdicts, tmp_path):
    _, runs = all_verdicts
    grid = read_grid(tmp_path, ACTIVATIONS, margins="")
    frame = compare(gather(grid, fill(Store(tmp_path / "store"), runs)), ["test_accuracy"])
    assert set(frame["verdict"]) == {"different", "inconclusive"}
    assert frame[["margin", "p_equivalence", "power", "seeds_needed"]].isna().all(axis=None)


def test_cells_that_did_not_run_yet_count_in_the_family(tmp_path):
    differences = exactly(20, 0.01, 0.02)
    alone = one(tmp_path, differences)
    grid = read_grid(tmp_path, ACTIVATIONS)
    frame = compare(gather(grid, Store(tmp_path / "store")), ["test_accuracy"])
    assert len(frame) == 6
    assert frame["p_holm"][0] == pytest.approx(6 * alone["p"])
    assert frame["p"][1:].tolist() == [1] * 5
    assert frame["n"].tolist() == [20, 0, 0, 0, 0, 0]
    assert set(frame["verdict"][1:]) == {"underpowered"}


def test_only_cells_with_both_arms_are_compared(tmp_path):
    exclude = f"exclude = [{{ order = '{AFTER}', depth = 2 }}]\n"
    grid = read_grid(tmp_path, depths=(2, 4), exclude=exclude)
    runs = planted(grid, {"relu": exactly(20, 0.05, 0.01)})
    frame = compare(gather(grid, fill(Store(tmp_path / "store"), runs)), ["test_accuracy"])
    assert frame["depth"].tolist() == [4]
    assert frame["p_holm"][0] == frame["p"][0]


# Missing, failed and diverged runs


def test_a_missing_pair_is_counted_and_left_out(tmp_path):
    differences = exactly(20, 0.05, 0.01)
    gone = {(BEFORE, 3), (AFTER, 7), (AFTER, 3)}
    row = one(tmp_path, differences, change=lambda runs: [r for r in runs if (r["cell"].order, r["seed"]) not in gone])
    assert (row["n"], row["missing"]) == (18, 2)
    assert row["difference"] == pytest.approx(np.delete(differences, [3, 7]).mean())


def test_failed_runs_of_one_arm_are_missing_pairs(tmp_path):
    differences = exactly(20, 0.05, 0.01)
    row = one(tmp_path, differences, change=with_status("failed", AFTER, range(6)))
    assert (row["n"], row["missing"], row["diverged_a"]) == (14, 6, 0)
    assert row["difference"] == pytest.approx(differences[6:].mean())


def test_a_done_run_without_the_metric_is_a_missing_pair(tmp_path):
    def change(runs):
        return [{**r, "test_accuracy": math.nan} if r["seed"] == 2 and r["cell"].order == BEFORE else r for r in runs]

    assert one(tmp_path, exactly(20, 0.05, 0.01), change=change)["missing"] == 1


def test_a_diverged_run_has_the_accuracy_of_guessing(tmp_path):
    row = one(tmp_path, np.zeros(20), base=0.9, change=with_status("diverged", AFTER, [0, 1]))
    before = 0.9 + np.random.default_rng(2).normal(0, 0.02, 20)
    assert (row["n"], row["diverged_a"], row["diverged_b"]) == (20, 2, 0)
    assert row["mean_a"] == pytest.approx((2 / CLASSES + before[2:].sum()) / 20)
    assert row["difference_finished"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("worst", "score"), [(0.4, math.log(CLASSES)), (7.0, 7.0)])
def test_a_diverged_run_has_the_worst_loss_of_both_arms_but_at_least_that_of_guessing(tmp_path, worst, score):
    def change(runs):
        runs = with_status("diverged", AFTER, [0])(runs)
        return [{**r, "test_loss": worst if r["seed"] == 5 else 0.1} if r["status"] == "done" else r for r in runs]

    row = one(tmp_path, np.zeros(20), "test_loss", change=change)
    assert row["mean_a"] == pytest.approx((score + worst + 18 * 0.1) / 20)


def test_an_arm_of_which_every_seed_diverged_is_different(tmp_path):
    row = one(tmp_path, np.zeros(20), change=with_status("diverged", AFTER, range(20)))
    assert (row["verdict"], row["n"], row["diverged_a"]) == ("different", 20, 20)
    assert row["mean_a"] == pytest.approx(1 / CLASSES)
    assert math.isnan(row["difference_finished"])
    assert row["p_diverged"] == pytest.approx(2 * 0.5**20)


def test_arms_that_both_diverge_always_are_never_equivalent(tmp_path):
    row = one(tmp_path, np.zeros(20), change=with_status("diverged", None, range(20)))
    assert (row["difference"], row["verdict"]) == (0, "inconclusive")


def test_equivalence_must_hold_without_the_diverged_pairs_too(tmp_path):
    differences = exactly(20, 0.019, 0.0001)
    assert one(tmp_path / "finished", differences)["verdict"] == "negligible"
    row = one(tmp_path / "diverged", differences, change=with_status("diverged", None, range(17)))
    assert row["p_equivalence"] == pytest.approx(oracles.tost(differences[17:], 0.02, 1 / EXAMPLES / math.sqrt(6)))
    assert row["verdict"] == "inconclusive"


def test_diverged_runs_make_a_comparison_inconclusive_and_not_underpowered(tmp_path):
    row = one(tmp_path, exactly(20, 0.0, 0.1), change=with_status("diverged", AFTER, [0]))
    assert row["verdict"] == "inconclusive"


# Notes: the text of each is exactly what its condition alone gives


def test_a_plain_comparison_has_no_note(tmp_path):
    assert one(tmp_path, exactly(20, 0.05, 0.01))["notes"] == ""


def test_fewer_than_five_pairs_are_noted(tmp_path):
    assert one(tmp_path, exactly(4, 0.05, 0.01))["notes"] == "n < 5"


def test_a_metric_without_margin_is_noted(tmp_path):
    assert one(tmp_path, exactly(20, 0.05, 0.01), margins="")["notes"] == "no margin"


def test_skewed_differences_are_noted(tmp_path):
    skewed = np.tile([0.05, 0.05, 0.05, 0.05, 0.06], 4)
    assert oracles.skewness(skewed) > 1
    assert one(tmp_path, skewed)["notes"] == "skewed"


def test_skewness_of_fewer_than_ten_differences_is_not_noted(tmp_path):
    assert one(tmp_path, np.array([0.05] * 7 + [0.06]))["notes"] == ""


def test_one_pair_that_decides_is_noted(tmp_path):
    differences = np.array([0.01, 0.012, 0.009, 0.011, 0.01, -0.1, 0.01])
    row = one(tmp_path, differences)
    assert row["verdict"] == "underpowered"
    assert row["notes"] == "one pair decides"


def test_a_diverged_run_is_noted(tmp_path):
    row = one(tmp_path, exactly(20, -0.05, 0.01), change=with_status("diverged", AFTER, [0]))
    assert "diverged" in row["notes"].split("; ")
    assert "both diverged" not in row["notes"]


def test_a_pair_of_which_both_runs_diverged_is_noted(tmp_path):
    row = one(tmp_path, exactly(20, 0.05, 0.01), change=with_status("diverged", None, [0]))
    assert {"diverged", "both diverged"} <= set(row["notes"].split("; "))


def test_a_sign_that_diverged_runs_turn_is_noted(tmp_path):
    row = one(tmp_path, exactly(20, 0.05, 0.01), change=with_status("diverged", AFTER, range(6)))
    assert row["difference"] < 0 < row["difference_finished"]
    assert "sign depends on diverged runs" in row["notes"].split("; ")


def test_a_sign_known_from_diverged_runs_only_is_noted(tmp_path):
    row = one(tmp_path, np.zeros(20), change=with_status("diverged", AFTER, range(20)))
    assert "sign depends on diverged runs" in row["notes"].split("; ")


def test_arms_that_only_guess_are_noted(tmp_path):
    assert one(tmp_path, exactly(20, 0, 0.001), base=1 / CLASSES + 0.01)["notes"] == "floor"


def test_arms_that_are_perfect_are_noted(tmp_path):
    assert one(tmp_path, exactly(20, 0, 0.001), base=0.99)["notes"] == "ceiling"


def test_losses_of_guessing_are_noted(tmp_path):
    assert one(tmp_path, exactly(20, 0, 0.001), "test_loss", base=math.log(CLASSES))["notes"] == "floor"


def test_losses_near_zero_are_noted(tmp_path):
    assert one(tmp_path, exactly(20, 0, 0.001), "test_loss", base=0.02)["notes"] == "ceiling"


def example_counts(grid, examples, seed=0):
    """By cell_id, of each test example the number of seeds that classify it right: very unlike between arms."""
    rng, seeds = np.random.default_rng(seed), grid.seeds.count
    return {cell.cell_id: rng.binomial(seeds, rng.random(examples)) for cell in grid.cells()}


def test_a_margin_below_the_noise_of_the_test_set_is_noted(tmp_path):
    grid = read_grid(tmp_path)
    counts = example_counts(grid, 40)
    store = fill(Store(tmp_path / "store"), planted(grid, {"relu": exactly(20, 0.05, 0.01)}), counts=counts)
    row = compare(gather(grid, store), ["test_accuracy"]).iloc[0]
    assert row["test_set_error"] > row["margin"]
    assert row["notes"] == "margin below test-set noise"


def test_noise_of_the_test_set_below_the_margin_is_shown_without_a_note(tmp_path):
    grid = read_grid(tmp_path)
    runs = planted(grid, {"relu": exactly(20, 0.05, 0.01)})
    store = fill(Store(tmp_path / "store"), runs, counts=example_counts(grid, 2000))
    row = compare(gather(grid, store), ["test_accuracy"]).iloc[0]
    assert 0.005 < row["test_set_error"] < 0.02
    assert row["notes"] == ""


def test_counts_of_examples_that_include_unplanned_seeds_are_not_used(tmp_path):
    more = read_grid(tmp_path, ACTIVATIONS, seeds=12)
    runs = planted(more, dict.fromkeys(ACTIVATIONS, exactly(12, 0.05, 0.01)))
    store = fill(Store(tmp_path / "store"), runs, counts=example_counts(more, 40))
    assert compare(gather(more, store), ["test_accuracy"])["test_set_error"].notna().all()
    fewer = read_grid(tmp_path, ACTIVATIONS, seeds=10)
    assert compare(gather(fewer, store), ["test_accuracy"])["test_set_error"].isna().all()


def test_seeds_beyond_the_declared_ones_are_noted_and_not_used(tmp_path):
    store = Store(tmp_path / "store")
    more = read_grid(tmp_path, ("relu", "tanh"), seeds=25)
    runs = planted(more, {"relu": exactly(25, 0.05, 0.01), "tanh": exactly(25, 0.05, 0.01)})
    fill(store, [r for r in runs if r["seed"] < 20 or r["cell"].activation == "tanh"])
    frame = compare(gather(read_grid(tmp_path, ("relu", "tanh"), seeds=20), store), ["test_accuracy"])
    assert frame["notes"].tolist() == ["", "unplanned seeds"]
    assert frame["n"].tolist() == [20, 20]


def test_failed_attempts_beyond_the_declared_seeds_are_no_unplanned_seeds(tmp_path):
    more = read_grid(tmp_path, seeds=22)
    runs = with_status("failed", None, [20, 21])(planted(more, {"relu": exactly(22, 0.05, 0.01)}))
    frame = compare(gather(read_grid(tmp_path, seeds=20), fill(Store(tmp_path / "store"), runs)), ["test_accuracy"])
    assert frame["notes"].tolist() == [""]


# The whole frame


def accidents(grid, seed):
    """Runs with effects of many sizes in several metrics; some are missing, failed or diverged, or lack a metric."""
    rng = np.random.default_rng(seed)
    effects, runs = {}, []
    for cell in grid.cells():
        pair = cell.without("order")
        if pair not in effects:
            effects[pair] = rng.choice([0, 0.003, 0.03]), rng.choice([0.001, 0.01, 0.05]), rng.choice([0, 0, 0.1])
        shift, sd, rate = effects[pair]
        if cell.activation == "sigmoid" and cell.depth == 4:
            continue  # not run yet
        for s in range(grid.seeds.count):
            if cell.activation == "tanh" and s > cell.depth:
                continue  # 3 seeds, or 5
            metrics = {m: abs(0.6 + shift * (cell.order == AFTER) + rng.normal(0, sd)) for m in METRICS}
            fate = rng.choice(["done", "missing", "failed", "diverged"], p=[0.92 - rate, 0.04, 0.04, rate])
            if cell.activation == "maxout" and cell.depth == 2 and cell.order == AFTER:
                fate = "diverged"
            if fate == "done":
                runs.append(run(cell, s, **metrics))
                if rng.random() < 0.02:
                    runs[-1]["test_accuracy"] = math.nan
            elif fate != "missing":
                runs.append(run(cell, s, fate))
    return runs


MANY = "margin = { test_accuracy = 0.02, test_loss = 0.05, test_calibration_error = 0.05, best_val_accuracy = 0.01 }"


@pytest.mark.parametrize("seed", range(3))
def test_the_whole_frame_agrees_with_the_second_implementation(tmp_path, seed):
    contrasts = ("after - before", "before - none")
    grid = read_grid(tmp_path, ACTIVATIONS, (2, 4), 11, MANY, contrasts)
    runs = accidents(grid, seed)
    metrics = [*grid.analysis.metrics, "reestimated_val_loss", "train_accuracy"]
    frame = compare(gather(grid, fill(Store(tmp_path / "store"), runs)), metrics)
    assert frame["verdict"].nunique() == 5
    assert_agrees(frame, grid, runs, metrics)


def test_the_error_of_the_test_set_agrees_with_the_second_implementation(tmp_path):
    grid = read_grid(tmp_path, ("relu", "tanh"), seeds=12)
    runs = planted(grid, {"relu": exactly(12, 0.05, 0.01), "tanh": exactly(12, 0, 0.01, seed=1)})
    counts = example_counts(grid, 100)
    frame = compare(gather(grid, fill(Store(tmp_path / "store"), runs, counts=counts)), ["test_accuracy"])
    examples = {(cell.order, cell.without("order")): (counts[cell.cell_id], 12) for cell in grid.cells()}
    assert frame["test_set_error"].notna().all()
    assert_agrees(frame, grid, runs, ["test_accuracy"], examples)


def test_the_metrics_of_the_analysis_are_compared_in_their_order(all_verdicts, tmp_path):
    grid, runs = all_verdicts
    frame = compare(gather(grid, fill(Store(tmp_path / "store"), runs)))
    assert frame["metric"].drop_duplicates().tolist() == ["test_accuracy", "test_loss"]
    assert tuple(frame.columns) == COLUMNS


def test_pairs_are_joined_by_cell_and_seed_wherever_their_rows_stand(tmp_path):
    grid = read_grid(tmp_path, ACTIVATIONS, (2, 4), 11, contrasts=("after - before", "before - none"))
    runs = accidents(grid, 0)
    tidy = compare(gather(grid, fill(Store(tmp_path / "tidy"), runs)))
    shuffled = [runs[i] for i in np.random.default_rng(1).permutation(len(runs))]
    split = fill(Store(tmp_path / "split"), shuffled, trial=lambda r: (r["seed"] * 7 + r["cell"].depth) % 5)
    pd.testing.assert_frame_equal(compare(gather(grid, split)), tidy)


# What cannot be reported


def test_an_empty_store_cannot_be_reported(tmp_path):
    with pytest.raises(ReportError, match=r"store: the store is empty; run the sweep of simulated first"):
        gather(read_grid(tmp_path), Store(tmp_path / "store"))


def test_a_store_of_failures_cannot_be_reported(tmp_path):
    grid = read_grid(tmp_path)
    runs = with_status("failed", None, range(20))(planted(grid, {"relu": np.zeros(20)}))
    with pytest.raises(ReportError, match="no finished run of simulated in the store"):
        gather(grid, fill(Store(tmp_path / "store"), runs))


def test_a_store_of_other_runs_cannot_be_reported(tmp_path):
    other = read_grid(tmp_path, ("tanh",))
    store = fill(Store(tmp_path / "store"), planted(other, {"tanh": np.zeros(20)}))
    with pytest.raises(ReportError, match="no finished run of simulated in the store"):
        gather(read_grid(tmp_path, ("relu",)), store)


def test_a_single_arm_cannot_be_reported(tmp_path):
    grid = read_grid(tmp_path)
    runs = [r for r in planted(grid, {"relu": np.zeros(20)}) if r["cell"].order == BEFORE]
    with pytest.raises(ReportError, match="only the arm 'before' of simulated has finished runs; a comparison needs"):
        gather(grid, fill(Store(tmp_path / "store"), runs))


def test_a_report_needs_neither_torch_nor_ray():
    code = "import sys, reports.comparisons, reports.page; print(sorted({'torch', 'ray'} & set(sys.modules)))"
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
