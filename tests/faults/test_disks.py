"""Disks that are full or out of reach: no file is damaged, the sweep ends with a clear line, a later one completes it."""

import shutil
import subprocess
import time

import pytest
from processes import sweeping, swept, told, wait_until, write_grid

from results import Store
from results.validation import validate


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of its own of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("a disk of its own needs the right to mount")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_sweep_ends_with_a_clear_line_where_the_disk_is_full_and_a_later_one_completes_it(tmp_path, small_disk):
    grid = write_grid(tmp_path / "g.toml", epochs=4, seeds=24)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 1_020_000)  # a few pages are left
    store = small_disk / "store"
    code, out = swept(grid, store)
    assert code == 2
    assert "No space left on device" in out.splitlines()[-1]
    assert out.splitlines()[-1].startswith("normorder: ")
    assert "Traceback" not in out
    assert [line for line in validate(Store(store)) if "not a readable" in line] == []
    ballast.unlink()
    code, out = swept(grid, store)
    assert code == 0, out
    assert validate(Store(store)) == []


def test_a_store_that_is_out_of_reach_for_a_while_loses_nothing(tmp_path):
    """For 4 s an empty folder is in its place, as where a disk goes away and its mount point stays."""
    grid = write_grid(tmp_path / "g.toml", epochs=60, seeds=40)
    store, away = tmp_path / "store", tmp_path / "away"
    with sweeping(grid, store) as driver:
        wait_until(lambda: driver.poll() is not None or Store(store).files("runs"))
        assert driver.poll() is None, told(grid)
        store.rename(away)
        store.mkdir()
        time.sleep(4)
        shutil.rmtree(store)  # with what a write that had begun put there
        away.rename(store)
        assert driver.wait(timeout=300) == 0, told(grid)
    assert validate(Store(store)) == []
    assert len(Store(store).finished()) == 80
