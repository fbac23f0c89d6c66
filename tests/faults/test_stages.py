"""Sweeps of a grid that searches: its stages follow from the store, whatever was killed in or between them."""

from processes import children, end, kill, sweeping, swept, told, wait_until, write_grid
from test_together import assert_same, measured

import harness
from grids import TUNING_FROM, Grid
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
