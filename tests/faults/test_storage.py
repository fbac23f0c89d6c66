"""A sweep that writes to object storage, whose driver is killed and whose storage goes away for a while."""

import time

import storage
from processes import children, end, kill, sweep, sweeping, swept, told, trains, wait_until, write_grid
from test_together import assert_same, measured

from results import Store
from results.validation import validate


def test_a_driver_that_is_killed_and_storage_that_goes_away_change_no_bit(tmp_path, bucket, endpoint, monkeypatch):
    """Against a sweep in a folder. The storage is out of reach for 4 s of the sweep that goes on."""
    grid = write_grid(tmp_path / "g.toml", epochs=30, seeds=60)
    store, calm, way = f"{bucket}/study", tmp_path / "calm", storage.Way(endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", way.endpoint)
    driver, started = sweep(grid, store, log=tmp_path / "killed.log"), []
    try:
        wait_until(lambda: driver.poll() is not None or Store(store).files("runs"))
        assert driver.poll() is None, (tmp_path / "killed.log").read_text()
        started = children(driver)
    finally:
        kill(driver)
        end(started)
    finished = set(measured(store).index)
    assert 0 < len(finished) < 120
    assert [line for line in validate(Store(store)) if "not a readable" in line] == []
    with sweeping(grid, store) as driver:
        wait_until(lambda: driver.poll() is not None or any(map(trains, children(driver))))
        assert driver.poll() is None, told(grid)
        way.cut = 0
        time.sleep(4)
        way.cut = float("inf")
        assert driver.wait(timeout=300) == 0, told(grid)
    assert finished <= set(measured(store).index)
    assert swept(grid, calm)[0] == 0, told(grid)
    assert_same(measured(store), measured(calm))
    assert validate(Store(store)) == []
    way.close()
