"""Claims: each entry of the ledger against stores that are planted to support and to contradict it; tests and words."""

import itertools
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from simulated import AFTER, BEFORE, CLASSES, EXAMPLES, NONE, exactly, fill, run
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

import harness
from grids import TUNING_FROM, Grid
from reports import page
from reports.claims import COLUMNS, VERDICTS, ClaimsError, at_every_value, judge, read
from reports.curves import thresholds
from reports.ledger import NORMS, Allowed, Claim
from reports.measures import measure
from reports.outcomes import gather
from reports.rates import select
from results import METRICS, Store

LEDGER = read()
JUDGED = [claim for claim in LEDGER if claim.metric]
SEEDS = 8
CHOICES = {
    **harness.choices(),
    "architecture": (*harness.names("architectures"), "resnet"),  # of which claims exist already
    "activation": {**harness.choices()["activation"], "shifted_tanh": None},
    "norm": NORMS,
    "metric": METRICS,
}
AXES = {"dataset": ["digits"], "architecture": ["mlp"], "order": [BEFORE, AFTER], "activation": ["relu"], "depth": [2]}
LEVELS = {"architecture": ["cnn", "mlp"], "depth": [2, 4, 8], "lr": [0.01, 0.1], "batch": [8, 64]}
OF_LAYERS = {"share": 0.4, "magnitude": -1.0, "number": 5.0}
BASE = {"accuracy": 0.5, "gap": 0.2, "loss": 2.0, "epochs": 60.0, **OF_LAYERS}  # by kind of measure: a value, an effect
SIZE = {"accuracy": 0.05, "gap": 0.05, "loss": 0.2, "epochs": 4.0, "share": 0.05, "magnitude": 0.2, "number": 1.0}
NOISE = np.random.default_rng(0).normal(size=(97, 64))


def noise(cell, seed):
    """A normal number of this run."""
    return NOISE[int(cell.cell_id, 16) % len(NOISE), seed % NOISE.shape[1]]


def results_of(
    folder, axes, value, metric="test_accuracy", seeds=SEEDS, exclude="", arms=None, alpha=0.05, rates=(), tuning=5
):
    """Results of a store in which the metric of a run is value(cell, seed), or the run has the status that this names.

    rates: learning rates that are searched, by as many tuning seeds.
    """
    folder.mkdir(exist_ok=True)
    text = "".join(f"{name} = {json.dumps(values)}\n" for name, values in {**AXES, **axes}.items())
    arms = "arms = {" + ", ".join(f'{name} = "{order}"' for name, order in (arms or {}).items()) + "}\n"
    path = folder / "study.toml"
    search = f"[nuisance]\nlr = {list(rates)}\n" if rates else ""
    count = f"{seeds}\ntuning = {tuning}" if rates else seeds
    path.write_text(f"{exclude}\n[axes]\n{text}[seeds]\ncount = {count}\n[analysis]\nalpha = {alpha}\n{arms}{search}")
    grid = Grid.read(path, CHOICES)
    rows, values = [], {}
    for cell in grid.cells():
        for seed in grid.seeds.every:
            outcome = value(cell, seed)
            if isinstance(outcome, str):
                rows += [] if outcome == "missing" else [run(cell, seed, outcome)]
                continue
            values[cell.cell_id, seed] = outcome
            column, number = metric, outcome
            if metric == "generalisation_gap":
                column, number = "train_accuracy", 0.5 + outcome  # test accuracy is 0.5
            rows.append(run(cell, seed, **({column: number} if column in METRICS else {})))
    results = gather(grid, fill(Store(folder / "store"), rows, trial=lambda _: "all"))
    if metric not in (*METRICS, "generalisation_gap"):
        keys = zip(results.runs["cell_id"], results.runs["seed"], strict=True)
        results = results._replace(runs=results.runs.assign(**{metric: [values.get(key, math.nan) for key in keys]}))
    return results


def of(**values):
    """A selection: field = value, list of values or Allowed."""
    lists = {name: value if isinstance(value, list) else [value] for name, value in values.items()}
    return {name: each[0] if isinstance(each[0], Allowed) else Allowed(tuple(each)) for name, each in lists.items()}


def claim(expected="greater", **changes):
    """A claim about after − before in test accuracy, but for the changes."""
    fields = {"id": "x", "source": "s", "statement": "t", "metric": "test_accuracy", "expected": expected}
    return Claim(**{**fields, "first": of(order=AFTER), "second": of(order=BEFORE), **changes})


def effects(differences, sd=0.005, base=0.5):
    """A value for results_of: after exceeds before by the number of the cell's activation (or a number for all)."""

    def value(cell, seed):
        shift = differences[cell.activation] if isinstance(differences, dict) else differences
        return base + 0.02 * NOISE[0, seed % NOISE.shape[1]] + sd * noise(cell, seed) + shift * (cell.order == AFTER)

    return value


def one(folder, which, axes, value, **others):
    """The row of one claim."""
    return judge([which], results_of(folder, axes, value, metric=which.metric, **others)).iloc[0]


# Every entry of claims.toml


def values_of(allowed):
    return list(allowed.values) or [end for end in (allowed.least, allowed.most) if math.isfinite(end)]


def axes_of(which):
    """A small grid that covers a claim: all that it names, and some levels of what it compares along."""
    axes = {**AXES, "order": [NONE, BEFORE]} | {name: values_of(allowed) for name, allowed in which.cells.items()}
    axes |= {name: values_of(allowed) + values_of(which.second[name]) for name, allowed in which.first.items()}
    axes["order"] = list(dict.fromkeys([*axes["order"], NONE, BEFORE]))[
        : max(2, len(axes["order"]))
    ]  # a report needs two
    if which.over and len(axes.get(which.over, ())) < 2:
        axes[which.over] = LEVELS[which.over]
    return axes


def planted_value(which, axes, supported):
    """Outcomes that show what a claim states, or the opposite: much larger than noise and margin."""
    kind = measure(which.metric).kind
    size = max(SIZE[kind], 5 * (which.margin or 0))

    def value(cell, seed):
        on_first = all(allowed.has(getattr(cell, name)) for name, allowed in which.first.items())
        along = which.over or which.range_over
        step = axes[along].index(getattr(cell, along)) if along else 0
        outcome = BASE[kind] + size * NOISE[0, seed] / 2 + 0.02 * size * noise(cell, seed)
        if which.range_over:
            wide = on_first != (supported == (which.expected == "less"))
            return outcome + size * step * wide
        match which.expected:
            case "greater" | "less":
                return outcome + size * on_first * (1 if supported == (which.expected == "greater") else -1)
            case "equivalent" | "not_greater":
                return outcome + size * on_first * (not supported)
            case "varies":
                return outcome + size * on_first * step * supported
            case "rises" | "falls":
                return outcome + size * on_first * step * (1 if supported == (which.expected == "rises") else -1)
            case "less_spread":
                wide = on_first != supported
                return BASE[kind] + size * (-1) ** seed * (1 if wide else 0.1) * (1 + 0.1 * noise(cell, seed))

    return value


@pytest.mark.parametrize("verdict", ["supported", "contradicted"])
@pytest.mark.parametrize("which", JUDGED, ids=lambda which: which.id)
def test_a_store_with_the_effect_of_a_claim_or_its_opposite_decides_it(tmp_path, which, verdict):
    axes = axes_of(which)
    row = one(tmp_path, which, axes, planted_value(which, axes, verdict == "supported"))
    assert row["verdict"] == verdict, row["reason"]
    assert row["n"] == SEEDS
    assert f"n = {SEEDS}, " in row["reason"]


def test_every_claim_has_a_row_and_those_that_need_a_measurement_say_which(tmp_path):
    frame = judge(LEDGER, results_of(tmp_path, {}, effects(0.05)))
    assert tuple(frame.columns) == COLUMNS
    assert frame["id"].tolist() == [each.id for each in LEDGER]
    assert set(frame["verdict"]) <= set(VERDICTS)
    for each, verdict, reason in zip(LEDGER, frame["verdict"], frame["reason"], strict=True):
        if each.needs:
            assert (verdict, reason) == ("not covered", f"Needs {each.needs}.")
        if each.anatomy:
            assert verdict == "not covered"
            assert "normorder ledger" in reason


def test_no_claims_have_no_rows(tmp_path):
    frame = judge([], results_of(tmp_path, {}, effects(0)))
    assert (len(frame), tuple(frame.columns)) == (0, COLUMNS)


# The numbers


def seed_means(results, which=lambda cell: True):
    """after − before in test accuracy, averaged over cells within each seed, from the runs themselves."""
    runs = results.runs[[which(row) for _, row in results.runs.iterrows()]]
    wide = runs.pivot_table(index="seed", columns="order", values="test_accuracy", aggfunc="mean")
    return (wide[AFTER] - wide[BEFORE]).to_numpy()


def test_a_difference_is_the_t_test_of_means_over_cells_within_seeds(tmp_path):
    results = results_of(tmp_path, {"activation": ["relu", "tanh"], "depth": [2, 4]}, effects(0.004, sd=0.01))
    row = judge([claim()], results).iloc[0]
    expected = stats.ttest_1samp(seed_means(results), 0)
    assert (row["p"], row["p_against"]) == pytest.approx((1, expected.pvalue))  # the mean is below 0
    less = judge([claim("less")], results).iloc[0]
    assert (less["p"], less["p_against"]) == pytest.approx((expected.pvalue, 1))
    assert (row["low"], row["high"]) == pytest.approx(tuple(expected.confidence_interval()))
    assert row["estimate"] == pytest.approx(seed_means(results).mean())
    assert (row["n"], row["cells"]) == (SEEDS, 4)


def test_an_equivalence_is_two_one_sided_tests_of_means_over_cells_within_seeds(tmp_path):
    results = results_of(tmp_path, {"activation": ["relu", "tanh"]}, effects(0.004, sd=0.01))
    row = judge([claim("equivalent", margin=0.01)], results).iloc[0]
    d = seed_means(results)
    assert row["p"] == pytest.approx(ttost_paired(d, np.zeros_like(d), -0.01, 0.01)[0])
    beyond = judge([claim("equivalent", margin=0.0001)], results).iloc[0]
    assert (beyond["p_against"] <= 0.05) == (beyond["low"] > 0.0001 or beyond["high"] < -0.0001)


@pytest.mark.parametrize("shift", [0.004, 0.006, 0.008, 0.012])
def test_a_mean_is_beyond_the_margin_exactly_where_its_interval_is(tmp_path, shift):
    row = one(tmp_path, claim("equivalent", margin=0.004), {}, effects(shift, sd=0.004))
    assert (row["p_against"] <= 0.05) == (row["low"] > 0.004)


def test_no_gain_is_one_sided(tmp_path):
    which = claim("not_greater", margin=0.01)
    assert one(tmp_path / "worse", which, {}, effects(-0.3))["verdict"] == "supported"
    row = one(tmp_path / "same", which, {}, effects(0.0))
    assert row["verdict"] == "supported"
    assert "below +1.00 pp" in row["reason"]


def along_depth(*shifts, sd=0.002):
    """A value for results_of whose effect is shifts at depths 2, 4, 8, …, or by activation such shifts."""

    def value(cell, seed):
        of_cell = shifts[0][cell.activation] if isinstance(shifts[0], dict) else shifts
        return effects(of_cell[[2, 4, 8, 16].index(cell.depth)], sd=sd)(cell, seed)

    return value


def steps_of(results):
    """after − before in test accuracy, averaged over cells within each seed: the steps from depth to depth. (n, L − 1)"""
    depths = sorted(results.runs["depth"].unique())
    return np.diff([seed_means(results, lambda run, depth=depth: run["depth"] == depth) for depth in depths], axis=0).T


def test_to_rise_is_to_rise_at_every_step(tmp_path):
    results = results_of(tmp_path, {"depth": [16, 2, 4], "activation": ["relu", "tanh"]}, along_depth(0, 0.01, 0, 0.02))
    row = judge([claim("rises", over="depth")], results).iloc[0]
    tests = [stats.ttest_1samp(steps, 0) for steps in steps_of(results).T]
    assert row["verdict"] == "supported"
    assert row["p"] == pytest.approx(max(test.pvalue for test in tests))
    assert row[["p_against", "cells"]].tolist() == [1, 6]
    assert row[["estimate", "low", "high"]].isna().all()
    assert "change from one depth to the next: 2 to 4: +" in row["reason"]
    assert "; every step is above 0 (" in row["reason"]
    for name, steps, test in zip(("2 to 4", "4 to 16"), steps_of(results).T, tests, strict=True):
        low, high = test.confidence_interval()
        assert f"{name}: +{100 * steps.mean():.2f} pp [{100 * low:.2f}, {100 * high:.2f}]" in row["reason"]


def test_a_single_step_is_the_estimate(tmp_path):
    results = results_of(tmp_path, {"depth": [2, 4]}, along_depth(0.01, 0))
    row = judge([claim("falls", over="depth")], results).iloc[0]
    expected = stats.ttest_1samp(steps_of(results)[:, 0], 0)
    assert row["p"] == pytest.approx(expected.pvalue)
    assert (row["low"], row["high"]) == pytest.approx(tuple(expected.confidence_interval()))
    assert row["verdict"] == "supported"


@pytest.mark.parametrize(("expected", "sign"), [("rises", 1), ("falls", -1)])
def test_one_step_the_other_way_contradicts_whatever_the_slope(tmp_path, expected, sign):
    results = results_of(tmp_path, {"depth": [2, 4, 8]}, along_depth(0, sign * -0.06, sign * 0.03, sd=0.01))
    row = judge([claim(expected, over="depth")], results).iloc[0]
    assert row["verdict"] == "contradicted"
    assert row["p"] == 1
    assert row["p_against"] == pytest.approx(2 * stats.ttest_1samp(steps_of(results)[:, 0], 0).pvalue)
    assert f"; some step is {'below' if sign > 0 else 'above'} 0 (" in row["reason"]


def test_every_step_is_that_of_the_seeds_that_are_complete(tmp_path):
    value = lacking("missing", lambda cell, seed: cell.depth == 8 and seed == 0, along_depth(0, 0.05, 0.1, sd=0.01))
    results = results_of(tmp_path, {"depth": [2, 4, 8]}, value)
    row = judge([claim("rises", over="depth")], results).iloc[0]
    two, four = (seed_means(results, lambda run, depth=depth: run["depth"] == depth) for depth in (2, 4))
    low, high = stats.ttest_rel(four[1:], two[1:]).confidence_interval()
    assert row["n"] == SEEDS - 1
    assert f" pp [{100 * low:.2f}, {100 * high:.2f}], 4 to 8: " in row["reason"]


def test_a_step_within_noise_leaves_a_rise_undecided(tmp_path):
    row = one(tmp_path, claim("rises", over="depth"), {"depth": [2, 4, 8]}, along_depth(0, 0.05, 0.05, sd=0.01))
    assert row["verdict"] == "undecided"
    assert "neither that every step is above 0 nor that one is below 0 is shown" in row["reason"]


def test_a_cell_in_which_some_step_goes_the_other_way_keeps_a_rise_from_being_supported(tmp_path):
    axes, rise = {"depth": [2, 4, 8], "activation": ["relu", "tanh"]}, (0, 0.1, 0.2)
    value = along_depth({"relu": rise, "tanh": (0, 0.03, 0.01)})
    row = one(tmp_path, claim("rises", over="depth"), axes, value)
    assert row["p_holm"] < 0.05
    assert row["verdict"] == "undecided"
    assert "it depends on activation: above 0 at every step in relu; below 0 at some step in tanh" in row["reason"]


def test_a_cell_that_rises_at_every_step_keeps_a_rise_from_being_contradicted(tmp_path):
    axes, value = {"depth": [2, 4, 8], "activation": ["relu", "tanh"]}, {"relu": (0, 0.02, 0.04), "tanh": (0, -0.1, 0)}
    row = one(tmp_path, claim("rises", over="depth"), axes, along_depth(value))
    assert row["p_against_holm"] < 0.05
    assert row["verdict"] == "undecided"


def test_each_of_several_values_of_a_side_is_compared(tmp_path):
    def value(cell, seed):
        return 0.5 + {NONE: 0, BEFORE: 0.02, AFTER: 0.06}[cell.order] + 0.001 * noise(cell, seed)

    which = claim(first=of(order=[BEFORE, AFTER]), second=of(order=NONE))
    row = one(tmp_path, which, {"order": [NONE, BEFORE, AFTER]}, value)
    assert row["estimate"] == pytest.approx(0.04, abs=0.002)
    assert (row["verdict"], row["cells"]) == ("supported", 2)
    assert f"{BEFORE} or {AFTER} − {NONE}" in row["reason"]


@pytest.mark.parametrize("expected", ["greater", "less", "not_greater"])
@pytest.mark.parametrize("side", ["first", "second"])
def test_one_value_of_a_side_that_shows_the_opposite_is_not_hidden_by_the_others(tmp_path, expected, side):
    sign = 1 if (expected == "greater") == (side == "first") else -1

    def value(cell, seed):
        return 0.5 + sign * {NONE: 0, BEFORE: 0.3, AFTER: -0.1}[cell.order] + 0.001 * noise(cell, seed)

    sides = {side: of(order=[BEFORE, AFTER]), "first" if side == "second" else "second": of(order=NONE)}
    which = claim(expected, **sides, **({"margin": 0.01} if expected == "not_greater" else {}))
    row = one(tmp_path, which, {"order": [NONE, BEFORE, AFTER]}, value)
    assert row["verdict"] == "undecided"
    assert "it depends on order: " in row["reason"]
    assert AFTER in row["reason"].partition("depends on order")[2]


def test_a_range_is_that_of_each_seed(tmp_path):
    activations = ["relu", "elu", "tanh"]

    def value(cell, seed):
        return 0.5 + (0.001 * noise(cell, seed) if cell.order == AFTER else 0.03 * activations.index(cell.activation))

    results = results_of(tmp_path, {"activation": activations}, value)
    runs = results.runs[results.runs["order"] == AFTER].pivot_table(
        index="seed", columns="activation", values="test_accuracy"
    )
    row = judge([claim("less", range_over="activation")], results).iloc[0]
    assert row["estimate"] == pytest.approx((runs.max(axis=1) - runs.min(axis=1)).mean() - 0.06)
    assert (row["verdict"], row["cells"]) == ("supported", 1)


def test_a_spread_is_that_around_the_median_of_an_arm(tmp_path):
    results = results_of(
        tmp_path, {}, lambda cell, seed: 0.5 + (0.01 if cell.order == AFTER else 0.05) * NOISE[1, seed]
    )
    row = judge([claim("less_spread")], results).iloc[0]
    deviation = np.abs(NOISE[1, :SEEDS] - np.median(NOISE[1, :SEEDS]))
    assert row["estimate"] == pytest.approx((0.01 - 0.05) * deviation.mean())
    assert row["p"] == pytest.approx(stats.ttest_1samp(deviation, 0).pvalue)


def test_two_values_that_vary_are_compared_by_a_t_test(tmp_path):
    results = results_of(tmp_path, {"activation": ["relu", "tanh"]}, effects({"relu": 0.0, "tanh": 0.006}, sd=0.01))
    row = judge([claim("varies", over="activation")], results).iloc[0]
    relu, tanh = (seed_means(results, lambda run, name=name: run["activation"] == name) for name in ("relu", "tanh"))
    assert row["p"] == pytest.approx(stats.ttest_rel(tanh, relu).pvalue)
    assert row["estimate"] == pytest.approx((tanh - relu).mean())
    assert math.isnan(row["p_against"])
    margin = 0.4 * abs(row["estimate"])
    clear = judge([claim("varies", over="activation", margin=margin)], results).iloc[0]
    d = np.sign(row["estimate"]) * (tanh - relu)
    assert clear["p"] == pytest.approx(2 * stats.ttest_1samp(d, margin, alternative="greater").pvalue)


def test_more_values_that_vary_are_compared_jointly(tmp_path):
    axes, shifts = {"activation": ["relu", "tanh", "elu"]}, {"relu": 0.0, "tanh": 0.05, "elu": 0.1}
    which = claim("varies", over="activation", margin=0.01)
    row = one(tmp_path, which, axes, effects(shifts))
    assert row["p"] == pytest.approx(1 / 2 ** (SEEDS - 1))  # the least that so many seeds can give
    assert math.isnan(row["estimate"])
    assert row["verdict"] == "supported"
    assert [name for name in shifts if re.search(rf"{name} [+−]?\d", row["reason"])] == list(shifts)


def test_what_is_compared_jointly_is_each_value_less_their_mean(tmp_path):
    shifts = {"relu": 0.1, "tanh": 0.1, "elu": 0.088}
    results = results_of(tmp_path, {"activation": list(shifts)}, effects(shifts, sd=0.01))
    row = judge([claim("varies", over="activation")], results).iloc[0]
    d = np.array([seed_means(results, lambda run, name=name: run["activation"] == name) for name in shifts]).T
    assert row["p"] == pytest.approx(brute_force(d - d.mean(1, keepdims=True), 1 / EXAMPLES / math.sqrt(6)))
    assert 0.05 < row["p"] < 0.95
    row = judge([claim("varies", over="activation", margin=0.05)], results).iloc[0]
    assert row["verdict"] == "contradicted"
    assert "the same but for differences within ±5.00 pp" in row["reason"]


def brute_force(d, floor):
    """p of all 2^n sign flips of rows, each statistic by hand."""

    def statistic(rows):
        n = len(rows)
        return sum(n * column.mean() ** 2 / max(column.var(ddof=1), floor**2) for column in rows.T)

    flips = [statistic(d * np.array(signs)[:, None]) for signs in itertools.product((1, -1), repeat=len(d))]
    return np.mean(np.array(flips) >= statistic(d) * (1 - 1e-9))


# Many claims


def test_p_values_are_adjusted_by_holm_over_the_claims_that_are_covered(tmp_path):
    claims = [
        claim(id="all"),
        claim("less", id="relu", cells=of(activation="relu")),
        claim("equivalent", id="same", margin=0.01),
        claim(id="clear", cells=of(activation="tanh"), margin=0.005),
        claim(id="elsewhere", cells=of(activation="elu")),
        claim("varies", id="varies", over="activation"),
    ]
    axes = {"activation": ["relu", "tanh"]}
    value = planted_pairs(relu=exactly(SEEDS, -0.004, 0.01), tanh=exactly(SEEDS, 0.02, 0.015, seed=1))
    frame = judge(claims, results_of(tmp_path, axes, value)).set_index("id")
    same = frame.loc["same"]
    others = frame.loc[["all", "relu", "clear", "varies"]]
    assert (others["p"] < 1).all()
    p = [*others["p"], same["p_against"]]
    adjusted = [*others["p_holm"], same["p_against_holm"]]
    assert adjusted == pytest.approx(multipletests(p, method="holm")[1])
    p = [same["p"], frame["p_against"]["clear"]]
    adjusted = [same["p_holm"], frame["p_against_holm"]["clear"]]
    assert adjusted == pytest.approx(multipletests(p, method="holm")[1])
    assert "after Holm over 5 claims" in frame["reason"]["all"]
    assert frame.loc["elsewhere", ["p", "p_holm"]].isna().all()


def test_a_claim_that_is_shown_alone_may_be_undecided_among_many(tmp_path):
    results = results_of(tmp_path, {}, effects(0.013, sd=0.005))
    row = judge([claim()], results).iloc[0]
    assert 0.05 / 20 < row["p"] < 0.05
    assert row["verdict"] == "supported"
    many = [claim(id=str(i)) for i in range(20)]
    assert set(judge(many, results)["verdict"]) == {"undecided"}


def test_the_error_that_the_grid_declares_decides(tmp_path):
    value = effects(0.013, sd=0.005)
    row = one(tmp_path / "usual", claim(), {}, value)
    strict = one(tmp_path / "strict", claim(), {}, value, alpha=row["p"] / 2)
    assert (row["verdict"], strict["verdict"]) == ("supported", "undecided")


def test_claims_of_two_files_with_one_id_are_refused(tmp_path):
    with pytest.raises(ClaimsError, match="claim 'x': id is given to 2 claims"):
        judge([claim(), claim("less")], results_of(tmp_path, {}, effects(0)))


# Undecided


def test_an_effect_within_noise_is_undecided_with_its_interval(tmp_path):
    row = one(tmp_path, claim(), {}, effects(0.0, sd=0.02))
    assert row["verdict"] == "undecided"
    assert "neither above nor below 0 is shown" in row["reason"]
    assert f"[{100 * row['low']:.2f}, {100 * row['high']:.2f}]".replace("-", "−") in row["reason"]


def test_an_equivalence_within_noise_is_undecided(tmp_path):
    row = one(tmp_path, claim("equivalent", margin=0.005), {}, effects(0.0, sd=0.02))
    assert row["verdict"] == "undecided"
    assert "neither within ±0.50 pp nor beyond ±0.50 pp is shown" in row["reason"]


def test_variation_within_noise_is_undecided(tmp_path):
    which = claim("varies", over="activation", margin=0.005)
    row = one(tmp_path, which, {"activation": ["relu", "tanh"]}, effects(0.0, sd=0.02))
    assert row["verdict"] == "undecided"
    assert "no difference between them is shown" in row["reason"]


@pytest.mark.parametrize(("expected", "relu"), [("greater", 0.1), ("less", 0.1), ("greater", 0.05), ("less", -0.1)])
def test_a_claim_whose_cells_disagree_depends_on_what_they_differ_in(tmp_path, expected, relu):
    axes = {"activation": ["relu", "tanh"], "depth": [2, 4]}
    row = one(tmp_path, claim(expected), axes, effects({"relu": relu, "tanh": -0.5 * relu}))
    assert row["verdict"] == "undecided"
    assert "it depends on activation: " in row["reason"]
    above, below = ("relu", "tanh") if relu > 0 else ("tanh", "relu")
    assert f"above 0 in ({above}, depth 2) and ({above}, depth 4)" in row["reason"]
    assert f"below 0 in ({below}, depth 2) and ({below}, depth 4)" in row["reason"]


def test_cells_that_differ_in_no_single_field_depend_on_several_together(tmp_path):
    def value(cell, seed):
        return effects(0.1 if (cell.activation == "relu") == (cell.depth == 2) else -0.1)(cell, seed)

    row = one(tmp_path, claim(), {"activation": ["relu", "tanh"], "depth": [2, 4]}, value)
    assert "it depends on several of activation, depth together" in row["reason"]


def test_many_cells_that_disagree_are_counted(tmp_path):
    axes = {"activation": ["relu", "tanh"], "depth": [1, 2, 3, 4, 5, 6]}
    row = one(tmp_path, claim(), axes, effects({"relu": 0.1, "tanh": -0.1}))
    assert row["reason"].count("and 2 more") == 2


def test_one_cell_of_the_opposite_sign_keeps_a_claim_from_being_supported(tmp_path):
    axes = {"activation": ["relu", "elu", "tanh"]}
    shifts = {"relu": 0.1, "elu": 0.1, "tanh": -0.02}
    row = one(tmp_path, claim(), axes, effects(shifts, sd=0.002))
    assert row["p_holm"] < 0.05
    assert row["verdict"] == "undecided"
    assert one(tmp_path / "agree", claim(), axes, effects({**shifts, "tanh": 0.01}, sd=0.002))["verdict"] == "supported"


def test_cells_beyond_the_margin_keep_equal_means_from_being_equivalent(tmp_path):
    axes, which = {"activation": ["relu", "tanh"]}, claim("equivalent", margin=0.01)
    row = one(tmp_path, which, axes, effects({"relu": 0.05, "tanh": -0.05}, sd=0.002))
    assert row["p_holm"] < 0.05
    assert row["verdict"] == "undecided"
    assert "it depends on activation: above 0 in relu; below 0 in tanh" in row["reason"]


def test_a_cell_within_the_margin_keeps_an_equivalence_from_being_contradicted(tmp_path):
    axes, which = {"activation": ["relu", "tanh"]}, claim("equivalent", margin=0.01)
    row = one(tmp_path, which, axes, effects({"relu": 0.1, "tanh": 0.0}, sd=0.002))
    assert row["p_against_holm"] < 0.05
    assert row["verdict"] == "undecided"
    assert "it depends on activation: within ±1.00 pp in tanh; beyond ±1.00 pp in relu" in row["reason"]


def test_an_effect_smaller_than_what_is_clear_contradicts(tmp_path):
    row = one(tmp_path, claim(margin=0.02), {}, effects(0.01, sd=0.001))
    assert (row["p"], row["verdict"]) == (1, "contradicted")
    assert row["p_against_holm"] < 0.05
    assert "above 0, but within ±2.00 pp" in row["reason"]
    assert one(tmp_path / "plain", claim(), {}, effects(0.01, sd=0.001))["verdict"] == "supported"


def test_a_clear_effect_in_one_cell_keeps_a_small_mean_from_contradicting(tmp_path):
    axes = {"activation": ["relu", "elu", "tanh"]}
    row = one(tmp_path, claim(margin=0.02), axes, effects({"relu": 0.0, "elu": 0.0, "tanh": 0.04}, sd=0.001))
    assert row["p_against_holm"] < 0.05
    assert row["verdict"] == "undecided"
    assert "alone above 0 by more than the margin in tanh" in row["reason"]


def planted_pairs(**differences):
    """A value for results_of: after exceeds before by exactly these differences of each seed, by activation."""

    def value(cell, seed):
        return 0.5 + (cell.order == AFTER) * differences[cell.activation][seed]

    return value


@pytest.mark.parametrize(("expected", "sign", "side"), [("greater", 1, "above +"), ("less", -1, "below −")])
def test_with_a_margin_a_mean_must_be_beyond_it(tmp_path, expected, sign, side):
    which, error = claim(expected, margin=0.01), math.sqrt(SEEDS) / 100
    for name, mean, verdict, words in (
        ("little", 0.006, "undecided", f"{side[:5]} 0, but not shown to be {side}1.00 pp ("),
        ("barely", 0.0145, "undecided", f"{side[:5]} 0, but not shown to be {side}1.00 pp ("),
        ("clear", 0.0155, "supported", f"; {side}1.00 pp ("),
        ("opposite", -0.0155, "contradicted", f"; {'below' if sign > 0 else 'above'} 0 ("),
    ):
        d = exactly(SEEDS, sign * mean, 0.216 * error)  # t(0.975, 7)·error is 0.51 pp
        row = one(tmp_path / name, which, {}, planted_pairs(relu=d))
        assert (row["verdict"], name) == (verdict, name), row["reason"]
        assert words in row["reason"]
        assert (row["p_holm"] <= 0.05) == (verdict == "supported")
        assert (row["p_holm"] <= 0.05) == (min(sign * row["low"], sign * row["high"]) > 0.01)
        shown = stats.ttest_1samp(d, 0).pvalue if verdict == "undecided" else min(row["p"], row["p_against"])
        assert f"(p = {shown:.4f};" in row["reason"]


def test_a_difference_that_is_told_beside_an_undecided_margin_is_adjusted_too(tmp_path):
    d = {"relu": exactly(SEEDS, 0.006, 0.00605), "tanh": exactly(SEEDS, 0.006, 1e-4)}  # R: 2 * pt(-2.805, 7) is 0.0263
    results = results_of(tmp_path, {"activation": list(d)}, planted_pairs(**d))
    claims = [claim(id=name, margin=0.01, cells=of(activation=name)) for name in d]
    [alone, *_] = judge(claims[:1], results)["reason"]
    [among, *_] = judge(claims, results)["reason"]
    assert "above 0, but not shown to be above +1.00 pp" in alone
    assert "neither above nor below 0 is shown (p = 0.0527 after Holm over 2 claims" in among


def test_values_that_differ_by_less_than_the_margin_or_not_clearly_by_more_do_not_vary_clearly(tmp_path):
    which = claim("varies", over="activation", margin=0.01)
    for name, shift, words in (
        ("two", (0, 0.012), "not all the same, but not shown to differ by more than 1.00 pp"),
        ("three", (0, 0.006, 0.012), "not all the same, but not shown to differ by more than 1.00 pp"),
        ("clear", (0, 0.01, 0.02), "some differ by more than 1.00 pp"),
        ("within", (0, 0.002, 0.003), "not all the same, but within ±1.00 pp of each other"),
    ):
        shifts = dict(zip(("relu", "tanh", "elu"), shift, strict=False))
        d = {key: exactly(SEEDS, mean, 0.002, seed=i) for i, (key, mean) in enumerate(shifts.items())}
        row = one(tmp_path / name, which, {"activation": list(shifts)}, planted_pairs(**d))
        verdict = {"clear": "supported", "within": "contradicted"}.get(name, "undecided")
        assert (row["verdict"], name) == (verdict, name), row["reason"]
        assert words in row["reason"]


def test_of_more_than_two_values_that_vary_clearly_two_differ_by_more_after_bonferroni(tmp_path):
    d = {
        name: exactly(25, mean, 0.01, seed=i)
        for i, (name, mean) in enumerate((("relu", 0), ("tanh", 0.02), ("elu", 0.024)))
    }
    row = one(
        tmp_path,
        claim("varies", over="activation", margin=0.015),
        {"activation": list(d)},
        planted_pairs(**d),
        seeds=25,
    )
    largest = stats.ttest_1samp(d["elu"] - d["relu"], 0.015, alternative="greater").pvalue
    assert row["p"] == pytest.approx(3 * 2 * largest, rel=1e-3)
    assert 1e-4 < row["p"] < 0.1


# What means must not hide


@pytest.mark.parametrize("expected", ["equivalent", "not_greater", "greater", "less"])
def test_cells_of_opposite_signs_have_no_mean_within_the_margin(tmp_path, expected):
    axes, which = {"activation": ["relu", "tanh"]}, claim(expected, margin=0.02)
    d = exactly(SEEDS, 0.025, 0.0077)  # [1.86, 3.14]
    row = one(tmp_path, which, axes, planted_pairs(relu=d, tanh=-d[::-1]))
    within = row["p_holm" if expected in ("equivalent", "not_greater") else "p_against_holm"]
    assert within < 0.05
    assert row["verdict"] == "undecided"
    assert "it depends on activation: above 0 in relu; below 0 in tanh" in row["reason"]


@pytest.mark.parametrize("expected", ["equivalent", "not_greater", "greater", "less"])
def test_cells_of_opposite_signs_that_each_lie_within_the_margin_have_such_a_mean(tmp_path, expected):
    axes, which = {"activation": ["relu", "tanh"]}, claim(expected, margin=0.02)
    d = exactly(SEEDS, 0.012, 0.004)
    row = one(tmp_path, which, axes, planted_pairs(relu=d, tanh=-d[::-1]))
    assert row["verdict"] == ("supported" if expected in ("equivalent", "not_greater") else "contradicted")


def test_no_gain_bears_a_cell_that_loses_much(tmp_path):
    value = planted_pairs(relu=exactly(SEEDS, 0.01, 0.003), tanh=exactly(SEEDS, -0.1, 0.003, seed=1))
    row = one(tmp_path, claim("not_greater", margin=0.02), {"activation": ["relu", "tanh"]}, value)
    assert row["verdict"] == "supported"


def test_rows_that_vary_the_opposite_way_are_not_the_same(tmp_path):
    axes, which = {"depth": [2, 4], "activation": ["relu", "tanh", "elu"]}, claim("varies", over="depth", margin=0.02)
    value = along_depth({"relu": (0, 0.08), "tanh": (0, -0.08), "elu": (0, 0)})
    row = one(tmp_path, which, axes, value)
    assert row["p_against_holm"] < 0.05
    assert row["verdict"] == "undecided"
    told = "it depends on activation: not all the same in relu and tanh; within ±2.00 pp of each other in elu"
    assert told in row["reason"]


@pytest.mark.parametrize("depths", [[2, 4], [2, 4, 8]])
def test_rows_that_vary_within_the_margin_are_the_same_but_for_it(tmp_path, depths):
    axes, which = {"depth": depths, "activation": ["relu", "tanh"]}, claim("varies", over="depth", margin=0.02)
    value = along_depth({"relu": (0, 0.01, 0.005), "tanh": (0, -0.01, 0)})
    assert one(tmp_path, which, axes, value)["verdict"] == "contradicted"


def test_many_rows_that_vary_are_seen_with_few_seeds_too(tmp_path):
    """Signs of 8 seeds have p of at least 1/128, which Holm over 8 rows never rejects."""
    names = ["relu", "tanh", "elu", "gelu", "silu", "sigmoid", "softsign", "selu"]
    shifts = {name: (0, sign, 0) for name, sign in zip(names, [0.08, -0.08] * 4, strict=True)}
    row = one(
        tmp_path,
        claim("varies", over="depth", margin=0.02),
        {"depth": [2, 4, 8], "activation": names},
        along_depth(shifts),
    )
    assert row["p_against_holm"] < 0.05
    assert row["verdict"] == "undecided"
    assert "alone not all the same in relu, tanh, elu, gelu and 4 more" in row["reason"]


@pytest.mark.parametrize(("expected", "undecided"), [("equivalent", "supported"), ("greater", "contradicted")])
@pytest.mark.parametrize("beyond", [False, True])
def test_a_cell_alone_is_beyond_the_margin_at_the_level_of_all_cells(tmp_path, expected, undecided, beyond):
    """Of two cells at 97.5 %: R: qt(0.9875, 7) is 2.841244; at 95 % both intervals are beyond: qt(0.975, 7) is 2.364624."""
    error = 0.002 / (2.9 if beyond else 2.6)
    d = exactly(SEEDS, 0.012, error * math.sqrt(SEEDS))
    value = planted_pairs(relu=d, tanh=exactly(SEEDS, 0.001, 0.001, seed=1))
    row = one(tmp_path, claim(expected, margin=0.01), {"activation": ["relu", "tanh"]}, value)
    assert row["verdict"] == ("undecided" if beyond else undecided), row["reason"]


def with_p(p, mean):
    """Differences of the seeds with this mean, whose t test against 0 has this p."""
    return exactly(SEEDS, mean, abs(mean) * math.sqrt(SEEDS) / stats.t.isf(p / 2, SEEDS - 1))


@pytest.mark.parametrize(("p", "verdict"), [(0.028, "supported"), (0.022, "undecided")])
@pytest.mark.parametrize("expected", ["greater", "rises"])
def test_a_cell_alone_is_of_the_opposite_sign_after_holm_over_the_cells(tmp_path, expected, p, verdict):
    """Of three cells whose p are about 0, p and 0.9, the second is adjusted to 2p."""
    d = {"relu": exactly(SEEDS, 0.2, 0.01), "tanh": with_p(p, -0.006), "elu": with_p(0.9, 0.001)[::-1]}

    def value(cell, seed):
        return planted_pairs(**d)(cell, seed) if cell.depth == 4 else 0.5

    axes = {"activation": list(d), "depth": [2, 4] if expected == "rises" else [4]}
    row = one(tmp_path, claim(expected, over="depth" if expected == "rises" else ""), axes, value)
    assert row["verdict"] == verdict, row["reason"]


@pytest.mark.parametrize(("p", "verdict"), [(0.0095, "contradicted"), (0.0075, "undecided")])
def test_a_row_alone_varies_after_bonferroni_over_pairs_of_values_and_holm_over_rows(tmp_path, p, verdict):
    """Three pairs of values, which all have this p, and two rows, the other of which does not vary: 6p."""
    d = {"relu": with_p(p, 0.006), "tanh": exactly(SEEDS, 0, 0.003, seed=1)}

    def value(cell, seed):
        return 0.5 + (cell.order == AFTER) * {2: 0, 4: 1, 8: 0.5}[cell.depth] * d[cell.activation][seed]

    which = claim("varies", over="depth", margin=0.0075)
    row = one(tmp_path, which, {"activation": list(d), "depth": [2, 4, 8]}, value)
    assert row["verdict"] == verdict, row["reason"]


# What the grid covers


@pytest.mark.parametrize(
    ("which", "axes", "words"),
    [
        (
            claim(cells=of(activation=["tanh", "lecun_tanh", "softsign"])),
            {"activation": ["relu", "elu"]},
            "Needs activation tanh, lecun_tanh or softsign (here: relu, elu).",
        ),
        (
            claim(cells=of(activation="tanh", depth=Allowed(least=8))),
            {},
            "Needs activation tanh (here: relu) and depth at least 8 (here: 2).",
        ),
        (claim(cells=of(depth=Allowed(least=3, most=8))), {}, "Needs depth from 3 to 8 (here: 2)."),
        (claim(first=of(order="bn-act-weight")), {}, f"Needs order bn-act-weight (here: {BEFORE}, {AFTER})."),
        (
            claim(first=of(optimiser="adam", lr=Allowed(most=0.01)), second=of(optimiser="sgd", lr=0.1)),
            {},
            "Needs optimiser adam (here: sgd) with lr at most 0.01 (here: 0.1).",
        ),
        (claim("varies", over="architecture"), {}, "Needs at least two values of architecture with both sides."),
        (claim("rises", over="depth"), {}, "Needs at least two values of depth with both sides."),
        (claim("less", range_over="activation"), {}, "Needs at least two values of activation with both sides."),
        (claim(metric="epochs_to_threshold"), {}, "Metric not measured: epochs_to_threshold."),
        (claim(needs="a probe"), {}, "Needs a probe."),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_claim_that_the_grid_does_not_cover_says_what_is_missing(tmp_path, which, axes, words):
    row = judge([which], results_of(tmp_path, axes, effects(0.1))).iloc[0]
    assert (row["verdict"], row["reason"], row["n"], row["cells"]) == ("not covered", words, 0, 0)
    assert row[["estimate", "low", "high", "p", "p_holm"]].isna().all()


def test_values_that_the_grid_has_but_never_together_are_not_covered(tmp_path):
    exclude = "exclude = [{ activation = 'tanh', depth = 4 }]"
    results = results_of(tmp_path, {"activation": ["relu", "tanh"], "depth": [2, 4]}, effects(0.1), exclude=exclude)
    row = judge([claim(cells=of(activation="tanh", depth=4))], results).iloc[0]
    assert row["reason"] == "Needs cells with activation tanh and depth 4 at once."


def test_sides_that_share_no_cell_are_not_covered(tmp_path):
    exclude = f"exclude = [{{ order = '{BEFORE}', depth = 4 }}, {{ order = '{AFTER}', depth = 2 }}]"
    axes = {"order": [BEFORE, AFTER, NONE], "depth": [2, 4]}
    arms = {"before": BEFORE, "none": NONE}  # the grid itself may not ask for what it cannot compare
    row = judge([claim()], results_of(tmp_path, axes, effects(0.1), exclude=exclude, arms=arms)).iloc[0]
    assert row["reason"] == "Needs cells with both sides that agree in every other field."


def test_values_that_have_no_cell_in_common_do_not_vary(tmp_path):
    exclude = "exclude = [{ activation = 'relu', depth = 2 }, { activation = 'tanh', depth = 4 }]"
    axes = {"activation": ["relu", "tanh"], "depth": [2, 4]}
    row = judge([claim("varies", over="activation")], results_of(tmp_path, axes, effects(0.1), exclude=exclude)).iloc[0]
    assert row["reason"] == "Needs cells that all 2 values of activation have in common."


def test_values_vary_over_the_cells_that_they_share(tmp_path):
    def value(cell, seed):
        return effects(0.1 if cell.depth == 4 else 0.01)(cell, seed)

    exclude = "exclude = [{ activation = 'tanh', depth = 4 }]"
    results = results_of(tmp_path, {"activation": ["relu", "tanh"], "depth": [2, 4]}, value, exclude=exclude)
    row = judge([claim("varies", over="activation", margin=0.02)], results).iloc[0]
    assert (row["verdict"], row["cells"]) == ("contradicted", 2)
    assert "1 cell left out, since not every activation has their like." in row["reason"]


def test_the_values_that_the_grid_has_are_judged_and_the_others_said(tmp_path):
    which = claim(cells=of(activation=["tanh", "lecun_tanh", "softsign"]))
    row = one(
        tmp_path,
        which,
        {"activation": ["relu", "tanh", "softsign"]},
        effects({"relu": -1, "tanh": 0.1, "softsign": 0.1}),
    )
    assert (row["verdict"], row["cells"]) == ("supported", 2)
    assert "Covers 2 of 3 values of activation (tanh, softsign)." in row["reason"]


def test_the_values_of_a_side_that_the_grid_has_are_said(tmp_path):
    which = claim(first=of(order=[BEFORE, "bn-weight-act"]), second=of(order=NONE))
    row = one(tmp_path, which, {"order": [NONE, BEFORE]}, effects(0))
    assert f"Covers 1 of 2 values of order ({BEFORE})." in row["reason"]


def test_sides_are_compared_on_cells_that_agree_in_all_else(tmp_path):
    def value(cell, seed):
        return effects(0.01)(cell, seed) + 0.3 * (cell.depth == 4)

    exclude = f"exclude = [{{ order = '{AFTER}', depth = 2 }}]"
    row = judge([claim()], results_of(tmp_path, {"depth": [2, 4]}, value, exclude=exclude)).iloc[0]
    assert row["estimate"] == pytest.approx(0.01, abs=0.005)
    assert row["cells"] == 1


def test_sides_may_differ_in_any_fields(tmp_path):
    def value(cell, seed):
        return effects(0)(cell, seed) + 0.1 * (cell.batch == 64)

    which = claim(first=of(batch=Allowed(least=64)), second=of(batch=Allowed(most=16)))
    row = one(tmp_path, which, {"batch": [8, 16, 32, 64]}, value)
    assert (row["verdict"], row["cells"]) == ("supported", 4)  # two orders, and 8 and 16
    assert "batch at least 64 − batch at most 16 in test accuracy" in row["reason"]


def test_arms_have_the_names_that_the_grid_gives_them_and_numbers_their_unit(tmp_path):
    arms = {"before": BEFORE, "after": AFTER}
    row = one(tmp_path, claim(metric="test_loss"), {}, effects(0.25, base=1.0), arms=arms)
    assert row["reason"].startswith("after − before in test loss: +0.2")
    assert " nats [0." in row["reason"]


# Searched fields


@pytest.mark.parametrize(
    "which",
    [
        claim(),
        claim("varies", over="depth", margin=0.01),
        claim("less", range_over="depth"),
        claim("rises", over="depth"),
    ],
    ids=lambda which: which.expected,
)
def test_where_rates_are_chosen_claims_are_judged_at_the_chosen_ones(tmp_path, which):
    def value(cell, seed):
        return effects(0.01 * cell.depth)(cell, seed)

    axes = {"activation": ["relu", "tanh"], "depth": [2, 4]}
    row = judge([which], select(results_of(tmp_path / "chosen", axes, value, rates=[0.01, 0.1])).results).iloc[0]
    fixed = judge([which], results_of(tmp_path / "fixed", axes, value)).iloc[0]
    assert row[["verdict", "n", "cells"]].tolist() == fixed[["verdict", "n", "cells"]].tolist()
    assert row["estimate"] == pytest.approx(fixed["estimate"], abs=0.01)


def test_a_cell_for_which_nothing_was_chosen_is_left_out_and_moves_no_other(tmp_path):
    """Nothing is chosen for the first cell, and its runs are told from nothing but their place."""

    def value(cell, seed):
        if cell.activation == "relu" and cell.order == BEFORE and seed >= TUNING_FROM:
            return "missing"
        return effects({"relu": 0.1, "tanh": 0.05, "elu": -0.05})(cell, seed)

    results = results_of(tmp_path, {"activation": ["relu", "tanh", "elu"]}, value, rates=[0.01, 0.1])
    chosen = select(results).results
    for runs in (chosen.runs, chosen.runs.assign(cell_id=None)):
        claims = [claim(id=name, cells=of(activation=name)) for name in ("relu", "tanh", "elu")]
        frame = judge([*claims, claim(id="all")], chosen._replace(runs=runs)).set_index("id")
        assert frame["cells"].to_dict() == {"relu": 0, "tanh": 1, "elu": 1, "all": 2}
        assert frame.loc[["tanh", "elu"], "estimate"].to_numpy() == pytest.approx([0.05, -0.05], abs=0.01)
        assert "1 cell left out for too few pairs." in frame["reason"]["all"]


@pytest.mark.parametrize(
    "which",
    [
        claim("equivalent", margin=0.01, cells=of(lr=Allowed(most=0.01))),
        claim("rises", over="lr"),
        claim("greater", range_over="lr"),
        claim(first=of(lr=0.1), second=of(lr=0.01), cells=of(order=AFTER)),
    ],
    ids=["cells", "over", "range_over", "side"],
)
def test_a_claim_that_names_a_searched_field_is_judged_on_the_fresh_seeds_at_all_its_values(tmp_path, which):
    def value(cell, seed):
        return effects(0.05 * (cell.lr == 0.1) - 0.4 * (seed >= TUNING_FROM))(cell, seed)

    results = results_of(tmp_path, {}, value, rates=[0.01, 0.1])
    everywhere = at_every_value([which], results, Store(tmp_path / "store"))
    row = judge([which], select(results).results, everywhere).iloc[0]
    assert row["verdict"] == "supported", row["reason"]
    assert row["n"] == SEEDS
    assert row["estimate"] == pytest.approx(0.0 if which.margin else 0.05, abs=0.01)
    row = judge([which], select(results).results).iloc[0]
    assert (row["verdict"], row["reason"]) == ("not covered", "Needs results at every lr.")


def test_where_fresh_seeds_were_trained_only_as_chosen_the_tuning_seeds_judge_claims_about_all_values(tmp_path):
    def value(cell, seed):
        if seed < TUNING_FROM and cell.lr != 0.1:
            return "missing"
        return effects(0.05 * (cell.lr == 0.1) - 0.4 * (seed < TUNING_FROM))(cell, seed)

    results = results_of(tmp_path, {}, value, rates=[0.01, 0.1], tuning=8)
    which = claim("rises", over="lr")
    row = judge([which], select(results).results, at_every_value([which], results, Store(tmp_path / "store"))).iloc[0]
    assert (row["verdict"], row["n"]) == ("supported", 8), row["reason"]
    assert row["estimate"] == pytest.approx(0.05, abs=0.01)


def test_where_candidates_are_halved_no_claim_about_all_values_is_judged_on_those_that_are_left(tmp_path):
    results = results_of(tmp_path, {}, effects(0.1), rates=[0.01, 0.1])
    seeds = results.grid.seeds.model_copy(update={"halving": 2})
    halved = results._replace(grid=results.grid.model_copy(update={"seeds": seeds}))
    which = claim(first=of(lr=0.1), second=of(lr=0.01), cells=of(order=AFTER))
    everywhere = at_every_value([which], halved, Store(tmp_path / "store"))
    row = judge([which, claim(id="other")], select(halved).results, everywhere).set_index("id")
    assert row["reason"]["x"] == "Needs results at every lr, of which halving drops some."
    assert row["verdict"].to_dict() == {"x": "not covered", "other": "supported"}


def test_values_of_a_searched_field_that_the_grid_lacks_are_told_beside_those_that_it_has(tmp_path):
    which, store = claim(cells=of(lr=0.3)), Store(tmp_path / "store")
    results = results_of(tmp_path, {}, effects(0.1), rates=[0.01, 0.1])
    assert at_every_value([claim()], results, store) is None
    row = judge([which], select(results).results, at_every_value([which], results, store)).iloc[0]
    assert row["reason"] == "Needs lr 0.3 (here: 0.01, 0.1)."


def test_tuning_seeds_do_not_set_the_threshold_of_a_claim_about_epochs(tmp_path):
    def value(cell, seed):
        return 0.9 if seed >= TUNING_FROM else 0.5 + 0.01 * noise(cell, seed)

    which = claim(metric="epochs_to_threshold", cells=of(lr=0.1))
    results = results_of(tmp_path, {}, value, metric="val_accuracy", rates=[0.01, 0.1])
    runs = at_every_value([which], results, Store(tmp_path / "store")).runs
    assert thresholds(runs)["digits"] < 0.35 < thresholds(results.runs)["digits"]


def test_the_page_of_a_grid_that_searches_a_field_judges_claims_about_it(tmp_path):
    results = results_of(tmp_path, {"order": [NONE, BEFORE, AFTER]}, effects(0.1), rates=[0.01, 0.1])
    page.build(results.grid, Store(tmp_path / "store"), tmp_path / "report")
    rows = pd.read_csv(tmp_path / "report" / "claims.csv").set_index("id")
    assert rows.loc[["bjorck-2018-small-rate", "bjorck-2018-large-rate"], "n"].tolist() == [SEEDS, SEEDS]
    assert not rows["reason"].str.contains("nan").any()


# Missing, failed and diverged runs


def lacking(status, where, value):
    """The value, but for the status of the runs that `where` (cell, seed) chooses."""
    return lambda cell, seed: status if where(cell, seed) else value(cell, seed)


@pytest.mark.parametrize("status", ["missing", "failed"])
def test_seeds_without_all_their_runs_are_left_out_and_counted(tmp_path, status):
    value = lacking(status, lambda cell, seed: cell.order == AFTER and cell.depth == 2 and seed < 2, effects(0.1))
    row = one(tmp_path, claim(), {"depth": [2, 4]}, value)
    assert (row["verdict"], row["n"], row["cells"]) == ("supported", SEEDS - 2, 2)
    assert f"{SEEDS - 2} of {SEEDS} seeds are complete." in row["reason"]


def test_a_cell_with_fewer_than_five_pairs_is_left_out_and_counted(tmp_path):
    value = lacking("missing", lambda cell, seed: cell.depth == 4 and seed >= 4, effects(0.1))
    row = one(tmp_path, claim(), {"depth": [2, 4]}, value)
    assert (row["verdict"], row["n"], row["cells"]) == ("supported", SEEDS, 1)
    assert "1 cell left out for too few pairs." in row["reason"]


@pytest.mark.parametrize(
    "which", [claim(), claim("equivalent", margin=0.01), claim("varies", over="depth", margin=0.2)]
)
def test_fewer_than_five_pairs_decide_nothing(tmp_path, which):
    value = lacking("missing", lambda cell, seed: seed >= 4, effects(0.1))
    row = one(tmp_path, which, {"depth": [2, 4]}, value)
    assert (row["verdict"], row["n"], row["cells"], row["p_holm"]) == ("undecided", 0, 0, 1)
    assert "no cell has 5 pairs yet; the most is 4." in row["reason"]


@pytest.mark.parametrize(
    "which", [claim(), claim("equivalent", margin=0.01), claim("varies", over="depth", margin=0.2)]
)
def test_fewer_than_five_complete_seeds_decide_nothing(tmp_path, which):
    value = lacking("missing", lambda cell, seed: seed < 3 if cell.depth == 2 else seed >= 5, effects(0.1))
    row = one(tmp_path, which, {"depth": [2, 4]}, value)
    assert (row["verdict"], row["n"], row["cells"], row["p_holm"]) == ("undecided", 2, 2, 1)
    assert "only 2 seeds are complete over 2 cells." in row["reason"]


def test_an_arm_that_diverged_counts_as_guessing(tmp_path):
    value = lacking("diverged", lambda cell, seed: cell.order == AFTER, effects(0.0, sd=0.0, base=0.9))
    row = one(tmp_path, claim(), {}, value)
    assert row["verdict"] == "contradicted"
    assert row["estimate"] == pytest.approx(1 / CLASSES - (0.9 + 0.02 * NOISE[0, :SEEDS].mean()))
    assert f"{SEEDS} pairs with a diverged run counted at the worst outcome." in row["reason"]


def test_a_diverged_run_is_as_bad_as_the_worst_of_the_two_cells_that_are_compared(tmp_path):
    def value(cell, seed):
        return "diverged" if cell.order == AFTER and seed == 0 else {NONE: 0.1, BEFORE: 7.0, AFTER: 0.1}[cell.order]

    which = claim(metric="test_loss", first=of(order=[BEFORE, AFTER]), second=of(order=NONE))
    row = one(tmp_path, which, {"order": [NONE, BEFORE, AFTER]}, value)
    after = (math.log(CLASSES) + (SEEDS - 1) * 0.1) / SEEDS
    assert row["estimate"] == pytest.approx((7.0 + after) / 2 - 0.1)


def test_arms_that_both_diverge_are_not_equivalent(tmp_path):
    value = lacking("diverged", lambda cell, seed: cell.activation == "tanh", effects(0.0))
    which = claim("equivalent", margin=0.01, cells=of(activation="tanh"))
    row = one(tmp_path, which, {"activation": ["relu", "tanh"]}, value)
    assert (row["estimate"], row["verdict"], row["p"]) == (0, "undecided", 1)


def test_a_cell_whose_arms_both_diverge_is_none_that_shows_an_equivalence(tmp_path):
    value = lacking("diverged", lambda cell, seed: cell.activation == "tanh", effects(0.1))
    which = claim("equivalent", margin=0.01)
    assert one(tmp_path, which, {"activation": ["relu", "tanh"]}, value)["verdict"] == "contradicted"


def test_an_equivalence_must_hold_without_the_diverged_pairs_too(tmp_path):
    value = lacking("diverged", lambda cell, seed: seed >= 3, effects(0.008, sd=0.001))
    which = claim("equivalent", margin=0.01)
    assert one(tmp_path / "finished", which, {}, effects(0.008, sd=0.001))["verdict"] == "supported"
    assert one(tmp_path / "diverged", which, {}, value)["verdict"] == "undecided"


def test_spread_is_that_of_finished_pairs(tmp_path):
    def value(cell, seed):
        return 0.5 + (0.01 if cell.order == AFTER else 0.05) * (-1) ** seed * (1 + 0.1 * noise(cell, seed))

    which = claim("less_spread")
    row = one(tmp_path, which, {}, lacking("diverged", lambda cell, seed: cell.order == BEFORE and seed == 7, value))
    assert (row["verdict"], row["n"]) == ("supported", SEEDS - 1)
    assert "1 pair with a diverged run left out." in row["reason"]
