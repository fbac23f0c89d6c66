"""Sweeps of a grid that searches: its stages follow from the store, whatever was killed in or between them."""

import pandas as pd
from processes import children, end, kill, sweeping, swept, told, wait_until, write_grid
from test_together import assert_same, measured

import harness
from grids import TUNING_FROM, Grid
from reports.comparisons import compare
from reports.looks import wanted
from reports.outcomes import gather
from results import METRICS, Store
from results.protocol import expected, planned_in
from results.validation import incomplete, validate

SEARCHED = "[nuisance]\nlr = [0.003, 0.1, 0.3]\n[recipe]"


def searching(path):
    """Rungs of 30 and 20 runs, then 12 at what was chosen."""
    grid = write_grid(path, epochs=8, seeds=6)
    grid.write_text(grid.read_text().replace("[recipe]", SEARCHED).replace("[seeds]", "[seeds]\nhalving = 2"))
    return grid


def stages_of(store):
    """How many runs of each stage are in a store: of each number of epochs and kind of seeds."""
    runs = Store(store).read("runs").to_pandas()
    return {
        "short": (runs["epochs"] < 8).sum(),
        "tuned": ((runs["epochs"] == 8) & (runs["seed"] >= TUNING_FROM)).sum(),
        "compared": (runs["seed"] < TUNING_FROM).sum(),
    }


def test_a_sweep_that_is_killed_between_stages_goes_on_to_the_store_of_one_that_is_not(tmp_path):
    path = searching(tmp_path / "g.toml")
    store, calm = tmp_path / "killed", tmp_path / "undisturbed"
    started = []
    with sweeping(path, store) as driver:
        wait_until(lambda: driver.poll() is not None or stages_of(store)["tuned"], 180)
        assert driver.poll() is None, told(path)
        started += children(driver)
        kill(driver)
    end(started)
    assert swept(path, store)[0] == 0, told(path)
    path.with_suffix(".log").unlink()
    code, out = swept(path, calm)
    assert code == 0, out
    assert_same(measured(store), measured(calm))
    assert stages_of(calm) == {"short": 30, "tuned": 20, "compared": 12}
    assert "runs 30/30" in out
    assert "runs 20/20" in out
    assert "runs 12/12" in out
    assert "62 done, 0 diverged, 0 failed in" in out
    grid = Grid.read(path, {**harness.choices(), "metric": METRICS})
    assert set(measured(calm).index) == set(planned_in(grid, Store(calm), *Store(calm).fates()).run_ids)
    assert sum(map(len, expected(grid))) == 62
    assert validate(Store(store)) == incomplete(Store(store), grid) == []


ADAPTIVE = """count = 5
max   = 20
stop  = "decided"
[analysis]
margin = { test_accuracy = 0.06 }
"""


def adaptive(path):
    """Looks after 5, 10 and 20 seeds, at each of which some comparisons are decided."""
    grid = write_grid(path, epochs=4, seeds=0, depths=(1, 8))
    text = grid.read_text().replace("count = 0\n", ADAPTIVE)
    grid.write_text(text.replace('["relu"]', '["relu", "tanh"]'))
    return grid


def looks_of(store):
    """How many runs of each look are in a store."""
    seeds = Store(store).read("runs").to_pandas()["seed"]
    return [int(seeds.between(first, last - 1).sum()) for first, last in ((0, 5), (5, 10), (10, 20))]


def test_adaptive_seeds_that_are_killed_in_every_round_give_the_verdicts_of_an_undisturbed_sweep(tmp_path):
    path = adaptive(tmp_path / "g.toml")
    store, calm = tmp_path / "killed", tmp_path / "undisturbed"
    code, out = swept(path, calm)
    assert code == 0, out
    whole = looks_of(calm)
    assert whole[0] == 40
    assert 0 < whole[1] < 40, "some comparisons, and not all, go on"
    assert whole[2] > 0, "and some to the last look"
    for round_ in range(3):
        started = []
        path.with_suffix(".log").unlink()
        with sweeping(path, store) as driver:
            wait_until(lambda n=round_, driver=driver: driver.poll() is not None or looks_of(store)[n], 180)
            started += children(driver) if driver.poll() is None else []
            kill(driver)
        end(started)
        assert looks_of(store)[:round_] == whole[:round_]
    assert swept(path, store)[0] == 0, told(path)
    assert_same(measured(store), measured(calm))
    grid = Grid.read(path, {**harness.choices(), "metric": METRICS})
    ours, theirs = (compare(gather(grid, Store(each))) for each in (store, calm))
    pd.testing.assert_frame_equal(ours, theirs)
    assert theirs["look"].nunique() > 1
    assert validate(Store(store)) == incomplete(Store(store), grid, wanted) == []
