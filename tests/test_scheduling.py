"""The simulation of the scheduler: what it takes from real plans, what it must obey, and the table of the guide."""

from collections import Counter
from pathlib import Path

import pytest
import scheduling
from hypothesis import given
from hypothesis import strategies as st
from scheduling import SIZES, SLOTS, Costs, Size, costs, drawn, idle, line, simulate, trials_of

from harness import sweep

GUIDE = (Path(__file__).parents[1] / "harness" / "CLUSTERS.md").read_text()
DEFAULT = Size()
FREE = Costs(lambda cell, seeds: 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
SMALL = [size for size in SIZES if size.rates * size.seeds <= 200]  # of others the program prints the lines, in minutes
times = st.lists(st.floats(0.01, 100), min_size=1, max_size=200)


@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize("size", SMALL)
def test_the_guide_says_what_the_simulation_prints(size, slots):
    assert f"\n{line(size, slots)}\n" in GUIDE


def test_the_guide_has_a_line_of_each_size_and_number_of_slots_and_no_other():
    table = GUIDE.partition(scheduling.HEAD)[2].partition("\n\n")[0]
    found = [tuple(row.strip("| ").split(" | ")[:2]) for row in table.splitlines()[2:]]
    cells = {size: f"{54 * size.rates:,} × {size.seeds}, {size.epochs}" for size in SIZES}
    assert found == [(cells[size], f"{slots:,}") for size in SIZES for slots in SLOTS]


@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize("size", SMALL)
def test_every_run_is_in_one_trial_for_any_number_of_slots(size, slots):
    found = Counter(run for trial in trials_of(size, slots, scheduling.pilots()) for run in trial.runs)
    assert found == Counter(scheduling.plan_of(size).missing)


def test_fits_are_as_large_as_those_of_sweeps():
    assert scheduling.TRIALS_A_FIT == sweep.TRIALS_A_FIT


# The default study on few slots and on many


def ends(trials, slots, known):
    return simulate(drawn(trials, known), slots, known).makespan_s


def soonest(slots, known):
    """Seconds before which no plan of the default study can end: all its work in its best blocks, a run by itself."""
    cells = list(scheduling.grid_of(DEFAULT).cells())
    work = sum(min(known.trial(cell, s) * 20 / s for s in (8, 16, 20)) for cell in cells)
    return known.worker_s + max(work / slots, max(known.trial(cell, 1) for cell in cells))


# On 200 slots 5 s of 6 are a worker's start and a single run of the slowest cell, and the driver starts the trials.
@pytest.mark.parametrize(("slots", "times"), [(2, 1.1), (20, 1.25), (200, 2.0)])
def test_the_default_study_ends_almost_as_soon_as_its_work_and_its_longest_run_allow(slots, times):
    known = costs()
    bound = times * soonest(slots, known)
    assert ends(trials_of(DEFAULT, slots, scheduling.pilots()), slots, known) <= bound


@pytest.mark.parametrize("slots", [200, 1000])
def test_a_plan_that_knows_of_no_slots_is_seen_to_end_late(slots):
    known = costs()
    whole = trials_of(DEFAULT, 1, scheduling.pilots())
    assert ends(whole, slots, known) > 1.5 * ends(trials_of(DEFAULT, slots, scheduling.pilots()), slots, known)


# A trial of the slowest cell takes up to 1.5 times as long as is reckoned from its multiplications.
@pytest.mark.parametrize(("epochs", "slots", "share"), [(20, 2, 0.05), (20, 20, 0.25), (2000, 200, 0.3)])
def test_slots_are_busy_where_the_work_is_long_beside_the_start(epochs, slots, share):
    known, size = costs(), Size(epochs=epochs)
    outcome = simulate(drawn(trials_of(size, slots, scheduling.pilots()), known), slots, known)
    assert idle(outcome, slots) < share


# The simulation itself


@given(times, st.integers(1, 50), st.integers(1, 60))
def test_no_sweep_ends_before_its_work_or_its_longest_trial(seconds, slots, per_fit):
    least = max(sum(seconds) / slots, max(seconds))
    assert simulate(seconds, slots, FREE, per_fit).makespan_s >= least * (1 - 1e-9)
    assert simulate(seconds, slots, FREE, per_fit=None).makespan_s <= sum(seconds) / slots + max(seconds)


@given(times, st.integers(1, 50))
def test_one_slot_does_one_trial_after_the_other(seconds, per_fit):
    known = FREE._replace(driver_s=0.5, worker_s=3.0, turnaround_s=2.0)
    fits = -(-len(seconds) // per_fit)
    expected = sum(seconds) + 3.0 * fits + 2.0 * len(seconds)
    assert simulate(seconds, 1, known, per_fit).makespan_s == pytest.approx(expected)


def test_the_driver_starts_one_trial_at_a_time():
    assert simulate([1.0] * 500, 1000, FREE._replace(driver_s=0.1)).makespan_s == pytest.approx(51.0)


def test_a_fit_begins_when_the_one_before_has_ended():
    assert simulate([5.0, 1.0, 1.0, 1.0], 2, FREE, per_fit=2).makespan_s == 6.0
    assert simulate([5.0, 1.0, 1.0, 1.0], 2, FREE, per_fit=None).makespan_s == 5.0


@pytest.mark.parametrize(
    ("seconds", "slots", "known", "expected"),
    [
        ([1.0] * 1000, 10, FREE, "the work"),
        ([1.0] * 1000, 1000, FREE._replace(driver_s=0.1), "the driver"),
        ([1.0] * 10, 10, FREE._replace(worker_s=9.0), "starts of workers"),
        ([1.0] * 100, 10, FREE._replace(turnaround_s=1.0), "the way from trial to trial"),
        ([9.0, 1.0, 1.0], 3, FREE, "the longest trials"),
    ],
)
def test_what_limits_is_that_without_which_a_sweep_would_end_soonest(seconds, slots, known, expected):
    assert scheduling.limit(seconds, slots, known) == expected


def test_seconds_of_trials_are_those_measured_and_between_them_on_a_line():
    known = costs()
    (cell, *_) = (c for c in scheduling.grid_of(DEFAULT).cells() if c.activation == "relu" and c.order == "weight-act")
    (row,) = (
        row for row in scheduling.measured()["trials"]
        if (row["depth"], row["order"], row["activation"], row["seeds"]) == (cell.depth, "weight-act", "relu", 16)
    )  # fmt: skip
    middle = 20 * sorted(row["epoch_s"])[1] + sorted(row["rest_s"])[1]
    assert known.trial(cell, 16) == pytest.approx(middle)
    assert known.trial(cell, 20) == pytest.approx((known.trial(cell, 16) + known.trial(cell, 24)) / 2)
