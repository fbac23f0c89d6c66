"""Sweeps that share a store: at the same time, of other grids, and over a dying one. Clocks decide nothing."""

import itertools
import os
import shutil
import signal
import subprocess
import time
from datetime import timedelta

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from processes import end, need, sweep, sweeping, swept, told, wait_until, write_grid

from results import Store
from results.schema import MEASURED
from results.validation import validate


def measured(store):
    runs = Store(store).read("runs").to_pandas().set_index("run_id").sort_index()
    return runs[list(MEASURED)]


def assert_same(a, b):
    assert list(a.index) == list(b.index)
    for name in MEASURED:
        np.testing.assert_array_equal(a[name].to_numpy(), b[name].to_numpy(), err_msg=name)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A grid and its store, which is only read."""
    folder = tmp_path_factory.mktemp("undisturbed")
    grid = write_grid(folder / "g.toml", epochs=10, seeds=12)
    assert swept(grid, folder / "store")[0] == 0
    return grid, folder / "store"


def test_sweeps_of_one_grid_and_of_a_part_of_it_at_the_same_time_make_equal_runs_and_no_conflict(tmp_path, undisturbed):
    large, calm = undisturbed
    small = write_grid(tmp_path / "small.toml", epochs=10, seeds=6)
    store = tmp_path / "store"
    sweeps = [sweep(grid, store, log=tmp_path / f"{i}.log") for i, grid in enumerate((large, large, small))]
    assert [each.wait(timeout=300) for each in sweeps] == [0, 0, 0]
    assert_same(measured(store), measured(calm))
    assert Store(store).conflicts().empty
    assert validate(Store(store)) == []
    code, out = swept(small, store)
    assert (code, "nothing to do" in out) == (0, True)


def test_a_new_sweep_over_a_dying_one_makes_no_conflict(tmp_path):
    grid = write_grid(tmp_path / "g.toml", epochs=40, seeds=60)
    store = tmp_path / "store"
    first = sweep(grid, store, log=tmp_path / "first.log")
    try:
        wait_until(lambda: first.poll() is not None or Store(store).files("runs"))
        ours = psutil.Process(first.pid).children(recursive=True)
        first.send_signal(signal.SIGKILL)
        first.wait()
        code = sweep(grid, store).wait(timeout=300)  # at once: workers of the first one write on for up to two seconds
    finally:
        end(ours)
    assert code == 0, told(grid)
    assert len(measured(store)) == 120
    assert Store(store).conflicts().empty
    assert validate(Store(store)) == []


def test_a_copy_by_rsync_while_a_sweep_writes_is_whole_and_completed_by_the_next(tmp_path):
    need("rsync", "rsync")
    grid = write_grid(tmp_path / "g.toml", epochs=20, seeds=120)
    store, copy = tmp_path / "store", tmp_path / "copy"
    caught = set()
    with sweeping(grid, store) as driver:
        wait_until(lambda: driver.poll() is not None or Store(store).files("runs"))
        while driver.poll() is None:
            rsync(store, copy)
            caught.add(len(Store(copy).files("runs")))
            assert not [each for each in validate(Store(copy)) if "not a readable" in each]
    assert driver.returncode == 0, told(grid)
    assert len(caught) > 1  # while the sweep wrote
    rsync(store, copy)
    assert_same(measured(copy), measured(store))
    assert validate(Store(copy)) == []


def rsync(store, copy):
    subprocess.run(["rsync", "-a", "--exclude", ".*.tmp", f"{store}/", f"{copy}/"], check=True, timeout=60)


def test_clocks_that_differ_by_hours_change_nothing_that_a_store_says(tmp_path, undisturbed):
    grid, calm = undisturbed
    store = Store(shutil.copytree(calm, tmp_path / "store"))
    before = measured(store.path)
    for hours, path in zip(itertools.cycle((-5, 7)), store.files("runs"), strict=False):
        rows = pq.read_table(path)
        column = rows.schema.get_field_index("started_at")
        shifted = [each + timedelta(hours=hours) for each in rows["started_at"].to_pylist()]
        field = rows.schema.field(column)
        store.write({"runs": rows.set_column(column, field, pa.array(shifted, field.type))})
        there = time.time() + hours * 3600
        os.utime(path, (there, there))
    assert_same(measured(store.path), before)
    code, out = swept(grid, store.path)
    assert (code, "nothing to do" in out) == (0, True)
    assert store.conflicts().empty
