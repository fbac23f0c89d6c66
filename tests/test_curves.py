"""What happens over epochs, on stores with planted curves: measures, bands, both states of batch statistics, sentences."""

import math
import re
from collections import defaultdict

import numpy as np
import oracles
import pandas as pd
import pytest
from scipy import stats
from simulated import AFTER, BEFORE, CLASSES, EXAMPLES, NONE, exactly, fill, read_grid, run

from grids import Run
from reports import curve_words, curves, figures
from reports import statistics as st
from reports.comparisons import compare
from reports.outcomes import gather
from results import Store, table

pytestmark = pytest.mark.filterwarnings("error")

NAN, LAST = math.nan, 20
GUESS, FINAL = 1 / CLASSES, 0.9
THRESHOLD = 0.5  # halfway from GUESS to FINAL
VALIDATION = 200  # examples of a simulated run
RISING = [GUESS, *np.linspace(0.2, FINAL, LAST)]  # epoch 0, 1, ...


def rows_of(name, rows):
    """The table `curves` of a trial, whose runs carry `accuracies`, and perhaps `losses`, of epochs 0, 1, ...

    Epochs whose accuracy is None have no row. Rows of the training part have other values and must not count.
    """
    columns = defaultdict(list)
    for row in rows:
        accuracies = row.get("accuracies", [])
        losses = row.get("losses", np.linspace(2, 1, len(accuracies)))
        for epoch, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True)):
            for split, value in (("train", 0.999), ("val", accuracy)) if accuracy is not None else ():
                values = (Run(row["cell"], row["seed"]).run_id, epoch, split, value, loss, value / 10)
                for column, each in zip(
                    ("run_id", "epoch", "split", "accuracy", "loss", "calibration_error"), values, strict=True
                ):
                    columns[column].append(each)
    count = len(columns["run_id"])
    return table("curves", {**columns, "trial": [name] * count, "gradient_norm": [NAN] * count, "lr": [None] * count})


def results_of(folder, grid, runs, **options):
    """Results and store of runs, with their curves where they have any."""
    have = any("accuracies" in row for row in runs)
    store = fill(Store(folder / "store"), runs, **{"curves": rows_of if have else None, **options})
    return gather(grid, store), store


def steady(grid, change=None):
    """A run of every cell and seed with the rising curve. change: of a run, what it has instead."""
    runs = []
    for planned in grid.runs():
        facts = {"val_accuracy": FINAL, "accuracies": RISING, **((change and change(planned)) or {})}
        runs.append(run(planned.cell, planned.seed, facts.pop("status", "done"), **facts))
    return runs


def measured(folder, accuracies, **facts):
    """The row in `runs` of the before arm's seed 0, which has these accuracies; all others have the rising curve."""
    grid = read_grid(folder, seeds=3)

    def change(planned):
        first = planned.cell.order == BEFORE and planned.seed == 0
        return {"accuracies": accuracies, **facts} if first else {}

    results, limits = curves.with_curves(*results_of(folder, grid, steady(grid, change)))
    assert limits == {"digits": pytest.approx(THRESHOLD)}
    return results.runs[(results.runs["order"] == BEFORE) & (results.runs["seed"] == 0)].iloc[0]


# Measures of a curve


def test_measures_of_a_curve_are_the_planted_ones(tmp_path):
    row = measured(tmp_path, [0.6, 0.2, 0.3, 0.5, 0.4, *[0.7] * 16])
    assert row["first_epoch_val_accuracy"] == 0.2
    assert row["mean_val_accuracy"] == pytest.approx((0.2 + 0.3 + 0.5 + 0.4 + 16 * 0.7) / 20)
    assert row["epochs_to_threshold"] == 3  # equality suffices; initialisation and what comes later do not matter


def test_a_run_that_never_reaches_the_threshold_counts_as_one_epoch_more_than_it_had(tmp_path):
    assert measured(tmp_path, [GUESS] + [0.4999] * LAST)["epochs_to_threshold"] == LAST + 1


def test_a_threshold_is_reached_in_the_last_epoch_too(tmp_path):
    assert measured(tmp_path, [GUESS] + [0.4] * (LAST - 1) + [0.6])["epochs_to_threshold"] == LAST


def test_a_run_without_curve_has_no_measure_of_it(tmp_path):
    row = measured(tmp_path, [])
    assert row[["first_epoch_val_accuracy", "mean_val_accuracy", "epochs_to_threshold"]].isna().all()


@pytest.mark.parametrize("gap", [None, NAN])
def test_a_curve_that_lacks_an_epoch_has_only_the_measure_of_another_epoch(tmp_path, gap):
    row = measured(tmp_path, [GUESS, 0.2, 0.9, gap, *[0.9] * 17])
    assert row["first_epoch_val_accuracy"] == 0.2
    assert row[["mean_val_accuracy", "epochs_to_threshold"]].isna().all()


def test_a_diverged_run_has_no_measure_of_its_curve_and_the_worst_outcome(tmp_path):
    grid = read_grid(tmp_path, seeds=3)
    lost = {"status": "diverged", "epochs_run": 4, "accuracies": RISING[:6], "val_accuracy": NAN}
    runs = steady(grid, lambda planned: lost if planned.cell.order == BEFORE and planned.seed == 0 else {})
    results, _ = curves.with_curves(*results_of(tmp_path, grid, runs))
    names = ["first_epoch_val_accuracy", "mean_val_accuracy", "epochs_to_threshold"]
    assert results.runs.loc[results.runs["status"] == "diverged", names].isna().all(axis=None)
    frame = compare(results, names).set_index("metric")
    reached = 1 + np.argmax(np.array(RISING[1:]) >= THRESHOLD)
    assert frame.loc["epochs_to_threshold", "mean_b"] == pytest.approx((LAST + 1 + 2 * reached) / 3)
    assert frame.loc["epochs_to_threshold", "difference"] == pytest.approx((reached - (LAST + 1)) / 3)
    assert frame.loc["first_epoch_val_accuracy", "mean_b"] == pytest.approx((GUESS + 2 * 0.2) / 3)
    assert frame.loc["mean_val_accuracy", "mean_b"] == pytest.approx((GUESS + 2 * np.mean(RISING[1:])) / 3)


def test_planted_differences_of_speed_are_found(tmp_path):
    grid = read_grid(tmp_path, seeds=8)

    def change(planned):
        late = 5 + planned.seed % 3 if planned.cell.order == AFTER else 3
        return {"accuracies": [GUESS] + [0.2] * (late - 1) + [FINAL] * (LAST + 1 - late)}

    results, _ = curves.with_curves(*results_of(tmp_path, grid, steady(grid, change)))
    row = compare(results, ["epochs_to_threshold"]).iloc[0]
    assert row["difference"] == pytest.approx(np.mean([2 + seed % 3 for seed in range(8)]))
    assert (row["verdict"], row["probability_of_improvement"]) == ("different", 0)


def test_a_store_older_than_the_number_of_validation_examples_shows_differences_too(tmp_path):
    grid, noise = read_grid(tmp_path, seeds=8), exactly(8, 0.05, 0.005)

    def change(planned):
        shift = noise[planned.seed] * (planned.cell.order == AFTER)
        return {"accuracies": np.array(RISING) + shift, "val_examples": None}

    results, store = results_of(tmp_path, grid, steady(grid, change))
    found = curves.read(results, store)
    row = compare(curves.with_curves(results, store, found)[0], ["first_epoch_val_accuracy"]).iloc[0]
    assert (row["difference"], row["sd"], row["verdict"]) == (pytest.approx(0.05), pytest.approx(0.005), "different")
    assert (curves.over_epochs(results, found, "val_accuracy", "after - before")["low"] > 0.03).all()


# Thresholds


def test_the_threshold_follows_the_best_cell_and_not_the_best_run(tmp_path):
    grid = read_grid(tmp_path, ("relu", "tanh"), seeds=4)
    finals = {"relu": [0.99, 0.3, 0.3, 0.3], "tanh": [0.6] * 4}
    runs = steady(grid, lambda planned: {"val_accuracy": finals[planned.cell.activation][planned.seed]})
    _, limits = curves.with_curves(*results_of(tmp_path, grid, runs))
    assert limits == {"digits": pytest.approx((GUESS + 0.6) / 2)}


def test_a_lone_survivor_does_not_set_the_threshold(tmp_path):
    grid = read_grid(tmp_path, ("relu", "tanh"), seeds=4)

    def change(planned):
        if planned.cell.activation == "tanh":
            return {"val_accuracy": 0.5}
        return {"val_accuracy": 0.99} if planned.seed == 0 else {"status": "diverged", "val_accuracy": NAN}

    _, limits = curves.with_curves(*results_of(tmp_path, grid, steady(grid, change)))
    assert limits == {"digits": pytest.approx((GUESS + 0.5) / 2)}


def test_there_is_no_threshold_where_no_cell_beats_guessing(tmp_path):
    grid = read_grid(tmp_path, seeds=3)
    results, limits = curves.with_curves(
        *results_of(tmp_path, grid, steady(grid, lambda planned: {"val_accuracy": GUESS}))
    )
    assert limits == {}
    assert results.runs["epochs_to_threshold"].isna().all()
    assert results.runs["mean_val_accuracy"].notna().all()


def test_each_data_set_has_a_threshold_of_its_own():
    runs = pd.DataFrame({
        "dataset": ["a", "a", "b", "b", "c"], "cell_id": ["1", "2", "3", "3", "4"], "classes": [10, 10, 2, 2, NAN],
        "status": ["done", "done", "done", "diverged", "missing"], "val_accuracy": [0.7, 0.3, 0.9, NAN, NAN],
    })  # fmt: skip
    assert curves.thresholds(runs) == {"a": pytest.approx(0.4), "b": pytest.approx((0.5 + 0.7) / 2)}


# Which rows count


def test_curves_of_another_trial_are_without_effect(tmp_path):
    grid = read_grid(tmp_path, seeds=3)
    runs = steady(grid)
    results, store = results_of(tmp_path, grid, runs)
    before, _ = curves.with_curves(results, store)
    other = [{**row, "accuracies": [0.99] * 21, "losses": [0.01] * 21} for row in runs]
    store.write({"curves": rows_of("another", other)})  # a crash came before its rows of `runs`
    after, _ = curves.with_curves(gather(grid, store), store)
    pd.testing.assert_frame_equal(after.runs, before.runs)


def test_curves_of_runs_that_nobody_planned_are_without_effect(tmp_path):
    more, fewer = read_grid(tmp_path, seeds=5), read_grid(tmp_path, seeds=3)
    _, store = results_of(
        tmp_path, more, steady(more, lambda planned: {"accuracies": [0.99] * 21} if planned.seed > 2 else {})
    )
    results, _ = curves.with_curves(gather(fewer, store), store)
    assert results.runs["first_epoch_val_accuracy"].tolist() == [0.2] * 6


def test_curves_of_a_failed_attempt_are_without_effect(tmp_path):
    grid = read_grid(tmp_path, seeds=3)
    runs = steady(grid, lambda planned: {"status": "failed", "val_accuracy": NAN} if planned.seed == 1 else {})
    results, store = results_of(tmp_path, grid, runs)
    found = curves.read(results, store).accuracy
    failed = (results.runs["status"] == "failed").to_numpy()
    assert np.isnan(found[failed]).all()
    assert np.isfinite(found[~failed]).all()


def test_of_two_curves_in_conflict_the_one_counts_that_the_store_takes(tmp_path):
    grid = read_grid(tmp_path, seeds=3)
    runs = steady(grid)
    results, store = results_of(tmp_path, grid, runs)
    for change in (0.1, -0.1):
        other = [{**row, "losses": np.linspace(2, 1, 21) + change, "accuracies": [0.5 + change] * 21} for row in runs]
        fill(store, other, curves=rows_of)
    assert len(store.files("curves")) == 6
    found, expected = curves.read(results, store), as_the_store_says(results, store)
    for name in found._fields:
        np.testing.assert_array_equal(getattr(found, name), expected[name])
    assert (found.accuracy == 0.4).all()


def test_a_store_without_curves_has_no_measure_of_them(tmp_path):
    grid = read_grid(tmp_path, seeds=3)
    results, store = results_of(tmp_path, grid, steady(grid), curves=None)
    found, limits = curves.with_curves(results, store)
    assert limits == {"digits": pytest.approx(THRESHOLD)}
    assert found.runs[["first_epoch_val_accuracy", "mean_val_accuracy", "epochs_to_threshold"]].isna().all(axis=None)
    over = curves.over_epochs(found, curves.read(found, store), "val_accuracy", "after - before")
    assert curve_words.band_figure(over, []) is None
    assert over["n"].tolist() == [0] * LAST


# A second implementation, run by run and epoch by epoch


def as_the_store_says(results, store):
    """By quantity, (R, E + 1), from the store's own reading."""
    rows = {}
    for row in store.read("curves").to_pylist():
        if row["split"] == "val":
            rows[row["run_id"], row["trial"], row["epoch"]] = row
    width = results.runs["epochs"].max() + 1
    return {
        name: [
            [rows.get((r.run_id, r.trial, epoch), {}).get(name, NAN) for epoch in range(width)]
            for r in results.runs.itertuples()
        ]
        for name in ("loss", "accuracy", "calibration_error")
    }


def measures_by_loop(runs, accuracies):
    """Thresholds, and of each run the three measures of its curve."""
    finals = defaultdict(lambda: defaultdict(list))
    for r in runs.itertuples():
        if r.status in ("done", "diverged"):
            finals[r.dataset][r.cell_id].append(r.val_accuracy if r.status == "done" else GUESS)
    best = {name: max(oracles.mean(values) for values in cells.values()) for name, cells in finals.items()}
    limits = {name: (GUESS + value) / 2 for name, value in best.items()}
    rows = []
    for r, curve in zip(runs.itertuples(), accuracies, strict=True):
        curve, first = curve[1 : r.epochs + 1], r.epochs + 1
        if r.status != "done":
            rows.append((NAN, NAN, NAN))
        elif not all(math.isfinite(value) for value in curve):
            rows.append((curve[0], NAN, NAN))
        else:
            for epoch in range(r.epochs, 0, -1):
                if curve[epoch - 1] >= limits[r.dataset]:
                    first = epoch
            rows.append((curve[0], sum(curve) / r.epochs, first))
    return limits, rows


def over_epochs_by_loop(results, values, kind, contrast):
    """Rows (epoch, n, diverged, difference, low, high, low_family, high_family) in the order of over_epochs."""
    of = {}
    for i, r in results.runs.iterrows():
        pair = tuple((name, r[name]) for name, _ in results.pairs[0])
        of[pair, r["order"], r["seed"]] = i, r
    rows = []
    for pair in results.pairs:
        last = dict(pair)["epochs"]
        shown = range(1, last + 1) if last <= 20 else [round(1 + i * (last - 1) / 19) for i in range(20)]
        for epoch in shown:
            arms, lost = [], []
            for order in results.grid.analysis.pairs[contrast]:
                runs = [of[pair, order, seed] for seed in range(results.grid.seeds.count)]
                lost.append([r["status"] == "diverged" and epoch > r["epochs_run"] for _, r in runs])
                arms.append([NAN if gone else values[i][epoch] for (i, _), gone in zip(runs, lost[-1], strict=True)])
            worst = oracles.worst_outcome(f"val_{kind}", CLASSES, [*arms[0], *arms[1]])
            a, b = ([worst if x else y for x, y in zip(*arm, strict=True)] for arm in zip(lost, arms, strict=True))
            d = [x - y for x, y in zip(a, b, strict=True)]
            floor = (1 / VALIDATION if kind == "accuracy" else 1e-6) / math.sqrt(6)
            cell = oracles.t_interval(d, 1 - 0.05 / len(shown), floor)
            family = oracles.t_interval(d, 1 - 0.05 / len(shown) / len(results.pairs), floor)
            diverged = sum(math.isfinite(x) and (y or z) for x, y, z in zip(d, *lost, strict=True))
            rows.append((epoch, len(oracles.present(d)), diverged, oracles.mean(d), *cell, *family))
    return rows


@pytest.fixture
def accidents(tmp_path):
    """Curves of 3 and of 30 epochs, of which some runs and epochs are missing and some runs diverged or failed."""
    rng = np.random.default_rng(0)
    grid = read_grid(tmp_path, ("relu", "tanh", "elu"), seeds=8, axes="epochs = [3, 30]")

    def change(planned):
        epochs = planned.cell.epochs
        losses = rng.uniform(0.5, 4, epochs + 1)
        last = rng.choice([0.15, 0.7])  # one that never reaches the threshold, or one that does
        accuracies = list(np.clip(np.linspace(0.1, last, epochs + 1) + rng.normal(0, 0.05, epochs + 1), 0, 1))
        fate = rng.choice(["done", "diverged", "failed", "gap"], p=[0.7, 0.15, 0.05, 0.1])
        if planned.cell.activation == "elu" and planned.seed > 1 and planned.cell.order == AFTER:
            fate = "failed"
        if fate == "gap":
            accuracies[rng.integers(1, epochs + 1)] = None
        if fate == "diverged":
            at = int(rng.integers(1, epochs + 1))
            losses[at] = rng.choice([NAN, math.inf, 2.0])
            lost = {"status": fate, "val_accuracy": NAN, "epochs_run": at - 1}
            return {**lost, "losses": losses[: at + 1], "accuracies": accuracies[: at + 1]}
        facts = {"losses": losses, "accuracies": accuracies, "val_accuracy": rng.uniform(0.3, 0.8)}
        return {**facts, "status": "failed", "val_accuracy": NAN} if fate == "failed" else facts

    runs = [row for row in steady(grid, change) if (row["cell"].activation, row["seed"]) != ("relu", 5)]
    return results_of(tmp_path, grid, runs)


def test_measures_agree_with_a_loop_over_runs(accidents):
    results, store = accidents
    found, limits = curves.with_curves(results, store)
    expected_limits, rows = measures_by_loop(results.runs, as_the_store_says(results, store)["accuracy"])
    assert limits == pytest.approx(expected_limits)
    columns = ["first_epoch_val_accuracy", "mean_val_accuracy", "epochs_to_threshold"]
    np.testing.assert_allclose(found.runs[columns].to_numpy(), np.array(rows), rtol=1e-12)
    assert found.runs["epochs_to_threshold"].isin([4, 31]).sum() > 10
    assert (found.runs["epochs_to_threshold"] < 31).sum() > 10


@pytest.mark.parametrize("kind", ["accuracy", "loss", "calibration_error"])
def test_differences_over_epochs_agree_with_a_loop_over_cells_and_epochs(accidents, kind):
    results, store = accidents
    over = curves.over_epochs(results, curves.read(results, store), f"val_{kind}", "after - before")
    expected = over_epochs_by_loop(results, as_the_store_says(results, store)[kind], kind, "after - before")
    columns = ["epoch", "n", "diverged", "difference", "low", "high", "low_family", "high_family"]
    found = over[columns].to_numpy(float)
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-9, atol=1e-12)
    assert over["activation"].tolist() == [a for a in ("relu", "tanh", "elu") for _ in range(3 + 20)]
    assert (over["diverged"] > 0).any()
    assert over["n"].min() < 3


# Differences over epochs


def test_few_epochs_are_all_shown_and_many_evenly_with_both_ends():
    assert curves.epochs_shown(1).tolist() == [1]
    assert curves.epochs_shown(20).tolist() == list(range(1, 21))
    for last in (21, 33, 50, 1000):
        shown = curves.epochs_shown(last)
        assert (shown[0], shown[-1], len(set(shown.tolist()))) == (1, last, 20)
        assert np.ptp(np.diff(shown)) <= 1


def test_a_diverged_run_counts_as_guessing_from_the_epoch_in_which_it_diverged(tmp_path):
    grid = read_grid(tmp_path, seeds=4)

    def change(planned):
        if planned.cell.order == AFTER and planned.seed == 0:
            return {"status": "diverged", "epochs_run": 4, "accuracies": RISING[:6], "losses": [*[0.2] * 5, NAN]}
        return {"losses": [0.3] * 6 + [5.0] + [0.3] * 14}

    results, store = results_of(tmp_path, grid, steady(grid, change))
    found = curves.read(results, store)
    accuracy = curves.over_epochs(results, found, "val_accuracy", "after - before")
    expected = [0.0] * 4 + [(GUESS - value) / 4 for value in RISING[5:]]
    np.testing.assert_allclose(accuracy["difference"], expected, atol=1e-12)
    loss = curves.over_epochs(results, found, "val_loss", "after - before")
    worst = np.log(CLASSES)
    expected = [-0.1 / 4] * 4 + [(worst - 0.3) / 4, (5.0 - 5.0) / 4] + [(worst - 0.3) / 4] * 14
    np.testing.assert_allclose(loss["difference"], expected, atol=1e-12)
    assert loss["n"].tolist() == [4] * LAST
    assert loss["diverged"].tolist() == [0] * 4 + [1] * 16


def test_a_band_has_the_level_of_all_its_epochs_together():
    d = np.random.default_rng(1).normal(0.5, 1, (9, 7, 3))
    d[4:, 2, 1] = NAN
    d[1:, 3, 0] = NAN  # one pair
    d[:, 5, 2] = NAN  # none
    mean, low, high = curves.band(d)
    for epoch, cell in np.ndindex(7, 3):
        pairs = d[:, epoch, cell].tolist()
        expected = oracles.mean(pairs), *oracles.t_interval(pairs, 1 - 0.05 / 7)
        np.testing.assert_allclose([each[epoch, cell] for each in (mean, low, high)], expected, rtol=1e-9)


def test_equal_differences_have_a_band_as_wide_as_the_resolution():
    mean, low, high = curves.band(np.full((5, 2, 2), 0.25), np.array([0.1, 0.2]))
    half = stats.t.isf(0.025 / 2, 4) * np.array([0.1, 0.2]) / np.sqrt(5)
    np.testing.assert_allclose(high - mean, [half, half])
    np.testing.assert_allclose(mean - low, [half, half])


# Calibration


def correlated(rng, seeds, epochs, draws, r=0.8):
    """Normal differences (n, E, K) of sd 1, of which neighbouring epochs correlate with r."""
    d = rng.normal(0, 1, (seeds, epochs, draws))
    for epoch in range(1, epochs):
        d[:, epoch] = r * d[:, epoch - 1] + math.sqrt(1 - r**2) * d[:, epoch]
    return d


def covered(d, truth, level=st.LEVEL):
    """Share of comparisons whose band holds the truth (E,) in every epoch."""
    _, low, high = curves.band(d, level=level)
    return ((low <= truth[:, None]) & (truth[:, None] <= high)).all(0).mean()


def error_of(share, draws):
    return math.sqrt(share * (1 - share) / draws)


@pytest.mark.parametrize("seeds", [5, 10, 20, 50])
def test_the_band_covers_20_correlated_epochs_at_once_and_single_intervals_do_not(seeds):
    draws, truth = 2500, np.sin(np.arange(20) / 4)
    d = correlated(np.random.default_rng(2), seeds, 20, draws) + truth[:, None]
    bound = 0.95 - 4 * error_of(0.95, draws)
    assert covered(d, truth) >= bound
    assert covered(d, truth, level=0.0) < bound  # 1 − 1/20 an epoch: the intervals of each epoch alone


def test_the_band_is_no_wider_than_independent_epochs_need():
    draws, truth = 10_000, np.zeros(20)
    d = np.random.default_rng(3).normal(0, 1, (10, 20, draws))
    expected = (1 - 0.05 / 20) ** 20
    assert abs(covered(d, truth) - expected) <= 4 * error_of(expected, draws)
    assert covered(d, truth, level=0.975) > expected + 4 * error_of(expected, draws)


@pytest.mark.parametrize("seeds", [5, 10])
def test_time_to_threshold_keeps_its_level_though_runs_are_censored(seeds):
    draws, epochs = 4000, 20
    rng = np.random.default_rng(4)
    shared = rng.normal(0, 0.7, (draws, 1, seeds, 1))  # what a seed does to both arms
    speed = np.exp(shared + rng.normal(0, 0.7, (draws, 2, seeds, 1)))
    final = rng.uniform(0.2, 0.95, (draws, 2, seeds, 1))
    accuracy = GUESS + (final - GUESS) * (1 - np.exp(-speed * np.arange(1, epochs + 1) / 5))  # (draws, arms, seeds, E)
    accuracy = accuracy.reshape(-1, epochs)
    arm = np.repeat(np.arange(2 * draws), seeds)
    runs = pd.DataFrame({"dataset": arm // 2, "cell_id": arm, "classes": CLASSES, "status": "done"})
    runs["val_accuracy"] = accuracy[:, -1]
    limit = runs["dataset"].map(curves.thresholds(runs)).to_numpy(float)  # from the outcomes themselves
    first = curves.of_curves(accuracy, np.full(len(runs), epochs), limit)["epochs_to_threshold"]
    assert 0.1 < (first > epochs).mean() < 0.5
    a, b = first.reshape(draws, 2, seeds).transpose(1, 2, 0)
    m = st.moments(a - b, np.full(draws, 1 / math.sqrt(6)))
    bound = 0.05 + 4 * error_of(0.05, draws)
    assert (st.t_test(m) <= 0.05).mean() <= bound
    assert (2 * stats.norm.sf(np.abs(m.mean) / m.error) <= 0.05).mean() > bound


# The figure


def test_the_figure_shows_the_planted_difference_in_points_and_dots_where_zero_is_outside(tmp_path):
    grid = read_grid(tmp_path, depths=(2, 4), seeds=6)
    noise = exactly(6, 0, 0.001)

    def change(planned):
        if planned.cell.order == BEFORE or planned.cell.depth == 4:
            return {}
        return {"accuracies": [value + 0.05 * (3 < e < 9) + noise[planned.seed] for e, value in enumerate(RISING)]}

    results, store = results_of(tmp_path, grid, steady(grid, change))
    over = curves.over_epochs(results, curves.read(results, store), "val_accuracy", "after - before")
    figure = curve_words.band_figure(over, ["depth"])
    first, second = [ax for ax in figure.axes if ax.get_visible()]
    assert (first.get_title(), second.get_title()) == ("depth 2", "depth 4")
    zero, line, dots = first.lines
    assert list(zero.get_ydata()) == [0, 0]
    np.testing.assert_allclose(line.get_ydata(), [5.0 * (3 < e < 9) for e in range(1, 21)], atol=1e-9)
    assert dots.get_xdata().tolist() == [4, 5, 6, 7, 8]
    assert second.lines[2].get_xdata().tolist() == []
    assert first.get_ylim() == second.get_ylim()
    svg = figures.save(figure, tmp_path, "band")
    assert "validation accuracy" in svg
    assert "after − before (pp)" in svg


def test_losses_are_shown_in_nats_with_a_scale_for_each_cell(tmp_path):
    grid = read_grid(tmp_path, depths=(2, 4), seeds=6)
    noise = exactly(6, 0.3, 0.001)

    def change(planned):
        shift = noise[planned.seed] * planned.cell.depth**3 * (planned.cell.order == AFTER)
        return {"losses": np.full(21, 1 + shift)}

    results, store = results_of(tmp_path, grid, steady(grid, change))
    figure = curve_words.band_figure(
        curves.over_epochs(results, curves.read(results, store), "val_loss", "after - before"), ["depth"]
    )
    low, high = (ax.get_ylim()[1] for ax in figure.axes)
    assert low < 3 < 0.3 * 64 < high
    assert figure._supylabel.get_text() == "validation loss,\nafter − before (nats)"


def test_a_figure_of_many_cells_shows_the_first_ones(tmp_path):
    grid = read_grid(tmp_path, depths=tuple(range(1, figures.MOST_PANELS + 2)), seeds=2)
    results, store = results_of(tmp_path, grid, steady(grid), trial=lambda row: "all")
    over = curves.over_epochs(results, curves.read(results, store), "val_accuracy", "after - before")
    titles = [ax.get_title() for ax in curve_words.band_figure(over, ["depth"]).axes]
    assert [title for title in titles if title] == [f"depth {i + 1}" for i in range(figures.MOST_PANELS)]


# Running averages against re-estimated statistics


def both_states(grid, shifts, fate=lambda planned: "done"):
    """Runs whose running averages change accuracy by shifts[order] and loss by ten times as much, seed by seed."""
    runs = []
    for planned in grid.runs():
        noise = np.random.default_rng([planned.seed, planned.cell.depth]).normal(0.6, 0.05)
        shift = shifts.get(planned.cell.order, np.zeros(99))[planned.seed]
        metrics = {
            "test_accuracy": noise + shift, "reestimated_test_accuracy": noise,
            "test_loss": noise + 10 * shift, "reestimated_test_loss": noise,
        }  # fmt: skip
        status = fate(planned)
        runs.append(run(planned.cell, planned.seed, status, **(metrics if status == "done" else {})))
    return runs


CONTRASTS = ("after - before", "before - none", "after - none")
SHIFTS = {AFTER: exactly(10, -0.03, 0.004), BEFORE: exactly(10, -0.01, 0.003, seed=1)}


def test_what_running_averages_change_is_the_planted_share_of_an_effect(tmp_path):
    grid = read_grid(tmp_path, seeds=10, contrasts=CONTRASTS)
    results, _ = results_of(tmp_path, grid, both_states(grid, SHIFTS))
    effect = curves.statistics_effect(results, 0.05).set_index(["of", "metric"])
    assert effect.index.tolist() == [
        (of, metric) for of in (BEFORE, AFTER, "after - before") for metric in ("test_accuracy", "test_loss")
    ]
    for of, change in ((BEFORE, -0.01), (AFTER, -0.03), ("after - before", -0.02)):
        row = effect.loc[of, "test_accuracy"]
        assert row["difference"] == pytest.approx(change)
        assert row["running"] - row["reestimated"] == pytest.approx(change)
        assert (row["n"], row["missing"], row["diverged"], row["different"]) == (10, 0, 0, True)
    both = effect.loc["after - before", "test_accuracy"]
    assert (both["running"], both["reestimated"]) == (pytest.approx(-0.02), pytest.approx(0, abs=1e-12))
    assert effect.loc[(AFTER, "test_loss"), "difference"] == pytest.approx(-0.3)
    assert effect.loc[(AFTER, "test_accuracy"), "running"] - effect.loc[
        (AFTER, "test_accuracy"), "reestimated"
    ] == pytest.approx(-0.03)


def test_a_diverged_run_has_no_state_to_compare_and_is_counted(tmp_path):
    grid = read_grid(tmp_path, seeds=10)

    def fate(planned):
        return {(AFTER, 2): "diverged", (AFTER, 3): "failed", (BEFORE, 4): "diverged", (BEFORE, 2): "diverged"}.get(
            (planned.cell.order, planned.seed), "done"
        )

    results, _ = results_of(tmp_path, grid, both_states(grid, SHIFTS, fate))
    effect = curves.statistics_effect(results, 0.05, ["test_accuracy"]).set_index("of")
    assert effect[["n", "missing", "diverged"]].to_numpy().tolist() == [[8, 2, 2], [8, 2, 1], [7, 3, 2]]
    kept = np.delete(SHIFTS[AFTER] - SHIFTS[BEFORE], [2, 3, 4])
    assert effect.loc["after - before", "difference"] == pytest.approx(kept.mean())


def test_both_states_agree_with_a_loop_and_are_one_family(tmp_path):
    rng = np.random.default_rng(5)
    grid = read_grid(tmp_path, ("relu", "tanh"), (2, 4), seeds=7, contrasts=CONTRASTS)
    fates = {}

    def fate(planned):
        return fates.setdefault(planned, str(rng.choice(["done", "diverged", "failed"], p=[0.8, 0.1, 0.1])))

    shifts = {order: rng.normal(0.004, 0.004, 99) for order in (AFTER, BEFORE)}
    runs = both_states(grid, shifts, fate)
    results, _ = results_of(tmp_path, grid, runs)
    effect = curves.statistics_effect(results, 0.05)
    of = {(row["cell"].order, row["cell"].without("order"), row["seed"]): row for row in runs}
    expected = []
    for orders in ([BEFORE], [AFTER], [AFTER, BEFORE]):
        for metric in ("test_accuracy", "test_loss"):
            for pair in results.pairs:
                d = []
                for seed in range(7):
                    rows = [of[order, pair, seed] for order in orders]
                    parts = [row[metric] - row[f"reestimated_{metric}"] for row in rows if row["status"] == "done"]
                    d.append(parts[0] - sum(parts[1:]) if len(parts) == len(orders) else NAN)
                floor = (1 / EXAMPLES if "accuracy" in metric else 1e-6) / math.sqrt(6)
                interval = oracles.t_interval(d, 0.95, floor)
                family = oracles.t_interval(d, 1 - 0.05 / 24, floor)
                expected.append((oracles.mean(d), *interval, *family, oracles.sd(d, floor), oracles.t_test(d, floor)))
    columns = ["difference", "low", "high", "low_family", "high_family", "sd", "p"]
    assert len(effect) == 24
    np.testing.assert_allclose(effect[columns].to_numpy(), np.array(expected), rtol=1e-7, atol=1e-12)
    adjusted = oracles.holm([row[-1] for row in expected])
    np.testing.assert_allclose(effect["p_holm"], adjusted, rtol=1e-7)
    np.testing.assert_array_equal(effect["different"], (np.array(adjusted) <= 0.05) & (effect["n"] >= 5))


def test_an_arm_that_diverged_always_has_no_row_that_is_different(tmp_path):
    grid = read_grid(tmp_path, seeds=10)
    results, _ = results_of(
        tmp_path, grid, both_states(grid, SHIFTS, lambda planned: "done" if planned.cell.order == AFTER else "diverged")
    )
    effect = curves.statistics_effect(results, 0.05, ["test_accuracy"]).set_index("of")
    assert effect["n"].tolist() == [0, 10, 0]
    assert effect["p"].drop(AFTER).tolist() == [1, 1]
    assert effect["different"].tolist() == [False, True, False]


def test_few_seeds_make_no_row_different(tmp_path):
    grid = read_grid(tmp_path, seeds=4)
    shifts = {AFTER: exactly(4, -0.03, 0.00001), BEFORE: np.zeros(4)}
    effect = curves.statistics_effect(results_of(tmp_path, grid, both_states(grid, shifts))[0], 0.05)
    assert (effect["p_holm"] <= 0.05).any()
    assert not effect["different"].any()


def test_orders_without_bn_have_no_two_states(tmp_path):
    grid = read_grid(tmp_path, seeds=5, contrasts=("before - none",))
    results, _ = results_of(tmp_path, grid, both_states(grid, SHIFTS))
    results = results._replace(place={NONE: results.place[NONE]})
    effect = curves.statistics_effect(results, 0.05)
    assert effect.empty
    assert "p_holm" in effect


# Accuracy against loss


def opposed(folder, effects, metrics=("test_accuracy", "test_loss", "test_calibration_error")):
    """The frame of cells whose after arm exceeds before by effects[activation] = (accuracy, loss, calibration error)."""
    grid = read_grid(folder, tuple(effects), seeds=10)
    runs = []
    for planned in grid.runs():
        noise = exactly(10, 0, 0.001)[planned.seed] * (planned.cell.order == AFTER)
        shift = [each * (planned.cell.order == AFTER) for each in effects[planned.cell.activation]]
        values = np.array([0.6, 0.8, 0.1]) + shift + noise
        runs.append(run(planned.cell, planned.seed, **dict(zip(metrics, values, strict=False))))
    results, _ = results_of(folder, grid, runs)
    return compare(results, metrics)


EFFECTS = {
    "relu": (0.05, 0.2, 0.03),  # more right answers, larger loss
    "tanh": (-0.05, -0.2, -0.03),
    "elu": (0.05, -0.2, 0.0),
    "maxout": (0.05, 0.0001, 0.0),  # losses of the same size
    "leaky_relu": (0.0001, 0.2, 0.0),  # as many right answers
    "sigmoid": (0.005, 0.02, 0.03),  # within both margins
}


def test_accuracy_and_loss_that_favour_different_arms_are_found_with_the_calibration_error(tmp_path):
    found = curves.disagreements(opposed(tmp_path, EFFECTS))
    assert found["activation"].tolist() == ["relu", "tanh", "sigmoid"]
    assert found["favoured_by_accuracy"].tolist() == ["after", "before", "after"]
    assert found["favoured_by_loss"].tolist() == ["before", "after", "before"]
    assert found["accuracy_difference"].to_numpy() == pytest.approx([0.05, -0.05, 0.005])
    assert found["loss_verdict"].tolist() == ["different", "different", "negligible"]
    assert found["calibration_error_difference"].to_numpy() == pytest.approx([0.03, -0.03, 0.03])
    assert (found["calibration_error_low"] < found["calibration_error_difference"]).all()


def test_disagreements_are_found_without_a_calibration_error_too(tmp_path):
    found = curves.disagreements(opposed(tmp_path, EFFECTS, ("test_accuracy", "test_loss")))
    assert found["activation"].tolist() == ["relu", "tanh", "sigmoid"]
    assert found["calibration_error_difference"].isna().all()
    assert found["calibration_error_verdict"].tolist() == [""] * 3


def test_arms_that_accuracy_and_loss_agree_on_are_no_disagreement(tmp_path):
    assert curves.disagreements(opposed(tmp_path, {"elu": EFFECTS["elu"]})).empty


# Sentences


def test_sentences_say_the_numbers_with_their_units(tmp_path):
    grid = read_grid(tmp_path, ("relu", "tanh"), seeds=10)
    noise = exactly(10, 0, 0.001)

    def change(planned):
        relu, after = planned.cell.activation == "relu", planned.cell.order == AFTER
        facts = {
            "test_accuracy": 0.6 + (0.05 + noise[planned.seed]) * after * relu,
            "reestimated_test_accuracy": 0.6 + 0.02 * after * relu,
            "test_loss": 0.8 + (0.2 + noise[planned.seed]) * after * relu,
            "test_calibration_error": 0.1 + (0.03 + noise[planned.seed]) * after * relu,
        }
        if relu and after:
            bump = noise[planned.seed] + np.where(np.arange(21) < 6, 0.05, -0.05) * (np.arange(21) < 15)
            facts["accuracies"] = np.array(RISING) + bump
        if not relu and after and planned.seed == 0:
            facts |= {"accuracies": [GUESS] + [0.3] * 20}
        if not relu and after and planned.seed == 1:
            facts |= {"status": "diverged", "epochs_run": 3, "accuracies": RISING[:5], "val_accuracy": NAN}
        return facts

    results, store = results_of(tmp_path, grid, steady(grid, change))
    found = curves.read(results, store)
    results, limits = curves.with_curves(results, store)
    over = curves.over_epochs(results, found, "val_accuracy", "after - before")
    frame = compare(results, ["test_accuracy", "test_loss", "test_calibration_error"])
    words = curve_words.sentences(results, limits, over, curves.statistics_effect(results, 0.05), frame, ["activation"])
    assert words[0] == (
        "On digits, time to threshold is the first epoch with a validation accuracy of at least 50.0 %, halfway from "
        "guessing (10.0 %) to the best cell's mean after its last epoch (90.0 %). Of 39 finished runs, 0 % are there after "
        "one epoch, and 3 % are not after their last: these count as one epoch more, and so do runs that diverged."
    )
    assert words[1] == (
        "In validation accuracy, after − before: zero lies outside the band over all epochs and cells in some epoch of "
        "1 of 2 cells, and in the last epoch of 0. No more in the last epoch, which does not show that it is gone: relu. "
        "Its sign turns in: relu."
    )
    assert words[2].startswith(
        "Test accuracy with running averages is another than with statistics re-estimated over the training part in "
    )
    assert "Diverged runs have no such statistics and are missing here: 1." in words[2]
    share = r"relu, after − before \+3\.00 pp \[2\.93, 3\.07\] of \+5\.00 pp \(\+2\.00 pp re-estimated\)"
    assert any(re.search(share, text) for text in words)
    assert words[-1] == (
        "Test accuracy and test loss differ in favour of different arms in 1 of 2 comparisons: relu, after − before: "
        "accuracy +5.00 pp [4.93, 5.07], loss +0.200 nats [0.199, 0.201], calibration error +3.00 pp [2.93, 3.07], "
        "so that accuracy favours after and loss before."
    )


def test_cells_whose_difference_vanishes_and_whose_sign_turns_are_named_apart(tmp_path):
    grid = read_grid(tmp_path, depths=(2, 4, 8), seeds=10)
    late = np.arange(21) > 9

    def change(planned):
        shift = 0.05 + exactly(10, 0, 0.001)[planned.seed]
        shapes = {2: ~late * shift, 4: np.where(late, -shift, shift), 8: shift}
        return {"accuracies": np.array(RISING) + shapes[planned.cell.depth] * (planned.cell.order == AFTER)}

    results, store = results_of(tmp_path, grid, steady(grid, change))
    over = curves.over_epochs(results, curves.read(results, store), "val_accuracy", "after - before")
    empty = curves.statistics_effect(results._replace(place={}), 0.05)
    (text,) = curve_words.sentences(results, {}, over, empty, compare(results, ["test_accuracy"]), ["depth"])
    assert text == (
        "In validation accuracy, after − before: zero lies outside the band over all epochs and cells in some epoch of "
        "3 of 3 cells, and in the last epoch of 2. No more in the last epoch, which does not show that it is gone: depth 2. "
        "Its sign turns in: depth 4."
    )


def test_without_curves_and_statistics_nothing_is_said_of_them(tmp_path):
    grid = read_grid(tmp_path, seeds=3)
    results, store = results_of(tmp_path, grid, steady(grid), curves=None)
    found = curves.read(results, store)
    results, limits = curves.with_curves(results, store)
    over = curves.over_epochs(results, found, "val_accuracy", "after - before")
    effect = curves.statistics_effect(results._replace(place={}), 0.05)
    frame = compare(results, ["test_accuracy"])
    assert curve_words.sentences(results, limits, over, effect, frame, []) == []
