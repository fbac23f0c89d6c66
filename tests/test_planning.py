"""What a plan tells before a sweep: the power of a study, and its price."""

import json
import math
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
from scipy import stats
from simulated import fill, read_grid, run
from statsmodels.stats.power import TTestPower

import normorder
import normorder_plan
from grids import Cell, Resources
from harness import pricing, rehearsal
from harness.cluster import ClusterError
from harness.packing import length
from harness.plan import Trial, work
from harness.pricing import (
    PASSES,
    START_S,
    STARTING_S,
    Timing,
    Timings,
    measure,
    price,
    processes,
    seconds,
    span,
    started,
)
from harness.pricing import in_words as price_in_words
from harness.rehearsal import MOST, SEEDS, rehearse, settled, wanted
from harness.study import later_runs
from reports import statistics as st
from reports.comparisons import compare
from reports.outcomes import gather
from reports.power import AIM, Spread, comparisons, in_words, known_spread, power, spread, warnings
from results import Store

# Power


def of_sd(sd, n=1):
    """Moments of one comparison with this sd and mean 0."""
    return st.Moments(np.array([n]), np.zeros(1), np.array([sd]))


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 18])
@pytest.mark.parametrize("n", [3, 5, 20, 64])
def test_a_detectable_difference_is_found_as_often_as_is_said(n, alpha):
    size = st.detectable(of_sd(2.0, n), alpha, AIM)[0]
    d = np.random.default_rng(0).normal(size, 2.0, (20_000, n))
    found = (stats.ttest_1samp(d, 0, axis=1).pvalue <= alpha).mean()
    assert found == pytest.approx(AIM, abs=4 * math.sqrt(AIM * (1 - AIM) / 20_000))


def test_a_detectable_difference_is_that_of_statsmodels_where_its_solver_finds_one():
    solved = TTestPower().solve_power(nobs=20, alpha=0.01, power=AIM)
    assert st.detectable(of_sd(3.0, 20), 0.01, AIM)[0] == pytest.approx(3 * solved, rel=1e-5)
    assert st.detectable(of_sd(1.0, 1), 0.05, AIM)[0] == math.inf


def planted(folder, sd, seeds=10, there=None, **options):
    """Results in which pairs differ by noise of this sd, in the first `there` seeds."""
    folder.mkdir(exist_ok=True)
    grid, rng = read_grid(folder, seeds=seeds, **options), np.random.default_rng(0)
    rows = [
        run(each.cell, each.seed, test_accuracy=0.5 + rng.normal(0, sd) * (each.cell.order == "weight-bn-act"))
        for each in grid.runs()
        if each.seed < (there or seeds)
    ]
    return gather(grid, fill(Store(folder / "store"), rows))


def test_power_is_reckoned_from_the_upper_limit_of_the_spread_and_the_whole_family(tmp_path):
    results = planted(tmp_path, 0.02, activations=("relu", "tanh", "elu"), depths=(2, 4))
    known = spread(results, "from the store")
    found = power(results.grid, known)
    assert (found.comparisons, found.pairs, found.smallest_p) == (6, 10, 2 / 2**10)
    frame = compare(results, ["test_accuracy"])
    assert known.m.sd == pytest.approx(frame["sd"].to_numpy())
    upper = frame["sd"].to_numpy() * math.sqrt(9 / stats.chi2.ppf(0.2, 9))
    assert found.sd == pytest.approx(upper)
    assert found.detectable[0] == pytest.approx(
        upper * TTestPower().solve_power(nobs=10, alpha=0.05 / 6, power=AIM), rel=1e-6
    )
    assert found.certain.tolist() == frame["seeds_needed"].tolist()
    # TOST at the first step of Holm, where nothing differs and the sd is its upper limit.
    d = np.random.default_rng(0).normal(0, upper[0], (20_000, 10))
    shown = (st.tost(st.moments(d.T), 0.02) <= 0.05 / 6).mean()
    assert found.equivalence[0, 0] == pytest.approx(shown, abs=0.015)


def test_comparisons_without_two_pairs_tell_nothing_of_the_spread(tmp_path):
    assert spread(planted(tmp_path / "one", 0.02, there=1), "here") is None
    assert spread(planted(tmp_path / "two", 0.02, there=2), "here").m.n.tolist() == [2]


def test_of_many_comparisons_the_spread_is_known_by_some_and_by_all_seeds_of_the_store(tmp_path, monkeypatch):
    results = planted(tmp_path, 0.02, seeds=12, depths=tuple(range(1, 10)))
    store = Store(tmp_path / "store")
    few = results.grid.model_copy(update={"seeds": results.grid.seeds.model_copy(update={"count": 5})})
    assert known_spread(few, store, "x").m.n.tolist() == [12] * 9
    monkeypatch.setattr("reports.power.MOST_COMPARISONS", 3)
    some = known_spread(few, store, "x").m
    assert some.sd.tolist() == spread(results, "x").m.sd[[0, 4, 8]].tolist()
    assert known_spread(few, Store(tmp_path / "nothing"), "x") is None


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 6), ("exclude = [{ order = 'weight-act-bn', depth = 4 }]\n", 3), ("exclude = [{ activation = 'elu' }]\n", 4)],
    ids=["all", "without an arm", "without both"],
)
def test_the_family_has_the_cells_with_both_arms(tmp_path, text, count):
    grid = read_grid(tmp_path, activations=("relu", "tanh", "elu"), depths=(2, 4), exclude=text)
    assert comparisons(grid) == count
    searching = read_grid(tmp_path, activations=("relu", "tanh", "elu"), depths=(2, 4), exclude=text,
                          axes="[nuisance]\nlr = [0.1, 0.2]")  # fmt: skip
    assert comparisons(searching) == count


@pytest.mark.parametrize("n", [5, 24, 25, 1000])
def test_the_smallest_p_is_that_of_the_sign_flip_test(tmp_path, n):
    assert power(read_grid(tmp_path, seeds=n), None).smallest_p == pytest.approx(st.sign_flip(np.ones((n, 1)))[0])


def test_pairs_with_a_diverged_run_tell_nothing_of_the_spread(tmp_path):
    results = planted(tmp_path, 0.02)
    runs = results.runs.assign(status=["diverged" if seed < 3 else "done" for seed in results.runs["seed"]])
    assert spread(results._replace(runs=runs), "x").m.n.tolist() == [7]


@pytest.mark.parametrize(
    ("seeds", "cells", "margin", "sd", "told"),
    [
        (4, 1, 0.02, None, "4 seeds: there is no verdict below 5"),
        (5, 1, 0.02, None, "5 seeds: the exact paired test cannot go below p = 0.0625"),
        (
            8,
            6,
            0.02,
            0.001,
            "8 seeds: the exact paired test cannot go below p = 0.0078, after Holm over 6 comparisons 0.0469",
        ),
        (
            8,
            7,
            0.02,
            0.001,
            "8 seeds: the exact paired test cannot go below p = 0.0078, after Holm over 7 comparisons 0.0547",
        ),
        (20, 1, None, 0.001, "no margin for test_accuracy: nothing can be shown to be equivalent"),
        (20, 1, 0.02, 1.0, "20 seeds: no difference could be shown to lie within ±2.00 pp"),
        (20, 1, 0.02, 0.001, None),
        (20, 1, 0.02, None, None),
    ],
)
def test_what_no_number_of_runs_like_these_can_show_is_told(tmp_path, seeds, cells, margin, sd, told):
    margins = f"margin = {{ test_accuracy = {margin} }}" if margin else ""
    grid = read_grid(tmp_path, seeds=seeds, depths=tuple(range(1, cells + 1)), margins=margins)
    known = Spread(of_sd(sd, 20), "planted") if sd else None
    told = [] if told is None or (cells == 6) else [told]  # 6 comparisons are just few enough
    assert warnings(power(grid, known)) == told


def test_the_words_have_the_numbers_with_their_units(tmp_path):
    grid = read_grid(tmp_path, activations=("relu", "tanh"))
    m = st.Moments(np.array([20, 20]), np.zeros(2), np.array([0.01, 0.02]))
    text = "\n".join(in_words(power(grid, Spread(m, "from the store"))))
    assert "power of after - before in test accuracy: 2 comparisons of 20 pairs" in text
    assert "can reach p = 1.9e-06" in text
    assert "sd of differences 1.77 (1.18 to 2.35) pp, 80 % upper limits, from the store" in text
    assert "equivalence within ±2.00 pp is shown with probability" in text
    without = "\n".join(in_words(power(grid, None)))
    assert "the spread of differences is not known" in without
    assert "sd of differences" not in without


# Price


def cell(**fields):
    usual = {"dataset": "x", "architecture": "mlp", "order": "weight-bn-act", "activation": "relu", "depth": 2}
    return Cell(**{**usual, "width": 8, "batch": 10, "epochs": 4, **fields})


TIMED = Timing(4, step_s=0.1, evaluation_s=0.5, rest_s=2.0, example_s=0.001, pass_bytes=100.0, rest_bytes=1000.0)


@pytest.fixture
def timings(blobs, tmp_path, monkeypatch):
    """Timings of blobs on two slots, of which each trial that is timed takes what TIMED says."""
    monkeypatch.setenv("NORMORDER_DATA", str(tmp_path))
    found = Timings({"x": blobs()}, 2)
    found.kept.get = lambda _: TIMED
    return found


def test_a_trial_takes_its_passes_evaluations_and_what_comes_once(blobs):
    data, timed = blobs(), Trial(cell(), (0, 1, 2, 3))
    examples = len(data.x_train)
    expected = 4 * (examples // 10 * 0.1 + 0.5) + 2.0 + PASSES * (examples + len(data.x_test)) * 0.001
    assert seconds(timed, TIMED, timed, data) == pytest.approx(expected)
    alone = Trial(cell(), (7,))
    assert seconds(alone, TIMED, timed, data) == pytest.approx(expected * length(1, 1) / length(1, 4))
    plain = cell(order="weight-act")
    share = work(plain, data) / work(cell(), data)
    assert share < 1
    assert seconds(Trial(plain, timed.seeds), TIMED, timed, data) == pytest.approx(expected * share)


def test_the_price_is_that_of_trials_of_which_each_slot_takes_the_next(timings):
    timed, other = Trial(cell(), (0, 1, 2, 3)), Trial(cell(depth=9), (0, 1))
    timings.kept.get = lambda name: None if name == timings._name(other) else TIMED
    timings.know([timed])
    timings.timed[timings._key(other)] = other, None  # its pilot failed
    found = price([timed, timed, timed, other], timings, slots=2)
    one = seconds(timed, TIMED, timed, timings.data["x"])
    assert found.busy_s == pytest.approx(3 * one)
    assert found.wall_s == pytest.approx(START_S + 2 * one + 3 * STARTING_S, abs=2 * STARTING_S)
    assert found.disk_bytes == pytest.approx(3 * (1000 + 4 * 100))
    assert found.unknown == 2
    first, second = price_in_words(found, 2, Resources())
    assert f"{span(found.wall_s)} on 2 slots" in first
    assert "4 kB on the disk" in first
    hours = found.busy_s / 3600
    assert f"{hours:.2g} core-hours, and" in first
    [first, _] = price_in_words(found, 2, Resources(cpus=2, gpus=0.5))
    assert f"{2 * hours:.2g} core-hours and {hours / 2:.2g} GPU-hours, and" in first
    assert second == "2 runs are not in this: a pilot of theirs failed, as they will"
    assert price_in_words(price([], timings, 2), 2, Resources()) == []


def test_of_each_shape_the_trial_with_most_seeds_and_layers_is_timed(timings):
    trials = [
        Trial(cell(order="weight-act"), (0, 1)),
        Trial(cell(), (0, 1)),
        Trial(cell(), (0,)),
        Trial(cell(depth=3), (0,)),
    ]
    timings.know(trials)
    assert {trial for trial, _ in timings.timed.values()} == {trials[1], trials[3]}


def test_a_pilot_times_every_part_of_a_trial(blobs):
    data = blobs(train=500)
    timing = measure(Trial(cell(batch=5, width=32), (0, 1)), data)
    assert min(timing.evaluation_s, timing.pass_bytes, timing.rest_bytes) > 0
    assert min(timing.step_s, timing.rest_s) >= 0  # differences of times, which are 0 where other work disturbed them
    assert timing.example_s == timing.evaluation_s / len(data.x_val)


def test_what_was_timed_is_not_timed_again_but_for_other_seeds_or_slots(blobs, tmp_path, monkeypatch):
    monkeypatch.setenv("NORMORDER_DATA", str(tmp_path))
    data, trial = {"x": blobs()}, Trial(cell(), (0, 1))
    first = Timings(data, 1)
    first.know([trial])
    measured = first.of(trial)
    assert min(measured) >= 0
    monkeypatch.setattr(pricing, "_timed", None)  # which no process can be given
    again = Timings(data, 1)
    again.know([trial])
    assert again.of(trial) == measured
    for other, slots in ((Trial(cell(), (0, 1, 2)), 1), (trial, 2)):
        with pytest.raises((AttributeError, TypeError)):
            Timings(data, slots).know([other])
    (name,) = first.kept.known
    broken = {name: {**first.kept.known[name], "step_s": None}}
    for text in ("{", "[]", "null", '"x"', json.dumps(broken)):
        (tmp_path / "timings.json").write_text(text)
        unknown = Timings(data, 1)
        with pytest.raises((AttributeError, TypeError)):
            unknown.know([trial])


def test_a_pilot_that_fails_is_told_and_nothing_else_is_lost(blobs, tmp_path, monkeypatch):
    monkeypatch.setenv("NORMORDER_DATA", str(tmp_path))
    timings = Timings({"x": blobs()}, 1)
    trials = [Trial(cell(), (0,)), Trial(cell(depth=3, groups=8, order="weight-in-act"), (0, 1))]
    found = price(trials, timings, 1)
    assert found.unknown == 2
    assert found.disk_bytes > 0


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_pilot_that_is_killed_is_told_and_the_next_one_is_run(blobs, tmp_path, monkeypatch):
    monkeypatch.setenv("NORMORDER_DATA", str(tmp_path))
    timings, trials = Timings({"x": blobs()}, 1), [Trial(cell(), (0,)), Trial(cell(depth=3), (0, 1))]
    monkeypatch.setattr(pricing, "_timed", die)
    assert price(trials, timings, 1) == (0.0, 0, 0, 3)
    assert timings.kept.known == {}


# Rehearsals


@pytest.fixture
def rehearsing(blobs, tmp_path, monkeypatch):
    """A grid that searches, without its middle rate at depth 2, and timings of which each trial takes what TIMED says."""
    monkeypatch.setenv("NORMORDER_DATA", str(tmp_path))
    axes = "[nuisance]\nlr = [0.3, 0.01, 0.1]"
    exclude = "exclude = [{ depth = 2, lr = 0.01 }]\n"
    grid = read_grid(tmp_path, activations=("relu", "tanh"), depths=(1, 2), axes=axes, exclude=exclude)
    timings = Timings({"digits": blobs((1, 8, 8), train=200)}, 2)
    timings.kept.get = lambda _: TIMED
    return grid, timings


def test_comparisons_of_the_primary_contrast_are_rehearsed_at_a_middle_value_that_they_have(rehearsing):
    pairs = wanted(rehearsing[0])
    assert [(a.order, b.order) for a, b in pairs] == [("weight-act-bn", "weight-bn-act")] * MOST
    assert all(a.without("order") == b.without("order") for a, b in pairs)
    assert len({a for a, _ in pairs}) == MOST
    assert {(a.depth, a.lr) for a, _ in pairs} == {(1, 0.01), (2, 0.1)}


def test_a_rehearsal_trains_what_its_seconds_allow(rehearsing):
    grid, timings = rehearsing
    pairs = wanted(grid)
    cells = [each for pair in pairs for each in pair]
    nothing, next_s = rehearse(pairs, timings, 0.0)
    assert (nothing.finished(), next_s > 0) == ({}, True)
    one, more = rehearse(pairs, timings, next_s * 1.01)
    assert len(one.finished()) == 2 * SEEDS
    assert more > next_s
    assert known_spread(settled(grid), one, "of them", cells).m.n.tolist() == [SEEDS]
    whole, none = rehearse(pairs, timings, 1e9)
    assert (len(whole.finished()), none) == (MOST * 2 * SEEDS, 0.0)
    assert known_spread(settled(grid), whole, "of them", cells).m.n.tolist() == [SEEDS] * MOST
    assert one.path == whole.path


def test_what_a_rehearsal_that_is_killed_has_trained_is_kept(rehearsing, monkeypatch):
    grid, timings = rehearsing
    monkeypatch.setattr(rehearsal, "_trained", die)
    store, _ = rehearse(wanted(grid), timings, 1e9)
    assert store.finished() == {}


def test_processes_end_with_what_interrupts_them():
    def interrupted():
        with processes(1, {}) as pool:
            started(pool, time.sleep, [600])
            while not multiprocessing.active_children():
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert multiprocessing.active_children() == []


# The command


@pytest.fixture
def small_grid(tmp_path, monkeypatch):
    monkeypatch.setenv("NORMORDER_DATA", str(tmp_path / "data"))
    path = tmp_path / "small.toml"
    text = '[axes]\ndataset = ["digits"]\narchitecture = ["mlp"]\norder = ["weight-bn-act", "weight-act-bn"]\n'
    text += 'activation = ["relu"]\ndepth = [1]\n[nuisance]\nlr = [0.1, 0.3]\n[recipe]\nepochs = 2\nwidth = 8\n'
    path.write_text(text + "[seeds]\ncount = 5\n[analysis]\nmargin = { test_accuracy = 0.02 }\n")
    return path


def test_a_plan_tells_price_and_power_and_writes_nothing_to_the_store(small_grid, tmp_path, told):
    code, out, errors = told("plan", small_grid, "--store", tmp_path / "store")
    assert (code, errors) == (0, "")
    assert not (tmp_path / "store").exists()
    assert "  takes about " in out
    assert "power of weight-act-bn - weight-bn-act in test accuracy: 1 comparison of 5 pairs" in out
    assert "of pairs trained for this plan" in out
    assert out.endswith("warning: 5 seeds: the exact paired test cannot go below p = 0.0625\n")
    _, out, _ = told("plan", small_grid, "--store", tmp_path / "store", "--seeds", 12)
    assert "1 comparison of 12 pairs" in out
    assert "the exact paired test cannot" not in out


def test_without_time_to_rehearse_a_plan_says_what_would_tell_the_spread(small_grid, tmp_path, told):
    _, out, _ = told("plan", small_grid, "--store", tmp_path / "store", "--rehearse", 0)
    assert "would tell" in out
    assert "the spread of differences is not known" in out
    assert "the exact paired test (sign flips) can reach p = 0.062; verdicts are by t tests" in out


def test_a_folder_of_data_that_cannot_be_written_costs_a_plan_the_spread_alone(small_grid, tmp_path, told, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NORMORDER_DATA", str(tmp_path / "file"))
    code, out, errors = told("plan", small_grid, "--store", tmp_path / "store")
    assert (code, errors) == (0, "")
    assert "takes about " in out
    assert "nothing was rehearsed: " in out
    assert "the spread of differences is not known" in out


def test_a_plan_is_json_for_programs_with_what_it_says_in_words(small_grid, tmp_path, told):
    code, out, errors = told("plan", small_grid, "--store", tmp_path / "store", "--json")
    assert (code, errors) == (0, "")
    found = json.loads(out)
    code, words, _ = told("plan", small_grid, "--store", tmp_path / "store")
    assert f"{found['cells']} cells" in words
    assert f"to do {found['missing']} in {found['trials']} trials" in words
    assert found["prices"][0]["wall_s"] >= found["prices"][0]["busy_s"] / found["slots"]
    assert found["power"]["of"] == "test_accuracy"
    assert len(found["power"]["sd"]) == len(found["power"]["certain"])
    assert all(f"warning: {line}" in words for line in found["warnings"])


def test_on_a_cluster_that_cannot_be_reached_a_plan_says_so_and_is_for_this_machine(
    small_grid, tmp_path, told, monkeypatch
):
    def unreached(*_):
        raise ClusterError("no Ray cluster at host:1: has not answered for 30 s")

    monkeypatch.setattr(normorder_plan, "apart", unreached)
    code, out, _ = told("plan", small_grid, "--store", tmp_path / "store", "--address", "host:1")
    assert code == 0
    here = os.cpu_count()
    assert (
        f"  no Ray cluster at host:1: has not answered for 30 s; what is told is for {here} slots of this machine\n"
        in out
    )
    assert f"on {here} slots as fast as" in out
    code, _, errors = told("plan", small_grid, "--address", "host")
    assert (code, errors) == (2, "normorder: --address: must be auto, host:port or ray://host:port, and nothing more\n")


def test_the_price_of_a_search_has_its_later_stages(small_grid, tmp_path):
    study = normorder.open_study(normorder.Asked(small_grid), str(tmp_path / "store"))
    assert len(study.plan.missing) == 2 * 2 * 5
    later, looks = later_runs(study)
    assert len(later) == study.plan.later == 2 * 5
    assert {run.seed for run in later} == set(range(5))
    assert looks == []


ADAPTIVE = "8\nmax = 32\nstop = 'decided'"


def test_the_power_of_adaptive_seeds_is_that_of_each_look_at_its_share_of_alpha(tmp_path):
    grid = read_grid(tmp_path, seeds=ADAPTIVE, activations=("relu", "tanh"))
    found = power(grid, Spread(of_sd(0.02, 10), "from here"))
    upper = st.upper_sd(of_sd(0.02, 10))[0]
    for k, (n, share) in enumerate([(8, 1 / 16), (16, 3 / 16), (32, 12 / 16)]):
        level = 0.05 * share / 2
        assert found.detectable[k] == pytest.approx(st.detectable(of_sd(upper, n), level, AIM))
        assert found.equivalence[k] == pytest.approx(st.tost_power(of_sd(upper, n), 0.02, level))
    assert found.certain.tolist() == st.seeds_needed(of_sd(0.02, 10), 0.02, 0.05 * 0.75, 2).tolist()
    text = "\n".join(in_words(found))
    assert "2 comparisons of 8 to 32 pairs" in text
    assert "  at 16 pairs a difference of " in text
    assert text.count("equivalence shown with ") == 3
    unbounded = power(grid.model_copy(update={"analysis": grid.analysis.model_copy(update={"margin": {}})}), None)
    assert in_words(unbounded._replace(source="x", **{name: getattr(found, name) for name in ("sd", "detectable")}))
    assert "is certain with a max of " in text
    assert warnings(found) == []


def test_looks_at_too_few_pairs_to_decide_are_told(tmp_path):
    found = power(read_grid(tmp_path, seeds="2\nmax = 16\nstop = 'decided'"), None)
    assert "at 2 and 4 seeds nothing is decided: no look counts below 5" in warnings(found)


def test_the_price_of_adaptive_seeds_is_of_the_next_look_and_of_all(small_grid, tmp_path, told):
    text = small_grid.read_text()
    count = text[text.index("count") :].partition("\n")[0]
    small_grid.write_text(text.replace(count, "count = 5\nmax = 20\nstop = 'decided'"))
    study = normorder.open_study(normorder.Asked(small_grid), str(tmp_path / "store"))
    later, looks = later_runs(study)
    cells = len({run.cell for run in looks})
    assert len(looks) == cells * 15
    assert {run.seed for run in looks} == set(range(5, 20))
    assert study.plan.later == len(later) + len(looks)
    code, out, _ = told("plan", small_grid, "--store", tmp_path / "store", "--rehearse", "0")
    assert code == 0
    assert "  the next look takes about " in out
    assert "  if no look decides, it takes about " in out


def test_a_plan_leaves_a_store_as_it_is_down_to_the_times_of_its_folders(small_grid, tmp_path, told):
    store = fill(Store(tmp_path / "store"), [run(next(iter(read_grid(tmp_path).cells())), 0)])
    before = {path: path.stat().st_mtime_ns for path in (store.path, *store.path.rglob("*"))}
    assert told("plan", small_grid, "--store", store.path, "--rehearse", "0")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in (store.path, *store.path.rglob("*"))} == before
